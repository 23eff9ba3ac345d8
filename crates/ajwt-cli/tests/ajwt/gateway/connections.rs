//! Connections to the gateway on which nothing comes, or nothing is taken.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use ajwt_server::{Clock as _, SystemClock};

use super::{SQL, service};
use crate::support::{AJWT, Folder, Gateway, eventually};

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

/// Else whoever holds connections takes the files without which the folder of keys cannot be read.
#[tokio::test]
async fn connections_leave_files_for_the_folder_of_keys() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("callers")).expect("a folder");
    folder.good("keygen -o billing.key");
    let mut command = folder.command("sh");
    command.args(["-c", "ulimit -n 128 && exec \"$0\" \"$@\"", AJWT]);
    command.args(["gateway", "--listen", "127.0.0.1:0", "--keys", "callers", "--nonce", "memory"]);
    let gateway = Gateway::of(&mut command, &folder);
    let connect = || {
        let connection = TcpStream::connect(gateway.address()).expect("connected");
        connection.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        connection
    };
    let mut first = connect();
    assert_eq!(status(&mut first, "/healthz", "-"), 200);
    // More than it may open files.
    let mut held: Vec<_> = (0..140).map(|_| connect()).collect();
    eventually("word of them", async || gateway.log().contains("no room for more connections")).await;

    folder.write("callers/billing.keys", folder.good("key show billing.key.pub --format openssh"));
    eventually("acceptance", async || status(&mut first, "/auth", &folder.authorization()) == 200).await;
    // It was not refused: it waits until others end.
    let mut last = held.pop().expect("a connection");
    drop(held);
    assert_eq!(status(&mut last, "/healthz", "-"), 200);
    let log = gateway.log();
    assert!(!log.contains("no connection can be taken"), "{log}");
}

/// Asks on a connection, which stays open; the status of the answer, which is read to its end.
fn status(connection: &mut TcpStream, path: &str, authorization: &str) -> u16 {
    write!(connection, "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n")
        .expect("written");
    let mut answer = String::new();
    loop {
        let mut part = [0; 1024];
        let len = connection.read(&mut part).expect("an answer");
        assert_ne!(len, 0, "it was closed: {answer}");
        answer.push_str(std::str::from_utf8(&part[..len]).expect("text"));
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().expect("a number"));
            if body.len() >= length {
                return head[9..12].parse().expect("a status");
            }
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
    let clock = SystemClock::new();
    gateway.terminate();
    let ended = tokio::task::spawn_blocking(move || gateway.wait());
    let (status, log) =
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends").expect("waited");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("were cut off why=\"no more time\""), "{log}");
    // Of half of that: after as long `docker stop` kills.
    assert!(clock.monotonic() < Duration::from_secs(10), "{:?}", clock.monotonic());
}

/// Whoever asks twice does not want to wait. A terminal that is closed may tell so twice, and is no haste.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_second_signal_cuts_off_what_hangs() {
    let folder = service();
    for second in ["-TERM", "-INT"] {
        let gateway = super::that_hears_hang_ups(&folder);
        let mut hanging = TcpStream::connect(gateway.address()).expect("connected");
        write!(hanging, "GET /auth HTTP/1.1\r\n").expect("written");
        assert_eq!(gateway.text("/healthz").await, "ok\n");
        gateway.signal("-HUP");
        eventually("word of stopping", async || gateway.log().contains("stopping")).await;
        gateway.signal("-HUP");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!gateway.log().contains("cut off"), "{}", gateway.log());
        gateway.signal(second);
        let ended = tokio::task::spawn_blocking(move || gateway.wait());
        let (status, log) =
            tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends").expect("waited");
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("were cut off why=\"a second signal\""), "{second}: {log}");
    }
}
