//! The background work: fetches, and the sweep that begins those that are due.

use std::{
    iter,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

use super::{
    Shared,
    endpoint::{Endpoint, Health},
};
use crate::{
    FetchError, JwksResponse,
    sync::{Arc, atomic::Ordering, lock},
};

/// How exact the timer is.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Sweeps from one report on all sets to the next: there may be very many.
const REPORTED_EVERY: u64 = 15;

impl Shared {
    /// Starts a fetch whose endpoint is marked busy. Returns whether it starts at once: else it queues for a
    /// permit.
    pub(super) fn begin(self: &Arc<Self>, endpoint: Arc<Endpoint>) -> bool {
        let permit = Arc::clone(self.lane(&endpoint)).try_acquire_owned().ok();
        let is_at_once = permit.is_some();
        if is_at_once {
            endpoint.take_turn();
        }
        let under_way = UnderWay { shared: Arc::clone(self), endpoint, is_ended: false };
        let runtime = lock(&self.runtime).clone();
        let mut tasks = lock(&self.tasks);
        // Those that have ended need not be kept.
        while tasks.try_join_next().is_some() {}
        if !self.is_closed.load(Ordering::SeqCst) {
            tasks.spawn_on(under_way.fetch(permit), &runtime);
        }
        is_at_once
    }

    /// Where a fetch waits for others of its kind.
    fn lane(&self, endpoint: &Endpoint) -> &Arc<Semaphore> {
        match endpoint.health(self.clock.monotonic()) {
            Health::New => &self.first_fetches,
            Health::Well => &self.refreshes,
            Health::Failing => &self.retries,
        }
    }

    /// Starts to sweep, where nobody does.
    pub(super) fn sweep_on(self: &Arc<Self>, runtime: &Handle) -> JoinHandle<()> {
        self.is_swept.store(true, Ordering::Release);
        runtime.spawn(Sweeping(Arc::clone(self)).run())
    }

    /// Drops what nobody uses, begins what is due, tells of the rest.
    fn sweep(self: &Arc<Self>, number: u64) {
        let now = self.clock.monotonic();
        self.drop_unused(now);
        let endpoints = self.endpoints();
        for endpoint in &endpoints {
            if endpoint.take_due(now) {
                self.begin(Arc::clone(endpoint));
            }
        }
        if number.is_multiple_of(REPORTED_EVERY) {
            self.report.sets(endpoints.iter().map(|endpoint| endpoint.snapshot(now)));
        }
    }
}

/// The task that sweeps. However it ends, with its runtime too, the sets are not swept any more.
struct Sweeping(Arc<Shared>);

impl Sweeping {
    /// Runs until it is aborted.
    async fn run(self) {
        for number in 0_u64.. {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            // What panics is the recorder of metrics or the subscriber of traces, which are not ours.
            if catch_unwind(AssertUnwindSafe(|| self.0.sweep(number))).is_err() {
                tracing::error!("a sweep over the key sets panicked; the next one follows");
            }
        }
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        // Gauges would keep their last values. A second panic, of somebody's recorder, would end the process.
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.report.sets(iter::empty())));
        self.0.is_swept.store(false, Ordering::Release);
    }
}

/// A fetch. However it ends, by a panic or with its runtime too, the endpoint can be fetched again.
struct UnderWay {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    is_ended: bool,
}

impl UnderWay {
    async fn fetch(mut self, permit: Option<OwnedSemaphorePermit>) {
        let shared = Arc::clone(&self.shared);
        let _permit = match permit {
            Some(permit) => Some(permit),
            // An error says that the semaphore is closed, which nobody does.
            None => Arc::clone(shared.lane(&self.endpoint)).acquire_owned().await.ok(),
        };
        let known = self.endpoint.begin(shared.clock.monotonic());
        let result = shared.source.fetch(&self.endpoint.url, &known).await;
        self.end(result);
    }

    fn end(&mut self, result: Result<JwksResponse, FetchError>) {
        self.is_ended = true;
        let publish = |keys| self.shared.publish(&self.endpoint, keys);
        let outcome = self.endpoint.end(result, self.shared.clock.monotonic(), jitter(), publish);
        self.shared.report.fetched(&self.endpoint.shown_url, &outcome);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.is_ended {
            let error = if std::thread::panicking() {
                FetchError::Panic
            } else if self.shared.is_closed.load(Ordering::SeqCst) {
                FetchError::Closed
            } else {
                FetchError::Stopped
            };
            // A second panic, of somebody's recorder of metrics, would end the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.end(Err(error))));
        }
    }
}

/// Within 0 and 1.
fn jitter() -> f64 {
    let mut random = [0];
    // Without it the pause is a little shorter or longer, no more.
    let _ = getrandom::fill(&mut random);
    f64::from(random[0]) / 255.0
}
