//! The program `ajwt`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

/// The library that sets a process's time of day, and no other clock of it: Debian's package libfaketime.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// The program that was built beside this one.
#[must_use]
pub fn ajwt() -> PathBuf {
    let this = std::env::current_exe().expect("this program");
    let folder = this.parent().and_then(Path::parent).expect("target/debug/deps");
    let program = folder.join("ajwt");
    let built = modified(&program).unwrap_or_else(|| panic!("there is no {}: {BUILD}", program.display()));
    // What cargo looks at, too. Where it builds the program for tests alone, it does not write that down.
    let list = folder.join("ajwt.d");
    if let Ok(text) = fs::read_to_string(&list) {
        let mut sources = sources(&text);
        sources.retain(|source| modified(source).is_some());
        assert!(!sources.is_empty(), "{} names no file that is there", list.display());
        sources.retain(|source| modified(source) > Some(built));
        assert!(sources.is_empty(), "{} is older than {sources:?}: {BUILD}", program.display());
    }
    program
}

const BUILD: &str = "test the packages ajwt-histories and ajwt-cli together, or the workspace";

/// The sources in a rule of make, in which a backslash is before each space of a name.
fn sources(rule: &str) -> Vec<String> {
    let rule = rule.replace("\\ ", "\0");
    rule.split_whitespace().skip(1).map(|name| name.replace('\0', " ")).collect()
}

fn modified(path: impl AsRef<Path>) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

/// Runs the program in this folder.
pub fn run(folder: &Path, words: &str) {
    let output = Command::new(ajwt())
        .args(words.split(' '))
        .current_dir(folder)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "ajwt {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where the library is.
pub(crate) fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().filter_map(Result::ok);
    // Debian has it in a folder of the architecture, others beside the libraries.
    let folders = folders.map(|folder| folder.path()).chain(["/usr/lib", "/usr/lib64"].map(PathBuf::from));
    let mut candidates = folders.map(|folder| folder.join(FAKETIME));
    let found = candidates.find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("there is no {FAKETIME}: run ./scripts/test, or apt-get install libfaketime")
    })
}

/// Sends a signal to a process.
pub(crate) fn signal(process: Pid, signal: Signal) {
    // One that has just ended cannot be signalled, which is as well.
    let _ = kill_process(process, signal);
}

/// Sets the size that files may have which a process writes, in bytes.
pub(crate) fn limit_files(process: Pid, size: Option<u64>) {
    prlimit(Some(process), Resource::Fsize, Rlimit { current: size, maximum: None }).expect("limited");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_in_a_name_does_not_end_it() {
        let rule = "/a\\ b/ajwt: /a\\ b/src/main.rs /a\\ b/src/c\\ d.rs\n";
        assert_eq!(sources(rule), ["/a b/src/main.rs", "/a b/src/c d.rs"]);
    }
}
