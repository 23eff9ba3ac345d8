use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::measure::{per_op, runtime};

const CONNECTIONS: usize = 32;

/// Requests with these `Authorization` headers, each sent once, over connections that stay open.
#[derive(Clone)]
pub(crate) struct Load {
    requests: Arc<Vec<Vec<u8>>>,
}

impl Load {
    pub(crate) fn new(headers: Vec<String>) -> Self {
        let request = |header: String| {
            format!("GET /hello HTTP/1.1\r\nHost: localhost\r\nAuthorization: {header}\r\n\r\n").into_bytes()
        };
        Self { requests: Arc::new(headers.into_iter().map(request).collect()) }
    }

    /// Requests a second. Each must be answered with 200.
    pub(crate) fn run(&self, port: u16) -> f64 {
        let (load, count) = (self.clone(), self.requests.len());
        let on_the_second_core = std::thread::spawn(move || {
            pin_to_the_second_core();
            let runtime = runtime();
            per_op(count, || runtime.block_on(load.send_all(port)))
        });
        1e9 / on_the_second_core.join().expect("answered")
    }

    async fn send_all(&self, port: u16) {
        let next = Arc::new(AtomicUsize::new(0));
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (next, requests) = (Arc::clone(&next), Arc::clone(&self.requests));
            connections.spawn(async move {
                let mut stream = None;
                let mut answer = vec![0; 4096];
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut connection = match stream.take() {
                        Some(connection) => connection,
                        None => connect(port).await,
                    };
                    connection.write_all(request).await.expect("sent");
                    if read_answer(&mut connection, &mut answer).await {
                        stream = Some(connection);
                    }
                }
            });
        }
        connections.join_all().await;
    }
}

/// Lets this thread run there alone.
pub(crate) fn pin_to_the_second_core() {
    let mut second = CpuSet::new();
    second.set(1);
    sched_setaffinity(None, &second).expect("two cores are needed");
}

async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    stream
}

/// Reads one answer, and says whether the connection stays open.
async fn read_answer(connection: &mut TcpStream, answer: &mut [u8]) -> bool {
    let mut filled = 0;
    loop {
        let read = connection.read(&mut answer[filled..]).await.expect("read");
        filled += read;
        let text = String::from_utf8_lossy(&answer[..filled]);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let head = head.to_ascii_lowercase();
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let closes = field("connection:") == Some("close");
            let length = field("content-length:").and_then(|length| length.parse::<usize>().ok());
            let is_whole = match length {
                Some(length) => body.len() >= length,
                None if field("transfer-encoding:") == Some("chunked") => body.ends_with("\r\n0\r\n\r\n"),
                None => read == 0,
            };
            if is_whole {
                return !closes;
            }
        }
        assert!(read > 0, "cut: {text}");
    }
}
