//! The program against a real PostgreSQL: set up, a key added, called, and stopped.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
};

use ajwt_client::{RequestBuilderExt as _, RequestSigner};
use ajwt_core::{PrivateKey, Username};
use ajwt_server::KeyAdmin as _;
use ajwt_sqlx::PostgresRepository;
use ajwt_test_servers::sql;
use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use rustix::process::{Pid, Signal, kill_process};

/// A new database of the server that `scripts/test` started, as long as it is kept, with its URL.
fn new_database() -> (sql::Database, String) {
    let database = sql::Database::create("AJWT_TEST_POSTGRES");
    let url = database.url();
    (database, url)
}

fn program(database: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actix-postgres"));
    command.args(arguments).env("DATABASE_URL", database);
    command
}

fn run(database: &str, arguments: &[&str]) -> Output {
    program(database, arguments).output().expect("it runs")
}

/// The program as it serves; killed when dropped.
struct Served(Child);

impl Served {
    /// With its URL.
    fn start(database: &str) -> (Self, String) {
        let mut command = program(database, &["serve", "127.0.0.1:0"]);
        let mut served = Self(command.stdout(Stdio::piped()).spawn().expect("it runs"));
        let mut line = String::new();
        BufReader::new(served.0.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("serving on ").unwrap_or_else(|| panic!("another line: {line:?}"));
        (served, url.to_owned())
    }

    /// As Ctrl-C does.
    fn interrupt(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::INT).expect("signalled");
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_caller_is_added_and_served() {
    let (_kept, database) = new_database();
    assert!(run(&database, &["set-up"]).status.success());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("guido.pub");
    let file = file.to_str().expect("a path");
    let client = Client::builder().no_proxy().build().expect("a client");

    let ((one, url), (other, other_url)) = (Served::start(&database), Served::start(&database));
    assert_eq!(client.get(format!("{url}/health")).send().await.expect("an answer").status(), StatusCode::OK);
    let (url, other_url) = (format!("{url}/api/hello"), format!("{other_url}/api/hello"));
    let key = PrivateKey::generate_ed25519().expect("a key");
    let key_id = key.public_key().fingerprint().clone();
    fs::write(file, key.public_key().to_pem()).expect("written");
    let signer = RequestSigner::new("guido", key).expect("a signer");
    let signed = async |url: &str| {
        client.get(url).sign_with(&signer).expect("signed").send().await.expect("an answer")
    };
    let refused = signed(&url).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let problem = r#"{"type":"about:blank","title":"Unauthorized","status":401}"#;
    assert_eq!(refused.text().await.expect("text"), problem);

    // A key works at once, in every process.
    assert!(run(&database, &["add-key", "guido", file]).status.success());
    for url in [&url, &other_url] {
        let accepted = signed(url).await;
        assert_eq!(accepted.status(), StatusCode::OK);
        assert_eq!(
            accepted.text().await.expect("text"),
            format!("hello, guido, with key {}\n", key_id.as_str())
        );
    }
    // A token works once, whichever process it is sent to.
    let token = signer.authorization().expect("a token");
    for (url, status) in
        [(&url, StatusCode::OK), (&other_url, StatusCode::UNAUTHORIZED), (&url, StatusCode::UNAUTHORIZED)]
    {
        let response = client.get(url).header(AUTHORIZATION, token.clone()).send().await.expect("an answer");
        assert_eq!(response.status(), status, "{url}");
    }
    // What was noted of the key is written when the service stops.
    one.interrupt();
    other.interrupt();
    let repository = PostgresRepository::connect(&database).await.expect("connected");
    let keys = repository.keys(&Username::new("guido").expect("a name")).await.expect("keys");
    assert!(keys.iter().all(|key| key.last_used_on.is_some()), "{keys:?}");
    assert_eq!(keys.len(), 1);
}

#[test]
fn what_is_wrong_is_told() {
    let (_kept, database) = new_database();
    for (arguments, told) in [
        (&["add-key", "guido", "/nowhere/guido.pub"][..], "No such file"),
        (&["serve", "here"], "invalid"),
        (&["serve"], "usage: actix-postgres"),
        (&[], "usage: actix-postgres"),
    ] {
        let output = run(&database, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(told), "{arguments:?}: {error}");
    }
}
