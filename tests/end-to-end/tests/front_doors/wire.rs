//! HTTP/1.1 as bytes on a socket, so that requests can be what no client sends.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// Long enough for a busy machine: a server that hangs fails the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// A response as it came, but for the date.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case; values of one name in order.
    pub(crate) headers: BTreeMap<String, Vec<Vec<u8>>>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?.first()?;
        Some(std::str::from_utf8(value).expect("a header in ASCII"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for (name, values) in &self.headers {
            for value in values {
                write!(f, " | {name}: {}", value.escape_ascii())?;
            }
        }
        write!(f, " | {:?}", self.body.escape_ascii().to_string())
    }
}

/// One connection.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.expect("connected")))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A server may have answered and closed before it has read everything.
        let _ = self.0.get_mut().write_all(bytes).await;
    }

    /// Status and headers.
    pub(crate) async fn read_head(&mut self) -> Response {
        let line = self.read_line().await;
        let line = String::from_utf8(line).expect("a status line");
        let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut headers = BTreeMap::<String, Vec<Vec<u8>>>::new();
        loop {
            let line = self.read_line().await;
            if line.is_empty() {
                break;
            }
            let colon = line.iter().position(|byte| *byte == b':').expect("a header");
            let name = String::from_utf8(line[..colon].to_ascii_lowercase()).expect("a name");
            if name != "date" {
                headers.entry(name).or_default().push(line[colon + 1..].trim_ascii().to_owned());
            }
        }
        Response { status, headers, body: Vec::new() }
    }

    /// A whole response; one to HEAD has no body.
    pub(crate) async fn read_response(&mut self, is_head: bool) -> Response {
        let mut response = self.read_head().await;
        if !is_head && let Some(len) = response.header("content-length") {
            response.body = self.read_exactly(len.parse().expect("a length")).await;
        }
        response
    }

    pub(crate) async fn read_exactly(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes));
        read.await.expect("in time").expect("all bytes");
        bytes
    }

    /// One chunk of a body in chunks (RFC 9112 section 7.1); empty at the end.
    pub(crate) async fn read_chunk(&mut self) -> Vec<u8> {
        let line = String::from_utf8(self.read_line().await).expect("a length");
        let chunk = self.read_exactly(usize::from_str_radix(&line, 16).expect("a length")).await;
        assert!(self.read_line().await.is_empty());
        chunk
    }

    /// What comes until the server closes the connection.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes));
        // A connection that is reset has ended as well.
        let _ = read.await.expect("in time");
        bytes
    }

    async fn read_line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        loop {
            match self.read_exactly(1).await[0] {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        line.pop_if(|byte| *byte == b'\r');
        line
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: &[u8]) -> Response {
    let mut connection = Connection::open(address).await;
    connection.send(request).await;
    let response = connection.read_response(request.starts_with(b"HEAD ")).await;
    let rest = connection.read_to_end().await;
    assert!(rest.is_empty(), "{response:?} goes on with {:?}", rest.escape_ascii().to_string());
    response
}

/// A request that closes the connection, with these header lines at its end.
pub(crate) fn request(method: &str, path: &str, header_lines: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n").into_bytes();
    for line in header_lines {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}
