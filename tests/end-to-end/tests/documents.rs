//! What docs/security.md says of tests is there: every path that it names, and every test of that name. And
//! docs/operations.md tells of every reason.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ajwt_server::Reason;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The texts between back-ticks of a line.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The file that a path names: from the root, or from the crates' folder.
fn find(path: &str) -> Option<PathBuf> {
    ["", "crates", "tests"]
        .into_iter()
        .map(|folder| root().join(folder).join(path))
        .find(|path| path.is_file())
}

fn is_path(code: &str) -> bool {
    !code.contains(' ') && [".rs", ".md", ".toml"].iter().any(|extension| code.ends_with(extension))
}

/// Long names with underscores and nothing else are those of tests.
fn is_test(code: &str) -> bool {
    let is_word = code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    is_word && code.matches('_').count() >= 3
}

#[test]
fn every_test_that_the_security_document_names_is_there() {
    let document = fs::read_to_string(root().join("docs/security.md")).expect("the document");
    let mut wrong = Vec::new();
    let (mut paths, mut tests) = (0, 0);
    for line in document.lines() {
        let mut sources = String::new();
        for path in code(line).filter(|code| is_path(code)) {
            paths += 1;
            match find(path) {
                Some(path) => sources += &fs::read_to_string(path).expect("a text"),
                None => wrong.push(format!("there is no {path}")),
            }
        }
        for test in code(line).filter(|code| is_test(code)) {
            tests += 1;
            if !sources.contains(&format!("fn {test}(")) && !sources.contains(&format!("fn {test}<")) {
                wrong.push(format!("none of the files in its line has {test}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(paths > 30 && tests > 20, "{paths} paths, {tests} tests: the document names more");
}

/// Every link to a file of the project leads to one.
#[test]
fn links_of_the_security_document_lead_somewhere() {
    let document = fs::read_to_string(root().join("docs/security.md")).expect("the document");
    let links = document.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = links.filter(|link| !link.contains("://")).filter_map(|link| link.split('#').next());
    let missing: Vec<_> =
        files.filter(|file| !file.is_empty() && !root().join("docs").join(file).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Whoever sees a reason in a metric finds in the page what is likely to have caused it.
#[test]
fn the_page_of_operations_has_a_row_for_every_reason() {
    let document = fs::read_to_string(root().join("docs/operations.md")).expect("the document");
    let first_cells = document.lines().filter_map(|line| Some(line.strip_prefix("| ")?.split_once(" | ")?.0));
    let told: Vec<&str> = first_cells.flat_map(code).collect();
    let reasons = Reason::ALL.iter().map(|reason| reason.label());
    let missing: Vec<&str> = reasons.filter(|reason| !told.contains(reason)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
