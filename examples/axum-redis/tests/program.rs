//! The program against a real Redis server, which is killed and comes back.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use ajwt_client::{RequestBuilderExt as _, RequestSigner};
use ajwt_core::PrivateKey;
use ajwt_redis::RedisNonceBackend;
use reqwest::{Client, StatusCode, header::AUTHORIZATION};

/// A process of this test; killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Below the ports that the system gives out by itself, so that it stays free while Redis is down.
fn free_port() -> u16 {
    let begin = u16::try_from(std::process::id() % 8000).expect("small");
    let mut ports = (0..8000).map(|offset| 23_000 + (begin + offset) % 8000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn start_redis(port: u16, folder: &Path) -> Process {
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(folder)
        .stdout(Stdio::null())
        .spawn();
    let child = child.unwrap_or_else(|error| panic!("redis-server does not start ({error}): install it"));
    let mut redis = Process(child);
    for _ in 0..600 {
        if let Ok(mut connection) = TcpStream::connect(("127.0.0.1", port)) {
            let mut answer = [0; 5];
            let asked = connection.write_all(b"PING\r\n").and_then(|()| connection.read_exact(&mut answer));
            if asked.is_ok() && &answer == b"+PONG" {
                return redis;
            }
        }
        assert!(redis.0.try_wait().expect("its state").is_none(), "redis-server has ended");
        thread::sleep(Duration::from_millis(25));
    }
    panic!("redis-server does not answer");
}

#[tokio::test]
async fn an_account_calls_and_a_dead_redis_is_503() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let redis = start_redis(port, folder.path());
    let redis_url = format!("redis://127.0.0.1:{port}");
    // As an operator does, once: this service is new.
    let nonces =
        RedisNonceBackend::builder("axum-redis:example").connect(&redis_url).await.expect("connected");
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
    let url = format!("{url}/plan");

    let client = Client::builder().no_proxy().build().expect("a client");
    let signer = RequestSigner::new("guido", key).expect("a signer");
    let token = signer.authorization().expect("a token");
    let send =
        async || client.get(&url).header(AUTHORIZATION, token.clone()).send().await.expect("an answer");
    assert_eq!(send().await.status(), StatusCode::OK);
    assert_eq!(send().await.status(), StatusCode::UNAUTHORIZED);

    drop(redis);
    let signed =
        async || client.get(&url).sign_with(&signer).expect("signed").send().await.expect("an answer");
    let response = signed().await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.text().await.expect("text"), "service unavailable\n");
    // The server that comes back has forgotten: no token that it may have seen works again.
    let _redis = start_redis(port, folder.path());
    assert_eq!(send().await.status(), StatusCode::SERVICE_UNAVAILABLE);

    // As a supervisor ends it.
    let id = program.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
    assert!(program.0.wait().expect("it ends").success());
}
