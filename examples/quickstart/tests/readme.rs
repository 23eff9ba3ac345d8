//! The README, the program's source and what the program prints agree.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

const README: &str = include_str!("../../../README.md");

#[test]
fn the_readme_shows_the_source() {
    for (name, source) in [
        ("service.rs", include_str!("../src/service.rs")),
        ("register.rs", include_str!("../src/register.rs")),
        ("caller.rs", include_str!("../src/caller.rs")),
    ] {
        assert!(README.contains(&format!("```rust\n{source}```\n")), "the README shows another {name}");
    }
}

#[test]
fn the_readme_shows_what_is_printed() {
    let output = Command::new(env!("CARGO_BIN_EXE_quickstart")).output().expect("it runs");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        README.contains(&format!("```text\n{printed}```\n")),
        "the README shows something else:\n{printed}"
    );
}

#[test]
fn wrong_arguments_are_told_and_exit_with_2() {
    for arguments in [&["--server"][..], &["--serve"], &["--serve", "http"], &["--serve", "99999"]] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_quickstart")).args(arguments).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains("usage: quickstart"), "{told}");
    }
}

/// Ended when dropped.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_printed_curl_line_works_once() {
    let child = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .args(["--serve", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut served = Served(child);
    let output = served.0.stdout.take().expect("its output");
    let line = BufReader::new(output)
        .lines()
        .map(|line| line.expect("text"))
        .find(|line| line.starts_with("curl "))
        .expect("a curl line");
    // Read as a shell would: the header in single quotes, then the URL.
    let mut quoted = line.split('\'');
    let (Some("curl -i -H "), Some(header), Some(url), None) =
        (quoted.next(), quoted.next(), quoted.next(), quoted.next())
    else {
        panic!("another line: {line}");
    };
    let value = header.strip_prefix("Authorization: ").expect("the header");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let send =
        async || client.get(url.trim()).header("authorization", value).send().await.expect("an answer");
    let first = send().await;
    assert_eq!(first.status(), 200);
    assert_eq!(first.text().await.expect("text"), "hello, guido");
    assert_eq!(send().await.status(), 401);

    // As a supervisor ends it.
    let id = served.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
    assert!(served.0.wait().expect("it ends").success());
}
