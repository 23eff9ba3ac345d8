//! Tests against the Python library `asymmetric_jwt_auth`, unmodified, in both directions.
//!
//! `./scripts/test` installs the library and names its interpreter in `AJWT_PYTHON`.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

/// The Python library in a process of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Python {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    /// Starts the interpreter that `AJWT_PYTHON` names.
    ///
    /// # Panics
    /// If there is none: these tests are never skipped in silence.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// As [`start`](Self::start), on a database by Django's settings for it, which Django migrates.
    ///
    /// # Panics
    /// As `start`.
    #[must_use]
    pub fn start_on(database: &Value) -> Self {
        Self::start_with(Some(database))
    }

    fn start_with(database: Option<&Value>) -> Self {
        let python = env::var_os("AJWT_PYTHON").expect(
            "AJWT_PYTHON must name a Python that has asymmetric_jwt_auth; ./scripts/test sets it, \
             and ./scripts/test --quick leaves these tests out",
        );
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/peer.py");
        let mut process = Command::new(python)
            .arg(script)
            .args(database.map(Value::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let requests = process.stdin.take().expect("its input");
        let answers = BufReader::new(process.stdout.take().expect("its output"));
        Self { process, requests, answers }
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Panics
    /// If the process ends instead of answering.
    pub fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests, "{request}").expect("Python reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("Python answers");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("Python answered {line:?} to {request}"))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
