//! Statements that nobody waits for any more.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ajwt_server::GoesOn;
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

/// How long a server may take from when nobody waits any more until the connection is closed.
const CLOSED_AFTER: Duration = Duration::from_secs(1);

/// The same, of those that keep their places in the pool.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// What a server left unanswered.
///
/// A statement goes on when whoever waits for it goes: dropped half-way it would cost its connection. If its answer
/// does not come, the connection is closed, so that a server that went away leaves no pool of connections that lead
/// nowhere. But one that takes connections and commits nothing, since it waits for a standby or for a disk, does not
/// notice that they were closed, and has each of them until it is out of connections for everybody. So no more are closed
/// than the pool may have, until there is an answer; others keep their places in the pool.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    /// Since the last answer.
    given_up: AtomicU32,
    answered: Notify,
}

/// The pool that a statement has its connection of.
pub(crate) struct Source<C> {
    /// Connections that it may have.
    pub(crate) places: u32,
    /// Waits until it is closed, for which it needs all connections back.
    pub(crate) closing: C,
}

impl Unanswered {
    /// Runs a statement. What comes of it is an answer if `is_answer` says so: a server that commits nothing may well
    /// go on telling what it has read.
    pub(crate) async fn run<T, C, S>(
        self: &Arc<Self>,
        source: Source<C>,
        is_answer: fn(&T) -> bool,
        statement: S,
    ) -> Result<T, sqlx::Error>
    where
        T: Send + 'static,
        C: Future<Output = ()> + Send + 'static,
        S: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        let (_waits, gone) = oneshot::channel::<()>();
        let unanswered = Arc::clone(self);
        GoesOn::new(async move {
            let mut statement = pin!(statement);
            tokio::select! {
                biased;
                result = &mut statement => {
                    unanswered.note(&result, is_answer);
                    result
                }
                _ = gone => unanswered.finish(source, is_answer, statement).await,
            }
        })
        .await
    }

    /// What comes of it is read by nobody.
    async fn finish<T>(
        &self,
        source: Source<impl Future<Output = ()>>,
        is_answer: fn(&T) -> bool,
        mut statement: Pin<&mut impl Future<Output = Result<T, sqlx::Error>>>,
    ) -> Result<T, sqlx::Error> {
        let mut result = timeout(CLOSED_AFTER, statement.as_mut()).await.ok();
        let answered = self.answered.notified();
        if result.is_none() && self.given_up.fetch_add(1, Ordering::Relaxed) >= source.places {
            tokio::select! {
                late = timeout(KEPT_FOR, statement) => result = late.ok(),
                // Others are, so this one never will be.
                () = answered => {}
                () = source.closing => {}
            }
        }
        let result = result.unwrap_or_else(|| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())));
        self.note(&result, is_answer);
        result
    }

    fn note<T>(&self, result: &Result<T, sqlx::Error>, is_answer: fn(&T) -> bool) {
        if result.as_ref().is_ok_and(is_answer) && self.given_up.swap(0, Ordering::Relaxed) > 0 {
            self.answered.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// Nobody waits for a statement, which is never answered; tells when it is dropped, and its connection with it.
    async fn given_up(
        unanswered: &Arc<Unanswered>,
        places: u32,
    ) -> (oneshot::Sender<()>, oneshot::Receiver<()>) {
        let (close, closed) = oneshot::channel();
        let (held, dropped) = oneshot::channel();
        let closing = async move {
            let _ = closed.await;
        };
        let statement = async move {
            let _held: oneshot::Sender<()> = held;
            pending().await
        };
        let run = unanswered.run(Source { places, closing }, |()| true, statement);
        assert!(timeout(Duration::from_millis(1), run).await.is_err());
        (close, dropped)
    }

    async fn is_dropped_within(dropped: &mut oneshot::Receiver<()>, time: Duration) -> bool {
        timeout(time, dropped).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_closed_as_there_are_places_and_others_kept_for_a_while() {
        let unanswered = Arc::default();
        let (_pool, mut first) = given_up(&unanswered, 1).await;
        assert!(is_dropped_within(&mut first, 2 * CLOSED_AFTER).await);
        let (_pool, mut second) = given_up(&unanswered, 1).await;
        assert!(!is_dropped_within(&mut second, KEPT_FOR).await);
        assert!(is_dropped_within(&mut second, 2 * CLOSED_AFTER).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_goes_when_another_is_answered() {
        let unanswered = Arc::default();
        let (_pool, mut kept) = given_up(&unanswered, 0).await;
        assert!(!is_dropped_within(&mut kept, 2 * CLOSED_AFTER).await);
        let run = |answer| {
            let source = Source { places: 1, closing: pending() };
            unanswered.run(source, |is_answer: &bool| *is_answer, ready(answer))
        };
        assert!(!run(Ok(false)).await.expect("answered"));
        assert!(run(Err(sqlx::Error::RowNotFound)).await.is_err());
        assert!(!is_dropped_within(&mut kept, CLOSED_AFTER).await, "they tell nothing of it");
        assert!(run(Ok(true)).await.expect("answered"));
        assert!(is_dropped_within(&mut kept, CLOSED_AFTER).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_goes_with_its_pool() {
        let (pool, mut kept) = given_up(&Arc::default(), 0).await;
        assert!(!is_dropped_within(&mut kept, 2 * CLOSED_AFTER).await);
        pool.send(()).expect("it waits");
        assert!(is_dropped_within(&mut kept, CLOSED_AFTER).await);
    }
}
