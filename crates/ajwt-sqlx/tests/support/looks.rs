//! Over which connection the revision is read.

use std::{sync::Arc, time::Duration};

use ajwt_server::{Clock, MockClock, RevisionSource, SystemClock};
use sqlx::{Database, Executor, Pool};

/// As after a switch by DNS to another server, while the old one stays up and answers. `old` makes of a connection one
/// that leads there, where the revision is -1; the pool has no more than one.
pub(crate) async fn a_look_at_the_revision_goes_over_no_connection_of_long_ago<DB: Database>(
    pool: Pool<DB>,
    old: &'static str,
    open: impl FnOnce(Pool<DB>, Arc<dyn Clock>) -> Arc<dyn RevisionSource>,
) where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let clock = MockClock::new(SystemClock::new().now());
    let store = open(pool.clone(), Arc::new(clock.clone()));
    let look = async || store.revision().await.expect("read").expect("a revision");
    let is_back = async || {
        while pool.num_idle() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };

    let mut only = pool.acquire().await.expect("the one");
    only.execute(old).await.expect("done");
    drop(only);
    is_back().await;
    assert_eq!(look().await, -1);
    clock.advance(Duration::from_secs(59));
    assert_eq!(look().await, -1, "it is kept for a minute");

    let busy = pool.acquire().await.expect("another");
    clock.advance(Duration::from_secs(1));
    assert_eq!(look().await, -1, "it waits for no other");
    drop(busy);
    is_back().await;
    assert_ne!(look().await, -1, "after a minute");
}
