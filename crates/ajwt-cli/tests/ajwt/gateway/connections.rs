//! Connections to the gateway on which nothing comes, or nothing is taken.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use ajwt_server::{Clock as _, SystemClock};

use super::{SQL, service};
use crate::support::{Gateway, eventually};

/// By the kernel: a proxy whose host lost power closes no connection.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_silent_connection_is_asked_whether_it_is_there() {
    let folder = service();
    let gateway = Gateway::start(&folder, SQL);
    let mut connection = TcpStream::connect(gateway.address()).expect("connected");
    write!(connection, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    let port = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let ours = port(connection.local_addr().expect("an address"));
    let its = port(connection.peer_addr().expect("an address"));
    eventually("keepalive", async || {
        let connections = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        connections.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // The timer 2 is that of keepalive.
            matches!(&fields[..], [_, local, remote, _, _, timer, ..]
                if local.ends_with(&its) && remote.ends_with(&ours) && timer.starts_with("02:"))
        })
    })
    .await;
}

/// Else whoever reaches the port could hold connections until the gateway may open no more for the proxy.
#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    const LIMIT: Duration = Duration::from_secs(5);
    let folder = service();
    let gateway = Gateway::start(&folder, &format!("{SQL} --idle-timeout {}", LIMIT.as_secs()));
    let connect = || TcpStream::connect(gateway.address()).expect("connected");
    let request = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut busy = connect();
    busy.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let mut ask = || {
        busy.write_all(request.as_bytes()).expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let mut part = [0; 1024];
            let len = busy.read(&mut part).expect("an answer");
            assert_ne!(len, 0, "it was closed");
            answer.extend_from_slice(&part[..len]);
        }
    };

    let clock = SystemClock::new();
    // What is sent at once, and what again and again.
    let mut held = [
        ("", ""),
        // HTTP/2 begins so, too.
        ("P", ""),
        ("GET /auth HTTP/1.1\r\n", ""),
        ("GET /auth HTTP/1.1\r\nAccept: ", "a"),
        (request, ""),
    ]
    .map(|(first, more)| {
        let mut connection = connect();
        connection.write_all(first.as_bytes()).expect("written");
        connection.set_nonblocking(true).expect("set");
        (connection, more)
    });
    eventually("end of them", async || {
        ask();
        let closed = held.iter_mut().map(|(connection, more)| {
            // It fails once the connection is closed.
            let _ = connection.write_all(more.as_bytes());
            is_closed(connection)
        });
        let closed = closed.filter(|is_closed| *is_closed).count();
        assert!(closed == 0 || clock.monotonic() >= LIMIT, "closed after {:?}", clock.monotonic());
        closed == held.len()
    })
    .await;
    // It was opened before them.
    ask();
}

/// It sends requests, and reads no answer.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_that_takes_no_answers_is_closed() {
    let folder = service();
    let gateway = Gateway::start(&folder, &format!("{SQL} --idle-timeout 5"));
    let mut connection = TcpStream::connect(gateway.address()).expect("connected");
    connection.set_nonblocking(true).expect("set");
    let requests = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100).into_bytes();
    let mut sent = 0;
    eventually("its end", async || {
        loop {
            match connection.write(&requests[sent % requests.len()..]) {
                Ok(len) => sent += len,
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    })
    .await;
    assert_eq!(gateway.text("/healthz").await, "ok\n");
}

/// Whether the other side has closed this connection, which does not block.
fn is_closed(connection: &mut TcpStream) -> bool {
    loop {
        match connection.read(&mut [0; 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// A caller that sends nothing more must not keep the gateway from ending.
#[tokio::test]
async fn a_connection_that_hangs_does_not_keep_it() {
    let folder = service();
    let gateway = Gateway::start(&folder, SQL);
    let mut hanging = TcpStream::connect(gateway.address()).expect("connected");
    write!(hanging, "GET /auth HTTP/1.1\r\n").expect("written");
    assert_eq!(gateway.text("/healthz").await, "ok\n");
    gateway.terminate();
    let ended = tokio::task::spawn_blocking(move || gateway.wait());
    let (status, log) =
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends").expect("waited");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("were cut off"), "{log}");
}
