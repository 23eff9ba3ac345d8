use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::until_blocking;

/// Ends a process as a supervisor does: well, within a minute.
///
/// # Panics
/// If it ends otherwise, or not.
#[track_caller]
pub fn terminate(process: &mut Child) {
    kill_process(Pid::from_child(process), Signal::TERM).expect("signalled");
    until_blocking("it ends", || process.try_wait().expect("its state").is_some());
    let status = process.wait().expect("its status");
    assert!(status.success(), "{status}");
}
