//! Servers that stop, hang and run out of connections: the answer is 503 in time, never an accept, and service
//! resumes by itself.

#[path = "proxy.rs"]
mod proxy;

use std::{any::Any, marker::PhantomData, sync::Arc, time::Duration};

use ajwt_core::{PrivateKey, SignedToken};
use ajwt_server::{
    Authenticator, Clock as _, KeySource, NewKey, NonceBackend as _, NonceError, NonceOutcome, Reason,
    RejectionKind, SystemClock, UsageStore, testing,
};
use ajwt_test_servers::sql::{Kind, Server};
use sqlx::{Database, Executor, Pool};
use tokio::{sync::mpsc, task::JoinSet};

pub(crate) use self::proxy::{Proxy, until_held};
use crate::store::{self, Store, add_guido, authenticate, name, sign};

/// The engine waits 2 s; the rest is for a busy machine.
const IN_TIME: Duration = Duration::from_secs(5);

/// Tokens, and what came of them.
type Seen = Vec<(SignedToken, Result<String, Reason>)>;

/// What these tests ask of a database besides.
pub(crate) trait Served: Store + UsageStore {
    const KIND: Kind;
    /// Arguments of a server that takes twenty connections.
    const TWENTY_CONNECTIONS: &'static [&'static str];
    /// A database that every server has.
    const MAINTENANCE: &'static str;
    /// SQL that lists the connections of the tested service.
    const ITS_CONNECTIONS: &'static str;
    /// SQL by which each nonce takes a fifth of a second.
    const SLOW_NONCES: &'static [&'static str];
    /// What a client sends to commit, and in no other message.
    const COMMIT: &'static [u8];
    /// Arguments of a server that can wait for a standby.
    const FOR_STANDBYS: &'static [&'static str];
    /// SQL by which each commit waits for a standby, and there is none.
    const STANDBY_IS_GONE: &'static [&'static str];
    const NO_STANDBY_IS_NEEDED: &'static [&'static str];

    /// SQL that ends a connection.
    fn cut_off(id: &str) -> String;
    /// A connection, if the server has one left. It ends when dropped.
    async fn connection(url: &str) -> Option<Box<dyn Any>>;
    /// Runs this on each connection that is idle in the pool, and gives them back as they are then; how many.
    async fn on_idle_connections(&self, sql: &'static str) -> usize;
}

/// As [`Served::on_idle_connections`], of a pool.
pub(crate) async fn on_idle_connections<DB: Database>(pool: &Pool<DB>, sql: &'static str) -> usize
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let all_idle = async || {
        // One whose last question is not answered in time is closed.
        while pool.num_idle() < usize::try_from(pool.size()).expect("few") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        pool.num_idle()
    };
    let mut taken = Vec::new();
    for _ in 0..all_idle().await {
        let mut connection = pool.acquire().await.expect("one");
        let _ = connection.execute(sql).await;
        taken.push(connection);
    }
    drop(taken);
    all_idle().await
}

/// A server of the test's own with a user, and what authenticates it.
struct Service<S> {
    server: Server,
    /// Which store is tested.
    _store: PhantomData<S>,
    authenticator: Arc<Authenticator>,
    key: Arc<PrivateKey>,
}

async fn service<S: Served>(arguments: &[&str]) -> Service<S> {
    let server = Server::start(S::KIND, arguments);
    S::open(&server.url(S::MAINTENANCE)).await.execute("CREATE DATABASE ajwt").await;
    let store = S::open(&server.url("ajwt")).await;
    store::set_up(&store).await;
    let key = Arc::new(add_guido(&store).await);
    let authenticator = Arc::new(store::authenticator(&store));
    let service = Service::<S> { server, _store: PhantomData, authenticator, key };
    // As many connections as the pool will have, all idle.
    for outcome in service.at_once(40).await {
        assert_eq!(outcome, Ok("guido".to_owned()));
    }
    service
}

impl<S: Served> Service<S> {
    fn token(&self) -> SignedToken {
        sign("guido", &self.key)
    }

    /// One request, answered in time.
    async fn request(&self, token: &SignedToken) -> Result<String, Reason> {
        in_time(&self.authenticator, token).await
    }

    /// As many requests at once, each with a token of its own.
    async fn at_once(&self, requests: usize) -> Vec<Result<String, Reason>> {
        let mut set = JoinSet::new();
        for _ in 0..requests {
            let (authenticator, token) = (Arc::clone(&self.authenticator), self.token());
            set.spawn(async move { in_time(&authenticator, &token).await });
        }
        set.join_all().await
    }

    /// So many callers, each of whom goes on until a request is refused. Ten requests were accepted by then.
    async fn under_load(&self, callers: usize) -> JoinSet<Seen> {
        let (accepted, mut ten) = mpsc::channel(10);
        let mut load = JoinSet::new();
        for _ in 0..callers {
            let (authenticator, key) = (Arc::clone(&self.authenticator), Arc::clone(&self.key));
            let accepted = accepted.clone();
            load.spawn(async move {
                let mut seen = Vec::new();
                loop {
                    let token = sign("guido", &key);
                    let outcome = in_time(&authenticator, &token).await;
                    let ends = outcome.is_err();
                    seen.push((token, outcome));
                    if ends {
                        return seen;
                    }
                    let _ = accepted.try_send(());
                }
            });
        }
        drop(accepted);
        for _ in 0..10 {
            ten.recv().await.expect("some are accepted");
        }
        load
    }

    /// What was accepted under a load is so no more, and where nobody knows, once at most.
    async fn accepts_none_twice(&self, seen: &Seen) {
        let (accepted, unknown): (Vec<_>, Vec<_>) = seen.iter().partition(|(_, outcome)| outcome.is_ok());
        for (token, outcome) in unknown {
            assert!(is_unavailable(outcome), "{outcome:?}");
            // Whether the server had noted it is not known.
            let again = self.request(token).await;
            assert!(again.is_ok() || again == Err(Reason::Replayed), "{again:?}");
            assert_eq!(self.request(token).await, Err(Reason::Replayed));
        }
        for (token, _) in accepted.into_iter().rev().take(200) {
            assert_eq!(self.request(token).await, Err(Reason::Replayed), "it was accepted before");
        }
    }

    /// Within a moment, in which it may still be unavailable.
    async fn resumes(&self) {
        for _ in 0..50 {
            let outcome = self.request(&self.token()).await;
            if outcome.is_ok() {
                return;
            }
            assert!(is_unavailable(&outcome), "{outcome:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("service does not resume");
    }

    async fn all_are_unavailable(&self, requests: usize) {
        for outcome in self.at_once(requests).await {
            assert!(is_unavailable(&outcome), "{outcome:?}");
        }
    }
}

async fn in_time(authenticator: &Authenticator, token: &SignedToken) -> Result<String, Reason> {
    let clock = SystemClock::new();
    let start = clock.monotonic();
    let outcome = authenticate(authenticator, token).await;
    let elapsed = clock.monotonic() - start;
    assert!(elapsed < IN_TIME, "answered {outcome:?} after {elapsed:?}");
    outcome
}

/// What came of a load, once each of its callers was refused.
async fn end_of(load: JoinSet<Seen>) -> Seen {
    let ended = tokio::time::timeout(Duration::from_secs(60), load.join_all()).await;
    ended.expect("nobody is accepted without a server").into_iter().flatten().collect()
}

fn is_unavailable<T>(outcome: &Result<T, Reason>) -> bool {
    outcome.as_ref().is_err_and(|reason| reason.kind() == RejectionKind::Unavailable)
}

/// The pool is full of connections that the server closed meanwhile: nobody notices.
pub(crate) async fn a_restart_between_requests_is_not_noticed<S: Served>() {
    let mut service = service::<S>(&[]).await;
    let used = service.token();
    assert!(service.request(&used).await.is_ok());
    for crash in [false, true] {
        if crash {
            service.server.kill();
        } else {
            service.server.stop();
        }
        service.server.start_again();
        assert_eq!(service.request(&service.token()).await.as_deref(), Ok("guido"), "crash: {crash}");
        assert_eq!(service.request(&used).await, Err(Reason::Replayed), "crash: {crash}");
        for outcome in service.at_once(40).await {
            assert_eq!(outcome.as_deref(), Ok("guido"), "crash: {crash}");
        }
    }
}

/// The server goes away under a load of requests, whose tokens work at most once altogether.
pub(crate) async fn a_server_that_stops_in_mid_request_is_503<S: Served>() {
    let mut service = service::<S>(&[]).await;
    for crash in [false, true] {
        let load = service.under_load(8).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        if crash {
            service.server.kill();
        } else {
            service.server.stop();
        }
        let seen = end_of(load).await;
        service.all_are_unavailable(20).await;

        service.server.start_again();
        assert_eq!(service.request(&service.token()).await.as_deref(), Ok("guido"));
        service.accepts_none_twice(&seen).await;
    }
}

/// The server hangs and keeps its connections: more requests than the pool has connections are
/// answered in time, and the first one after it is back works.
pub(crate) async fn a_server_that_hangs_is_503_in_time<S: Served>() {
    let service = service::<S>(&[]).await;
    let token = service.token();
    service.server.pause();
    let outcome = service.request(&token).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    for _ in 0..3 {
        service.all_are_unavailable(30).await;
    }
    service.server.resume();
    assert_eq!(service.request(&service.token()).await.as_deref(), Ok("guido"));
    let late = service.request(&token).await;
    assert!(late.is_ok() || late == Err(Reason::Replayed), "{late:?}");
    assert_eq!(service.request(&token).await, Err(Reason::Replayed));
    for outcome in service.at_once(40).await {
        assert_eq!(outcome.as_deref(), Ok("guido"));
    }
}

/// The server hangs between the read of the user and the nonce: at any point, with more callers than connections.
pub(crate) async fn a_server_that_hangs_in_mid_request_accepts_nothing_twice<S: Served>() {
    let service = service::<S>(&[]).await;
    for _ in 0..3 {
        let load = service.under_load(40).await;
        service.server.pause();
        let seen = end_of(load).await;
        service.server.resume();
        assert_eq!(service.request(&service.token()).await.as_deref(), Ok("guido"));
        service.accepts_none_twice(&seen).await;
    }
}

/// Connections go silent without being closed, as when a host vanishes or a firewall forgets them;
/// new ones work. Those of the pool are given up one by one, not kept for ever.
pub(crate) async fn connections_that_go_silent_are_replaced<S: Served>() {
    let (service, proxy) = behind_proxy::<S>().await;
    proxy.silence();
    let silent = service.at_once(40).await;
    assert!(silent.iter().any(is_unavailable), "the pool's connections were in use");
    service.resumes().await;
    for outcome in service.at_once(40).await {
        assert_eq!(outcome.as_deref(), Ok("guido"));
    }
}

/// They do so under work in the background, which is given up one at a time.
pub(crate) async fn connections_that_go_silent_in_the_background_are_replaced<S: Served>() {
    let (service, proxy) = behind_proxy::<S>().await;
    let store = S::open(&service.server.url_at(proxy.port, "ajwt")).await;
    let nonces = store.nonces(Arc::new(SystemClock::new()));
    let authenticator = store::authenticator(&store);
    proxy.silence();
    let limit = Duration::from_millis(300);
    let guido = name("guido");
    for _ in 0..15 {
        // Most of them find a connection that is silent; new ones work.
        let _ = tokio::time::timeout(limit, S::sweep(&nonces)).await;
        let _ = tokio::time::timeout(limit, store.set_user_active(&guido, true)).await;
        // Until they are back in the pool.
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.silence();
    }
    for _ in 0..50 {
        if in_time(&authenticator, &service.token()).await.is_ok() {
            return;
        }
    }
    panic!("service does not resume");
}

/// What others do to the connections of a pool that they share: a nonce that was used up is used up for ever.
pub(crate) async fn connections_left_within_transactions_lose_no_nonce<S: Served>() {
    let service = service::<S>(&[]).await;
    let store = S::open(&service.server.url("ajwt")).await;
    let authenticator = store::authenticator(&store);
    let other = S::open(&service.server.url("ajwt")).await;
    let count = async || other.number("SELECT count(*) FROM ajwt_nonce").await;
    let (mut refused, before) = (0, count().await);
    let mut accepted = 0;
    for _ in 0..20 {
        // As if its user was gone before the answer came.
        store.on_idle_connections("BEGIN").await;
        let token = service.token();
        let outcome = in_time(&authenticator, &token).await;
        if outcome.is_ok() {
            accepted += 1;
            let again = in_time(&authenticator, &token).await;
            assert!(again == Err(Reason::Replayed) || is_unavailable(&again), "{again:?}");
        } else {
            assert!(is_unavailable(&outcome), "{outcome:?}");
            refused += 1;
        }
        assert_eq!(count().await - before, accepted, "as others see it");
    }
    assert!(refused > 0, "no connection was within a transaction");
    // Each of the ten at most is closed when it is noticed, which may be late: users can be read over it.
    let mut refused = 0;
    for _ in 0..40 {
        refused += usize::from(in_time(&authenticator, &service.token()).await.is_err());
    }
    assert!(refused <= 10, "{refused}");
}

/// They do so after a statement, when the pool asks whether they are well before it takes them back.
pub(crate) async fn connections_that_go_silent_on_their_way_back_are_replaced<S: Served>() {
    let (service, proxy) = behind_proxy::<S>().await;
    proxy.silence_at_pings(true);
    service.at_once(40).await;
    assert!(proxy.silenced() >= 5, "that many connections were asked");
    proxy.silence_at_pings(false);
    service.resumes().await;
    for outcome in service.at_once(40).await {
        assert_eq!(outcome.as_deref(), Ok("guido"));
    }
}

/// The server has noted the use, and its answer is lost. A second claim would meet the row of the first.
pub(crate) async fn a_claim_whose_answer_is_lost_is_not_repeated<S: Served>() {
    let (service, proxy) = behind_proxy::<S>().await;
    let clock = Arc::new(SystemClock::new());
    let nonces = S::open(&service.server.url_at(proxy.port, "ajwt")).await.nonces(clock.clone());
    let direct = S::open(&service.server.url("ajwt")).await.nonces(clock.clone());
    let now = clock.now();
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    let used = testing::nonce_use("guido", now.as_secs(), "a nonce", now, tolerance, margin);
    proxy.lose_answer_to(used.key().as_bytes());
    let answer = nonces.consume(&used).await;
    assert!(matches!(answer, Err(NonceError::Store(_))), "{answer:?}");
    assert_eq!(direct.consume(&used).await.expect("an answer"), NonceOutcome::Replayed);
    assert_eq!(proxy.passed_on(), 1, "over all connections");
}

async fn behind_proxy<S: Served>() -> (Service<S>, Proxy) {
    let server = Server::start(S::KIND, &[]);
    S::open(&server.url(S::MAINTENANCE)).await.execute("CREATE DATABASE ajwt").await;
    let proxy = Proxy::start(server.port());
    let store = S::open(&server.url_at(proxy.port, "ajwt")).await;
    store::set_up(&store).await;
    let key = Arc::new(add_guido(&store).await);
    let authenticator = Arc::new(store::authenticator(&store));
    let service = Service::<S> { server, _store: PhantomData, authenticator, key };
    assert!(service.at_once(40).await.iter().all(Result::is_ok));
    (service, proxy)
}

/// All connections of the server are taken by others.
pub(crate) async fn exhausted_connections_are_503<S: Served>() {
    let service = service::<S>(S::TWENTY_CONNECTIONS).await;
    let other = S::open(&service.server.url(S::MAINTENANCE)).await;
    for id in other.texts(S::ITS_CONNECTIONS).await {
        other.execute(&S::cut_off(&id)).await;
    }
    for _ in 0..500 {
        if other.texts(S::ITS_CONNECTIONS).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Others take each place that becomes free, which may take a moment.
    let mut others = Vec::new();
    for _ in 0..5 {
        while let Some(taken) = S::connection(&service.server.url(S::MAINTENANCE)).await {
            others.push(taken);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(others.len() >= 10, "they took {} places", others.len());
    service.all_are_unavailable(20).await;
    drop(others);
    service.resumes().await;
}

/// Nor does it cost the others theirs: a new connection is dearer than any statement.
pub(crate) async fn a_caller_that_hangs_up_costs_no_connection<S: Served>() {
    let service = service::<S>(&[]).await;
    let other = S::open(&service.server.url(S::MAINTENANCE)).await;
    let owner = S::open(&service.server.url("ajwt")).await;
    for sql in S::SLOW_NONCES {
        owner.execute(sql).await;
    }
    let before = other.texts(S::ITS_CONNECTIONS).await;
    let (mut hung_up, mut answered) = (0, 0);
    while hung_up < 20 {
        let token = service.token();
        match tokio::time::timeout(Duration::from_millis(50), service.request(&token)).await {
            Ok(outcome) => {
                assert!(outcome.is_ok() || is_unavailable(&outcome), "{outcome:?}");
                answered += 1;
                assert!(answered < 200, "no nonce takes its time");
            }
            Err(_) => hung_up += 1,
        }
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let after = other.texts(S::ITS_CONNECTIONS).await;
    let kept = before.iter().filter(|id| after.contains(id)).count();
    // A machine that stalled may have cost some.
    assert!(kept * 2 >= before.len(), "{kept} of {} are left", before.len());
    assert_eq!(service.request(&service.token()).await.as_deref(), Ok("guido"));
}

/// A server that goes on taking connections does not notice that those which wait for a commit were closed.
pub(crate) async fn a_server_that_commits_nothing_keeps_few_connections<S: Served>() {
    let service = Arc::new(service::<S>(S::FOR_STANDBYS).await);
    let other = S::open(&service.server.url(S::MAINTENANCE)).await;
    let used = service.token();
    assert_eq!(service.request(&used).await.as_deref(), Ok("guido"));
    for sql in S::STANDBY_IS_GONE {
        other.execute(sql).await;
    }
    let mut load = JoinSet::new();
    // That it was used needs no commit: an answer, but none that tells of those which wait for one.
    let replaying = Arc::clone(&service);
    load.spawn(async move {
        loop {
            let outcome = replaying.request(&used).await;
            if outcome == Err(Reason::OutsideWindow) {
                return;
            }
            assert!(outcome == Err(Reason::Replayed) || is_unavailable(&outcome), "{outcome:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    for _ in 0..12 {
        let service = Arc::clone(&service);
        load.spawn(async move {
            loop {
                let outcome = service.request(&service.token()).await;
                assert!(outcome.is_ok() || is_unavailable(&outcome), "{outcome:?}");
            }
        });
    }
    let mut most = 0;
    for _ in 0..24 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        most = most.max(other.texts(S::ITS_CONNECTIONS).await.len());
    }
    load.abort_all();
    while let Some(ended) = load.join_next().await {
        assert!(
            ended.is_ok() || ended.is_err_and(|error| error.is_cancelled()),
            "a request was not as it should be"
        );
    }
    // The pool's ten, as many that were closed, and some of those that had their turn.
    assert!((15..=24).contains(&most), "{most} connections");
    for sql in S::NO_STANDBY_IS_NEEDED {
        other.execute(sql).await;
    }
    service.resumes().await;
    for _ in 0..100 {
        if other.texts(S::ITS_CONNECTIONS).await.len() <= 11 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server has {} connections", other.texts(S::ITS_CONNECTIONS).await.len());
}

/// Nor do the rounds that note the use of keys, which nobody waits for.
pub(crate) async fn rounds_of_uses_that_are_not_committed_keep_few_connections<S: Served>() {
    let service = service::<S>(S::FOR_STANDBYS).await;
    let other = S::open(&service.server.url(S::MAINTENANCE)).await;
    let store = S::open(&service.server.url("ajwt")).await;
    // Each has a row of its own, which no earlier one has locked.
    let mut keys = Vec::new();
    for _ in 0..12 {
        let key = NewKey::of_key(store::key().public_key().clone());
        keys.push(store.add_key(&name("guido"), &key).await.expect("added").id);
    }
    let now = SystemClock::new().now();
    let round = |key, second| [(KeySource::Key(key), now.saturating_add(Duration::from_secs(second)))];
    let before = other.texts(S::ITS_CONNECTIONS).await.len();
    for sql in S::STANDBY_IS_GONE {
        other.execute(sql).await;
    }
    // That none is there takes the server a moment to see.
    let mut waiting = 0;
    for (second, key) in (1..200).zip(keys.iter().cycle()) {
        let limit = Duration::from_millis(300);
        waiting += usize::from(tokio::time::timeout(limit, store.write(&round(*key, second))).await.is_err());
        if waiting == keys.len() {
            break;
        }
    }
    assert_eq!(waiting, keys.len(), "they were committed");
    // One that was closed, one that is kept, and room for a machine that stalled until that one had its turn.
    let after = other.texts(S::ITS_CONNECTIONS).await.len();
    assert!(after <= before + 5, "{before} connections, then {after}");
    for sql in S::NO_STANDBY_IS_NEEDED {
        other.execute(sql).await;
    }
    for second in 200..250 {
        let written = tokio::time::timeout(IN_TIME, store.write(&round(keys[0], second))).await;
        if written.is_ok_and(|written| written.is_ok()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("uses are not written any more");
}

/// A host dies while it notes the use of keys, and has locked their rows: they can be revoked all the same.
pub(crate) async fn keys_whose_use_is_being_noted_by_a_host_that_died_can_be_revoked<S: Served>() {
    let (service, proxy) = behind_proxy::<S>().await;
    let writer = S::open(&service.server.url_at(proxy.port, "ajwt")).await;
    let store = S::open(&service.server.url("ajwt")).await;
    let guido = name("guido");
    let trust = store.add_trust(&guido, "https://a.example/jwks.json").await.expect("added").id;
    let key = store.keys(&guido).await.expect("listed")[0].id;
    let now = SystemClock::new().now();
    // What is sent after the updates does not arrive, nor that its connection is closed.
    proxy.hold(Some(S::COMMIT));
    let uses = [(KeySource::Key(key), now), (KeySource::Trust(trust), now)];
    until_held(&proxy, writer.write(&uses)).await;
    let clock = SystemClock::new();
    let start = clock.monotonic();
    let mut refused = 0;
    while store.revoke_key(&guido, key).await.is_err() {
        refused += 1;
        let elapsed = clock.monotonic() - start;
        assert!(elapsed < Duration::from_secs(15), "not revoked after {elapsed:?}");
    }
    assert!(refused > 0, "its row was not locked");
    assert!(store.keys(&guido).await.expect("listed")[0].revoked_at.is_some());
    proxy.hold(None);
}

/// The tests of one store, by name.
#[macro_export]
macro_rules! fault_tests {
    ($store:ty; $($test:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            faults::$test::<$store>().await;
        })*
    };
    ($store:ty) => {
        $crate::fault_tests! { $store;
            a_restart_between_requests_is_not_noticed
            a_server_that_stops_in_mid_request_is_503
            a_server_that_hangs_is_503_in_time
            a_server_that_hangs_in_mid_request_accepts_nothing_twice
            connections_that_go_silent_are_replaced
            connections_that_go_silent_in_the_background_are_replaced
            connections_that_go_silent_on_their_way_back_are_replaced
            connections_left_within_transactions_lose_no_nonce
            a_claim_whose_answer_is_lost_is_not_repeated
            exhausted_connections_are_503
            a_caller_that_hangs_up_costs_no_connection
            a_server_that_commits_nothing_keeps_few_connections
            rounds_of_uses_that_are_not_committed_keep_few_connections
            keys_whose_use_is_being_noted_by_a_host_that_died_can_be_revoked
        }
    };
}
