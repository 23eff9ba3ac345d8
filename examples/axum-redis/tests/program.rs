//! The program against a real Redis server, which is killed and comes back.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ajwt_client::{RequestBuilderExt as _, RequestSigner};
use ajwt_core::PrivateKey;
use ajwt_redis::RedisNonceBackend;
use ajwt_test_servers::redis::RedisServer;
use ajwt_test_support::terminate;
use reqwest::{Client, StatusCode, header::AUTHORIZATION};

/// A process of this test; killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_account_calls_and_a_dead_redis_is_503() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut redis = RedisServer::start(&[]);
    let redis_url = redis.url();
    // As an operator does, once: this service is new.
    let patient = RedisNonceBackend::builder("axum-redis:example").timeout(Duration::from_secs(10));
    let nonces = patient.connect(&redis_url).await.expect("connected");
    assert!(nonces.initialise().await.expect("marked"));

    let key = PrivateKey::generate_ed25519().expect("a key");
    let accounts = folder.path().join("accounts.json");
    let account = serde_json::json!([{"name": "guido", "plan": "gold", "keys": [key.public_key().to_pem()]}]);
    fs::write(&accounts, account.to_string()).expect("written");
    let mut program = Command::new(env!("CARGO_BIN_EXE_axum-redis"));
    let program = program.arg(&accounts).args([&redis_url, "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut program = Process(program.spawn().expect("it runs"));
    let mut line = String::new();
    BufReader::new(program.0.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let url = line.trim().strip_prefix("serving on ").unwrap_or_else(|| panic!("another line: {line:?}"));
    let address = url.strip_prefix("http://").expect("its address");
    let url = format!("{url}/plan");

    let client = Client::builder().no_proxy().build().expect("a client");
    let signer = RequestSigner::new("guido", key).expect("a signer");
    let token = signer.authorization().expect("a token");
    let send =
        async || client.get(&url).header(AUTHORIZATION, token.clone()).send().await.expect("an answer");
    assert_eq!(send().await.status(), StatusCode::OK);
    assert_eq!(send().await.status(), StatusCode::UNAUTHORIZED);

    redis.kill();
    let signed =
        async || client.get(&url).sign_with(&signer).expect("signed").send().await.expect("an answer");
    let response = signed().await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.text().await.expect("text"), "service unavailable\n");
    // The server that comes back has forgotten: no token that it may have seen works again.
    redis.restart();
    assert_eq!(send().await.status(), StatusCode::SERVICE_UNAVAILABLE);

    // Half a request does not keep it from ending.
    let connect = || TcpStream::connect(address).expect("connected");
    let mut half = connect();
    half.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
    // It takes connections in order: the other one is taken by now.
    let mut whole = connect();
    whole.write_all(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    whole.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("welcome, stranger\n"), "{answer}");
    terminate(&mut program.0);
    drop(half);
}
