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

impl Unanswered {
    /// Runs a statement of a pool of so many connections.
    pub(crate) async fn run<T, S>(self: &Arc<Self>, places: u32, statement: S) -> Result<T, sqlx::Error>
    where
        T: Send + 'static,
        S: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        let (_waits, gone) = oneshot::channel::<()>();
        let unanswered = Arc::clone(self);
        GoesOn::new(async move {
            let mut statement = pin!(statement);
            tokio::select! {
                biased;
                result = &mut statement => {
                    unanswered.note(&result);
                    result
                }
                _ = gone => unanswered.finish(places, statement).await,
            }
        })
        .await
    }

    /// What comes of it is read by nobody.
    async fn finish<T>(
        &self,
        places: u32,
        mut statement: Pin<&mut impl Future<Output = Result<T, sqlx::Error>>>,
    ) -> Result<T, sqlx::Error> {
        if let Ok(result) = timeout(CLOSED_AFTER, statement.as_mut()).await {
            self.note(&result);
            return result;
        }
        let answered = self.answered.notified();
        if self.given_up.fetch_add(1, Ordering::Relaxed) >= places {
            tokio::select! {
                result = timeout(KEPT_FOR, statement) => {
                    if let Ok(result) = result {
                        self.note(&result);
                        return result;
                    }
                }
                // Others are, so this one never will be.
                () = answered => {}
            }
        }
        Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()))
    }

    /// An error that the server tells is an answer, too.
    fn note<T>(&self, result: &Result<T, sqlx::Error>) {
        let is_answer = matches!(result, Ok(_) | Err(sqlx::Error::Database(_)));
        if is_answer && self.given_up.swap(0, Ordering::Relaxed) > 0 {
            self.answered.notify_waiters();
        }
    }
}
