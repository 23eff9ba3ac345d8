//! The backend on real Redis servers, which the tests start on free ports and stop by process id.

mod batches;
mod cluster;
mod eviction;
mod failover;
mod faults;
mod many_processes;
mod proxy;
mod single;
mod slots;
#[cfg(feature = "tls")]
mod tls;

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use ajwt_redis::{RedisFault, RedisNonceBackend, RedisNonceBackendBuilder};
use ajwt_server::{Clock as _, NonceBackend as _, NonceError, NonceOutcome, NonceUse, SystemClock, testing};

/// For tests that are not about the timeout: the machine may be busy.
const PATIENT: Duration = Duration::from_secs(10);

fn builder() -> RedisNonceBackendBuilder {
    RedisNonceBackend::builder("test").timeout(PATIENT)
}

/// Of the driver's own time limits, which are half a second and one.
fn patient_driver() -> redis::AsyncConnectionConfig {
    redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENT))
        .set_response_timeout(Some(PATIENT))
}

/// Runs a scenario, again where the machine stalled meanwhile, and judges what comes of it.
async fn undisturbed<J: FnOnce()>(scenario: impl AsyncFn() -> J) {
    const STALL: Duration = Duration::from_millis(250);

    for _ in 0..5 {
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let watch = tokio::spawn({
            let longest = Arc::clone(&longest);
            async move {
                loop {
                    let begun = tokio::time::Instant::now();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let mut longest = longest.lock().expect("a lock");
                    *longest = begun.elapsed().max(*longest);
                }
            }
        });
        let judge = scenario().await;
        watch.abort();
        if *longest.lock().expect("a lock") < STALL {
            return judge();
        }
    }
    panic!("the machine stalls again and again");
}

/// A use of a token dated now.
fn use_now(nonce: &str) -> NonceUse {
    use_at(nonce, 0)
}

/// A use of a token dated so far ahead that no start rule refuses it.
fn use_ahead(nonce: &str) -> NonceUse {
    use_at(nonce, 600)
}

fn use_at(nonce: &str, ahead: i64) -> NonceUse {
    // The date stays that of the first call: a second one makes the same token.
    static DATES: Mutex<BTreeMap<(String, i64), i64>> = Mutex::new(BTreeMap::new());

    let now = SystemClock::new().now();
    let mut dates = DATES.lock().expect("a lock");
    let time = *dates.entry((nonce.to_owned(), ahead)).or_insert(now.as_secs() + ahead);
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    testing::nonce_use("guido", time, nonce, now, tolerance, margin)
}

async fn fresh(backend: &RedisNonceBackend, nonce: &NonceUse) {
    expect(backend, nonce, NonceOutcome::Fresh).await;
}

async fn replayed(backend: &RedisNonceBackend, nonce: &NonceUse) {
    expect(backend, nonce, NonceOutcome::Replayed).await;
}

#[track_caller]
fn expect<'a>(
    backend: &'a RedisNonceBackend,
    nonce: &'a NonceUse,
    due: NonceOutcome,
) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        match backend.consume(nonce).await {
            Ok(outcome) => assert_eq!(outcome, due, "at {caller}"),
            Err(error) => panic!("at {caller}: {}", told(&error)),
        }
    }
}

async fn may_have_been_used(backend: &RedisNonceBackend, nonce: &NonceUse) {
    let answer = backend.consume(nonce).await;
    assert!(matches!(answer, Err(NonceError::MayHaveBeenUsed { .. })), "{answer:?}");
}

/// The fault behind an error. A timeout has none.
async fn fault(backend: &RedisNonceBackend, nonce: &NonceUse) -> Option<RedisFault> {
    let error = backend.consume(nonce).await.expect_err("an error");
    assert!(matches!(error, NonceError::Store(_)), "{error:?}");
    error.source().map(|source| source.downcast_ref::<RedisFault>().expect("a fault").clone())
}

/// Waits until a nonce is accepted again.
async fn recovers(backend: &Arc<RedisNonceBackend>, label: &str) {
    let mut last = String::new();
    for round in 0..200 {
        match backend.consume(&use_ahead(&format!("{label} {round}"))).await {
            Ok(NonceOutcome::Fresh) => return,
            Ok(NonceOutcome::Replayed) => panic!("{label}: a new nonce is Replayed"),
            Err(error) => last = told(&error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{label}: it does not recover: {last}");
}

fn told(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |error| (**error).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
