//! Refusals that take whole quanta of time, so that nobody sees in them what a decision took.

use std::{
    collections::BTreeMap,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{BuildError, Clock as _, SystemClock};

/// Holds refusals back until they are due. By a thread of its own: a runtime that is idle sleeps for whole
/// milliseconds from the moment at which its work was done, and so wakes at a time that tells that moment.
#[derive(Debug)]
pub(crate) struct RefusalTimer {
    quantum: Duration,
    clock: SystemClock,
    waiting: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    due: Duration,
    release: oneshot::Sender<()>,
}

impl RefusalTimer {
    /// Starts the thread. It ends when the timer is dropped.
    pub(crate) fn start(quantum: Duration) -> Result<Self, BuildError> {
        let clock = SystemClock::new();
        let (waiting, arriving) = mpsc::channel();
        let run = move || release_when_due(&arriving, clock);
        let thread = thread::Builder::new().name("ajwt-refusals".into()).spawn(run);
        thread.map_err(|error| BuildError::Thread { kind: error.kind() })?;
        Ok(Self { quantum, clock, waiting })
    }

    /// The time by which it counts.
    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Waits for the next end of a quantum; the first began then.
    pub(crate) async fn wait(&self, begun: Duration) {
        let now = self.now();
        let due = next_end(begun, now, self.quantum);
        let rest = due.saturating_sub(now);
        let (release, released) = oneshot::channel();
        let release = async { self.waiting.send(Waiting { due, release }).is_ok() && released.await.is_ok() };
        // The thread lasts as long as the timer. Should it be gone all the same, left behind by a fork or ended by
        // a waker that panicked, nobody waits for ever, and nobody is let go too soon.
        let limit = rest.saturating_add(self.quantum);
        if !tokio::time::timeout(limit, release).await.unwrap_or(true) {
            tokio::time::sleep(rest).await;
        }
    }
}

fn next_end(begun: Duration, now: Duration, quantum: Duration) -> Duration {
    let whole = now.saturating_sub(begun).as_nanos().checked_div(quantum.as_nanos()).unwrap_or(0);
    let quanta = u32::try_from(whole).unwrap_or(u32::MAX).saturating_add(1);
    begun.saturating_add(quantum.saturating_mul(quanta))
}

fn release_when_due(arriving: &mpsc::Receiver<Waiting>, clock: SystemClock) {
    let mut waiting: BTreeMap<Duration, Vec<oneshot::Sender<()>>> = BTreeMap::new();
    loop {
        let now = clock.monotonic();
        while let Some(first) = waiting.first_entry().filter(|first| *first.key() <= now) {
            for release in first.remove() {
                // Whoever gave up does not wait for it.
                let _ = release.send(());
            }
        }
        let arrived = match waiting.first_key_value() {
            Some((due, _)) => arriving.recv_timeout(due.saturating_sub(now)),
            None => arriving.recv().map_err(RecvTimeoutError::from),
        };
        match arrived {
            Ok(Waiting { due, release }) => waiting.entry(due).or_default().push(release),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_end_is_after_now_and_a_whole_quantum_from_the_beginning() {
        let millis = Duration::from_millis;
        let nano = Duration::from_nanos(1);
        for (now, due) in [
            (millis(100), millis(105)),
            (millis(100) + nano, millis(105)),
            (millis(105) - nano, millis(105)),
            (millis(105), millis(110)),
            (millis(105) + nano, millis(110)),
            (millis(5_000), millis(5_005)),
            // A clock that goes back.
            (millis(90), millis(105)),
        ] {
            assert_eq!(next_end(millis(100), now, millis(5)), due, "{now:?}");
        }
        assert_eq!(next_end(Duration::ZERO, Duration::MAX, millis(1)), millis(1) * u32::MAX, "no overflow");
    }

    #[tokio::test]
    async fn each_is_released_when_it_is_due() {
        // Long enough for a machine that stalls.
        let quantum = Duration::from_secs(3);
        let timer = RefusalTimer::start(quantum).expect("a thread");
        let begun = timer.now();
        let wait = async |since: Duration| {
            timer.wait(since).await;
            timer.now()
        };
        // The later one comes first.
        let (later, sooner) = tokio::join!(wait(begun + quantum), wait(begun));
        assert!(begun + quantum <= sooner && sooner < begun + 2 * quantum, "{sooner:?} since {begun:?}");
        assert!(begun + 2 * quantum <= later, "{later:?} since {begun:?}");
    }

    #[tokio::test]
    async fn without_the_thread_nobody_waits_for_ever_or_too_short() {
        let quantum = Duration::from_millis(50);
        let (left_behind, never_read) = mpsc::channel();
        let (closed, _) = mpsc::channel();
        for waiting in [left_behind, closed] {
            let timer = RefusalTimer { quantum, clock: SystemClock::new(), waiting };
            tokio::time::timeout(Duration::from_secs(10), timer.wait(Duration::ZERO)).await.expect("it ends");
            assert!(timer.now() >= quantum, "{:?}", timer.now());
        }
        drop(never_read);
    }

    #[tokio::test]
    async fn the_thread_releases_what_is_due_and_ends_with_the_timer() {
        let clock = SystemClock::new();
        let (waiting, arriving) = mpsc::channel();
        let thread = thread::spawn(move || release_when_due(&arriving, clock));
        let wait_until = |due| {
            let (release, released) = oneshot::channel();
            waiting.send(Waiting { due, release }).expect("it runs");
            released
        };
        let soon = Duration::from_millis(50);
        let (never, due) = (wait_until(Duration::MAX), wait_until(soon));
        due.await.expect("the thread released it");
        assert!(clock.monotonic() >= soon, "{:?}", clock.monotonic());
        drop(waiting);
        thread.join().expect("no panic");
        assert!(never.await.is_err(), "nobody is left to wait");
    }
}
