//! A server that answers by a script, well or badly.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_core::{JwkSet, PublicKey};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A part of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Again and again, with a pause, until nobody listens.
    Forever(Vec<u8>, Duration),
    /// Neither sends nor closes.
    Hang,
}

/// By the head of the request.
pub(crate) type Script = Arc<dyn Fn(&str) -> Vec<Step> + Send + Sync>;

/// What it does before it reads a request.
#[derive(Clone)]
pub(crate) enum Transport {
    Plain,
    Tls(TlsAcceptor),
    /// Sends these bytes before it was asked.
    Hasty(Vec<u8>),
    /// Accepts, and says nothing.
    Silent,
}

/// Ends when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", Transport::Plain, script).await
    }

    /// Answers everybody with these bytes, and closes.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_| vec![Step::Send(answer.clone())]).await
    }

    pub(crate) async fn start_at(
        address: &str,
        transport: Transport,
        script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind(address).await.expect("a port"), transport, script)
    }

    pub(crate) fn on(
        listener: TcpListener,
        transport: Transport,
        script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let (connections, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::default()));
        let script: Script = Arc::new(script);
        let (count, log) = (Arc::clone(&connections), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (script, log, transport) = (Arc::clone(&script), Arc::clone(&log), transport.clone());
                tokio::spawn(async move {
                    match transport {
                        Transport::Plain => serve(stream, &script, &log).await,
                        Transport::Tls(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, &script, &log).await;
                            }
                        }
                        Transport::Hasty(bytes) => drop(stream.write_all(&bytes).await),
                        Transport::Silent => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, connections, heads, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("a lock").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: &Script, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).expect("text");
    heads.lock().expect("a lock").push(head.clone());
    for step in script(&head) {
        // Who does not listen any more has seen enough.
        let sent = match step {
            Step::Send(bytes) => stream.write_all(&bytes).await,
            Step::Forever(bytes, pause) => loop {
                if let Err(error) = stream.write_all(&bytes).await {
                    break Err(error);
                }
                let _ = stream.flush().await;
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            },
            Step::Hang => std::future::pending().await,
        };
        if sent.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
    // Reads what may still come: closing with it unread would reset the connection.
    let mut rest = [0; 1024];
    while matches!(stream.read(&mut rest).await, Ok(read) if read > 0) {}
}

/// A well-formed answer.
pub(crate) fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    with_headers("", body)
}

/// With further headers, each ended by CRLF.
pub(crate) fn with_headers(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A set of this key.
pub(crate) fn set_of(key: &PublicKey) -> String {
    JwkSet::of_keys([key.clone()]).to_json()
}
