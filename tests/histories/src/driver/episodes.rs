//! What is broken, when, and for how long.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use fastrand::Rng;
use tokio::task::block_in_place;

use super::{Driver, Plan};
use crate::{
    checker::Counts,
    history::{Fault, MemoryStart, Place, Span},
    recorder::now,
    store::{Store, StoreFault, Terms},
};

/// First uses that are accepted between two episodes, while all is up.
const CALM: usize = 8;

/// How long that may take before it is left at that: the checks at the end will tell.
const CALM_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take in the end until there is enough to check, on a machine that is busy.
const LAST_CALM_LIMIT: Duration = Duration::from_secs(300);

/// How long a fault lasts at least, in milliseconds.
const LEAST: u64 = 300;

/// And how much longer at most.
const SHORT: u64 = 500;
const LONG: u64 = 3_500;

/// How much longer than twice the tolerance a nonce is kept, in milliseconds.
const NONCE_MARGIN: i64 = 60_000;

/// What can be done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerFault {
    Killed,
    Terminated,
    Paused,
    ClockSet,
    /// Its memory is: until what filled it has lived its time.
    Full,
}

impl ServerFault {
    /// Those of a moment.
    pub(super) const ALL: [Self; 4] = [Self::Killed, Self::Terminated, Self::Paused, Self::ClockSet];

    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Killed => "server killed",
            Self::Terminated => "server terminated",
            Self::Paused => "server paused",
            Self::ClockSet => "clock set",
            Self::Full => "memory full",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Store(StoreFault),
    Server(ServerFault, usize),
}

impl Action {
    fn least(self, terms: Terms, tolerance: i64) -> u64 {
        match self {
            Self::Server(ServerFault::Full, _) => (2_000 * tolerance + NONCE_MARGIN).unsigned_abs(),
            Self::Store(fault) if fault.blackout || fault.forgets => terms.least,
            Self::Store(_) | Self::Server(..) => LEAST,
        }
    }
}

/// What is done at the same time; of the store's faults at most one, and it comes first.
type Group = Vec<Action>;

/// Groups, one after the other; then all must work again.
type Episode = Vec<Group>;

/// The episodes of a plan.
pub(super) struct Schedule<'a> {
    driver: &'a Arc<Driver>,
    faults: Vec<StoreFault>,
    /// Until when faults are chosen by chance, once there was each.
    until: Option<i64>,
    /// How much longer than they must faults last, at most.
    lasts: u64,
    /// Of the episode.
    number: usize,
    rng: &'a mut Rng,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(
        driver: &'a Arc<Driver>,
        plan: &Plan,
        faults: Vec<StoreFault>,
        rng: &'a mut Rng,
    ) -> Self {
        let length = plan.length.map(|length| i64::try_from(length.as_millis()).expect("short"));
        let lasts = if length.is_some() { LONG } else { SHORT };
        Self { driver, faults, until: length.map(|length| now() + length), lasts, number: 0, rng }
    }

    pub(super) async fn run(mut self, store: &mut dyn Store) {
        // Before chance decides, which may leave some out.
        for episode in self.each_once() {
            self.calm(CALM).await;
            self.episode(store, episode).await;
        }
        if let Some(until) = self.until {
            while now() < until {
                self.calm(CALM).await;
                let episode = self.by_chance();
                self.episode(store, episode).await;
            }
            // Once, for it takes more than a minute.
            if self.driver.terms.capacity.is_some() {
                self.calm(CALM).await;
                let full = self.at_a_server(ServerFault::Full);
                self.episode(store, vec![vec![full]]).await;
            }
        }
        let _ = tokio::time::timeout(LAST_CALM_LIMIT, self.last_calm()).await;
    }

    /// Each fault once; those after which tokens may be refused for a while in one episode.
    fn each_once(&mut self) -> Vec<Episode> {
        let (mut slow, quick): (Vec<_>, Vec<_>) = self.faults.iter().partition(|fault| fault.forgets);
        let quick = quick.into_iter().map(|fault| vec![vec![Action::Store(fault)]]);
        let servers = ServerFault::ALL.map(|fault| vec![vec![self.at_a_server(fault)]]);
        let mut episodes: Vec<Episode> = quick.chain(servers).collect();
        self.rng.shuffle(&mut episodes);
        self.rng.shuffle(&mut slow);
        if !slow.is_empty() {
            episodes.push(slow.into_iter().map(|fault| vec![Action::Store(fault)]).collect());
        }
        episodes
    }

    fn by_chance(&mut self) -> Episode {
        let groups = self.rng.u8(1..3);
        (0..groups)
            .map(|_| {
                let fault = self.rng.choice(self.faults.clone()).filter(|_| self.rng.u8(..4) > 0);
                let mut group: Group = fault.map(Action::Store).into_iter().collect();
                if group.is_empty() || self.rng.u8(..3) == 0 {
                    let fault = self.rng.choice(ServerFault::ALL).expect("one");
                    group.push(self.at_a_server(fault));
                }
                group
            })
            .collect()
    }

    fn at_a_server(&mut self, fault: ServerFault) -> Action {
        Action::Server(fault, self.rng.usize(..self.driver.gateways.len()))
    }

    /// Until so many tokens more were accepted.
    async fn calm(&self, count: usize) {
        let goal = self.driver.accepted.load(Ordering::Relaxed) + count;
        let enough = async {
            while self.driver.accepted.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(CALM_LIMIT, enough).await;
    }

    /// Until there is enough to check. How long that takes hangs on the machine, and on the servers' clocks:
    /// a store that forgot while they were ahead may refuse what is dated before then.
    async fn last_calm(&self) {
        while Counts::of(&self.driver.recorder.write()).lacking().is_some() {
            self.calm(CALM).await;
        }
    }

    async fn episode(&mut self, store: &mut dyn Store, episode: Episode) {
        self.number += 1;
        let mut faults = Vec::new();
        for group in episode {
            let from = now();
            for action in &group {
                self.begin(store, *action).await;
            }
            let began = now();
            let (terms, tolerance) = (self.driver.terms, self.driver.tolerance);
            let least = group.iter().map(|action| action.least(terms, tolerance)).max().unwrap_or_default();
            let lasts = least + self.rng.u64(..self.lasts);
            tokio::time::sleep(Duration::from_millis(lasts)).await;
            let blackout = Span { from: began, to: now() };
            for action in &group {
                self.end(store, *action).await;
            }
            let span = Span { from, to: now() };
            faults.extend(group.into_iter().map(|action| self.fault(action, span, blackout)));
        }
        let forgot = faults.iter().any(|fault| fault.forgets);
        let (settled, good_from) = self.driver.settle(forgot, self.rng).await;
        faults.iter_mut().for_each(|fault| (fault.settled, fault.good_from) = (settled, good_from));
        self.driver.recorder.write().faults.extend(faults);
    }

    fn fault(&self, action: Action, span: Span, blackout: Span) -> Fault {
        let terms = self.driver.terms;
        let (kind, place, disturbs_all, is_blackout, forgets) = match action {
            Action::Store(fault) => (fault.kind, Place::Store, true, fault.blackout, fault.forgets),
            Action::Server(fault, server) => {
                // A memory's start is dated anew by a clock that is set soon after it.
                let forgets = terms.in_servers
                    && matches!(fault, ServerFault::Killed | ServerFault::Terminated | ServerFault::ClockSet);
                (fault.kind(), Place::Server(server), terms.servers_disturb, false, forgets)
            }
        };
        let blackout = is_blackout.then_some(blackout);
        let episode = self.number;
        Fault { kind, place, disturbs_all, span, blackout, forgets, episode, settled: None, good_from: 0 }
    }

    async fn begin(&mut self, store: &mut dyn Store, action: Action) {
        let driver = self.driver;
        match action {
            Action::Store(fault) => store.begin(fault, &driver.gateways).await,
            Action::Server(fault, server) => match fault {
                ServerFault::Killed => block_in_place(|| driver.gateways[server].kill()),
                ServerFault::Terminated => block_in_place(|| driver.gateways[server].terminate()),
                ServerFault::Paused => block_in_place(|| driver.gateways[server].pause()),
                ServerFault::ClockSet => block_in_place(|| driver.set_clock(server, self.rng)),
                ServerFault::Full => driver.fill(server, self.rng).await,
            },
        }
    }

    async fn end(&mut self, store: &mut dyn Store, action: Action) {
        let driver = self.driver;
        match action {
            Action::Store(fault) => store.end(fault, &driver.gateways).await,
            Action::Server(fault, server) => block_in_place(|| match fault {
                ServerFault::Killed | ServerFault::Terminated => {
                    if self.rng.bool() {
                        driver.set_clock(server, self.rng);
                    }
                    let from = now();
                    driver.gateways[server].start_again();
                    if driver.terms.in_servers {
                        let start = MemoryStart { server, span: Span { from, to: now() } };
                        driver.recorder.write().starts.push(start);
                    }
                }
                ServerFault::Paused => driver.gateways[server].resume(),
                ServerFault::ClockSet | ServerFault::Full => {}
            }),
        }
    }
}
