//! What stands between a store and its server, and lets connections go silent.

use std::{
    fmt::Debug,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Passes bytes between clients and a server, until it is told otherwise.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    orders: Arc<Orders>,
}

/// What a proxy is told to do, and how often it did.
#[derive(Default)]
struct Orders {
    /// Connections of an earlier generation are silent.
    generation: AtomicUsize,
    /// Whether a connection goes silent when its client asks whether it is well.
    at_pings: AtomicBool,
    /// How many did.
    silenced: AtomicUsize,
    /// What requests hold that are counted. The first of them is carried out, and its connection cut in place of
    /// the answer.
    watched: Mutex<Vec<Vec<u8>>>,
    /// How many of them were passed on, over whichever connections.
    passed_on: AtomicUsize,
    /// Requests that hold this wait.
    held: Mutex<Option<&'static [u8]>>,
    /// How many have waited.
    were_held: AtomicUsize,
}

/// What becomes of bytes.
enum Fate {
    PassedOn,
    Swallowed,
    /// The connection ends.
    Cut,
}

impl Proxy {
    pub(crate) fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let orders = Arc::<Orders>::default();
        let proxy = Self { port, orders: Arc::clone(&orders) };
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", to))) else {
                    continue;
                };
                let back = (server.try_clone().expect("cloned"), client.try_clone().expect("cloned"));
                let connection = Arc::new(Connection {
                    born: orders.generation.load(Ordering::Relaxed),
                    orders: Arc::clone(&orders),
                    is_silent: AtomicBool::new(false),
                    loses_answer: AtomicBool::new(false),
                });
                let answering = Arc::clone(&connection);
                thread::spawn(move || pass(client, server, |bytes| connection.fate_of_request(bytes)));
                thread::spawn(move || pass(back.0, back.1, |_| answering.fate_of_answer()));
            }
        });
        proxy
    }

    pub(crate) fn silence(&self) {
        self.orders.generation.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn silence_at_pings(&self, silence: bool) {
        self.orders.at_pings.store(silence, Ordering::Relaxed);
    }

    /// Loses the answer to the first request that holds this key, as it is or in hexadecimal digits.
    pub(crate) fn lose_answer_to(&self, key: &[u8; 32]) {
        let digits = key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        *self.orders.watched.lock().expect("lock") = vec![key.to_vec(), digits.into_bytes()];
    }

    /// Lets requests that hold this wait, until it is told otherwise.
    pub(crate) fn hold(&self, what: Option<&'static [u8]>) {
        *self.orders.held.lock().expect("lock") = what;
    }

    /// How many requests have waited.
    pub(crate) fn were_held(&self) -> usize {
        self.orders.were_held.load(Ordering::SeqCst)
    }

    /// How many connections went silent when their clients asked whether they are well.
    pub(crate) fn silenced(&self) -> usize {
        self.orders.silenced.load(Ordering::Relaxed)
    }

    /// How many requests that hold the key were passed on.
    pub(crate) fn passed_on(&self) -> usize {
        self.orders.passed_on.load(Ordering::SeqCst)
    }
}

/// One that is passed through.
struct Connection {
    orders: Arc<Orders>,
    /// The generation.
    born: usize,
    /// Its client has asked whether it is well, and is not answered.
    is_silent: AtomicBool,
    /// It ends in place of the answer that comes next.
    loses_answer: AtomicBool,
}

impl Connection {
    fn fate_of_request(&self, bytes: &[u8]) -> Fate {
        let orders = &self.orders;
        let is_held = || {
            let held = *orders.held.lock().expect("lock");
            held.is_some_and(|held| bytes.windows(held.len()).any(|window| window == held))
        };
        if is_held() {
            orders.were_held.fetch_add(1, Ordering::SeqCst);
            while is_held() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        if is_ping(bytes)
            && orders.at_pings.load(Ordering::Relaxed)
            && !self.is_silent.swap(true, Ordering::Relaxed)
        {
            orders.silenced.fetch_add(1, Ordering::Relaxed);
        }
        if self.is_silent.load(Ordering::Relaxed) || self.is_of_earlier_generation() {
            return Fate::Swallowed;
        }
        let is_watched = |watched: &Vec<u8>| bytes.windows(watched.len()).any(|window| window == watched);
        // Requests are small, and alone on their way: they come in one piece.
        if orders.watched.lock().expect("lock").iter().any(is_watched)
            && orders.passed_on.fetch_add(1, Ordering::SeqCst) == 0
        {
            self.loses_answer.store(true, Ordering::SeqCst);
        }
        Fate::PassedOn
    }

    fn fate_of_answer(&self) -> Fate {
        if self.loses_answer.load(Ordering::SeqCst) {
            Fate::Cut
        } else if self.is_of_earlier_generation() {
            Fate::Swallowed
        } else {
            Fate::PassedOn
        }
    }

    fn is_of_earlier_generation(&self) -> bool {
        self.orders.generation.load(Ordering::Relaxed) != self.born
    }
}

/// Goes on with this until the proxy holds a request, and drops it then.
pub(crate) async fn until_held<T: Debug>(proxy: &Proxy, work: impl Future<Output = T>) {
    tokio::select! {
        done = work => panic!("{done:?}"),
        () = async {
            while proxy.were_held() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => {}
    }
}

/// PostgreSQL's Sync alone, and MySQL's COM_PING.
fn is_ping(bytes: &[u8]) -> bool {
    [b"S\0\0\0\x04".as_slice(), b"\x01\0\0\0\x0e"].contains(&bytes)
}

fn pass(mut from: TcpStream, mut to: TcpStream, fate: impl Fn(&[u8]) -> Fate) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        let bytes = bytes.get(..read).unwrap_or_default();
        let ends = match fate(bytes) {
            Fate::PassedOn => to.write_all(bytes).is_err(),
            Fate::Swallowed => false,
            Fate::Cut => true,
        };
        if ends {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
