//! Processes of a server, and those that it makes.

use std::{fs, io};

use ajwt_test_support::until_blocking;
use rustix::process::{Pid, Signal, kill_process};

pub(super) fn send(signal: Signal, process: Pid) {
    // One that has just ended cannot be signalled, which is as well.
    let _ = kill_process(process, signal);
}

/// Until then it ends what it is about in the kernel, as making another process is.
pub(super) fn wait_until_stopped(process: Pid) {
    let runs = || state_and_parent(process).is_some_and(|(state, _)| ["R", "S", "D"].contains(&&*state));
    until_blocking("the process is stopped", || !runs());
}

pub(super) fn children_of(parent: Pid) -> Vec<Pid> {
    let is_child =
        |process: &Pid| state_and_parent(*process).is_some_and(|(_, found)| found == parent.to_string());
    let processes = fs::read_dir("/proc").expect("the processes").filter_map(io::Result::ok);
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).filter(is_child).collect()
}

/// `None` if there is no such process.
fn state_and_parent(process: Pid) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold spaces; state and parent follow it.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().map(str::to_owned);
    Some((fields.next()?, fields.next()?))
}
