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

/// The files of a folder whose names end in `.extension`, sorted; every file if it is empty. A root
/// need not hold vectors of every kind: of a folder that is not there, none.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let is_named =
        |path: &PathBuf| extension.is_empty() || path.extension().is_some_and(|found| found == extension);
    if !folder.exists() {
        return Vec::new();
    }
    entries(folder).into_iter().filter(|path| path.is_file() && is_named(path)).collect()
}

/// The folders below the root, sorted.
///
/// # Panics
/// If the root cannot be read.
#[must_use]
pub fn folders(root: &Path) -> Vec<PathBuf> {
    entries(root).into_iter().filter(|path| path.is_dir()).collect()
}

/// The folders below the root that hold this file, sorted.
///
/// # Panics
/// If the root cannot be read.
#[must_use]
pub fn folders_with(root: &Path, file: &str) -> Vec<PathBuf> {
    folders(root).into_iter().filter(|folder| folder.join(file).is_file()).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut entries: Vec<_> = entries.map(|entry| entry.expect("a folder entry").path()).collect();
    entries.sort();
    entries
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

    /// Ends the run. What `cargo test` shows of a passing test with `--nocapture` is the count, or that
    /// the vectors hold no case of this kind.
    ///
    /// # Panics
    /// If a case failed.
    #[allow(clippy::print_stdout, reason = "the count of the cases that ran")]
    pub fn finish(self, test: &str) {
        let Self { cases, failures } = self;
        println!(
            "{test}: {}",
            if cases == 0 {
                "did not run, there are no such vectors".to_owned()
            } else {
                format!("{cases} cases")
            }
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind that is not there is told by the tests of that kind; a root without any is no root of vectors.
    #[test]
    fn the_root_holds_vectors() {
        let Some(root) = root("the_root_holds_vectors") else { return };
        let of_tests = ["ajwt-tokens", "jwks-docs", "wycheproof", "python-interop", "rfc", "jose-cookbook"];
        let has_documents = of_tests.iter().any(|folder| !files(&root.join(folder), "json").is_empty());
        let has_keys = !folders_with(&root, "manifest.json").is_empty();
        assert!(has_documents || has_keys, "no test reads anything of {}", root.display());
    }

    #[test]
    fn files_are_found_by_their_ending_in_folders_that_are_there() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert!(files(&sources, "rs").contains(&sources.join("lib.rs")));
        assert!(files(&sources, "").contains(&sources.join("lib.rs")));
        assert_eq!(files(&sources, "json"), [] as [PathBuf; 0]);
        assert_eq!(files(&sources.join("not there"), "rs"), [] as [PathBuf; 0]);
    }
}
