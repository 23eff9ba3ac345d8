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

/// Later than the backend's start by more than its rule reaches.
const START: Timestamp = Timestamp::from_secs(1_790_000_000);

pub(crate) fn run(report: &mut Report) {
    let backend = |live: usize| {
        let clock = MockClock::new(START.saturating_sub(Duration::from_secs(3600)));
        let backend = MemoryNonceBackend::with_clock(1 << 26, Arc::new(clock.clone()));
        clock.set(START);
        let before = resident();
        for number in 0..live {
            consume(&backend, &uses(&format!("live {number}"), 1)[0]);
        }
        (backend, clock, (resident() - before) / live as f64)
    };
    let (million, _, bytes) = backend(MILLION);
    report.alone("memory of a live nonce, 1 M live", "bytes", &[bytes]);
    let (ten_millions, clock, bytes) = backend(10 * MILLION);
    report.alone("memory of a live nonce, 10 M live", "bytes", &[bytes]);

    let map = dashmap::DashMap::new();
    let cache =
        moka::sync::Cache::builder().max_capacity(1 << 26).time_to_live(Duration::from_secs(100)).build();
    for nonce in (0..MILLION).flat_map(|number| uses(&format!("live {number}"), 1)) {
        map.insert(*nonce.key().as_bytes(), 0_i64);
        cache.insert(*nonce.key().as_bytes(), ());
    }
    for threads in [1, 2] {
        let fresh = |what: &str, round| uses(&format!("{what} {threads} {round}"), CLAIMS);
        let ours = |backend: &MemoryNonceBackend, uses: &[NonceUse]| {
            on_threads(threads, uses, |nonce| consume(backend, nonce))
        };
        let [one, ten, dashmap, moka] = in_turn(
            ROUNDS,
            [
                &mut |round| ours(&million, &fresh("million", round)),
                &mut |round| ours(&ten_millions, &fresh("ten", round)),
                &mut |round| {
                    on_threads(threads, &fresh("map", round), |nonce| {
                        assert!(map.insert(*nonce.key().as_bytes(), nonce.time()).is_none());
                    })
                },
                &mut |round| {
                    on_threads(threads, &fresh("moka", round), |nonce| {
                        assert!(cache.entry(*nonce.key().as_bytes()).or_insert(()).is_fresh());
                    })
                },
            ],
        );
        let what = format!("claim, 1 M live, {threads} threads");
        report.beside(&what, "ns", &one, "DashMap", &dashmap);
        report.beside(&what, "ns", &one, "moka", &moka);
        report.beside(&format!("claim, 10 M live, {threads} threads"), "ns", &ten, "1 M live", &one);
    }

    // All ten millions expire at once: the slowest claim from then on.
    let before = slowest(&ten_millions, &uses("before the end", CLAIMS));
    clock.advance(Duration::from_secs(3600));
    let mut later = uses("after the end", CLAIMS);
    let now = clock.now();
    for (number, nonce) in later.iter_mut().enumerate() {
        *nonce = one_use(&format!("after the end {number}"), now);
    }
    let after = slowest(&ten_millions, &later);
    report.beside("the slowest of 200,000 claims, as 10 M expire", "ns", &[after], "before", &[before]);
}

fn uses(label: &str, count: usize) -> Vec<NonceUse> {
    (0..count).map(|number| one_use(&format!("{label} {number}"), START)).collect()
}

fn one_use(nonce: &str, now: Timestamp) -> NonceUse {
    nonce_use("guido", now.as_secs(), nonce, now, Duration::from_secs(20), Duration::from_secs(60))
}

fn consume(backend: &MemoryNonceBackend, nonce: &NonceUse) {
    let outcome = backend.consume(nonce).now_or_never().expect("memory waits for nothing");
    assert_eq!(outcome.expect("an answer"), NonceOutcome::Fresh);
}

fn on_threads(threads: usize, uses: &[NonceUse], consume: impl Fn(&NonceUse) + Sync) -> f64 {
    if threads == 1 {
        return cpu_per_op(uses.len(), || uses.iter().for_each(consume));
    }
    per_op(uses.len(), || {
        std::thread::scope(|scope| {
            for part in uses.chunks(uses.len().div_ceil(threads)) {
                let consume = &consume;
                scope.spawn(move || part.iter().for_each(consume));
            }
        });
    })
}

fn slowest(backend: &MemoryNonceBackend, uses: &[NonceUse]) -> f64 {
    uses.iter().map(|nonce| per_op(1, || consume(backend, nonce))).fold(0.0, f64::max)
}

/// Bytes of this process in memory.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).expect("a number") * 4096.0
}
