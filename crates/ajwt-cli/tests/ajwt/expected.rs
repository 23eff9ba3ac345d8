//! What is printed is what stands in `expected/`. After a change on purpose,
//! `AJWT_UPDATE_EXPECTED=1` writes the files anew.

use std::{fs, path::Path};

use crate::support::Folder;

/// Compares a text with the file of this name.
#[track_caller]
pub(crate) fn expect(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ajwt/expected").join(name);
    if std::env::var_os("AJWT_UPDATE_EXPECTED").is_some() {
        fs::write(&path, text).expect("written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "another text than in {}:\n{text}", path.display());
}

#[test]
fn help() {
    let folder = Folder::new();
    let mut text = String::new();
    for command in [
        "",
        "keygen",
        "key",
        "key show",
        "key add",
        "key import",
        "key list",
        "key expire",
        "key revoke",
        "key remove",
        "token",
        "explain",
        "request",
        "migrate",
        "user",
        "user add",
        "user list",
        "user disable",
        "user enable",
        "user remove",
        "trust",
        "trust add",
        "trust list",
        "trust remove",
        "audit",
        "nonce",
        "nonce init",
        "gateway",
        "completions",
        "man",
    ] {
        let words: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).chain(["--help"]).collect();
        let ran = folder.ajwt(&words);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{command}");
        text.push_str(&format!("$ ajwt {}\n{}\n", words.join(" "), ran.out));
    }
    expect("help.txt", &text);
}

#[test]
fn help_shows_no_values_of_variables() {
    let folder = Folder::new();
    for command in ["gateway", "audit", "token"] {
        let mut ajwt = folder.command(crate::support::AJWT);
        for variable in
            ["AJWT_DATABASE_URL", "AJWT_NONCE", "AJWT_REDIS_SENTINEL", "AJWT_KEY", "AJWT_USERNAME"]
        {
            ajwt.env(variable, "redis://hunter2");
        }
        let output = ajwt.args([command, "--help"]).output().expect("it runs");
        let help = String::from_utf8(output.stdout).expect("text");
        assert!(help.contains("AJWT_") && !help.contains("hunter2"), "{help}");
    }
}

#[test]
fn a_wrong_command_line_is_2() {
    let folder = Folder::new();
    let mut text = String::new();
    for words in [
        "",
        "keys",
        "keygen --bits 1024",
        "keygen --type dsa",
        "keygen --bits 4096",
        "keygen --type ed25519 --bits 3072 -o a.key",
        "keygen -o -",
        "token",
        "explain",
        "explain x --at tomorrow",
        "user add",
        "key add billing",
        "key add billing x --expires tomorrow",
        "key add billing x --expires 20270131",
        "key add billing x --expires 9999-12-31",
        "key expire billing 1 2027",
        "key expire billing 1 9999-12-31",
        "key revoke billing one",
        "request GET",
        "request GET nowhere --username a --key b",
        "gateway --listen here",
        "gateway --idle-timeout 0",
        "gateway --server-skew 61",
        "gateway --keys . --database-url sqlite://x",
        "gateway --log-level loud",
    ] {
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        let ran = folder.ajwt(&words);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{words:?}");
        text.push_str(&format!("$ ajwt {}\n{}\n", words.join(" "), ran.err));
    }
    expect("wrong-command-lines.txt", &text);
    assert_eq!(folder.names(), [""; 0], "nothing is written");
}

#[test]
fn completions_and_man_pages() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(folder.good(&format!("completions {shell}")).contains("keygen"), "{shell}");
    }
    assert!(folder.good("man").starts_with(".ie"));
    fs::create_dir(folder.path("man")).expect("a folder");
    folder.good("man -o man");
    for command in ["", "-gateway", "-key-add", "-token", "-explain"] {
        let page = folder.read(&format!("man/ajwt{command}.1"));
        let words = format!("{} --help", command.replace('-', " "));
        let help = folder.good(words.trim_start());
        // As in [env: AJWT_KEY].
        for variable in help.split("[env: ").skip(1).filter_map(|rest| rest.split(']').next()) {
            assert!(page.contains(variable), "the page of ajwt{command} has no {variable}");
        }
    }
    assert!(folder.read("man/ajwt-gateway.1").contains("AJWT_DATABASE_URL"), "as the help has it");
}

/// As `ajwt completions bash | head -1`.
#[test]
fn a_reader_that_has_enough_is_no_error() {
    let folder = Folder::new();
    let mut command = folder.command(crate::support::AJWT);
    command
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

/// Whether a token would be refused does not depend on how much of the explanation is read.
#[test]
fn a_reader_that_has_enough_changes_no_answer() {
    let folder = Folder::new();
    let mut command = folder.command(crate::support::AJWT);
    command.args(["explain", "nonsense"]).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("its end").code(), Some(3));
}
