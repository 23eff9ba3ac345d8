//! tokio's time, and a clock that shows it. It stands still until a model lets it pass.

use std::{
    future::{Future, IntoFuture, poll_fn},
    pin::pin,
    task::{Poll, Waker},
    time::Duration,
};

use ajwt_core::Timestamp;
use ajwt_server::Clock;
use shuttle::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// When each execution of a model begins.
const START_MS: i64 = 1_790_000_000_000;

struct Time {
    now_ms: AtomicU64,
    sleepers: Mutex<Vec<(Duration, Waker)>>,
}

shuttle::lazy_static! {
    static ref TIME: Time = Time { now_ms: AtomicU64::new(0), sleepers: Mutex::new(Vec::new()) };
}

/// Lets time pass, and wakes who has slept long enough.
///
/// # Panics
/// For a time of more milliseconds than u64 holds.
pub fn advance(by: Duration) {
    let by = u64::try_from(by.as_millis()).expect("a short time");
    let due: Vec<_> = {
        let mut sleepers = TIME.sleepers.lock().expect("no panic");
        TIME.now_ms.fetch_add(by, Ordering::SeqCst);
        let now = ModelClock.monotonic();
        sleepers.extract_if(.., |(until, _)| *until <= now).collect()
    };
    due.into_iter().for_each(|(_, waker)| waker.wake());
}

/// Shows the time of the model.
#[derive(Clone, Copy, Debug)]
pub struct ModelClock;

impl Clock for ModelClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(START_MS).saturating_add(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(TIME.now_ms.load(Ordering::SeqCst))
    }
}

/// Waits until so much time has passed.
///
/// # Panics
/// After a panic elsewhere in a model.
pub async fn sleep(pause: Duration) {
    let until = ModelClock.monotonic().saturating_add(pause);
    poll_fn(|context| {
        let mut sleepers = TIME.sleepers.lock().expect("no panic");
        if until <= ModelClock.monotonic() {
            return Poll::Ready(());
        }
        sleepers.push((until, context.waker().clone()));
        Poll::Pending
    })
    .await;
}

/// The time was over first.
#[derive(Clone, Copy, Debug)]
pub struct Elapsed;

/// What comes of a future within a time.
///
/// # Errors
/// [`Elapsed`].
pub async fn timeout<F: IntoFuture>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut sleeping) = (pin!(future.into_future()), pin!(sleep(limit)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => sleeping.as_mut().poll(context).map(|()| Err(Elapsed)),
    })
    .await
}
