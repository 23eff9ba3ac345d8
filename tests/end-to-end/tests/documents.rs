//! What docs/security.md says of tests is there: every path that it names, and every test of that name, which is run
//! as one. And docs/operations.md tells of every reason, docs/client.md of every error of the client.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ajwt_server::Reason;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The texts between back-ticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
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

/// What a page names: each path, with what the parentheses behind it have between back-ticks.
fn paths_and_tests(document: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    let mut rest = document;
    while let Some((_, begun)) = rest.split_once('`') {
        let (path, behind) = begun.split_once('`').expect("back-ticks come in pairs");
        rest = behind;
        if is_path(path) {
            let inner = behind.trim_start().strip_prefix('(').and_then(|inner| inner.split(')').next());
            let tests = inner.into_iter().flat_map(code).filter(|code| !is_path(code)).collect();
            found.push((path, tests));
        }
    }
    found
}

/// Long names with underscores and nothing else are those of tests, wherever they stand.
fn is_long_name(code: &str) -> bool {
    let is_word = code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    is_word && code.matches('_').count() >= 3
}

fn defines(line: &str, name: &str) -> bool {
    line.contains(&format!("fn {name}(")) || line.contains(&format!("fn {name}<"))
}

/// `#[test]`, or that of a runtime.
fn is_attribute_of_a_test(line: &str) -> bool {
    let Some(attribute) = line.strip_prefix("#[") else { return false };
    let path = attribute.split(['(', ']']).next().unwrap_or_default();
    path == "test" || path.ends_with("::test")
}

fn names_elsewhere(source: &str, name: &str) -> bool {
    source.lines().map(str::trim_start).any(|line| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        !line.starts_with("//") && !defines(line, name) && words.any(|word| word == name)
    })
}

/// The sources in a folder and those within it.
fn sources(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).expect("a text"));
        }
    }
    found
}

/// Whether a file has a function of that name that is run as a test: by its own attribute or, where it is a suite's,
/// by what else in its crate's tests names it.
fn has_test(file: &Path, name: &str) -> bool {
    let source = fs::read_to_string(file).expect("a text");
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let mut definitions = lines.iter().enumerate().filter(|(_, line)| defines(line, name));
    definitions.any(|(at, definition)| {
        let above = lines.iter().take(at).rev();
        let mut above = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        let is_named = || {
            let package = file.ancestors().find(|folder| folder.join("Cargo.toml").is_file());
            let tests = sources(&package.expect("a package").join("tests"));
            tests.iter().any(|source| names_elsewhere(source, name))
        };
        // A suite's is for others to call, which tells it from a test that has lost its attribute.
        above.any(|line| is_attribute_of_a_test(line)) || (definition.starts_with("pub") && is_named())
    })
}

#[test]
fn every_test_that_the_security_document_names_is_there() {
    let document = fs::read_to_string(root().join("docs/security.md")).expect("the document");
    let named = paths_and_tests(&document);
    let mut wrong = Vec::new();
    for (path, tests) in &named {
        match find(path) {
            Some(file) => {
                let missing = tests.iter().filter(|test| !has_test(&file, test));
                wrong.extend(missing.map(|test| format!("{path} has no test {test}, or nothing runs it")));
            }
            None => wrong.push(format!("there is no {path}")),
        }
    }
    let tests: Vec<&str> = named.iter().flat_map(|(_, tests)| tests).copied().collect();
    let astray = code(&document).filter(|code| is_long_name(code) && !tests.contains(code));
    wrong.extend(astray.map(|test| format!("{test} stands in no parentheses behind a file")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (paths, tests) = (named.len(), tests.len());
    assert!(paths > 60 && tests > 50, "{paths} paths, {tests} tests: the document names more");
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
