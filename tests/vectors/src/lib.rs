//! Where the workspace's tests find their test vectors.
//!
//! The root is the folder that `AJWT_VECTORS` names, else `../shared/vectors` beside the project.
//! Without either, tests of the vectors say in one line that they did not run, and fail where
//! `AJWT_REQUIRE_VECTORS=1`.

#[cfg(feature = "tokens")]
pub mod tokens;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// The root folder of the vectors, or `None` after saying on standard error that `test` did not run.
///
/// # Panics
/// Under `AJWT_REQUIRE_VECTORS=1` if there is none, and if `AJWT_VECTORS` names no folder.
#[must_use]
#[allow(clippy::print_stderr, reason = "the one line that says a test did not run")]
pub fn root(test: &str) -> Option<PathBuf> {
    if let Some(named) = env::var_os("AJWT_VECTORS") {
        let named = PathBuf::from(named);
        assert!(named.is_dir(), "AJWT_VECTORS names no folder: {}", named.display());
        return Some(named);
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    if beside.is_dir() {
        return Some(beside);
    }
    assert!(
        env::var("AJWT_REQUIRE_VECTORS").as_deref() != Ok("1"),
        "AJWT_REQUIRE_VECTORS=1, and there are no vectors: set AJWT_VECTORS"
    );
    eprintln!("{test}: did not run, there are no test vectors; AJWT_VECTORS names their folder");
    None
}

/// The files of a folder whose names end in `.extension`, sorted; every file if it is empty.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.is_file())
        .filter(|path| extension.is_empty() || path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// The folders below the root that hold this file, sorted.
///
/// # Panics
/// If the root cannot be read.
#[must_use]
pub fn folders_with(root: &Path, file: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.join(file).is_file())
        .collect();
    folders.sort();
    folders
}

/// Reads a JSON file.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A string member.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn str<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no string {member:?} in {value}"))
}

/// Bytes of a hex text.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.is_ascii() && text.len().is_multiple_of(2), "not hex: {text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap_or_else(|_| panic!("not hex: {text}")))
        .collect()
}

/// The bytes of a hex member.
///
/// # Panics
/// If it is not there or no hex.
#[must_use]
pub fn hex_member(value: &Value, member: &str) -> Vec<u8> {
    hex(str(value, member))
}

/// Runs and says how long this thread worked at it: what else the machine does meanwhile does not count.
///
/// # Panics
/// If the clock of a thread is no time.
pub fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let worked = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a time");
    let started = worked();
    let result = run();
    (result, worked() - started)
}

/// What became of the cases of a corpus: all failures are told at once.
#[derive(Debug, Default)]
pub struct Report {
    cases: usize,
    failures: Vec<String>,
}

impl Report {
    /// Nothing ran yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs one case. A panic in it is a failure like an error.
    pub fn case(&mut self, name: impl AsRef<str>, run: impl FnOnce() -> Result<(), String>) {
        self.cases += 1;
        let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("panicked".to_owned()));
        if let Err(failure) = outcome {
            self.failures.push(format!("{}: {failure}", name.as_ref()));
        }
    }

    /// How many cases ran.
    #[must_use]
    pub const fn cases(&self) -> usize {
        self.cases
    }

    /// Ends the run. What `cargo test` shows of a passing test with `--nocapture` is the count.
    ///
    /// # Panics
    /// If a case failed, and if there was none.
    #[allow(clippy::print_stdout, reason = "the count of the cases that ran")]
    pub fn finish(self, test: &str) {
        let Self { cases, failures } = self;
        println!("{test}: {cases} cases");
        assert!(cases > 0, "{test}: no case ran");
        assert!(
            failures.is_empty(),
            "{test}: {} of {cases} cases failed:\n  {}",
            failures.len(),
            failures.join("\n  ")
        );
    }
}

/// Ends a case of a [`Report`] with a failure unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
