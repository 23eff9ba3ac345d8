//! What a request costs as users and keys become more: nothing more.

use std::{sync::Arc, time::Duration};

use ajwt_core::PublicKey;
use ajwt_server::{
    Authenticator, CachedUserRepository, MemoryRepository, User, UserCacheOptions, UserRepository,
};

use crate::{
    callers::{NAME, builder, ed25519, filled, header, in_memory, time, wait_for_the_next_second},
    measure::{SHORT_ROUNDS, cpu_per_op, in_turn, runtime},
    report::Report,
};

/// Requests of a round.
const REQUESTS: usize = 40;

/// Parsed keys that a SQL repository keeps at least.
const KEPT_KEYS: usize = 10_000;

pub(crate) fn run(report: &mut Report) {
    users(report);
    keys_of_a_user(report);
}

/// Spread over all users, so that no cache holds what is read next, but for the keys of 10,000: each row's text is
/// parsed once, and the parsed keys of as many are kept. Of a million each comes for the first time.
fn users(report: &mut Report) {
    let runtime = runtime();
    let key = ed25519();
    let build = |users: Arc<dyn UserRepository<User = User>>| builder(users).build().expect("built");
    let mut folders = Vec::new();
    let mut in_sql = |users: usize| {
        let (folder, store) = runtime.block_on(filled(users, &key));
        folders.push(folder);
        let _in_runtime = runtime.enter();
        let store = Arc::new(store);
        let options = UserCacheOptions::default().max_staleness(Duration::ZERO);
        build(Arc::new(CachedUserRepository::over(store, options)))
    };
    let pems: Vec<_> = (0..1000).map(|_| ed25519().public_key().to_pem()).collect();
    let parse = |round: usize| {
        let pems = pems.iter().cycle().skip(round * REQUESTS).take(REQUESTS);
        cpu_per_op(REQUESTS, || pems.for_each(|pem| drop(PublicKey::from_text(pem).expect("a key"))))
    };
    let [parsed] = in_turn(SHORT_ROUNDS, [&mut |round| parse(round)]);
    report.alone("an Ed25519 key row parsed, once", "ns", &parsed);
    for users in [10_000, 1_000_000] {
        let (few, many) = (build(in_memory(100, &key)), build(in_memory(users, &key)));
        let (few_in_sql, many_in_sql) = (in_sql(100), in_sql(users));
        wait_for_the_next_second();
        if users <= KEPT_KEYS {
            let headers: Vec<_> = (0..users).map(|number| header(&format!("{NAME}{number}"), &key)).collect();
            time(&runtime, &many_in_sql, &headers);
        }
        let time = |authenticator: &Authenticator, users: usize, round: usize| {
            let header =
                |number| header(&format!("{NAME}{}", (round * REQUESTS + number) * 7919 % users), &key);
            time(&runtime, authenticator, &(0..REQUESTS).map(header).collect::<Vec<_>>())
        };
        let [few, many, few_by_query, many_by_query] = in_turn(
            SHORT_ROUNDS,
            [
                &mut |round| time(&few, 100, round),
                &mut |round| time(&many, users, round),
                &mut |round| time(&few_in_sql, 100, round),
                &mut |round| time(&many_in_sql, users, round),
            ],
        );
        report.beside(&format!("{users} users in memory"), "ns", &many, "100 users", &few);
        let what = format!("{users} users in SQLite, each request a query");
        report.beside(&what, "ns", &many_by_query, "100 users", &few_by_query);
    }
}

/// The token names the key that is tried last without that.
fn keys_of_a_user(report: &mut Report) {
    let runtime = runtime();
    let key = ed25519();
    let with_keys = |count: usize| {
        let mut keys: Vec<_> = (1..count).map(|_| ed25519().public_key().clone()).collect();
        keys.push(key.public_key().clone());
        builder(Arc::new(MemoryRepository::new([User::new(NAME).with_keys(keys)]))).build().expect("built")
    };
    let (one, many) = (with_keys(1), with_keys(32));
    wait_for_the_next_second();
    let time = |authenticator: &Authenticator| {
        let headers: Vec<_> = (0..REQUESTS).map(|_| header(NAME, &key)).collect();
        time(&runtime, authenticator, &headers)
    };
    let [one, many] = in_turn(SHORT_ROUNDS, [&mut |_| time(&one), &mut |_| time(&many)]);
    report.beside("32 keys of a user", "ns", &many, "1 key", &one);
}
