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
    sync::{Mutex, Notify, oneshot},
    time::{sleep, timeout},
};

/// How long a server may take from when nobody waits any more until the connection is closed.
const CLOSED_AFTER: Duration = Duration::from_secs(1);

/// For how long the first is kept that is one too many to be closed. For each after it twice as long as for the one
/// before.
const KEPT_FOR: Duration = Duration::from_secs(10);

const KEPT_FOR_AT_MOST: Duration = Duration::from_secs(300);

/// What a server left unanswered.
///
/// A statement goes on when whoever waits for it goes: dropped half-way it would cost its connection. If its answer
/// does not come, the connection is closed, so that a server that went away leaves no pool of connections that lead
/// nowhere. But one that takes connections and commits nothing, since it waits for a standby or for a disk, does not
/// notice that they were closed, and has each of them until it is out of connections for everybody. So as many are closed
/// as the pool may have, until there is an answer. Others keep their places in the pool. Of them one is closed at a time,
/// more and more seldom, for the server may have gone away since, and its place leads to the one that took over.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    /// Since the last answer.
    given_up: AtomicU32,
    answered: Notify,
    /// Whose turn it is to be closed.
    turn: Mutex<()>,
    /// How many had their turn since the last answer.
    turns: AtomicU32,
}

/// The pool that a statement has its connection of.
pub(crate) struct Source<C> {
    /// Connections that it may have.
    pub(crate) places: u32,
    /// Waits until it is closed, for which it needs all connections back.
    pub(crate) closing: C,
}

impl Unanswered {
    /// Runs a statement that has its connection: one that waits for a connection goes with whoever waits for it. What
    /// comes of it is an answer if `is_answer` says so: a server that commits nothing may well go on telling what it has
    /// read.
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
            let result = tokio::select! {
                biased;
                result = &mut statement => Some(result),
                // What comes of it is read by nobody.
                _ = gone => unanswered.finish(source, statement).await,
            };
            let result = result.unwrap_or_else(|| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())));
            if result.as_ref().is_ok_and(is_answer) {
                unanswered.note_answer();
            }
            result
        })
        .await
    }

    /// The statement's result, unless its connection is to be closed before there is any.
    async fn finish<T>(
        &self,
        source: Source<impl Future<Output = ()>>,
        mut statement: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        if let Ok(result) = timeout(CLOSED_AFTER, statement.as_mut()).await {
            return Some(result);
        }
        let answered = self.answered.notified();
        let given_up = self.given_up.fetch_add(1, Ordering::Relaxed);
        if given_up < source.places {
            return None;
        }
        if given_up == source.places {
            tracing::warn!(
                closed = given_up,
                "the database takes connections and answers no statement: some were closed, and the others are kept, \
                 so that it does not run out of them"
            );
        }
        tokio::select! {
            biased;
            result = statement.as_mut() => Some(result),
            // The server answers others. If it does not answer this one now, it hardly will.
            () = answered => timeout(CLOSED_AFTER, statement).await.ok(),
            () = source.closing => None,
            () = self.turn() => None,
        }
    }

    async fn turn(&self) {
        let _turn = self.turn.lock().await;
        let turns = self.turns.load(Ordering::Relaxed);
        sleep(KEPT_FOR.saturating_mul(2_u32.saturating_pow(turns)).min(KEPT_FOR_AT_MOST)).await;
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn note_answer(&self) {
        if self.given_up.swap(0, Ordering::Relaxed) > 0 {
            self.turns.store(0, Ordering::Relaxed);
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
    async fn as_many_are_closed_as_there_are_places() {
        let unanswered = Arc::default();
        for _ in 0..2 {
            let (_pool, mut closed) = given_up(&unanswered, 2).await;
            assert!(is_dropped_within(&mut closed, 2 * CLOSED_AFTER).await);
        }
        let (_pool, mut kept) = given_up(&unanswered, 2).await;
        assert!(!is_dropped_within(&mut kept, KEPT_FOR).await);
    }

    #[tokio::test(start_paused = true)]
    async fn of_those_that_are_kept_one_at_a_time_is_closed_and_more_and_more_seldom() {
        let unanswered = Arc::default();
        let mut kept = Vec::new();
        for _ in 0..8 {
            kept.push(given_up(&unanswered, 0).await);
        }
        sleep(CLOSED_AFTER).await;
        for (turn, (_pool, dropped)) in kept.iter_mut().enumerate() {
            let due = Duration::from_secs([10, 20, 40, 80, 160, 300, 300, 300][turn]);
            assert!(!is_dropped_within(dropped, due - Duration::from_secs(1)).await, "turn {turn}");
            assert!(is_dropped_within(dropped, Duration::from_secs(2)).await, "turn {turn}");
        }
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
        assert!(!is_dropped_within(&mut kept, 2 * CLOSED_AFTER).await, "they tell nothing of it");
        assert!(run(Ok(true)).await.expect("answered"));
        assert!(is_dropped_within(&mut kept, 2 * CLOSED_AFTER).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_goes_with_its_pool() {
        let (pool, mut kept) = given_up(&Arc::default(), 0).await;
        assert!(!is_dropped_within(&mut kept, 2 * CLOSED_AFTER).await);
        pool.send(()).expect("it waits");
        assert!(is_dropped_within(&mut kept, CLOSED_AFTER).await);
    }
}
