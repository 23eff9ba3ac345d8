use std::time::Duration;

use ajwt_server::Clock;
use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{runtime::Handle, sync::Mutex};

use crate::{failure::failed, pool::ACQUIRE_TIMEOUT};

/// What the trigger notifies.
const REVISION_CHANNEL: &str = "ajwt_revision";

/// After so long without a word a new connection listens: the old one may have gone silent.
const LISTEN_ANEW: Duration = Duration::from_secs(300);

/// Notifications that are taken as one, besides the first: whoever is told must not wait for an end of them.
const TAKEN_AT_ONCE: usize = 1000;

/// Between two attempts to listen for changes.
const LISTEN_RETRY: Duration = Duration::from_secs(1);

/// After so long it is told again that they fail, and why.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// What listens for changes, once something does. A notification is heard by one that waits for it, so a clone has
/// its own.
#[derive(Debug, Default)]
pub(super) struct Listener(Mutex<Listening>);

#[derive(Debug, Default)]
struct Listening {
    listener: Option<PgListener>,
    /// The one on which it began to listen.
    runtime: Option<Handle>,
    /// Why it does not listen, as it was told last, and when by the monotonic clock.
    told: Option<(String, Duration)>,
}

impl Listener {
    /// Waits for the notification that comes with each change. It also returns when listening has just begun, and when
    /// it cannot: changes may have gone unheard.
    pub(super) async fn changed(&self, pool: &PgPool, clock: &dyn Clock) {
        let mut listening = self.0.lock().await;
        let Some(listener) = &mut listening.listener else {
            match listen(pool).await {
                Ok(listener) => {
                    let runtime = Handle::try_current().ok();
                    *listening = Listening { listener: Some(listener), runtime, told: None };
                }
                Err(error) => {
                    // It is tried every few seconds, whether there are requests or not.
                    let is_news = listening.is_news(&error.to_string(), clock.monotonic());
                    let error = failed("listening for changes")(error);
                    if is_news {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "changes are noticed by polling only, until listening works"
                        );
                    }
                    tokio::time::sleep(LISTEN_RETRY).await;
                }
            }
            return;
        };
        let heard = tokio::time::timeout(LISTEN_ANEW, listener.try_recv()).await;
        let mut goes_on = matches!(heard, Ok(Ok(Some(_))));
        // What else has come by then tells nothing more, and would be a look each.
        for _ in 0..TAKEN_AT_ONCE {
            if !goes_on {
                break;
            }
            goes_on = tokio::select! {
                biased;
                more = listener.try_recv() => matches!(more, Ok(Some(_))),
                () = std::future::ready(()) => return,
            };
        }
        if !goes_on {
            listening.listener = None;
        }
    }
}

impl Clone for Listener {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Listening {
    /// Whether it is to be told that it does not listen for this reason.
    fn is_news(&mut self, reason: &str, now: Duration) -> bool {
        let is_news = self
            .told
            .as_ref()
            .is_none_or(|(told, at)| told.as_str() != reason || now.saturating_sub(*at) >= TOLD_AGAIN_AFTER);
        if is_news {
            self.told = Some((reason.to_owned(), now));
        }
        is_news
    }
}

impl Drop for Listening {
    /// sqlx ends a listener in a task. Where this is dropped there need not be a runtime, and without one that would be
    /// a panic and then another, which end the process. One that has ended will do: it drops the task, and with it the
    /// connection.
    fn drop(&mut self) {
        let _runtime = self.runtime.as_ref().map(Handle::enter);
        self.listener = None;
    }
}

/// A connection that hears of changes, besides the pool's: it is held for good.
async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with((*pool.connect_options()).clone())
        .await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    // A connection that was made anew has missed what happened meanwhile: that must be told.
    listener.eager_reconnect(false);
    listener.listen(REVISION_CHANNEL).await?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_nothing_is_heard_is_told_once_in_ten_minutes() {
        let mut listening = Listening::default();
        let mut is_news = |reason, second| listening.is_news(reason, Duration::from_secs(second));
        assert!(is_news("refused", 0));
        assert!(!is_news("refused", 599));
        assert!(is_news("no database of that name", 599));
        assert!(is_news("refused", 600));
        assert!(!is_news("refused", 1199));
        assert!(is_news("refused", 1200));
    }
}
