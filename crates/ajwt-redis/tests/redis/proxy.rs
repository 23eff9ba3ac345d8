use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// What happens to a claim (a SET) on its way.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    None,
    /// The command arrives, the answer does not, and the connection stays.
    Swallow,
    /// The command arrives, then the connection is cut.
    Cut,
    /// The command does not arrive, and the connection is cut.
    CutBefore,
    /// The command does not arrive; these bytes come back.
    Answer(Vec<u8>),
    /// As `Answer`, and then the connection is cut.
    AnswerAndCut(Vec<u8>),
}

/// Stands before a server and spoils what is between.
pub(crate) struct Proxy {
    state: Arc<State>,
    port: u16,
    accepting: JoinHandle<()>,
}

struct State {
    target: AtomicU16,
    fault: Mutex<Fault>,
    /// How much longer each answer takes.
    delay: Mutex<Duration>,
    /// The claims that came in.
    claims: Mutex<Vec<Vec<u8>>>,
    connections: AtomicUsize,
    /// Of these connections those that are open.
    open: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            target: AtomicU16::new(target),
            fault: Mutex::new(Fault::None),
            delay: Mutex::default(),
            claims: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let accepted = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                accepted.connections.fetch_add(1, Ordering::SeqCst);
                accepted.open.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&accepted);
                tokio::spawn(async move {
                    Arc::clone(&state).serve(client).await;
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { state, port, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.state.fault.lock().expect("a lock") = fault;
    }

    /// Each answer takes longer by this, as on a long way, on which any number may be at once.
    pub(crate) fn delay(&self, delay: Duration) {
        *self.state.delay.lock().expect("a lock") = delay;
    }

    /// Where new connections lead, as when an address is given to another host.
    pub(crate) fn lead_to(&self, target: u16) {
        self.state.target.store(target, Ordering::SeqCst);
    }

    /// The claims that came in since the last call.
    pub(crate) fn claims(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state.claims.lock().expect("a lock"))
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    async fn serve(self: Arc<Self>, client: TcpStream) {
        let target = self.target.load(Ordering::SeqCst);
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
        // A fault strikes the connection on which a claim came: a new one works, so that a repetition
        // would get through, and be counted.
        let struck = Arc::new(AtomicBool::new(false));
        let mut back =
            tokio::spawn(Arc::clone(&self).back(from_server, Arc::clone(&to_client), Arc::clone(&struck)));
        tokio::select! {
            () = self.forth(from_client, to_server, to_client, &struck) => back.abort(),
            _ = &mut back => {}
        }
    }

    async fn forth(
        &self,
        mut client: OwnedReadHalf,
        mut server: OwnedWriteHalf,
        back: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
        struck: &AtomicBool,
    ) {
        let mut buffer = vec![0; 65536];
        loop {
            let Ok(length @ 1..) = client.read(&mut buffer).await else { return };
            let bytes = &buffer[..length];
            // A claim is small, and alone on its way in these tests: it comes in one piece.
            let claim =
                bytes.windows(3).any(|word| word == b"SET") && bytes.windows(2).any(|word| word == b"PX");
            let mut fault = Fault::None;
            if claim {
                self.claims.lock().expect("a lock").push(bytes.to_vec());
                fault = self.fault.lock().expect("a lock").clone();
                struck.store(true, Ordering::SeqCst);
            }
            match fault {
                Fault::CutBefore => return,
                Fault::Answer(answer) => {
                    if back.lock().await.write_all(&answer).await.is_err() {
                        return;
                    }
                }
                Fault::AnswerAndCut(answer) => {
                    let _ = back.lock().await.write_all(&answer).await;
                    return;
                }
                Fault::None | Fault::Swallow | Fault::Cut => {
                    if server.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn back(
        self: Arc<Self>,
        mut server: OwnedReadHalf,
        client: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
        struck: Arc<AtomicBool>,
    ) {
        let (sender, mut pieces) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        let reading = async move {
            let mut buffer = vec![0; 65536];
            let mut swallowing = false;
            loop {
                let Ok(length @ 1..) = server.read(&mut buffer).await else { return };
                let fault = self.fault.lock().expect("a lock").clone();
                let after_claim = struck.load(Ordering::SeqCst);
                match fault {
                    Fault::Cut if after_claim => return,
                    // A connection that went dumb stays so: new ones work once the fault is gone.
                    Fault::Swallow if after_claim => swallowing = true,
                    _ => {}
                }
                let due = Instant::now() + *self.delay.lock().expect("a lock");
                if !swallowing && sender.send((due, buffer[..length].to_vec())).is_err() {
                    return;
                }
            }
        };
        let writing = async move {
            while let Some((due, piece)) = pieces.recv().await {
                // A timer that is due takes a millisecond all the same.
                if due > Instant::now() {
                    sleep_until(due).await;
                }
                if client.lock().await.write_all(&piece).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(reading, writing);
    }
}
