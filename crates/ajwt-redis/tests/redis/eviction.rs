//! A server that evicts forgets used nonces: why the check at the start matters.

use ajwt_redis::{ConnectError, RedisFault};
use ajwt_server::{NonceBackend as _, NonceOutcome};
use ajwt_test_servers::redis::RedisServer;
use ajwt_test_support::{Level, Log, until};

use crate::{builder, fault, fresh, replayed, told, use_ahead, use_now};

const POLICIES: [&str; 7] = [
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_evicts_is_refused() {
    let server = RedisServer::start(&["--maxmemory", "100mb"]);
    for policy in POLICIES {
        server.ask::<()>(&format!("CONFIG SET maxmemory-policy {policy}"));
        let error = builder().connect(&server.url()).await.expect_err("an error");
        let ConnectError::Server(RedisFault::Evicts { policy: found, maxmemory, .. }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!((found.as_str(), maxmemory.as_str()), (policy, "104857600"));
        assert!(told(&error).contains("accept_eviction()"), "{error}");
        let client = redis::Client::open(server.url()).expect("a client");
        let connection = client.get_multiplexed_async_connection_with_config(&crate::patient_driver()).await;
        let connection = connection.expect("connected");
        let error = builder().over(connection).await.expect_err("an error");
        assert!(matches!(error, ConnectError::Server(RedisFault::Evicts { .. })), "{error}");
        builder().accept_eviction().connect(&server.url()).await.expect("accepted by name");
    }
    server.ask::<()>("CONFIG SET maxmemory-policy noeviction");
    builder().connect(&server.url()).await.expect("it does not evict");
    server.ask::<()>("CONFIG SET maxmemory 0");
    server.ask::<()>("CONFIG SET maxmemory-policy allkeys-lru");
    builder().connect(&server.url()).await.expect("without a limit nothing is evicted");
}

/// A server that changed its mind is refused when the connection is made anew.
#[tokio::test(flavor = "multi_thread")]
async fn each_new_connection_is_checked() {
    let server = RedisServer::start(&[]);
    let backend = builder().connect(&server.url()).await.expect("connected");
    server.ask::<()>("CONFIG SET maxmemory 100mb");
    server.ask::<()>("CONFIG SET maxmemory-policy allkeys-lru");
    server.ask::<i64>("CLIENT KILL TYPE normal SKIPME yes");
    for _ in 0..100 {
        if let Some(RedisFault::Evicts { .. }) = crate::fault(&backend, &use_ahead("one")).await {
            return;
        }
    }
    panic!("it is not refused");
}

/// What `accept_eviction` accepts.
#[tokio::test(flavor = "multi_thread")]
async fn eviction_makes_a_used_token_good_again() {
    let server = RedisServer::start(&["--maxmemory", "3mb", "--maxmemory-policy", "volatile-ttl"]);
    let backend = builder().accept_eviction().connect(&server.url()).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    let used = |number: u32| use_now(&format!("{number}"));
    fresh(&backend, &used(0)).await;
    replayed(&backend, &used(0)).await;
    let mut count = 1;
    while server.info("stats", "evicted_keys").parse::<u32>().expect("a number") < 1000 {
        for _ in 0..1000 {
            fresh(&backend, &used(count)).await;
            count += 1;
        }
        assert!(count < 200_000, "little is evicted");
    }
    let mut good_again = 0;
    for number in 0..1000 {
        if backend.consume(&used(number)).await.expect("an answer") == NonceOutcome::Fresh {
            good_again += 1;
        }
    }
    assert!(good_again > 0, "replays were expected to be accepted");
}

/// Without eviction the same server refuses what it has no room for, and what was used stays so.
#[tokio::test(flavor = "multi_thread")]
async fn without_eviction_a_full_server_refuses() {
    let server = RedisServer::start(&["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"]);
    let backend = builder().connect(&server.url()).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    let used = use_now("used");
    fresh(&backend, &used).await;
    let mut number = 0;
    let refused = loop {
        number += 1;
        match backend.consume(&use_now(&format!("{number}"))).await {
            Ok(NonceOutcome::Fresh) => assert!(number < 200_000, "it is never full"),
            Ok(NonceOutcome::Replayed) => panic!("{number} is Replayed"),
            Err(error) => break told(&error),
        }
    };
    assert!(refused.contains("OOM"), "{refused}");
    // It does not answer Fresh; whether it can still say Replayed is its business.
    assert!(!matches!(backend.consume(&used).await, Ok(NonceOutcome::Fresh)));
}

/// Its rules allow what the backend needs, and these too.
fn app(server: &RedisServer, rules: &str) -> String {
    server.ask::<()>(&format!("ACL SETUSER app reset on >secret ~test/* +set +get +eval +time {rules}"));
    format!("redis://app:secret@127.0.0.1:{}", server.port())
}

/// What is logged while a service with these rules, which says `trust_persistence`, connects to a new server
/// and accepts a token.
fn log_of_a_start(rules: &str) -> String {
    let server = RedisServer::start(&[]);
    let url = app(&server, rules);
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let backend = builder().trust_persistence().connect(&url).await.expect("connected");
        assert!(backend.initialise().await.expect("new"));
        fresh(&backend, &use_now(rules)).await;
    });
    log.text()
}

#[test]
fn where_config_and_info_are_forbidden_a_warning_says_so() {
    let log = log_of_a_start("");
    assert!(log.contains("WARN") && log.contains("maxmemory-policy"), "{log:?}");
    assert!(!log.contains("secret"), "{log}");
    for rules in ["+info", "+config|get"] {
        assert_eq!(log_of_a_start(rules), "", "{rules}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_config_is_forbidden_info_tells_of_eviction() {
    let server = RedisServer::start(&["--maxmemory", "100mb"]);
    let url = app(&server, "+info");
    for policy in POLICIES {
        server.ask::<()>(&format!("CONFIG SET maxmemory-policy {policy}"));
        let error = builder().connect(&url).await.expect_err("an error");
        let ConnectError::Server(RedisFault::Evicts { policy: found, maxmemory, .. }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!((found.as_str(), maxmemory.as_str()), (policy, "104857600"));
    }
    server.ask::<()>("CONFIG SET maxmemory 0");
    builder().connect(&url).await.expect("without a limit nothing is evicted");
    server.ask::<()>("CONFIG SET maxmemory 100mb");
    server.ask::<()>("CONFIG SET maxmemory-policy noeviction");
    let backend = builder().connect(&url).await.expect("it does not evict");
    assert!(backend.initialise().await.expect("new"));
    fresh(&backend, &use_now("one")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_info_is_forbidden_the_operator_must_vouch() {
    let server = RedisServer::start(&[]);
    let url = app(&server, "+config|get");
    let error = builder().connect(&url).await.expect_err("an error");
    assert!(matches!(error, ConnectError::Server(RedisFault::NoRunId { .. })), "{error}");
    let backend = builder().trust_persistence().connect(&url).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    fresh(&backend, &use_now("one")).await;
}

/// While a script runs the server tells nothing: what it keeps to itself then is not what it does not grant.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_a_script_holds_up_is_not_taken_unseen() {
    // Under the name that is understood by old servers, too.
    let server = RedisServer::start(&["--lua-time-limit", "100", "--maxmemory", "100mb"]);
    let earlier = builder().connect(&server.url()).await.expect("connected");
    server.ask::<()>("CONFIG SET maxmemory-policy allkeys-lru");
    let script = std::thread::spawn({
        let url = server.url();
        move || {
            let client = redis::Client::open(url).expect("a client");
            let mut connection = client.get_connection().expect("connected");
            redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut connection)
        }
    });
    let is_busy = || server.try_ask::<String>("PING").is_err_and(|error| error.code() == Some("BUSY"));
    until("the script runs", async || {
        assert!(!script.is_finished(), "it does not run");
        is_busy()
    })
    .await;
    for settings in [builder(), builder().trust_persistence()] {
        let refused = settings.connect(&server.url()).await.expect_err("an error");
        let is_told =
            matches!(&refused, ConnectError::Server(RedisFault::Refused { code, .. }) if code == "BUSY");
        assert!(is_told && told(&refused).contains("SCRIPT KILL"), "{}", told(&refused));
    }
    let refused = fault(&earlier, &use_ahead("earlier")).await;
    assert!(matches!(&refused, Some(RedisFault::Refused { code, .. }) if code == "BUSY"), "{refused:?}");
    server.ask::<()>("SCRIPT KILL");
    script.join().expect("it ends").expect_err("it was killed");
    for settings in [builder(), builder().trust_persistence()] {
        let error = settings.connect(&server.url()).await.expect_err("an error");
        assert!(matches!(error, ConnectError::Server(RedisFault::Evicts { .. })), "{error}");
    }
}
