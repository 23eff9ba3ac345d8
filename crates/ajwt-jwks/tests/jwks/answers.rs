//! Answers of every kind, and when a fetch gives up.

use std::{io::Read as _, time::Duration};

use ajwt_core::MAX_JWK_SET_LEN;
use ajwt_jwks::{ClientError, JwksClient};
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};

use crate::{
    PATIENT, builder, client, fetch, key, keys, refused,
    server::{Server, Step, Transport, ok, set_of, with_headers},
};

/// Long enough for a busy machine to connect, and it passes in full in these tests.
const SHORT: Duration = Duration::from_millis(700);

fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(bytes.as_ref().to_vec())
}

#[tokio::test]
async fn a_set_is_fetched_by_a_plain_request() {
    let key = key();
    let server = Server::answering(ok(set_of(&key))).await;
    assert_eq!(keys(fetch(&client(), &server.url()).await), [key]);
    let head = server.heads().remove(0).to_ascii_lowercase();
    assert!(head.starts_with("get /jwks.json http/1.1\r\n"), "{head}");
    for sent in ["host: 127.0.0.1:", "accept: application/jwk-set+json", "user-agent: ajwt-jwks/"] {
        assert!(head.contains(sent), "{head}");
    }
    for unasked in ["accept-encoding", "cookie", "authorization", "referer", "if-none-match"] {
        assert!(!head.contains(unasked), "{head}");
    }
}

#[tokio::test]
async fn each_fetch_has_a_connection_of_its_own() {
    let key = key();
    // A server that keeps its connections, and answers one request on each.
    let answer = with_headers("connection: keep-alive\r\n", set_of(&key));
    let server = Server::start(move |_| vec![send(&answer), Step::Hang]).await;
    let client = client();
    for _ in 0..3 {
        assert_eq!(keys(fetch(&client, &server.url()).await), std::slice::from_ref(&key));
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn bodies_that_end_by_chunks_or_with_the_connection_are_read() {
    let key = key();
    let set = set_of(&key);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;ext=1\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        &set[..5],
        set.len() - 5,
        &set[5..]
    );
    let until_closed = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{set}");
    let old = format!("HTTP/1.0 200 OK\r\n\r\n{set}");
    let after_continue = [b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), ok(&set)].concat();
    for answer in [chunked.into_bytes(), until_closed.into_bytes(), old.into_bytes(), after_continue] {
        let server = Server::answering(answer.clone()).await;
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let result = fetch(&client(), &server.url()).await;
        assert!(result.is_ok(), "{shown}: {result:?}");
        assert_eq!(keys(result), std::slice::from_ref(&key));
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let target = Server::answering(ok(set_of(&key()))).await;
    for status in [300, 301, 302, 303, 305, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} Elsewhere\r\nlocation: {}\r\nrefresh: 0; url={0}\r\ncontent-length: 0\r\n\r\n",
            target.url()
        );
        let server = Server::answering(answer).await;
        let told = refused(fetch(&client(), &server.url()).await, &status.to_string(), "status");
        assert!(told.contains(&status.to_string()) && told.contains("redirects are not followed"), "{told}");
        assert_eq!(server.connections(), 1);
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn other_answers_than_200_are_failures() {
    let set = set_of(&key());
    for status in [201, 202, 203, 206, 226, 304, 400, 401, 403, 404, 410, 429, 500, 502, 503, 599, 999] {
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{set}", set.len());
        let server = Server::answering(answer).await;
        refused(fetch(&client(), &server.url()).await, &status.to_string(), "status");
        assert_eq!(server.connections(), 1, "it is not tried again");
    }
    for no_content in ["HTTP/1.1 204 X\r\n\r\n", "HTTP/1.1 205 X\r\ncontent-length: 0\r\n\r\n"] {
        let server = Server::answering(no_content).await;
        refused(fetch(&client(), &server.url()).await, no_content, "status");
    }
}

#[tokio::test]
async fn bodies_that_are_no_sets_are_failures() {
    let (good, one) = (set_of(&key()), key().to_jwk().to_json());
    let nested = format!("{{\"keys\":{}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let nested_aside = format!("{{\"keys\":[],\"x\":{}}}", "{\"x\":".repeat(100_000));
    let many = format!("{{\"keys\":[{}]}}", vec![r#"{"kty":"oct"}"#; 10_000].join(","));
    let a_hundred_and_one = format!("{{\"keys\":[{}]}}", vec![one.as_str(); 101].join(","));
    for (what, body) in [
        ("nothing", String::new()),
        ("white space", "  \n".into()),
        ("HTML", "<!doctype html><html><body>Not found</body></html>".into()),
        ("a list", "[]".into()),
        ("null", "null".into()),
        ("deep nesting", nested),
        ("deep nesting in what nobody reads", nested_aside),
        ("10,000 keys", many),
        ("101 keys", a_hundred_and_one),
        ("a half", good[..good.len() / 2].into()),
        ("something after the end", format!("{good}x")),
    ] {
        let server = Server::answering(ok(body)).await;
        refused(fetch(&client(), &server.url()).await, what, "document");
    }
}

#[tokio::test]
async fn lengths_that_are_wrong_are_failures() {
    let set = set_of(&key());
    let announced = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n{set}").into_bytes();
    let chunks =
        |chunks: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}").into_bytes();
    let len = set.len();
    for (what, answer, label) in [
        ("more announced than sent", announced(&format!("content-length: {}\r\n", len + 1)), "http"),
        ("less announced than sent", announced(&format!("content-length: {}\r\n", len - 1)), "document"),
        ("a negative length", announced("content-length: -1\r\n"), "http"),
        ("no number", announced("content-length: many\r\n"), "http"),
        ("two lengths", announced(&format!("content-length: {len}\r\ncontent-length: 1\r\n")), "http"),
        ("a length beyond the cap", announced("content-length: 1048577\r\n"), "too_long"),
        ("a huge length", announced("content-length: 18446744073709551615\r\n"), "http"),
        ("a length of 30 digits", announced(&format!("content-length: {}\r\n", "9".repeat(30))), "http"),
        ("a negative chunk", chunks("-1\r\nx\r\n0\r\n\r\n"), "http"),
        ("a chunk of no number", chunks("zz\r\nx\r\n0\r\n\r\n"), "http"),
        ("a huge chunk", chunks("fffffffffffffffff\r\nx\r\n0\r\n\r\n"), "http"),
        ("a chunk of 2^64 - 1", chunks("ffffffffffffffff\r\nx"), "http"),
        ("a chunk that is longer than its length", chunks(&format!("5\r\n{set}\r\n0\r\n\r\n")), "http"),
        ("an end in mid-chunk", chunks(&format!("{:x}\r\n{set}", len + 5)), "http"),
        ("no last chunk", chunks(&format!("{len:x}\r\n{set}\r\n")), "http"),
        (
            "Connection: close in mid-body",
            announced(&format!("connection: close\r\ncontent-length: {}\r\n", 2 * len)),
            "http",
        ),
        ("the end of a connection in mid-body", announced(&set[..0])[..60].to_vec(), "document"),
    ] {
        let server = Server::answering(answer).await;
        refused(fetch(&client(), &server.url()).await, what, label);
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_failure() {
    let tens_of_thousands = "x: 1\r\n".repeat(20_000);
    let a_megabyte = format!("x: {}\r\n", "y".repeat(1 << 20));
    let many_lines = format!("x: {}\r\n", "y".repeat(1000)).repeat(1000);
    let set = set_of(&key());
    for (what, answer) in [
        ("nothing", String::new()),
        ("a set alone", set.clone()),
        ("no status", "HTTP/1.1\r\n\r\n".into()),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("TLS", "\u{15}\u{3}\u{1}\0\u{2}\u{2}F".into()),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-le".into()),
        ("a header of a megabyte", format!("HTTP/1.1 200 OK\r\n{a_megabyte}\r\n{set}")),
        ("a megabyte of headers", format!("HTTP/1.1 200 OK\r\n{many_lines}\r\n{set}")),
        ("20,000 headers", format!("HTTP/1.1 200 OK\r\n{tens_of_thousands}\r\n{set}")),
        ("a status line of a megabyte", format!("HTTP/1.1 200 {}\r\n\r\n{set}", "y".repeat(1 << 20))),
    ] {
        let server = Server::answering(answer).await;
        refused(fetch(&client(), &server.url()).await, what, "http");
        assert_eq!(server.connections(), 1, "{what}: it is not tried again");
    }
}

#[tokio::test]
async fn the_body_is_capped_whatever_it_announces() {
    let (key, big) = (key(), MAX_JWK_SET_LEN);
    let mut fits = set_of(&key).into_bytes();
    fits.resize(big, b' ');
    let server = Server::answering(ok(&fits)).await;
    assert_eq!(keys(fetch(&client(), &server.url()).await), [key]);
    fits.push(b' ');
    let until_closed = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &fits].concat();
    let server = Server::answering(until_closed).await;
    refused(fetch(&client(), &server.url()).await, "a byte more", "too_long");

    let spaces = vec![b' '; 16 * 1024];
    let chunk = [b"4000\r\n".as_slice(), &spaces, b"\r\n"].concat();
    for (head, endless) in [
        ("HTTP/1.1 200 OK\r\n\r\n", spaces),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk),
    ] {
        let script = move |_: &str| vec![send(head), Step::Forever(endless.clone(), Duration::ZERO)];
        let server = Server::start(script).await;
        refused(fetch(&client(), &server.url()).await, "endless", "too_long");
    }
}

#[tokio::test]
async fn nothing_is_decompressed() {
    let set = set_of(&key());
    // Sixty-four times the cap, in less than that.
    let bomb = || std::io::repeat(b' ').take(1 << 26);
    let gzip = |mut text: &mut dyn std::io::Read| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        std::io::copy(&mut text, &mut encoder).expect("compressed");
        encoder.finish().expect("compressed")
    };
    let deflate = |mut text: &mut dyn std::io::Read| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        std::io::copy(&mut text, &mut encoder).expect("compressed");
        encoder.finish().expect("compressed")
    };
    let small = gzip(&mut set.as_bytes());
    let (bomb, deflated_bomb) = (gzip(&mut bomb()), deflate(&mut bomb()));
    assert!(bomb.len() < MAX_JWK_SET_LEN && deflated_bomb.len() < MAX_JWK_SET_LEN);
    for (what, encoding, body) in [
        ("a small set", "gzip", small.clone()),
        ("a bomb", "gzip", bomb.clone()),
        ("a bomb", "deflate", deflated_bomb),
        ("a small set", "deflate", deflate(&mut set.as_bytes())),
        ("a small set", "x-gzip", small.clone()),
        ("a small set", "br", small.clone()),
        ("several", "identity, gzip", small.clone()),
        ("a plain one that says otherwise", "gzip", set.clone().into_bytes()),
    ] {
        let server =
            Server::answering(with_headers(&format!("content-encoding: {encoding}\r\n"), body)).await;
        refused(fetch(&client(), &server.url()).await, &format!("{what} by {encoding}"), "encoding");
    }
    for (what, body) in [("a small set", small), ("a bomb", bomb)] {
        let server = Server::answering(ok(body)).await;
        refused(fetch(&client(), &server.url()).await, &format!("{what} that does not say so"), "document");
    }
    let server = Server::answering(with_headers("content-encoding: identity\r\n", &set)).await;
    assert_eq!(keys(fetch(&client(), &server.url()).await).len(), 1);
}

#[tokio::test]
async fn one_deadline_covers_it_all() {
    let set = set_of(&key());
    let head = "HTTP/1.1 200 OK\r\n";
    let pause = Duration::from_millis(20);
    let drip = |bytes: &str| Step::Forever(bytes.as_bytes().to_vec(), pause);
    let cases = [
        ("no answer", vec![Step::Hang]),
        ("half a head", vec![send(head), Step::Hang]),
        ("half a body", vec![send(format!("{head}content-length: 999\r\n\r\n{{")), Step::Hang]),
        ("no end", vec![send(format!("{head}\r\n{set}")), Step::Hang]),
        ("a dripping head", vec![send(head), drip("x: y\r\n")]),
        ("a dripping header", vec![send(head), send("x: "), drip("y")]),
        ("a dripping body", vec![send(format!("{head}\r\n")), drip(" ")]),
        (
            "dripping chunks",
            vec![send(format!("{head}transfer-encoding: chunked\r\n\r\n")), drip("1\r\n \r\n")],
        ),
        (
            "a dripping chunk size",
            vec![send(format!("{head}transfer-encoding: chunked\r\n\r\n1;")), drip("x")],
        ),
        ("1xx again and again", vec![drip("HTTP/1.1 100 Continue\r\n\r\n")]),
    ];
    let client = builder().deadline(SHORT).build().expect("a client");
    let mut fetches = tokio::task::JoinSet::new();
    for (what, steps) in cases {
        let client = client.clone();
        fetches.spawn(async move {
            let server = Server::start(move |_| steps.clone()).await;
            refused(fetch(&client, &server.url()).await, what, "timeout");
        });
    }
    fetches.spawn({
        let client = client.clone();
        async move {
            let server = Server::start_at("127.0.0.1:0", Transport::Silent, |_| Vec::new()).await;
            refused(fetch(&client, &server.url()).await, "silence", "timeout");
            let tls = server.url().replacen("http", "https", 1);
            refused(fetch(&client, &tls).await, "no TLS handshake", "timeout");
        }
    });
    tokio::time::timeout(PATIENT, fetches.join_all()).await.expect("none outlasts its deadline");
}

/// As fast as they come: it must not starve the runtime either.
#[tokio::test]
async fn a_flood_of_100_continue_ends() {
    let flood = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    let server = Server::start(move |_| vec![Step::Forever(flood.clone(), Duration::ZERO)]).await;
    let client = builder().deadline(SHORT).build().expect("a client");
    let url = server.url();
    let fetched = tokio::time::timeout(PATIENT, fetch(&client, &url)).await;
    let error = fetched.expect("it ends").expect_err("no answer");
    assert!(["timeout", "http"].contains(&error.label()), "{error:?}");
}

#[test]
fn a_deadline_has_bounds() {
    for bad in [Duration::ZERO, Duration::from_millis(30_001)] {
        let error = JwksClient::builder().deadline(bad).build().expect_err("out of bounds");
        assert!(matches!(error, ClientError::Deadline { found, .. } if found == bad), "{error:?}");
    }
    assert_eq!(JwksClient::builder().build().expect("a client").deadline(), Duration::from_secs(5));
}
