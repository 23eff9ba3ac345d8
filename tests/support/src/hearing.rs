//! Whether a password is told: by a log at its most talkative level, an error or a `Debug`.
//!
//! One test of a program can use this: the log is the global one.

use std::{error::Error, fmt::Debug, iter};

use crate::Trace;

/// It holds what a URL writes in another way, and nothing that a `Debug` does.
pub const PASSWORD: &str = "correct+horse/battery=staple";

/// As it stands in a URL.
pub const IN_URL: &str = "correct%2Bhorse%2Fbattery%3Dstaple";

/// Who tells the password in each test, so that one that finds nothing is known to hear and to find.
const CONTROL: &str = "control";

/// What was told since a test began, and by whom.
#[derive(Debug)]
pub struct Hearing {
    trace: Trace,
    texts: Vec<(String, String)>,
}

impl Hearing {
    /// From now on, of all threads.
    ///
    /// # Panics
    /// As [`Trace::start`].
    pub fn start() -> Self {
        Self { trace: Trace::start(), texts: Vec::new() }
    }

    /// A value's `Debug`, in one line and in several.
    pub fn debug(&mut self, value: &dyn Debug) {
        self.texts.push(("Debug".to_owned(), format!("{value:?}")));
        self.texts.push(("Debug".to_owned(), format!("{value:#?}")));
    }

    /// With its sources.
    pub fn error(&mut self, error: &dyn Error) {
        for error in iter::successors(Some(error), |error| (**error).source()) {
            self.debug(&error);
            self.texts.push(("Display".to_owned(), error.to_string()));
        }
    }

    /// The password was not told, although these crates told something.
    ///
    /// # Panics
    /// If it was, or one of them told nothing.
    pub fn finish(mut self, heard: &[&str]) {
        for told in forms() {
            tracing::trace!(target: CONTROL, told);
        }
        for told in self.trace.take() {
            let values = told.fields.into_iter().map(|(_, value)| value);
            self.texts.extend(values.map(|value| (told.target.clone(), value)));
        }
        for crate_name in heard {
            let is_heard = self.texts.iter().any(|(who, _)| who.split("::").next() == Some(crate_name));
            assert!(is_heard, "nothing of {crate_name}");
        }
        let forms = forms();
        self.texts.retain(|(_, text)| forms.iter().any(|form| text.contains(form)));
        let (control, leaks): (Vec<_>, Vec<_>) = self.texts.iter().partition(|(who, _)| who == CONTROL);
        assert_eq!(control.len(), forms.len(), "the control is not found");
        assert!(leaks.is_empty(), "the password is told: {leaks:#?}");
    }
}

/// URLs that cannot be used, for one reason or another.
pub fn malformed(scheme: &str) -> Vec<String> {
    [
        format!("{scheme}://guido:{IN_URL}@host:port/0"),
        format!("{scheme}://guido:{IN_URL}@[::1/0"),
        format!("{scheme}://guido:{IN_URL}@:1/0"),
        format!("{scheme}://guido:%FF{IN_URL}@127.0.0.1:1/0"),
        // Misspelt, or with a `?` that belongs to the password.
        format!("{scheme}://guido@127.0.0.1:1/0?passwd={IN_URL}"),
        format!("{scheme}://guido:12?{IN_URL}@127.0.0.1:1/0"),
        // Its slash ends the host, which is before the colon.
        format!("{scheme}://guido:{PASSWORD}@127.0.0.1:1/0"),
        format!("http://guido:{IN_URL}@127.0.0.1:1/0"),
        format!("guido:{IN_URL}@127.0.0.1:1/0"),
        IN_URL.to_owned(),
        PASSWORD.to_owned(),
    ]
    .into()
}

/// As it is, as in a URL, and as a `Debug` shows bytes.
fn forms() -> [String; 3] {
    let bytes = format!("{:?}", PASSWORD.as_bytes());
    [PASSWORD.to_owned(), IN_URL.to_owned(), bytes.trim_matches(['[', ']']).to_owned()]
}
