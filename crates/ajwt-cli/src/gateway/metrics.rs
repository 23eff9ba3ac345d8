//! What the gateway tells Prometheus, besides the counters of ajwt-server.

use std::{fmt, sync::Arc, time::Duration};

use ajwt_server::{Clock, NonceBackend, NonceError, NonceOutcome, NonceUse, SystemClock};
use async_trait::async_trait;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::failure::Failure;

/// How long a decision took, by its outcome: a histogram in seconds.
pub(super) const DECISION_SECONDS: &str = "ajwt_gateway_decision_seconds";

const NONCE_STORE_SECONDS: &str = "ajwt_nonce_store_seconds";
const NONCE_STORE_UP: &str = "ajwt_nonce_store_up";

/// Seconds: a decision takes a tenth of a millisecond in memory, and at most some seconds.
const BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.5];

/// Between two times at which what was measured is counted up, scraped or not.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Collects the metrics of this process from now on.
pub(super) fn install() -> Result<PrometheusHandle, Failure> {
    let metrics = PrometheusBuilder::new().set_buckets(&BUCKETS)?.install_recorder()?;
    describe_counter!("ajwt_authentications_total", "Decisions by outcome and reason");
    describe_histogram!(DECISION_SECONDS, Unit::Seconds, "How long a decision took");
    describe_histogram!(NONCE_STORE_SECONDS, Unit::Seconds, "How long the nonce store took");
    describe_gauge!(NONCE_STORE_UP, "1 if the nonce store answered when it was last asked, else 0");
    let kept = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            kept.run_upkeep();
        }
    });
    Ok(metrics)
}

/// A nonce backend whose answers are measured.
pub(super) struct ObservedNonces {
    nonces: Arc<dyn NonceBackend>,
    clock: Arc<dyn Clock>,
}

impl ObservedNonces {
    pub(super) fn new(nonces: Arc<dyn NonceBackend>) -> Self {
        Self { nonces, clock: Arc::new(SystemClock::new()) }
    }
}

impl fmt::Debug for ObservedNonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.nonces.fmt(f)
    }
}

#[async_trait]
impl NonceBackend for ObservedNonces {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        let begun = self.clock.monotonic();
        let mut question = Question { clock: &*self.clock, begun, answered: false };
        let answer = self.nonces.consume(nonce).await;
        question.answered = true;
        histogram!(NONCE_STORE_SECONDS).record(self.clock.monotonic().saturating_sub(begun));
        gauge!(NONCE_STORE_UP).set(if is_of_store(&answer) { 1.0 } else { 0.0 });
        answer
    }

    async fn close(&self) {
        self.nonces.close().await;
    }
}

/// Whether the store has answered, if only that it is full or knows too little of what was used before.
const fn is_of_store(answer: &Result<NonceOutcome, NonceError>) -> bool {
    matches!(answer, Ok(_) | Err(NonceError::Full { .. } | NonceError::MayHaveBeenUsed { .. }))
}

/// A store that is given up on after a while is down too, and its answer never comes. A client that hangs up
/// before says nothing of the store.
struct Question<'a> {
    clock: &'a dyn Clock,
    begun: Duration,
    answered: bool,
}

/// Shorter than the engine waits.
const SLOW: Duration = Duration::from_secs(1);

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.answered && self.clock.monotonic().saturating_sub(self.begun) >= SLOW {
            gauge!(NONCE_STORE_UP).set(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future,
        pin::pin,
        task::{Context, Waker},
    };

    use ajwt_core::Timestamp;
    use ajwt_server::{MockClock, RepositoryError, testing};

    use super::*;

    /// A store that never answers.
    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl NonceBackend for Silent {
        async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
            future::pending().await
        }
    }

    type Answer = fn() -> Result<NonceOutcome, NonceError>;

    /// A store that always answers the same.
    #[derive(Debug)]
    struct Answers(Answer);

    #[async_trait]
    impl NonceBackend for Answers {
        async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
            self.0()
        }
    }

    #[test]
    fn a_store_that_refuses_is_up() {
        let answers: [(Answer, bool); 5] = [
            (|| Ok(NonceOutcome::Fresh), true),
            (|| Ok(NonceOutcome::Replayed), true),
            (|| Err(NonceError::Full { capacity: 1 }), true),
            (|| Err(NonceError::MayHaveBeenUsed { since: Timestamp::from_secs(0) }), true),
            (|| Err(RepositoryError::timeout("consuming a nonce").into()), false),
        ];
        let (now, seconds) = (SystemClock::new().now(), Duration::from_secs);
        let nonce = testing::nonce_use("guido", now.as_secs(), "a", now, seconds(20), seconds(60));
        for (answer, is_up) in answers {
            let recorder = PrometheusBuilder::new().build_recorder();
            let nonces = ObservedNonces::new(Arc::new(Answers(answer)));
            metrics::with_local_recorder(&recorder, || {
                let asked = pin!(nonces.consume(&nonce));
                assert!(asked.poll(&mut Context::from_waker(Waker::noop())).is_ready());
            });
            let told = recorder.handle().render();
            assert!(told.contains(&format!("ajwt_nonce_store_up {}\n", u8::from(is_up))), "{told}");
        }
    }

    #[test]
    fn a_client_that_hangs_up_says_nothing_of_the_store() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let told = recorder.handle();
        let clock = MockClock::new(SystemClock::new().now());
        let nonces = ObservedNonces { nonces: Arc::new(Silent), clock: Arc::new(clock.clone()) };
        let (now, seconds) = (SystemClock::new().now(), Duration::from_secs);
        let nonce = testing::nonce_use("guido", now.as_secs(), "a", now, seconds(20), seconds(60));
        let given_up_after = |wait| {
            metrics::with_local_recorder(&recorder, || {
                let mut asked = pin!(nonces.consume(&nonce));
                assert!(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                clock.advance(wait);
                asked.set(nonces.consume(&nonce));
            });
            told.render().contains("ajwt_nonce_store_up 0")
        };
        assert!(!given_up_after(SLOW - Duration::from_millis(1)));
        assert!(given_up_after(SLOW));
    }
}
