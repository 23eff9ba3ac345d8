//! Questions on the terminal, which is as it was before however the program ends.

#[cfg(unix)]
mod modes;

use std::io;

use zeroize::Zeroizing;

#[cfg(unix)]
pub(crate) use self::modes::{end_by_interrupt, is_ignored, leave_signals, restore};
use crate::failure::Failure;

/// What to do where there is none to ask on.
const NO_TERMINAL: &str =
    "the key is encrypted, and there is no terminal to ask for its passphrase: give --passphrase-file";

/// What is wrong where a question has no answer.
#[cfg(unix)]
const UNANSWERED: &str = "no passphrase was given on the terminal";

/// Only the question itself tells there whether there is a terminal.
#[cfg(not(unix))]
const UNANSWERED: &str = NO_TERMINAL;

/// Asks for what is not to be shown while it is typed.
pub(crate) fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    #[cfg(unix)]
    modes::keep()?;
    let answered = rpassword::prompt_password(prompt);
    #[cfg(unix)]
    modes::put_back();
    match answered {
        Ok(answer) => Ok(Zeroizing::new(answer.into_bytes())),
        // Ctrl-C. It was read as a character, and the signal that it stands for was sent after it.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Failure::Interrupted),
        Err(error) => Err(Failure::of(UNANSWERED)(error)),
    }
}

/// Elsewhere than on Unix the console is not that of the shell.
#[cfg(not(unix))]
pub(crate) fn restore() {}

#[cfg(not(unix))]
pub(crate) fn leave_signals() {}

/// No signal ends a program there.
#[cfg(not(unix))]
pub(crate) fn end_by_interrupt() {}
