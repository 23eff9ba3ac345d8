//! The modes of the terminal. A question changes them, so that nothing is shown and Ctrl-C is a character, and a
//! signal would end the program before they are changed back.

use std::{
    fs::File,
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::getpgrp,
    termios::{OptionalActions, Termios, tcdrain, tcgetattr, tcgetpgrp, tcsetattr},
};
use tokio::signal::unix::{SignalKind, signal};

use super::NO_TERMINAL;
use crate::failure::Failure;

/// What to do in the background where signals are heard: a question would stop the program before it hears any, and
/// none but SIGKILL end it. And where nobody is left who could bring it to the front.
const TERMINAL_OF_ANOTHER: &str = "the terminal belongs to another program, so that no passphrase can be asked for: \
    give --passphrase-file";

/// How long a question may take to change the modes once it is shown.
const CHANGE: Duration = Duration::from_millis(20);

/// The terminal, and its modes before the question that is being asked.
static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Whether somebody listens for the signals that end the program.
static HEARD: AtomicBool = AtomicBool::new(false);

/// Keeps the modes, for whatever ends the program during a question.
pub(super) fn keep() -> Result<(), Failure> {
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let terminal = terminal.map_err(Failure::of(NO_TERMINAL))?;
    let is_heard = HEARD.load(Ordering::Relaxed);
    if !is_heard {
        // In the background this stops the program, as the question would: now, while a signal still ends one that is
        // stopped. Some bring it to the front upon that (sudo, in a pipeline). Until then the modes may be those in
        // which a shell reads its own lines. A terminal that cannot do this stops the program below.
        let _ = tcdrain(&terminal);
    }
    let modes = tcgetattr(&terminal)?;
    if !is_heard {
        tcsetattr(&terminal, OptionalActions::Now, &modes).map_err(not_set)?;
    } else if is_of_another(&terminal) {
        return Err(Failure::new(TERMINAL_OF_ANOTHER));
    }
    *before() = Some((terminal, modes));
    hear_signals()?;
    Ok(())
}

/// Sets the modes as they were before the question that was asked.
pub(super) fn put_back() {
    if let Some((terminal, modes)) = before().take() {
        set(&terminal, &modes);
    }
}

/// Sets the modes as they were before a question that is being asked, if there is one, where the program ends. Twice,
/// for the question may be about to change them.
pub(crate) fn restore() {
    if let Some((terminal, modes)) = &*before() {
        set(terminal, modes);
        thread::sleep(CHANGE);
        set(terminal, modes);
    }
}

/// Ends the program as Ctrl-C does where no question is asked.
pub(crate) fn end_by_interrupt() {
    end_by(SignalKind::interrupt());
}

/// Leaves the signals that end the program to the caller, who is to [`restore`] then.
pub(crate) fn leave_signals() {
    HEARD.store(true, Ordering::Relaxed);
}

/// Whether whoever started this has a signal ignored, as `nohup` has SIGHUP: to listen for it would undo that. Only
/// Linux tells.
pub(crate) fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    // A bit for each signal, the first of which is 1.
    let number = signal.as_raw_value();
    ignored.is_some_and(|bits| (1..=64).contains(&number) && (bits >> (number - 1)) & 1 == 1)
}

fn set(terminal: &File, modes: &Termios) {
    if !is_of_another(terminal) {
        // A terminal that is gone has none.
        let _ = tcsetattr(terminal, OptionalActions::Now, modes);
    }
}

/// Why modes cannot be set, even those that the terminal has.
fn not_set(error: Errno) -> Failure {
    match error {
        // In the background, in a group that no shell looks after any more: none of its programs is stopped.
        Errno::IO => Failure::new(TERMINAL_OF_ANOTHER),
        error => error.into(),
    }
}

/// Whether this runs in the background, where whoever changes the modes of the terminal is stopped. A terminal that does
/// not tell, as one of another PID namespace, is taken for that of this program.
fn is_of_another(terminal: &File) -> bool {
    tcgetpgrp(terminal).is_ok_and(|foreground| foreground != getpgrp())
}

fn before() -> MutexGuard<'static, Option<(File, Termios)>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on they end the program here. Once it has listened for a signal, no handler of the system ends it.
fn hear_signals() -> io::Result<()> {
    if HEARD.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        if is_ignored(kind) {
            continue;
        }
        let mut arrived = signal(kind)?;
        tokio::spawn(async move {
            arrived.recv().await;
            end_by(kind);
        });
    }
    Ok(())
}

/// As the signal would have, by which a shell knows that its loop or script is to end, too.
fn end_by(signal: SignalKind) {
    let number = signal.as_raw_value();
    restore();
    // The first process of a container cannot end itself by a signal.
    if std::process::id() != 1 {
        // It comes back only from a signal that it does not know, and aborts where the signal does not end the program.
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
    // The code that a shell has for it.
    std::process::exit(128 + number);
}
