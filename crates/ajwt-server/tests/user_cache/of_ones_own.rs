//! A repository around another one, whose users hold more than that one knows of.

use crate::*;

/// The users of a store, suspended by the application in a place of its own, which raises no revision.
#[derive(Debug)]
struct Suspended {
    store: Arc<Store>,
    all: AtomicBool,
}

#[async_trait]
impl UserRepository for Suspended {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        freshness: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        let found = self.store.find_by_username(username, freshness).await?;
        let active = !self.all.load(Ordering::SeqCst);
        let suspend = |user: Arc<User>| Arc::new(User::new(user.username()).with_active(active));
        Ok(found.map(|found| found.map(suspend)))
    }
}

#[tokio::test(start_paused = true)]
async fn what_raises_no_revision_is_read_anew_after_max_staleness() {
    let store = Arc::new(Store::default());
    store.set("guido", true);
    let users = Arc::new(Suspended { store: Arc::clone(&store), all: AtomicBool::new(false) });
    let options = UserCacheOptions::default().clock(Arc::new(TokioClock(Instant::now())));
    let cache = CachedUserRepository::new(Arc::clone(&users) as _, store, options);
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)));
    pass(900).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, MayBeCached)));
    users.all.store(true, Ordering::SeqCst);
    pass(200).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((false, Current)));
}
