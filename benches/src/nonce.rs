//! Claims of the memory backend among millions of live nonces, beside maps.

use std::{sync::Arc, time::Duration};

use ajwt_core::Timestamp;
use ajwt_server::{
    Clock as _, MemoryNonceBackend, MockClock, NonceBackend as _, NonceOutcome, NonceUse, testing::nonce_use,
};
use futures_util::FutureExt as _;

use crate::{
    measure::{ROUNDS, cpu_per_op, in_turn, per_op},
    report::Report,
};

const MILLION: usize = 1_000_000;
const CLAIMS: usize = 200_000;

const THREADS: [(usize, &str); 2] = [(1, "1 thread"), (2, "2 threads, wall time by the claims of both")];

/// Of a nonce: twice the tolerance, and the margin.
const LIFETIME: Duration = Duration::from_secs(100);

/// Later than the backend's start by more than its rule reaches.
const START: Timestamp = Timestamp::from_secs(1_790_000_000);

pub(crate) fn run(report: &mut Report) {
    let [million, ten_millions] = [MILLION, 10 * MILLION].map(|live| {
        let before = resident();
        let steady = Steady::new(live);
        let bytes = (resident() - before) / live as f64;
        report.alone(&format!("memory of a live nonce, {} M live", live / MILLION), "bytes", &[bytes]);
        steady
    });
    let map = dashmap::DashMap::new();
    for number in 0..MILLION {
        map.insert(*live(number).key().as_bytes(), 0_i64);
    }
    let one = THREADS.map(|(threads, told)| {
        let [one, ten, dashmap] = in_turn(
            ROUNDS,
            [
                &mut |_| million.claim(threads),
                &mut |_| ten_millions.claim(threads),
                // Ours drops a nonce for each that comes. This one would have more in each round than before.
                &mut |round| {
                    let uses = fresh(threads, round);
                    let took = on_threads(threads, &uses, |_, nonce| {
                        assert!(map.insert(*nonce.key().as_bytes(), nonce.time()).is_none());
                    });
                    uses.iter().for_each(|nonce| assert!(map.remove(nonce.key().as_bytes()).is_some()));
                    took
                },
            ],
        );
        report.beside(&format!("claim, 1 M live, {told}"), "ns", &one, "DashMap", &dashmap);
        report.beside(&format!("claim, 10 M live, {told}"), "ns", &ten, "1 M live", &one);
        one
    });

    // All ten millions expire at once: the slowest claim from then on.
    let before = ten_millions.slowest();
    ten_millions.clock.advance(Duration::from_secs(3600));
    let after = ten_millions.slowest();
    report.beside("the slowest of 200,000 claims, as 10 M expire", "ns", &[after], "before", &[before]);

    // Not in turn with ours: of the many small pieces that it frees glibc makes large ones when somebody next frees a
    // large one, in tens of milliseconds.
    let cache =
        moka::sync::Cache::builder().max_capacity(1 << 26).time_to_live(Duration::from_secs(100)).build();
    for number in 0..MILLION {
        cache.insert(*live(number).key().as_bytes(), ());
    }
    cache.run_pending_tasks();
    for ((threads, told), one) in THREADS.iter().zip(&one) {
        let [moka] = in_turn(
            ROUNDS,
            [&mut |round| {
                let uses = fresh(*threads, round);
                let took = on_threads(*threads, &uses, |_, nonce| {
                    assert!(cache.entry(*nonce.key().as_bytes()).or_insert(()).is_fresh());
                });
                uses.iter().for_each(|nonce| cache.invalidate(nonce.key().as_bytes()));
                cache.run_pending_tasks();
                took
            }],
        );
        report.beside(&format!("claim, 1 M live, {told}"), "ns", one, "moka, afterwards", &moka);
    }
}

/// One of a million that are there.
fn live(number: usize) -> NonceUse {
    one_use(&format!("live {number}"), START)
}

/// Those of a round.
fn fresh(threads: usize, round: usize) -> Vec<NonceUse> {
    (0..CLAIMS).map(|number| one_use(&format!("fresh {threads} {round} {number}"), START)).collect()
}

/// A backend that has claimed nonces for longer than they live, as many each second: one is dropped for
/// each that comes.
struct Steady {
    backend: MemoryNonceBackend,
    clock: MockClock,
    each_second: usize,
}

impl Steady {
    fn new(live: usize) -> Self {
        let clock = MockClock::new(START.saturating_sub(Duration::from_secs(3600)));
        let backend = MemoryNonceBackend::with_clock(1 << 26, Arc::new(clock.clone()));
        clock.set(START);
        let steady = Self { backend, clock, each_second: live / LIFETIME.as_secs() as usize };
        for _ in 0..LIFETIME.as_secs() + 1 {
            let uses = steady.next(steady.each_second);
            uses.iter().enumerate().for_each(|claim| steady.consume(claim));
        }
        steady
    }

    /// So many nonces from now on, dated as they come.
    fn next(&self, count: usize) -> Vec<NonceUse> {
        let now = self.clock.now();
        let at = |number| now.saturating_add(Duration::from_secs((number / self.each_second) as u64));
        (0..count).map(|number| one_use(&format!("{now:?} {number}"), at(number))).collect()
    }

    /// The last of a second moves the clock on.
    fn consume(&self, (number, nonce): (usize, &NonceUse)) {
        let outcome = self.backend.consume(nonce).now_or_never().expect("memory waits for nothing");
        assert_eq!(outcome.expect("an answer"), NonceOutcome::Fresh);
        if (number + 1) % self.each_second == 0 {
            self.clock.advance(Duration::from_secs(1));
        }
    }

    fn claim(&self, threads: usize) -> f64 {
        on_threads(threads, &self.next(CLAIMS), |number, nonce| self.consume((number, nonce)))
    }

    fn slowest(&self) -> f64 {
        let uses = self.next(CLAIMS);
        uses.iter().enumerate().map(|claim| per_op(1, || self.consume(claim))).fold(0.0, f64::max)
    }
}

fn one_use(nonce: &str, now: Timestamp) -> NonceUse {
    nonce_use("guido", now.as_secs(), nonce, now, Duration::from_secs(20), Duration::from_secs(60))
}

/// Nanoseconds of this process's time for each. Several threads share the uses: the wall time by all of them then, so
/// that one of a thread's own takes as many times that as there are threads.
fn on_threads(threads: usize, uses: &[NonceUse], consume: impl Fn(usize, &NonceUse) + Sync) -> f64 {
    let numbered = || uses.iter().enumerate();
    if threads == 1 {
        return cpu_per_op(uses.len(), || numbered().for_each(|(number, nonce)| consume(number, nonce)));
    }
    per_op(uses.len(), || {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let consume = &consume;
                let part = numbered().skip(thread).step_by(threads);
                scope.spawn(move || part.for_each(|(number, nonce)| consume(number, nonce)));
            }
        });
    })
}

/// Bytes of this process in memory.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).expect("a number") * 4096.0
}
