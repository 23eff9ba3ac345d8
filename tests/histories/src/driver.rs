//! Sends tokens, breaks things and mends them.

mod episodes;
mod lives;

use std::{
    iter,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_core::Timestamp;
use ajwt_server::testing;
use fastrand::Rng;
use futures_util::{StreamExt as _, future::join_all, stream};
use reqwest::{Client, header::AUTHORIZATION};
use tokio::{
    sync::{Semaphore, watch},
    task::block_in_place,
};

use self::{
    episodes::{Schedule, ServerFault},
    lives::Lives,
};
use crate::{
    gateway::Gateway,
    history::{Answer, ClockSet, Fault, History, MemoryStart, Place, Purpose, Request, Span, TokenId},
    program,
    recorder::{Recorder, now},
    store::{Store, Terms},
    tokens::Callers,
};

/// Longer than anything is paused.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests under way.
const AT_ONCE: usize = 256;

const PROBES_AT_ONCE: usize = 16;
const PROBE_ROUNDS: usize = 400;
/// Of a cluster's 256 parts each server is then sent a token in 21.
const PARTS_BETWEEN_PROBES: usize = 4;
const BETWEEN_PROBES: Duration = Duration::from_millis(200);

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// All choices follow from it.
    pub seed: u64,
    /// How long a run takes: faults are chosen by chance, after each kind once. `None`: each kind once.
    pub length: Option<Duration>,
}

impl Plan {
    /// As the environment says: see the crate's documentation.
    #[must_use]
    pub fn of_environment() -> Self {
        let number = |variable: &str| {
            let text = std::env::var(variable).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")))
        };
        let seed = number("AJWT_HISTORY_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        Self { seed, length: number("AJWT_HISTORY_SECONDS").map(Duration::from_secs) }
    }

    /// How far a token's date may lie from a server's clock, in seconds. Short, since a store that forgot
    /// refuses tokens for that long and 5 s more.
    fn tolerance(&self) -> i64 {
        if self.length.is_some() { 5 } else { 2 }
    }
}

/// Runs a plan.
pub async fn run(store: &mut dyn Store, plan: &Plan) -> History {
    let mut rng = Rng::with_seed(plan.seed);
    let folder = tempfile::tempdir().expect("a folder");
    let from = now();
    let driver = Arc::new(block_in_place(|| Driver::start(store, plan, folder.path(), &mut rng)));
    let span = Span { from, to: now() };
    let (settled, good_from) = driver.settle(true, &mut rng).await;
    assert!(settled.is_some(), "no service: {}", driver.logs());
    // A memory of a server's own begins with it; of other stores `ajwt nonce init` said that they are new.
    let forgets = driver.terms.in_servers;
    let (kind, place, disturbs_all, blackout) = ("started", Place::Store, true, None);
    let start = Fault { kind, place, disturbs_all, span, blackout, forgets, episode: 0, settled, good_from };
    driver.recorder.write().faults.push(start);
    let lives = Lives::begin(&driver, rng.fork());
    Schedule::new(&driver, plan, store.faults(), &mut rng).run(store).await;
    lives.end().await;
    driver.recorder.clone().finish()
}

/// The kinds of faults that a run has, each once at least.
#[must_use]
pub fn kinds(store: &dyn Store, plan: &Plan) -> Vec<&'static str> {
    let mut kinds: Vec<_> = store.faults().iter().map(|fault| fault.kind).collect();
    kinds.extend(ServerFault::ALL.map(ServerFault::kind));
    if plan.length.is_some() && store.terms().capacity.is_some() {
        kinds.push(ServerFault::Full.kind());
    }
    kinds
}

/// The servers, the callers, and what is written.
#[derive(Debug)]
struct Driver {
    terms: Terms,
    /// In seconds.
    tolerance: i64,
    callers: Callers,
    gateways: Vec<Gateway>,
    client: Client,
    recorder: Recorder,
    slots: Semaphore,
    stop: watch::Sender<bool>,
    /// First uses that were accepted.
    accepted: AtomicUsize,
}

impl Driver {
    fn start(store: &dyn Store, plan: &Plan, folder: &Path, rng: &mut Rng) -> Self {
        let (terms, tolerance, callers) = (store.terms(), plan.tolerance(), Callers::new());
        let users = match store.database() {
            Some(database) => {
                program::run(folder, &format!("migrate {database}"));
                callers.register(folder, &database);
                database
            }
            None => {
                callers.write_key_files(&folder.join("callers"));
                "--keys callers".to_owned()
            }
        };
        store.initialise(folder);
        let recorder = Recorder::new(History::new(tolerance * 1000, terms.patience, terms.promise));
        let words = format!("{users} {} --tolerance {tolerance} --log-level warn", store.words());
        let mut gateways = Vec::new();
        for server in 0..terms.servers {
            let from = now();
            let gateway = Gateway::start(folder, server, &words);
            let start = MemoryStart { server, span: Span { from, to: now() } };
            if terms.in_servers {
                recorder.write().starts.push(start);
            }
            gateways.push(gateway);
        }
        let client = Client::builder().no_proxy().tls_certs_only([]).timeout(CLIENT_TIMEOUT);
        // A token that was sent is sent: what it came to is recorded.
        let client = client.retry(reqwest::retry::never()).build().expect("a client");
        let (slots, stop, accepted) =
            (Semaphore::new(AT_ONCE), watch::Sender::new(false), AtomicUsize::new(0));
        let driver = Self { terms, tolerance, callers, gateways, client, recorder, slots, stop, accepted };
        (0..terms.servers).for_each(|server| driver.set_clock(server, rng));
        driver
    }

    /// Sets a server's clock anew.
    fn set_clock(&self, server: usize, rng: &mut Rng) {
        let (lowest, highest) = self.terms.clocks;
        let (ahead, from) = (rng.i64(lowest..=highest), now());
        self.gateways[server].set_clock(ahead);
        let set = ClockSet { server, span: Span { from, to: now() }, ahead };
        self.recorder.write().clocks.push(set);
    }

    /// What a server's clock shows.
    fn clock_of(&self, server: usize) -> i64 {
        now() + self.gateways[server].ahead()
    }

    fn new_token(&self, token: TokenId) -> usize {
        let mut history = self.recorder.write();
        history.tokens.push(token);
        history.tokens.len() - 1
    }

    async fn send(&self, token: usize, server: usize, key: usize, purpose: Purpose) -> Answer {
        let _slot = self.slots.acquire().await.expect("open");
        let id = self.recorder.write().tokens[token].clone();
        let authorization = self.callers.sign(&id, key);
        let from = now();
        let answer = self.ask(server, &authorization).await;
        let span = Span { from, to: now() };
        self.recorder.write().requests.push(Request { token, server, purpose, span, answer });
        if purpose == Purpose::First && answer == Answer::Status(200) {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    async fn ask(&self, server: usize, authorization: &str) -> Answer {
        let Some(url) = self.gateways[server].url() else { return Answer::Nothing };
        let request = self.client.get(format!("{url}/auth")).header(AUTHORIZATION, authorization);
        let Ok(answer) = request.send().await else { return Answer::Nothing };
        let status = answer.status().as_u16();
        // Its end, so that the connection serves again.
        let _ = answer.bytes().await;
        Answer::Status(status)
    }

    /// Sends new tokens to each server until they are accepted: when that was, and of which date or later
    /// tokens are good everywhere. After a loss each part of the store has one, else each server has some
    /// for all that keep a part.
    async fn settle(&self, forgot: bool, rng: &mut Rng) -> (Option<i64>, i64) {
        let servers = self.gateways.len();
        let parts = servers.max(self.terms.buckets);
        let step = if forgot || self.terms.buckets == 1 { 1 } else { PARTS_BETWEEN_PROBES };
        let parts = (0..parts).step_by(step);
        let mut pending: Vec<(usize, usize)> = parts.map(|part| (part % servers, part)).collect();
        let mut good_from = 0;
        for _ in 0..PROBE_ROUNDS {
            let probes = self.probes(&pending, rng);
            let sent = stream::iter(probes).map(async |(part, token)| {
                let answer = self.send(token, part.0, 0, Purpose::Probe).await;
                (part, token, answer)
            });
            let answers: Vec<_> = sent.buffer_unordered(PROBES_AT_ONCE).collect().await;
            for (part, token, answer) in answers {
                if answer == Answer::Status(200) {
                    pending.retain(|other| *other != part);
                    good_from = good_from.max(self.recorder.write().tokens[token].time);
                }
            }
            if pending.is_empty() {
                return (Some(now()), good_from);
            }
            tokio::time::sleep(BETWEEN_PROBES).await;
        }
        (None, i64::MAX)
    }

    /// Sends new tokens to a server until its memory has no room.
    async fn fill(&self, server: usize, rng: &mut Rng) {
        let username = self.callers.username(0);
        for _ in 0..self.terms.capacity.unwrap_or_default() / AT_ONCE + 1 {
            let time = self.clock_of(server).div_euclid(1000);
            let new = || {
                let nonce = format!("{:032x}", rng.u128(..));
                self.new_token(TokenId { username: username.to_owned(), time, nonce })
            };
            let tokens: Vec<usize> = iter::repeat_with(new).take(AT_ONCE).collect();
            let sent = tokens.into_iter().map(|token| self.send(token, server, 0, Purpose::Probe));
            if join_all(sent).await.contains(&Answer::Status(503)) {
                return;
            }
        }
        panic!("there is room for more than is said: {}", self.logs());
    }

    /// A new token for each of these servers and parts.
    fn probes(&self, wanted: &[(usize, usize)], rng: &mut Rng) -> Vec<((usize, usize), usize)> {
        let mut probes = Vec::new();
        for server in 0..self.gateways.len() {
            let mut parts: Vec<_> = wanted.iter().filter(|part| part.0 == server).copied().collect();
            let (username, time) = (self.callers.username(0), self.clock_of(server).div_euclid(1000));
            while !parts.is_empty() {
                let nonce = format!("{:032x}", rng.u128(..));
                let bucket = bucket_of(username, time, &nonce);
                let Some(found) = parts.iter().position(|part| self.terms.buckets == 1 || part.1 == bucket)
                else {
                    continue;
                };
                let token = TokenId { username: username.to_owned(), time, nonce };
                probes.push((parts.swap_remove(found), self.new_token(token)));
            }
        }
        probes
    }

    fn logs(&self) -> String {
        self.gateways.iter().map(Gateway::log).collect()
    }
}

/// The last byte of a nonce's key, by which a cluster spreads nonces.
fn bucket_of(username: &str, time: i64, nonce: &str) -> usize {
    let now = Timestamp::from_secs(time);
    let nonce = testing::nonce_use(username, time, nonce, now, Duration::ZERO, Duration::ZERO);
    usize::from(nonce.key().as_bytes()[31])
}
