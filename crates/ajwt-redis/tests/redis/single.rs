//! One server: what it remembers, and what it notices to have forgotten.

use std::{env, sync::Arc, time::Duration};

use ajwt_core::Timestamp;
use ajwt_redis::{RedisFault, RedisNonceBackend};
use ajwt_server::{Clock as _, NonceBackend as _, NonceError, NonceOutcome, SystemClock, testing};
use ajwt_test_servers::redis::RedisServer;
use ajwt_test_support::{Level, Log};

use crate::{
    PATIENT, batches::runtime, builder, fault, fresh, may_have_been_used, patient_driver, proxy::Proxy,
    replayed, use_ahead, use_at, use_now,
};

async fn new_backend(server: &RedisServer) -> RedisNonceBackend {
    let backend = builder().connect(&server.url()).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    backend
}

/// Over both kinds of connections at once, since most of the suite is waiting for lifetimes.
#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let servers = [RedisServer::start(&[]), RedisServer::start(&[])];
    let own = new_backend(&servers[0]).await;
    let client = redis::Client::open(servers[1].url()).expect("a client");
    let config = redis::aio::ConnectionManagerConfig::new()
        .set_connection_timeout(Some(PATIENT))
        .set_response_timeout(Some(PATIENT));
    let connection = client.get_connection_manager_with_config(config).await.expect("connected");
    let over_a_manager = builder().over(connection).await.expect("a backend");
    assert!(over_a_manager.initialise().await.expect("new"));
    tokio::join!(testing::nonce_backend(Arc::new(own)), testing::nonce_backend(Arc::new(over_a_manager)));
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_the_nonces() {
    let mut server = None;
    let url = match env::var("TEST_URL") {
        Ok(url) if testing::is_worker() => url,
        _ => {
            let started = RedisServer::start(&[]);
            new_backend(&started).await;
            server.insert(started).url()
        }
    };
    let connecting = {
        let url = url.clone();
        async move { Arc::new(builder().connect(&url).await.expect("connected")) as _ }
    };
    testing::nonce_backend_across_processes(
        "single::processes_share_the_nonces",
        &[("TEST_URL", &url)],
        connecting,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_refuses_what_may_have_been_used_until_it_is_vouched_for() {
    let server = RedisServer::start(&[]);
    let backend = builder().connect(&server.url()).await.expect("connected");
    may_have_been_used(&backend, &use_ahead("first")).await;
    may_have_been_used(&backend, &use_now("first")).await;
    // 20 s of tolerance and 5 s of skew, from the mark on; some seconds may pass in this test.
    may_have_been_used(&backend, &use_at("soon", 24)).await;
    fresh(&backend, &use_at("soon", 35)).await;
    let mark: String = server.ask("GET test/since");
    assert!(!backend.initialise().await.expect("an answer"), "it is in use by now");
    assert_eq!(server.ask::<String>("GET test/since"), mark);

    let other =
        RedisNonceBackend::builder("other").timeout(PATIENT).connect(&server.url()).await.expect("connected");
    assert!(other.initialise().await.expect("an answer"), "another prefix is new");
    fresh(&other, &use_now("first")).await;
    assert!(other.initialise().await.expect("an answer"), "once more changes nothing");
    replayed(&other, &use_now("first")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_mark_a_new_server_at_once_are_told_that_it_is_marked() {
    let server = RedisServer::start(&[]);
    let backend = Arc::new(builder().connect(&server.url()).await.expect("connected"));
    let mut marking = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let backend = Arc::clone(&backend);
        marking.spawn(async move { backend.initialise().await.expect("an answer") });
    }
    assert_eq!(marking.join_all().await, [true; 16]);
    fresh(&backend, &use_now("one")).await;
}

/// The mark came back from the file; what was used after it was written may not have.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_with_its_file_is_not_new() {
    let (mut server, used) = snapshot_before("used").await;
    let mark: String = server.ask("GET test/since");
    server.restart();
    let backend = builder().connect(&server.url()).await.expect("connected");
    assert!(!backend.initialise().await.expect("an answer"));
    assert_eq!(server.ask::<String>("GET test/since"), mark);
    may_have_been_used(&backend, &used).await;
}

/// Then any process's mark counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_with_its_file_is_marked_still_on_the_operators_word() {
    let (mut server, used) = snapshot_before("used").await;
    server.restart();
    let backend = builder().trust_persistence().connect(&server.url()).await.expect("connected");
    assert!(backend.initialise().await.expect("an answer"));
    fresh(&backend, &used).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_is_over_after_tolerance_and_skew() {
    let server = RedisServer::start(&[]);
    let use_at = |nonce: &str, now: Timestamp| {
        testing::nonce_use("guido", now.as_secs(), nonce, now, Duration::from_secs(1), Duration::from_secs(1))
    };
    // Before the start, however long the machine takes over what follows.
    let before = SystemClock::new().now();
    let backend = builder().server_skew(Duration::ZERO).connect(&server.url()).await.expect("connected");
    may_have_been_used(&backend, &use_at("1", before)).await;
    may_have_been_used(&backend, &use_at("2", before)).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    fresh(&backend, &use_at("3", SystemClock::new().now())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_are_independent() {
    let server = RedisServer::start(&[]);
    let one = new_backend(&server).await;
    let two = RedisNonceBackend::builder("test:2")
        .timeout(PATIENT)
        .connect(&server.url())
        .await
        .expect("connected");
    assert!(two.initialise().await.expect("new"));
    for backend in [&one, &two] {
        fresh(backend, &use_now("same")).await;
        replayed(backend, &use_now("same")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_server_is_noticed() {
    let server = RedisServer::start(&[]);
    let backend = new_backend(&server).await;
    let used = use_now("used");
    fresh(&backend, &used).await;
    server.ask::<()>("FLUSHALL");
    may_have_been_used(&backend, &used).await;
    may_have_been_used(&backend, &used).await;
    may_have_been_used(&backend, &use_now("new")).await;
    fresh(&backend, &use_ahead("later")).await;
    replayed(&backend, &use_ahead("later")).await;
}

/// A process that was frozen between its look at the clock and its question.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_request_dates_no_memory_back() {
    let server = RedisServer::start(&[]);
    let backend = new_backend(&server).await;
    let clock = ajwt_server::SystemClock::new();
    let now = ajwt_server::Clock::now(&clock);
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    let use_of = |name: &str, age: u64| {
        let then = now.saturating_sub(Duration::from_secs(age));
        testing::nonce_use("guido", now.as_secs() - 5, name, then, tolerance, margin)
    };
    let used = use_of("used", 0);
    fresh(&backend, &used).await;
    server.ask::<()>("FLUSHALL");
    // It knows 40 s ago as now; a mark of that time would vouch for the token that was used.
    may_have_been_used(&backend, &use_of("late", 40)).await;
    may_have_been_used(&backend, &used).await;
}

/// The Redis host's clock is behind, so that the request's own counts: tokens were accepted elsewhere until its mark is
/// written.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_dates_no_memory_back() {
    const WAIT: Duration = Duration::from_millis(500);

    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.port()).await;
    let backend = builder().connect(&proxy.url()).await.expect("connected");
    let now = SystemClock::new().now().saturating_add(Duration::from_secs(50));
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    let nonce = testing::nonce_use("guido", now.as_secs(), "waits", now, tolerance, margin);
    // For the answer that there is no mark.
    proxy.delay(WAIT);
    let answer = backend.consume(&nonce).await;
    let earliest = now.saturating_add(WAIT);
    assert!(
        matches!(answer, Err(NonceError::MayHaveBeenUsed { since }) if since >= earliest),
        "{answer:?}, not before {earliest:?}"
    );
}

/// A mark of its date would have every process refuse all tokens for a day.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_far_ahead_begins_no_memory() {
    const DAY: u64 = 24 * 60 * 60;

    let server = RedisServer::start(&[]);
    let backend = builder().connect(&server.url()).await.expect("connected");
    let clock = ajwt_server::SystemClock::new();
    let use_by_a_clock = |ahead: u64| {
        let now = ajwt_server::Clock::now(&clock).saturating_add(Duration::from_secs(ahead));
        let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
        testing::nonce_use("guido", now.as_secs(), &format!("{ahead} s ahead"), now, tolerance, margin)
    };
    let mut connection =
        redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("connected");
    // Neither where there is none nor in the place of another process's.
    for mark in [None, Some("0 another-process")] {
        if let Some(mark) = mark {
            redis::cmd("SET").arg("test/since").arg(mark).exec(&mut connection).expect("set");
        }
        let found = fault(&backend, &use_by_a_clock(DAY)).await;
        let Some(RedisFault::ClockAhead { ahead }) = found else { panic!("{mark:?}: {found:?}") };
        // Some seconds may pass on the way.
        assert!((DAY - 30..=DAY).contains(&ahead.as_secs()), "{mark:?}: {ahead:?}");
        assert_eq!(server.ask::<Option<String>>("GET test/since").as_deref(), mark);
        // Not only once.
        let found = fault(&backend, &use_by_a_clock(90)).await;
        assert!(matches!(found, Some(RedisFault::ClockAhead { .. })), "{mark:?}: {found:?}");
    }
    // Whose clock is right begins it, for all.
    may_have_been_used(&backend, &use_now("right")).await;
    fresh(&backend, &use_ahead("right")).await;
    fresh(&backend, &use_by_a_clock(DAY + 1)).await;
    // One that is a little ahead counts, so that nothing it accepted is good again.
    server.ask::<()>("FLUSHALL");
    let near = use_by_a_clock(50);
    let answer = backend.consume(&near).await;
    // Dated when it is written, and a request has so long for that.
    let latest = near.now().saturating_add(PATIENT);
    assert!(
        matches!(answer, Err(NonceError::MayHaveBeenUsed { since }) if (near.now()..=latest).contains(&since)),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_emptied_again_and_again_lets_nothing_through_twice() {
    let server = RedisServer::start(&[]);
    let backend = Arc::new(new_backend(&server).await);
    let (mut accepted, mut in_doubt) = (0, 0);
    for round in 0..40 {
        let mut uses = tokio::task::JoinSet::new();
        for task in 0_usize..32 {
            if task == 16 {
                // While some of those before are under way.
                server.ask::<()>("FLUSHALL");
            }
            let (backend, number) = (Arc::clone(&backend), task % 4);
            let nonce = use_now(&format!("{round} {number}"));
            uses.spawn(async move { (number, backend.consume(&nonce).await) });
        }
        let mut times = [0_usize; 4];
        for (number, outcome) in uses.join_all().await {
            times[number] += usize::from(matches!(outcome, Ok(NonceOutcome::Fresh)));
            in_doubt += usize::from(matches!(outcome, Err(NonceError::MayHaveBeenUsed { .. })));
        }
        assert!(times.iter().all(|times| *times <= 1), "round {round}: {times:?}");
        accepted += times.iter().sum::<usize>();
        // Vouched for, though tokens were used: only so that the next round accepts some.
        server.ask::<()>("DEL test/since");
        assert!(backend.initialise().await.expect("an answer"), "there is no mark");
    }
    assert!(accepted > 0 && in_doubt > 0, "{accepted} accepted, {in_doubt} in doubt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_a_file_is_noticed() {
    let mut server = RedisServer::start(&[]);
    let backend = new_backend(&server).await;
    let used = use_now("used");
    fresh(&backend, &used).await;
    server.restart();
    until_connected(&backend).await;
    may_have_been_used(&backend, &used).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_from_an_old_snapshot_is_noticed() {
    let (mut server, used) = snapshot_before("used").await;
    let backend = builder().connect(&server.url()).await.expect("connected");
    fresh(&backend, &used).await;
    server.restart();
    assert!(server.ask::<String>("GET test/since").starts_with("0 "), "the mark is back from the snapshot");
    until_connected(&backend).await;
    may_have_been_used(&backend, &used).await;
    // A process that was started only now finds the same.
    let another = builder().connect(&server.url()).await.expect("connected");
    may_have_been_used(&another, &used).await;
    fresh(&another, &use_ahead("later")).await;
}

/// What `trust_persistence` leaves open when the word does not hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_from_an_old_snapshot_is_not_noticed_on_the_operators_word() {
    let (mut server, used) = snapshot_before("used").await;
    let backend = builder().trust_persistence().connect(&server.url()).await.expect("connected");
    fresh(&backend, &used).await;
    server.restart();
    until_connected(&backend).await;
    fresh(&backend, &used).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_loses_nothing_costs_nothing_on_the_operators_word() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let backend = builder().trust_persistence().connect(&server.url()).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    let used = use_now("used");
    fresh(&backend, &used).await;
    server.restart();
    until_connected(&backend).await;
    replayed(&backend, &used).await;
    fresh(&backend, &use_now("new")).await;
    server.ask::<()>("FLUSHALL");
    may_have_been_used(&backend, &used).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_does_not_expire_and_entries_do() {
    let server = RedisServer::start(&[]);
    let backend = new_backend(&server).await;
    fresh(&backend, &use_now("one")).await;
    assert_eq!(server.ask::<i64>("PTTL test/since"), -1);
    // The one that a request writes, too.
    server.ask::<()>("FLUSHALL");
    may_have_been_used(&backend, &use_now("one")).await;
    assert_eq!(server.ask::<i64>("PTTL test/since"), -1);
    let keys: Vec<Vec<u8>> = server.ask("KEYS test/*");
    assert_eq!(keys.len(), 2);
    let nonce = keys.iter().find(|key| *key != b"test/since").expect("the nonce");
    assert_eq!(nonce.len(), "test/".len() + 16);
    let mut connection =
        redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("connected");
    let lifetime: i64 = redis::cmd("PTTL").arg(nonce).query(&mut connection).expect("a number");
    assert!((90_000..=100_001).contains(&lifetime), "{lifetime}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_somebody_else_is_an_error() {
    let server = RedisServer::start(&[]);
    let backend = new_backend(&server).await;
    for spoil in ["SET test/since nonsense", "SET test/since 17", "LPUSH test/since x"] {
        server.ask::<()>("DEL test/since");
        server.ask::<redis::Value>(spoil);
        let found = fault(&backend, &use_ahead(spoil)).await;
        assert!(
            matches!(&found, Some(RedisFault::UnreadableMemory { key }) if key == "test/since"),
            "{found:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_that_find_no_mark_agree_on_one() {
    let server = RedisServer::start(&[]);
    let backend = Arc::new(builder().connect(&server.url()).await.expect("connected"));
    let mut uses = tokio::task::JoinSet::new();
    for task in 0..64 {
        let backend = Arc::clone(&backend);
        uses.spawn(async move { backend.consume(&use_now(&format!("{task}"))).await });
    }
    let mut times = Vec::new();
    for answer in uses.join_all().await {
        let Err(NonceError::MayHaveBeenUsed { since }) = answer else { panic!("{answer:?}") };
        times.push(since);
    }
    times.dedup();
    assert_eq!(times.len(), 1, "{times:?}");
}

/// Not once for each request that was under way.
#[test]
fn a_server_that_forgot_is_told_once() {
    let server = RedisServer::start(&[]);
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    runtime().block_on(async {
        let backend = Arc::new(new_backend(&server).await);
        server.ask::<()>("FLUSHALL");
        let mut uses = tokio::task::JoinSet::new();
        for task in 0..64 {
            let backend = Arc::clone(&backend);
            uses.spawn(async move { may_have_been_used(&backend, &use_now(&format!("once {task}"))).await });
        }
        uses.join_all().await;
    });
    let log = log.text();
    assert_eq!(log.matches("was emptied").count(), 1, "{log}");
}

/// As two servers behind one address would have it.
#[test]
fn a_server_that_forgets_again_and_again_does_not_fill_the_log() {
    let server = RedisServer::start(&[]);
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    runtime().block_on(async {
        let backend = new_backend(&server).await;
        for round in 0..20 {
            server.ask::<()>("DEL test/since");
            may_have_been_used(&backend, &use_now(&format!("again {round}"))).await;
        }
    });
    let log = log.text();
    assert_eq!(log.matches("was emptied").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multiplexed_connection_of_the_applications_serves() {
    let server = RedisServer::start(&[]);
    let client = redis::Client::open(server.url()).expect("a client");
    let connection = client.get_multiplexed_async_connection_with_config(&patient_driver()).await;
    let connection = connection.expect("connected");
    let backend = builder().over(connection.clone()).await.expect("a backend");
    assert!(backend.initialise().await.expect("new"));
    fresh(&backend, &use_now("one")).await;
    replayed(&backend, &use_now("one")).await;
    server.ask::<()>("FLUSHALL");
    may_have_been_used(&backend, &use_now("one")).await;
    let refused = builder().wait_for_replicas(1).over(connection).await.expect_err("an error");
    assert!(matches!(refused, ajwt_redis::ConnectError::WaitOverGivenConnection), "{refused}");
}

/// The permissions that docs/operations.md names.
#[tokio::test(flavor = "multi_thread")]
async fn another_database_takes_a_permission_of_its_own() {
    let server = RedisServer::start(&[]);
    let connect = async |user: &str, more: &str| {
        let rules = "on >pw ~test/* +set +get +eval +time +info +config|get";
        server.ask::<()>(&format!("ACL SETUSER {user} {rules} {more}"));
        builder().connect(&format!("redis://{user}:pw@127.0.0.1:{}/1", server.port())).await
    };
    let backend = connect("selects", "+select").await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    fresh(&backend, &use_now("one")).await;
    let keys = server.info("keyspace", "db1");
    assert!(keys.starts_with("keys=2,"), "the mark and the nonce: {keys}");
    let refused = connect("other", "").await.expect_err("an error");
    assert!(matches!(refused, ajwt_redis::ConnectError::Server(RedisFault::Refused { .. })), "{refused}");
}

/// docs/operations.md names the figure.
#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_takes_little_memory() {
    /// One more than the hash table of their expiries has room for, and two more with the mark in the other: both have
    /// just doubled.
    const NONCES: u64 = (1 << 17) + 1;

    let server = RedisServer::start(&[]);
    let backend = Arc::new(
        RedisNonceBackend::builder("orders:production")
            .timeout(PATIENT)
            .connect(&server.url())
            .await
            .expect("connected"),
    );
    assert!(backend.initialise().await.expect("new"));
    let used = || server.info("memory", "used_memory").parse::<u64>().expect("a number");
    let before = used();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64 {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            for number in (task..NONCES).step_by(64) {
                fresh(&backend, &use_now(&format!("{number}"))).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(server.ask::<u64>("DBSIZE"), NONCES + 1);
    let bytes = (used() - before) / NONCES;
    #[allow(clippy::print_stdout, reason = "it measures")]
    {
        println!("{bytes} bytes for each of {NONCES} nonces");
    }
    assert!((60..=161).contains(&bytes), "{bytes} bytes for each nonce");
}

/// A server whose snapshot holds the mark and not what is used later.
async fn snapshot_before(nonce: &str) -> (RedisServer, ajwt_server::NonceUse) {
    let server = RedisServer::start(&[]);
    new_backend(&server).await;
    server.ask::<()>("SAVE");
    (server, use_now(nonce))
}

/// After a restart the first use finds the old connection broken.
async fn until_connected(backend: &RedisNonceBackend) {
    for round in 0..100 {
        match backend.consume(&use_at(&format!("connecting {round}"), -100_000)).await {
            Err(NonceError::Store(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => return,
        }
    }
    panic!("it does not connect again");
}
