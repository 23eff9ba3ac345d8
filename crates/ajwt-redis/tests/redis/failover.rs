//! A replica takes over for a primary: what is lost, what is noticed, what `WAIT` saves.

mod old_primary;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_redis::{ConnectError, RedisFault, RedisNonceBackend, RedisNonceBackendBuilder};
use ajwt_server::{Clock as _, NonceBackend as _, NonceUse, SystemClock};
use ajwt_test_servers::redis::RedisServer;
use ajwt_test_support::until_blocking;

use crate::{
    builder, fault, fresh, may_have_been_used,
    proxy::{Fault, Proxy},
    recovers, replayed, told, use_ahead, use_now,
};

/// A primary and its replica, behind an address that moves from one to the other.
struct Pair {
    primary: RedisServer,
    replica: RedisServer,
    address: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let primary = RedisServer::start(&[]);
        let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
        let address = Proxy::start(primary.port()).await;
        let pair = Self { primary, replica, address };
        until_blocking("the replica is in step", || {
            pair.replica.info("replication", "master_link_status") == "up"
        });
        let backend = pair.connect(builder()).await;
        assert!(backend.initialise().await.expect("new"));
        until_blocking("the replica has the mark", || pair.replica.ask::<usize>("DBSIZE") == 1);
        pair
    }

    async fn connect(&self, builder: RedisNonceBackendBuilder) -> RedisNonceBackend {
        builder.connect(&self.address.url()).await.expect("connected")
    }

    /// The primary dies while its replica has not seen the last writes, and the replica takes over.
    fn fail_over(&mut self) {
        self.primary.kill();
        self.replica.resume();
        self.replica.ask::<()>("REPLICAOF NO ONE");
        self.address.lead_to(self.replica.port());
    }
}

/// Until the connection to the dead primary has been replaced.
async fn until_connected(backend: &RedisNonceBackend) {
    let mut last = String::new();
    for round in 0..100 {
        match ajwt_server::NonceBackend::consume(backend, &use_ahead(&format!("connecting {round}"))).await {
            Err(ajwt_server::NonceError::Store(error)) => last = told(&error),
            _ => return,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not connect again: {last}");
}

async fn used_on_the_primary_alone(pair: &Pair, backend: &RedisNonceBackend) -> NonceUse {
    pair.replica.pause();
    // Else the writes wait in the replica's socket, and it reads them when it goes on.
    assert_eq!(pair.primary.ask::<i64>("CLIENT KILL TYPE replica"), 1);
    let used = use_now("used");
    fresh(backend, &used).await;
    used
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_the_last_writes_is_noticed() {
    let mut pair = Pair::start().await;
    let backend = pair.connect(builder()).await;
    let used = used_on_the_primary_alone(&pair, &backend).await;
    pair.fail_over();
    assert!(pair.replica.ask::<String>("GET test/since").starts_with("0 "), "the replica has the mark");
    until_connected(&backend).await;
    may_have_been_used(&backend, &used).await;
}

/// The old primary lives on as a replica and keeps its connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_became_a_replica_is_left() {
    let pair = Pair::start().await;
    let backend = pair.connect(builder()).await;
    let used = use_now("used");
    fresh(&backend, &used).await;
    until_blocking("the replica has it", || pair.replica.ask::<usize>("DBSIZE") == 2);
    pair.replica.ask::<()>("REPLICAOF NO ONE");
    pair.primary.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", pair.replica.port()));
    pair.address.lead_to(pair.replica.port());
    let refused = fault(&backend, &used).await;
    assert!(matches!(&refused, Some(RedisFault::Refused { code, .. }) if code == "READONLY"), "{refused:?}");
    until_connected(&backend).await;
    may_have_been_used(&backend, &used).await;
}

/// WAIT fails on a replica too, and must not hide why.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_became_a_replica_is_left_with_wait_too() {
    let pair = Pair::start().await;
    let patient = builder().timeout(Duration::from_secs(2)).wait_for_replicas(1);
    let backend = pair.connect(patient).await;
    let used = use_now("used");
    fresh(&backend, &used).await;
    pair.replica.ask::<()>("REPLICAOF NO ONE");
    pair.primary.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", pair.replica.port()));
    pair.address.lead_to(pair.replica.port());
    let refused = fault(&backend, &used).await;
    assert!(matches!(&refused, Some(RedisFault::Refused { code, .. }) if code == "READONLY"), "{refused:?}");
    // Led to the new primary, of whose memory nothing is known yet.
    for _ in 0..100 {
        match backend.consume(&used).await {
            Err(ajwt_server::NonceError::MayHaveBeenUsed { .. }) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Ok(outcome) => panic!("{outcome:?}"),
        }
    }
    panic!("it stays with the old primary");
}

/// What the claims of one connection find out spares those of the others, which were lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_found_out_once_and_not_by_each_connection() {
    const CLAIMS: usize = 10;

    let pair = Pair::start().await;
    // It follows the replica, for which it stands in later.
    let port = pair.replica.port().to_string();
    let next = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    let is_up = |server: &RedisServer| server.info("replication", "master_link_status") == "up";
    until_blocking("it is in step", || is_up(&next));
    let backend = pair.connect(builder().timeout(Duration::from_secs(6)).wait_for_replicas(1)).await;
    let backend = Arc::new(backend);
    fresh(&backend, &use_now("before")).await;
    pair.replica.ask::<()>("REPLICAOF NO ONE");
    pair.primary.ask::<()>(&format!("REPLICAOF 127.0.0.1 {port}"));
    pair.address.lead_to(pair.replica.port());
    until_blocking("it has a replica", || {
        pair.replica.info("replication", "connected_slaves") != "0" && is_up(&next)
    });
    let first = fault(&backend, &use_now("first")).await;
    assert!(matches!(&first, Some(RedisFault::Refused { code, .. }) if code == "READONLY"), "{first:?}");
    pair.address.claims();
    each_on_its_own_connection(&pair, &backend, "after", CLAIMS).await;
    assert!(pair.address.claims().len() <= CLAIMS, "a claim was sent again");
}

/// As it may be for a moment, in which it has lost no connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_silent_costs_the_connection_that_waited_and_no_other() {
    let pair = Pair::start().await;
    let backend = pair.connect(builder().timeout(Duration::from_secs(3)).wait_for_replicas(1)).await;
    let backend = Arc::new(backend);
    each_on_its_own_connection(&pair, &backend, "before", 8).await;
    pair.primary.pause();
    backend.consume(&use_now("silent")).await.expect_err("no answer");
    pair.primary.resume();
    recovers(&backend, "after a silence").await;
    let connected = pair.address.connections();
    each_on_its_own_connection(&pair, &backend, "after", 4).await;
    assert_eq!(pair.address.connections(), connected);
}

/// Claims of which each takes another connection, since those before it are under way.
async fn each_on_its_own_connection(
    pair: &Pair,
    backend: &Arc<RedisNonceBackend>,
    what: &str,
    claims: usize,
) {
    pair.address.delay(Duration::from_millis(300));
    let mut claiming = tokio::task::JoinSet::new();
    for number in 0..claims {
        let (backend, nonce) = (Arc::clone(backend), use_now(&format!("{what} {number}")));
        claiming.spawn(async move { backend.consume(&nonce).await });
        // Not all at once, or they would wait together.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for answer in claiming.join_all().await {
        assert!(!matches!(answer, Err(ajwt_server::NonceError::Store(_))), "{what}: {answer:?}");
    }
    pair.address.delay(Duration::ZERO);
}

/// What `trust_persistence` without `wait_for_replicas` leaves open: the replica has the mark and
/// not the last writes, so nothing is noticed and the token works again.
#[tokio::test(flavor = "multi_thread")]
async fn without_wait_the_operators_word_does_not_hold() {
    let mut pair = Pair::start().await;
    let backend = pair.connect(builder().trust_persistence()).await;
    let used = used_on_the_primary_alone(&pair, &backend).await;
    pair.fail_over();
    until_connected(&backend).await;
    fresh(&backend, &used).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_wait_no_replay_is_accepted() {
    let mut pair = Pair::start().await;
    let patient = builder().timeout(Duration::from_secs(4)).wait_for_replicas(1).trust_persistence();
    let backend = pair.connect(patient).await;
    let used = use_now("used");
    fresh(&backend, &used).await;
    pair.replica.pause();
    // What the replica does not have is not accepted.
    let late = not_replicated(&backend, "late").await;
    replayed(&backend, &late).await;
    pair.fail_over();
    // It has no replica of its own now: nothing new is accepted, and what was accepted is known.
    for round in 0.. {
        match ajwt_server::NonceBackend::consume(&backend, &used).await {
            Ok(outcome) => {
                assert_eq!(outcome, ajwt_server::NonceOutcome::Replayed);
                break;
            }
            Err(error) => assert!(round < 100, "{}", told(&error)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    not_replicated(&backend, "alone").await;
}

/// A use that is refused since no replica has its nonce. WAIT leaves a fifth of the time for its answer, which a stall of
/// the machine may take: then another one.
async fn not_replicated(backend: &RedisNonceBackend, label: &str) -> NonceUse {
    for attempt in 0..5 {
        let nonce = use_now(&format!("{label} {attempt}"));
        match fault(backend, &nonce).await {
            Some(RedisFault::NotReplicated { wanted: 1, acknowledged: 0 }) => return nonce,
            None => {}
            other => panic!("{label}: {other:?}"),
        }
    }
    panic!("{label}: no answer in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_holds_up_nobody_else() {
    let pair = Pair::start().await;
    let backend = pair.connect(builder().wait_for_replicas(1)).await;
    let backend = std::sync::Arc::new(backend);
    pair.replica.pause();
    let mut uses = tokio::task::JoinSet::new();
    let begun = tokio::time::Instant::now();
    for number in 0..32 {
        let backend = std::sync::Arc::clone(&backend);
        uses.spawn(async move { fault(&backend, &use_now(&format!("{number}"))).await });
        // Not all at once, or they would wait together.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for refused in uses.join_all().await {
        assert!(matches!(refused, Some(RedisFault::NotReplicated { .. })), "{refused:?}");
    }
    // One after the other they would take 32 times 8 s.
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
    pair.replica.resume();
    until_blocking("the replica catches up", || pair.replica.ask::<usize>("DBSIZE") == 33);
    fresh(&backend, &use_now("in step")).await;
}

/// Its WAIT goes on and holds the connection up: whoever comes next must not get it.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_given_up_keeps_its_connection_until_it_is_answered() {
    let pair = Pair::start().await;
    // WAIT takes four fifths of it: long enough for a busy machine.
    let backend = pair.connect(builder().timeout(Duration::from_secs(60)).wait_for_replicas(1)).await;
    let backend = Arc::new(backend);
    pair.replica.pause();
    let claim = |name: &'static str| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move { backend.consume(&use_now(name)).await })
    };
    let is_waiting = |count: &str| pair.primary.info("clients", "blocked_clients") == count;
    let given_up = claim("given up");
    until_blocking("the first waits", || is_waiting("1"));
    given_up.abort();
    assert!(given_up.await.is_err_and(|error| error.is_cancelled()));
    let next = claim("next");
    until_blocking("both wait", || is_waiting("2"));
    pair.replica.resume();
    let answer = next.await.expect("it ends");
    assert!(matches!(answer, Ok(ajwt_server::NonceOutcome::Fresh)), "{answer:?}");
}

/// The permissions that docs/operations.md names.
#[tokio::test(flavor = "multi_thread")]
async fn to_wait_takes_a_permission_of_its_own() {
    let pair = Pair::start().await;
    let connect = async |user: &str, more: &str| {
        let rules = "on >pw ~test/* +set +get +eval +time +info +config|get";
        pair.primary.ask::<()>(&format!("ACL SETUSER {user} {rules} {more}"));
        let url = format!("redis://{user}:pw@127.0.0.1:{}", pair.primary.port());
        builder().wait_for_replicas(1).connect(&url).await.expect("connected")
    };
    fresh(&connect("waits", "+wait").await, &use_now("permitted")).await;
    let refused = fault(&connect("other", "").await, &use_now("not permitted")).await;
    assert!(matches!(&refused, Some(RedisFault::Refused { code, .. }) if code == "NOPERM"), "{refused:?}");
}

/// More than there are connections: those of the same moment wait together.
#[tokio::test]
async fn many_wait_at_once() {
    let pair = Pair::start().await;
    let backend = pair.connect(builder().wait_for_replicas(1)).await;
    let backend = std::sync::Arc::new(backend);
    let claim_all = async |label: &str| {
        let mut uses = tokio::task::JoinSet::new();
        for number in 0..500 {
            let (backend, nonce) = (std::sync::Arc::clone(&backend), use_now(&format!("{label} {number}")));
            uses.spawn(async move { backend.consume(&nonce).await });
        }
        uses.join_all().await
    };
    for answer in claim_all("in step").await {
        assert!(matches!(answer, Ok(ajwt_server::NonceOutcome::Fresh)), "{answer:?}");
    }
    pair.replica.pause();
    for answer in claim_all("alone").await {
        let told = told(&answer.expect_err("not accepted"));
        assert!(told.contains("0 replicas have the nonce, not 1"), "{told}");
    }
}

/// Those that waited for a connection find no answer in what is left of their time, and must not end it for the
/// others.
#[tokio::test(flavor = "multi_thread")]
async fn claims_that_waited_for_their_turn_do_not_end_the_connection() {
    crate::undisturbed(async || {
        let (late, made) = claim_in_turn().await;
        move || {
            assert!(late >= 16, "{late} were too late");
            assert!(made <= 4, "{made} connections, {late} were too late");
        }
    })
    .await;
}

/// How many are too late, and how many connections are made.
async fn claim_in_turn() -> (usize, usize) {
    let pair = Pair::start().await;
    let backend = pair.connect(builder().timeout(Duration::from_secs(6)).wait_for_replicas(1)).await;
    let backend = Arc::new(backend);
    let before = pair.address.connections();
    // WAIT takes four fifths of the time that is left: of 6 s it leaves 1.2 s for the way. When the first are
    // answered, after 5.2 s, those that wait have 1.2 s left, of which it leaves 0.24 s.
    pair.address.delay(Duration::from_millis(400));
    pair.replica.pause();
    let mut uses = tokio::task::JoinSet::new();
    for number in 0..64 {
        let backend = Arc::clone(&backend);
        uses.spawn(async move { fault(&backend, &use_now(&format!("{number}"))).await });
        // Not all at once, or they would wait together.
        tokio::time::sleep(Duration::from_millis(12)).await;
    }
    let late = uses.join_all().await.into_iter().filter(Option::is_none).count();
    (late, pair.address.connections() - before)
}

/// Under a load in which every claim waits for its turn, and is sent with less than its time.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_went_dumb_are_replaced_though_all_wait_for_their_turn() {
    let pair = Pair::start().await;
    let backend = pair.connect(builder().timeout(Duration::from_secs(1)).wait_for_replicas(1)).await;
    let (backend, accepted) = (Arc::new(backend), Arc::new(AtomicUsize::new(0)));
    pair.replica.pause();
    let load = {
        let accepted = Arc::clone(&accepted);
        tokio::spawn(async move {
            for number in 0_u32.. {
                let (backend, accepted) = (Arc::clone(&backend), Arc::clone(&accepted));
                tokio::spawn(async move {
                    let outcome = backend.consume(&use_now(&format!("load {number}"))).await;
                    accepted.fetch_add(usize::from(outcome.is_ok()), Ordering::Relaxed);
                });
                // Not all at once, or they would wait together: 80 in a second, for 32 connections.
                tokio::time::sleep(Duration::from_millis(12)).await;
            }
        })
    };
    // Without the replica each WAIT takes its time, so that soon all are waited for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    pair.address.set(Fault::Swallow);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(accepted.load(Ordering::Relaxed), 0, "the replica is away");
    pair.address.set(Fault::None);
    pair.replica.resume();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if accepted.load(Ordering::Relaxed) > 0 {
            load.abort();
            return;
        }
    }
    panic!("nothing is accepted in 15 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinel_leads_to_the_new_primary() {
    let mut primary = RedisServer::start(&["--requirepass", "pw", "--masterauth", "pw"]);
    let port = primary.port().to_string();
    let replica =
        RedisServer::start(&["--masterauth", "pw", "--requirepass", "pw", "--replicaof", "127.0.0.1", &port]);
    let sentinel = RedisServer::start(&["--sentinel"]);
    // An address that nobody answers at, and one that accepts and says nothing, come first.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = (silent.local_addr().expect("an address").port(), silent);
    sentinel.ask::<()>(&format!("SENTINEL MONITOR orders 127.0.0.1 {port} 1"));
    for (setting, value) in
        [("auth-pass", "pw"), ("down-after-milliseconds", "500"), ("failover-timeout", "3000")]
    {
        sentinel.ask::<()>(&format!("SENTINEL SET orders {setting} {value}"));
    }
    let sentinels =
        ["redis://127.0.0.1:1".to_owned(), format!("redis://127.0.0.1:{}", silent.0), sentinel.url()];
    let sentinels: Vec<_> = sentinels.iter().map(String::as_str).collect();
    let unknown = builder().connect_sentinel(&sentinels, "redis://:pw@unknown").await.expect_err("an error");
    assert!(told(&unknown).contains("\"unknown\""), "{}", told(&unknown));
    let connect = async |builder: RedisNonceBackendBuilder| {
        let connected = builder.connect_sentinel(&sentinels, "redis://:pw@orders").await;
        connected.unwrap_or_else(|error| panic!("{}", told(&error)))
    };
    let backend = connect(builder()).await;
    assert!(backend.initialise().await.expect("new"));
    fresh(&backend, &use_now("before")).await;
    let backend = connect(builder().timeout(Duration::from_millis(500))).await;
    let waiting = connect(builder().timeout(Duration::from_secs(4)).wait_for_replicas(1)).await;
    let waiting = std::sync::Arc::new(waiting);
    recovers(&waiting, "the replica is in step").await;
    fresh(&waiting, &use_now("waited for")).await;
    until_blocking("Sentinel knows the replica", || {
        let known: Vec<Vec<String>> = sentinel.ask("SENTINEL REPLICAS orders");
        known.iter().any(|replica| {
            let value = |name: &str| replica.iter().skip_while(|word| *word != name).nth(1).cloned();
            value("master-link-status").as_deref() == Some("ok") && value("flags").as_deref() == Some("slave")
        })
    });
    primary.kill();
    until_blocking("Sentinel fails over", || {
        let address: Vec<String> = sentinel.ask("SENTINEL GET-MASTER-ADDR-BY-NAME orders");
        address.get(1) == Some(&replica.port().to_string())
    });
    until_connected(&backend).await;
    may_have_been_used(&backend, &use_now("before")).await;
    fresh(&backend, &use_ahead("after")).await;
    until_connected(&waiting).await;
    may_have_been_used(&waiting, &use_now("waited for")).await;
    // The new primary has no replica, and nothing new is accepted.
    let refused = fault(&waiting, &use_ahead("alone")).await;
    assert!(matches!(refused, Some(RedisFault::NotReplicated { wanted: 1, acknowledged: 0 })), "{refused:?}");
}

/// A Sentinel that was cut off when the others had a replica take over names the old primary, which is a replica by
/// now or gone. It answers first each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_is_behind_the_times_is_passed_over() {
    let pair = Pair::start().await;
    let (stale, current) = (RedisServer::start(&["--sentinel"]), RedisServer::start(&["--sentinel"]));
    current.ask::<()>(&format!("SENTINEL MONITOR orders 127.0.0.1 {} 1", pair.primary.port()));
    let current = Proxy::start(current.port()).await;
    current.delay(Duration::from_millis(100));
    let urls = [stale.url(), current.url()];
    let urls = [urls[0].as_str(), urls[1].as_str()];
    for (old, port) in [("replica", pair.replica.port()), ("gone", 1)] {
        // It is told of one at a time.
        let _ = stale.try_ask::<()>("SENTINEL REMOVE orders");
        stale.ask::<()>(&format!("SENTINEL MONITOR orders 127.0.0.1 {port} 1"));
        let refused = builder().connect_sentinel(&urls[..1], "redis://orders").await.expect_err("an error");
        let is_told = match &refused {
            ConnectError::Server(RedisFault::Replica { .. }) => old == "replica",
            ConnectError::Server(RedisFault::Unreachable { .. }) => old == "gone",
            _ => false,
        };
        assert!(is_told, "{old}: {}", told(&refused));
        let mut last = String::new();
        let mut is_accepted = false;
        // Not once: the machine may stall for longer than the Sentinels' answers are waited for.
        for round in 0..20 {
            match builder().connect_sentinel(&urls, "redis://orders").await {
                Ok(backend) => match backend.consume(&use_ahead(&format!("{old} {round}"))).await {
                    Ok(outcome) => {
                        assert_eq!(outcome, ajwt_server::NonceOutcome::Fresh);
                        is_accepted = true;
                        break;
                    }
                    Err(error) => last = told(&error),
                },
                Err(error) => last = told(&error),
            }
        }
        assert!(is_accepted, "{old}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_refused_at_the_start() {
    let pair = Pair::start().await;
    let url = pair.replica.url();
    let refused = builder().connect(&url).await.expect_err("an error");
    let ConnectError::Server(RedisFault::Replica { server }) = &refused else { panic!("{}", told(&refused)) };
    assert_eq!(*server, format!("127.0.0.1:{}", pair.replica.port()));
    let refused = builder().trust_persistence().connect(&url).await.expect_err("an error");
    assert!(matches!(refused, ConnectError::Server(RedisFault::Replica { .. })), "{}", told(&refused));
    let client = redis::Client::open(url).expect("a client");
    let connection = client.get_multiplexed_async_connection_with_config(&crate::patient_driver()).await;
    let refused = builder().over(connection.expect("connected")).await.expect_err("an error");
    assert!(matches!(refused, ConnectError::Server(RedisFault::Replica { .. })), "{}", told(&refused));

    // Who may not ask finds out from the first claim.
    pair.replica.ask::<()>("ACL SETUSER app on >pw ~test/* +set +get +eval +time");
    let url = format!("redis://app:pw@127.0.0.1:{}", pair.replica.port());
    let backend = builder().trust_persistence().connect(&url).await.expect("connected");
    let refused = fault(&backend, &use_ahead("one")).await;
    assert!(matches!(&refused, Some(RedisFault::Refused { code, .. }) if code == "READONLY"), "{refused:?}");
}

/// Asking a Sentinel and connecting to the primary take 1.5 s each: less than either may, and together more than one
/// may.
#[tokio::test(flavor = "multi_thread")]
async fn slow_sentinels_and_a_slow_primary_are_waited_for() {
    let (primary, sentinel) = (RedisServer::start(&[]), RedisServer::start(&["--sentinel"]));
    let (to_primary, to_sentinel) = (Proxy::start(primary.port()).await, Proxy::start(sentinel.port()).await);
    sentinel.ask::<()>(&format!("SENTINEL MONITOR orders 127.0.0.1 {} 1", to_primary.port()));
    // Less than is left of the 3 s, with the answer to the claim, when 2.1 s are over.
    let hasty = builder().timeout(Duration::from_millis(1200));
    let backend = hasty.connect_sentinel(&[&to_sentinel.url()], "redis://orders").await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    let backend = Arc::new(backend);
    // Each step is two answers.
    for proxy in [&to_primary, &to_sentinel] {
        proxy.delay(Duration::from_millis(750));
    }
    to_primary.set(Fault::Cut);
    let cut = fault(&backend, &use_ahead("cut")).await;
    assert!(matches!(cut, Some(RedisFault::Lost { .. })), "{cut:?}");
    to_primary.set(Fault::None);
    let mut claims = tokio::task::JoinSet::new();
    let mut last = String::new();
    for number in 0..200 {
        let backend = Arc::clone(&backend);
        claims.spawn(async move { backend.consume(&use_ahead(&format!("slow {number}"))).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        while let Some(answer) = claims.try_join_next() {
            match answer.expect("it ends") {
                Ok(_) => return,
                Err(error) => last = told(&error),
            }
        }
    }
    panic!("no claim passes in 10 s: {last}");
}
