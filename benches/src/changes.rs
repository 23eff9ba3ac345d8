//! Requests that each come after a change of their user, in a store whose users are cached.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_core::Username;
use ajwt_server::{
    CachedUserRepository, Found, Freshness, KeyAdmin, MemoryRepository, NewKey, RepositoryError,
    RevisionSource, User, UserCacheOptions, UserRepository,
};
use async_trait::async_trait;
use tokio::runtime::Runtime;

use crate::{
    callers::{builder, ed25519, header, time, wait_for_the_next_second},
    measure::{SHORT_ROUNDS, in_turn},
    report::Report,
};

/// A request comes so long after a change: the cache must have noticed it by then.
pub(crate) fn run<S>(
    report: &mut Report,
    runtime: &Runtime,
    store: &Arc<S>,
    options: UserCacheOptions,
    noticed: Duration,
) where
    S: UserRepository<User = User> + RevisionSource + KeyAdmin,
{
    let (name, key) = (Username::new("ada").expect("a name"), ed25519());
    runtime.block_on(async {
        store.add_user(&name).await.expect("added");
        store.add_key(&name, &NewKey::of_key(key.public_key().clone())).await.expect("added");
    });
    let reads = Arc::new(AtomicUsize::new(0));
    let cached = {
        let _in_runtime = runtime.enter();
        let counted = Arc::new(Counted { store: Arc::clone(store), reads: Arc::clone(&reads) });
        Arc::new(CachedUserRepository::new(counted, store.clone(), options))
    };
    let by_store = builder(cached).build().expect("built");
    let user = User::new(name.as_str()).with_keys([key.public_key().clone()]);
    let by_memory = builder(Arc::new(MemoryRepository::new([user]))).build().expect("built");
    wait_for_the_next_second();
    let request = || [header(name.as_str(), &key)];
    time(runtime, &by_store, &request());
    let mut read = Vec::new();
    let [ours, limit] = in_turn(
        SHORT_ROUNDS,
        [
            &mut |_| {
                runtime.block_on(async {
                    store.set_user_active(&name, true).await.expect("changed");
                    tokio::time::sleep(noticed).await;
                });
                reads.store(0, Ordering::Relaxed);
                let took = time(runtime, &by_store, &request());
                read.push(reads.load(Ordering::Relaxed) as f64);
                took
            },
            &mut |_| {
                runtime.block_on(async { tokio::time::sleep(noticed).await });
                time(runtime, &by_memory, &request())
            },
        ],
    );
    report.beside("each request after a change", "ns", &ours, "the same, users in memory", &limit);
    report.alone("the same: reads of the store for each", "", &read);
}

/// Counts reads.
#[derive(Debug)]
struct Counted<S> {
    store: Arc<S>,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl<S: UserRepository<User = User>> UserRepository for Counted<S> {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        freshness: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.find_by_username(username, freshness).await
    }
}
