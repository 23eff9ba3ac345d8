//! Requests whose users are in SQL, beside the same with users in memory.

use std::{sync::Arc, time::Duration};

use ajwt_server::{CachedUserRepository, UserCacheOptions};

use crate::{
    callers::{NAME, builder, ed25519, filled, header, in_memory, time, wait_for_the_next_second},
    changes,
    measure::{SHORT_ROUNDS, in_turn, runtime},
    report::Report,
};

/// Requests of a round.
const REQUESTS: usize = 100;

/// Users that take their turns: each comes once in all rounds.
const USERS: usize = REQUESTS * SHORT_ROUNDS;

/// SQLite tells nobody that it was changed: what is cached ends by this.
const STALENESS: Duration = Duration::from_millis(10);

pub(crate) fn run(report: &mut Report) {
    let runtime = runtime();
    let key = ed25519();
    let (_folder, store) = runtime.block_on(filled(USERS, &key));
    let store = Arc::new(store);
    let in_memory = in_memory(USERS, &key);
    for (what, users, staleness) in [
        ("one user, cached", 1, Duration::from_secs(1)),
        ("10,100 users in turn, cached", USERS, Duration::from_secs(1)),
        ("each request reads the store", 1, Duration::ZERO),
    ] {
        let cached = {
            let _in_runtime = runtime.enter();
            let options = UserCacheOptions::default().max_staleness(staleness).capacity(2 * USERS);
            Arc::new(CachedUserRepository::over(Arc::clone(&store), options))
        };
        let by_store = builder(cached).build().expect("built");
        let by_memory = builder(in_memory.clone()).build().expect("built");
        wait_for_the_next_second();
        let headers = || -> Vec<String> {
            (0..USERS).map(|number| header(&format!("{NAME}{}", number % users), &key)).collect()
        };
        // The first time fills the cache.
        time(&runtime, &by_store, &headers());
        let headers = headers();
        let requests = |round: usize| &headers[round * REQUESTS..][..REQUESTS];
        let [ours, limit] = in_turn(
            SHORT_ROUNDS,
            [&mut |round| time(&runtime, &by_store, requests(round)), &mut |round| {
                time(&runtime, &by_memory, requests(round))
            }],
        );
        report.beside(what, "ns", &ours, "the same, users in memory", &limit);
    }
    let options = UserCacheOptions::default().max_staleness(STALENESS);
    changes::run(report, &runtime, &store, options, 2 * STALENESS);
}
