//! A recorder of metrics that is not ours, and panics.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::*;

/// Panics at its first gauge, and notes that it did.
#[derive(Debug, Default)]
struct PanicsOnce(AtomicBool);

impl Recorder for PanicsOnce {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        if !self.0.swap(true, Ordering::SeqCst) {
            panic!("a gauge that panics, as this test wants it");
        }
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The sweep that tells the gauges is also what begins refreshes.
#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_does_not_end_the_refreshes() {
    let recorder = PanicsOnce::default();
    // That of this thread, which the cache's tasks run on too: tests beside this one have theirs.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (fixture, _) = Fixture::new();
    fixture.warm_up(&[A]).await;
    pass(302).await;
    assert!(recorder.0.load(Ordering::SeqCst), "it was asked for a gauge");
    let fetches = fixture.script.fetches(A);
    assert!(are_refreshes(&fetches, 300.0) && fetches.len() == 2, "{fetches:?}");
}
