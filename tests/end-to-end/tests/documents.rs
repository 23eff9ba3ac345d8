//! What docs/security.md says of tests is there: every path that it names, and every test of that name. And
//! docs/operations.md tells of every reason, docs/client.md of every error of the client.

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

/// What the first cells of a page's tables name.
fn first_cells(document: &str) -> Vec<&str> {
    let cells = document.lines().filter_map(|line| Some(line.strip_prefix("| ")?.split_once(" | ")?.0));
    cells.flat_map(code).collect()
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
    let told = first_cells(&document);
    let reasons = Reason::ALL.iter().map(|reason| reason.label());
    let missing: Vec<&str> = reasons.filter(|reason| !told.contains(reason)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Whoever gets an error of the client finds in its page what it means: by its variant, or by its type where one
/// remedy fits all.
#[test]
fn the_page_of_the_client_has_a_row_for_every_error() {
    fn type_of(error: &str) -> &str {
        error.split_once("::").map_or(error, |(name, _)| name)
    }

    let document = fs::read_to_string(root().join("docs/client.md")).expect("the document");
    let api = fs::read_to_string(root().join("crates/ajwt-client/public-api.txt")).expect("the public API");
    let errors = api.lines().filter_map(|line| {
        let (kind, item) = line.split_once(" ajwt_client::")?;
        let item = item.split('(').next()?;
        let is_error = match (kind, item.split_once("::")) {
            // What has another colon is a field of a variant.
            ("pub", Some((name, variant))) => name.ends_with("Error") && !variant.contains(':'),
            ("pub struct", None) => item.ends_with("Error"),
            _ => false,
        };
        is_error.then_some(item)
    });
    let errors: Vec<&str> = errors.collect();
    assert!(errors.len() > 30, "the client has more errors than {errors:?}");
    let told = first_cells(&document);
    let is_told = |error: &str| told.contains(&error) || told.contains(&type_of(error));
    let missing: Vec<&str> = errors.iter().copied().filter(|error| !is_told(error)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Nor does it speak of one that is no more.
    let is_there = |cell: &str| errors.iter().any(|error| *error == cell || type_of(error) == cell);
    let gone: Vec<&str> =
        told.iter().copied().filter(|cell| cell.contains("Error") && !is_there(cell)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}
