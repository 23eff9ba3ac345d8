//! What a guarded service can do as an unguarded one: methods, CORS, streams, upgrades.

use std::net::SocketAddr;

use ajwt_server::testing::TestSigner;

use crate::{
    doors::{self, Mode, NAMES, three},
    wire::{Connection, ask, request},
};

async fn open(signer: &TestSigner, cors: bool) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    let addresses = doors::open(three(|| signer.authenticator()), Mode::Required, cors).await;
    NAMES.into_iter().zip(addresses)
}

fn fresh(signer: &TestSigner) -> Vec<u8> {
    format!("Authorization: {}", signer.authorization()).into_bytes()
}

fn lines(lines: &[&str]) -> Vec<Vec<u8>> {
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_is_authenticated() {
    let signer = TestSigner::new("guido");
    for (name, address) in open(&signer, false).await {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"] {
            // What a browser asks before it sends its request is no exception.
            let preflight = lines(&["Origin: https://a.example", "Access-Control-Request-Method: GET"]);
            for (token, status) in [(None, 401), (Some(fresh(&signer)), 200)] {
                let lines: Vec<_> = preflight.iter().cloned().chain(token).collect();
                let response = ask(address, &request(method, "/", &lines)).await;
                assert_eq!(response.status, status, "{name} {method}: {response:?}");
                let has_body = method != "HEAD";
                assert_eq!(!response.body.is_empty(), has_body, "{name} {method}: {response:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_has_the_headers_of_get() {
    let signer = TestSigner::new("guido");
    for (name, address) in open(&signer, false).await {
        for has_token in [true, false] {
            let token = || has_token.then(|| fresh(&signer)).into_iter().collect::<Vec<_>>();
            let get = ask(address, &request("GET", "/", &token())).await;
            let head = ask(address, &request("HEAD", "/", &token())).await;
            assert_eq!((head.status, &head.headers), (get.status, &get.headers), "{name}");
            assert_eq!(head.header("content-length"), Some(&*get.body.len().to_string()), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cors_layer_outside_answers_preflights_and_marks_rejections() {
    let signer = TestSigner::new("guido");
    for (name, address) in open(&signer, true).await {
        let preflight = lines(&[
            "Origin: https://a.example",
            "Access-Control-Request-Method: GET",
            "Access-Control-Request-Headers: authorization",
        ]);
        let response = ask(address, &request("OPTIONS", "/", &preflight)).await;
        assert_eq!(response.status, 200, "{name}: {response:?}");
        let allowed = response.header("access-control-allow-headers").map(str::to_ascii_lowercase);
        assert!(
            allowed.is_some_and(|allowed| allowed == "*" || allowed == "authorization"),
            "{name}: {response:?}"
        );

        let origin = lines(&["Origin: https://a.example"]);
        for (token, status) in [(None, 401), (Some(fresh(&signer)), 200)] {
            let lines: Vec<_> = origin.iter().cloned().chain(token).collect();
            let response = ask(address, &request("GET", "/", &lines)).await;
            assert_eq!(response.status, status, "{name}: {response:?}");
            let allowed = response.header("access-control-allow-origin");
            assert!(matches!(allowed, Some("*" | "https://a.example")), "{name}: {response:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_stream_in_both_directions() {
    let signer = TestSigner::new("guido");
    for (name, address) in open(&signer, false).await {
        let mut connection = Connection::open(address).await;
        let lines = [b"Transfer-Encoding: chunked".to_vec(), fresh(&signer)];
        connection.send(&request("POST", "/echo", &lines)).await;
        let response = connection.read_head().await;
        assert_eq!(response.status, 200, "{name}: {response:?}");
        // Each part is back before the next one is sent: nobody waits for the whole of a body.
        for part in ["one", "two", "three"] {
            connection.send(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await;
            assert_eq!(connection.read_chunk().await, part.as_bytes(), "{name}");
        }
        connection.send(b"0\r\n\r\n").await;
        assert!(connection.read_chunk().await.is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_can_be_upgraded() {
    let signer = TestSigner::new("guido");
    for (name, address) in open(&signer, false).await {
        let upgrade = |token: Option<Vec<u8>>| {
            let mut request =
                b"GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                    .to_vec();
            request.extend(token.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()));
            request.extend(b"\r\n");
            request
        };
        let mut connection = Connection::open(address).await;
        connection.send(&upgrade(None)).await;
        let response = connection.read_response(false).await;
        assert_eq!((response.status, response.text()), (401, "unauthorized\n"), "{name}");

        let mut connection = Connection::open(address).await;
        connection.send(&upgrade(Some(fresh(&signer)))).await;
        let response = connection.read_head().await;
        assert_eq!(
            (response.status, response.header("upgrade")),
            (101, Some("websocket")),
            "{name}: {response:?}"
        );
        for bytes in [&b"\x00\xff one"[..], b"two\r\n\r\n"] {
            connection.send(bytes).await;
            assert_eq!(connection.read_exactly(bytes.len()).await, bytes, "{name}");
        }
    }
}
