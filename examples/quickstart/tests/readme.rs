//! The README, the program's source and what the program prints agree.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use ajwt_test_support::terminate;

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

impl Served {
    /// With the header's value and the URL of the first line for curl.
    fn start() -> (Self, String, String) {
        let child = Command::new(env!("CARGO_BIN_EXE_quickstart"))
            .args(["--serve", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut served = Self(child);
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
        (served, value.to_owned(), url.trim().to_owned())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_printed_curl_line_works_once() {
    let (mut served, value, url) = Served::start();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let send = async || client.get(&url).header("authorization", &value).send().await.expect("an answer");
    let first = send().await;
    assert_eq!(first.status(), 200);
    assert_eq!(first.text().await.expect("text"), "hello, guido");
    assert_eq!(send().await.status(), 401);
    terminate(&mut served.0);
}

#[test]
fn half_a_request_does_not_keep_it_from_ending() {
    let (mut served, _, url) = Served::start();
    let address =
        url.strip_prefix("http://").and_then(|url| url.strip_suffix("/hello")).expect("its address");
    let connect = || TcpStream::connect(address).expect("connected");
    let mut half = connect();
    half.write_all(b"GET /hello HTTP/1.1\r\n").expect("sent");
    // It takes connections in order: the other one is taken by now.
    let mut whole = connect();
    whole.write_all(b"GET /hello HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    whole.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    terminate(&mut served.0);
    drop(half);
}
