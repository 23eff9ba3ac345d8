//! What recorders of metrics are told, and one that panics.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

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

/// What the gauges of the one set were set to since the last call; else they are 0.
fn gauges(told: &Snapshotter) -> [f64; 2] {
    let gauge = |value: DebugValue| match value {
        DebugValue::Gauge(value) => value.into_inner(),
        _ => panic!("{value:?} is no gauge"),
    };
    let told = told.snapshot().into_vec().into_iter();
    let gauges = told.filter(|(key, ..)| key.key().name().ends_with("_seconds"));
    gauges.map(|(.., value)| gauge(value)).collect::<Vec<_>>().try_into().expect("two gauges")
}

/// Else they would show for as long as the process lives that all is well.
#[tokio::test(start_paused = true)]
async fn gauges_end_with_the_cache() {
    let recorder = DebuggingRecorder::new();
    let told = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    for is_dropped in [false, true] {
        let (fixture, _) = Fixture::new();
        fixture.warm_up(&[A]).await;
        pass(20).await;
        assert!(gauges(&told).iter().all(|gauge| *gauge > 0.0));
        if is_dropped {
            drop(fixture);
        } else {
            fixture.cache.close().await;
        }
        pass(MINUTE).await;
        assert!(gauges(&told).iter().all(|gauge| gauge.is_nan()), "dropped: {is_dropped}");
    }
}

#[test]
fn gauges_end_with_the_runtime_of_the_cache_and_come_back_on_another() {
    let recorder = DebuggingRecorder::new();
    let told = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (fixture, key) = paused_runtime().block_on(async {
        let (fixture, key) = Fixture::new();
        fixture.warm_up(&[A]).await;
        pass(20).await;
        (fixture, key)
    });
    assert!(gauges(&told).iter().all(|gauge| gauge.is_nan()));
    paused_runtime().block_on(async {
        assert!(fixture.has(&[A], &key).await);
        pass(2).await;
        assert!(gauges(&told).iter().all(|gauge| *gauge > 0.0));
    });
}
