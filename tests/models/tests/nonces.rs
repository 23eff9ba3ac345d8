//! Nonces in memory: whichever threads meet, one of them is the first.

use std::{thread::available_parallelism, time::Duration};

use ajwt_models::{
    MemoryNonceBackend, schedules,
    time::{ModelClock, advance},
};
use ajwt_server::{
    Clock as _, NonceBackend as _, NonceError, NonceOutcome, NonceUse, StartRule, testing::nonce_use,
};
use shuttle::{
    rand::{Rng as _, thread_rng},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

const TOLERANCE: Duration = Duration::from_secs(20);
const MARGIN: Duration = Duration::from_secs(60);

/// Of an entry, the last millisecond included.
const LIFETIME: Duration = Duration::from_millis(100_001);

fn backend(capacity: u64) -> Arc<MemoryNonceBackend> {
    Arc::new(MemoryNonceBackend::with_clock(capacity, Arc::new(ModelClock)))
}

fn used(nonce: &str) -> NonceUse {
    // Of one second, so that entries share a bucket where they share a shard.
    nonce_use("u", ModelClock.now().as_secs(), nonce, ModelClock.now(), TOLERANCE, MARGIN)
}

fn consume(backend: &MemoryNonceBackend, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
    let mut consuming = backend.consume(nonce);
    match consuming.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(outcome) => outcome,
        std::task::Poll::Pending => panic!("the memory backend waits"),
    }
}

/// Whether a use was the first, one after the other; each use by a thread of its own.
fn consume_at_once(backend: &Arc<MemoryNonceBackend>, uses: Vec<NonceUse>) -> Vec<Result<bool, NonceError>> {
    let threads: Vec<_> = uses
        .into_iter()
        .map(|used| {
            let backend = Arc::clone(backend);
            thread::spawn(move || Ok(consume(&backend, &used)? == NonceOutcome::Fresh))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

fn count(outcomes: &[Result<bool, NonceError>], is: impl Fn(&Result<bool, NonceError>) -> bool) -> usize {
    outcomes.iter().filter(|outcome| is(outcome)).count()
}

fn is_fresh(outcome: &Result<bool, NonceError>) -> bool {
    matches!(outcome, Ok(true))
}

fn is_full(outcome: &Result<bool, NonceError>) -> bool {
    matches!(outcome, Err(NonceError::Full { .. }))
}

#[test]
fn of_two_threads_one_is_first_under_every_schedule() {
    let schedules = schedules::all(|| {
        let backend = backend(10);
        let outcomes = consume_at_once(&backend, vec![used("n"), used("n")]);
        assert_eq!(count(&outcomes, is_fresh), 1, "{outcomes:?}");
        assert_eq!(count(&outcomes, is_full), 0, "{outcomes:?}");
        assert_eq!(backend.len(), 1);
    });
    assert!(schedules > 100, "{schedules} schedules are not all");
}

#[test]
fn of_many_threads_one_is_first_for_each_nonce() {
    schedules::random(2000, || {
        let backend = backend(10);
        let nonces = ["a", "b", "a", "b", "a"];
        let outcomes = consume_at_once(&backend, nonces.map(used).to_vec());
        for nonce in ["a", "b"] {
            let of_nonce = outcomes.iter().zip(nonces).filter(|(_, other)| *other == nonce);
            assert_eq!(of_nonce.filter(|(outcome, _)| is_fresh(outcome)).count(), 1, "{outcomes:?}");
        }
        assert_eq!(backend.len(), 2);
    });
}

#[test]
fn there_is_room_for_as_many_as_there_is() {
    schedules::random(1000, || {
        let backend = backend(2);
        let observer = {
            let backend = Arc::clone(&backend);
            thread::spawn(move || (0..8).for_each(|_| assert!(backend.len() <= 2, "{backend:?}")))
        };
        let outcomes = consume_at_once(&backend, ["a", "b", "c", "d"].map(used).to_vec());
        observer.join().expect("no panic");
        assert_eq!(count(&outcomes, is_fresh), 2, "{outcomes:?}");
        assert_eq!(count(&outcomes, is_full), 2, "{outcomes:?}");
        assert_eq!(backend.len(), 2);
    });
}

#[test]
fn what_has_expired_makes_room_for_all_at_once() {
    schedules::random(600, || {
        let backend = backend(3);
        for nonce in ["a", "b", "c"] {
            assert_eq!(consume(&backend, &used(nonce)).expect("room"), NonceOutcome::Fresh);
        }
        advance(LIFETIME);
        let outcomes = consume_at_once(&backend, ["d", "e", "f"].map(used).to_vec());
        assert_eq!(count(&outcomes, is_fresh), 3, "{outcomes:?}");
        assert_eq!(backend.len(), 3);
    });
}

#[test]
fn an_entry_lives_its_lifetime_while_time_passes_and_others_expire() {
    // Enough for one of them at least to share a shard with the token's.
    let others = 32 * available_parallelism().expect("a number").get();
    schedules::random(2000, move || {
        let backend = backend(others as u64 + 10);
        // The start does not matter any more.
        advance(LIFETIME + Duration::from_millis(1));
        // Of an earlier time, so that a sweep is due in mid model.
        consume(&backend, &used("early")).expect("room");
        advance(Duration::from_secs(1));
        let token = used("n");
        // Of the same time, and used before: their lifetimes are over first.
        for other in 0..others {
            consume(&backend, &used(&other.to_string())).expect("room");
        }
        let users: Vec<_> = (0..3)
            .map(|_| {
                let (backend, token) = (Arc::clone(&backend), token.clone());
                thread::spawn(move || {
                    let mut fresh = Vec::new();
                    for _ in 0..2 {
                        let begun = ModelClock.monotonic();
                        let outcome = consume(&backend, &token).expect("room");
                        if outcome == NonceOutcome::Fresh {
                            fresh.push((begun, ModelClock.monotonic()));
                        }
                    }
                    fresh
                })
            })
            .collect();
        for millis in [99_000, 1000, 1, 1, 99_999, 1] {
            advance(Duration::from_millis(millis));
        }
        let mut fresh: Vec<_> = users.into_iter().flat_map(|user| user.join().expect("no panic")).collect();
        assert!(!fresh.is_empty());
        while let Some((begun, ended)) = fresh.pop() {
            // Whichever of two was first: one that began first may have been held up until after the other.
            let is_apart = |(other_begun, other_ended): &(Duration, Duration)| {
                *other_ended >= begun + LIFETIME || ended >= *other_begun + LIFETIME
            };
            assert!(fresh.iter().all(is_apart), "{begun:?}, {ended:?}, {fresh:?}");
        }
    });
}

#[test]
fn no_token_is_accepted_before_and_after_a_restart() {
    schedules::random(4000, || {
        advance(Duration::from_secs(1000));
        let old = backend(10);
        advance(Duration::from_secs(100));
        // Up to the tolerance ahead or behind.
        let time = ModelClock.now().as_secs() + thread_rng().gen_range(-20..=20);
        let killed = Arc::new(AtomicBool::new(false));
        let before = {
            let killed = Arc::clone(&killed);
            thread::spawn(move || accept(&old, time) && !killed.load(Ordering::SeqCst))
        };
        let passing = thread::spawn(|| (0..5).for_each(|_| advance(Duration::from_secs(9))));
        killed.store(true, Ordering::SeqCst);
        let strict = StartRule::Strict { server_skew: Duration::ZERO };
        let new = MemoryNonceBackend::with_clock(10, Arc::new(ModelClock)).with_start_rule(strict);
        let mut accepted = 0;
        for _ in 0..6 {
            accepted += usize::from(accept(&new, time));
        }
        accepted += usize::from(before.join().expect("no panic"));
        passing.join().expect("no panic");
        assert!(accepted <= 1, "a token dated {time} was accepted {accepted} times");
    });
}

/// What a server does: the window, then the nonce.
fn accept(backend: &MemoryNonceBackend, time: i64) -> bool {
    let now = ModelClock.now();
    let used = nonce_use("u", time, "n", now, TOLERANCE, MARGIN);
    let off = now.as_millis().abs_diff(time * 1000);
    u128::from(off) <= TOLERANCE.as_millis() && matches!(consume(backend, &used), Ok(NonceOutcome::Fresh))
}
