use std::{error::Error, fmt, io};

/// Why a command ends early: one line for whoever ran it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What to print.
    Told(String),
    /// Whoever read the output has closed it, as `head` does: nothing to tell, and nobody to tell it.
    OutputClosed,
    /// Ctrl-C at a question on the terminal.
    Interrupted,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Told(message.into())
    }

    /// As in `.map_err(Failure::of("reading the configuration"))`.
    pub(crate) fn of<E: Error>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::Told(format!("{what}: {}", chain(&error)))
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Told(chain(&error))
    }
}

/// Not an [`Error`], so that every error can become one.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // One line, and nothing that steers a terminal, whatever a server has answered.
            Self::Told(message) => f.write_str(&message.replace(char::is_control, " ")),
            Self::OutputClosed | Self::Interrupted => Ok(()),
        }
    }
}

/// An error and what caused it, in one line. Some errors repeat their source in their own words.
fn chain(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !told.contains(&text) {
            told.extend([": ", &text]);
        }
        source = error.source();
    }
    told
}

/// What became of writing to standard output.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        result => result.map_err(Failure::of("writing the output")),
    }
}
