//! What is not known for sure is an error, nothing is sent twice, and it recovers by itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ajwt_redis::{ConnectError, RedisFault, RedisNonceBackend};
use ajwt_server::{NonceBackend as _, NonceError, NonceOutcome};
use ajwt_test_servers::redis::RedisServer;
use ajwt_test_support::{
    hearing::{Hearing, IN_URL, PASSWORD, malformed},
    until,
};
use tokio::task::JoinSet;

use crate::{
    fault, fresh,
    proxy::{Fault, Proxy},
    recovers, replayed, told, use_ahead,
};

/// The default limit, by which every fault must be told.
const TIMEOUT: Duration = Duration::from_millis(250);

/// For a busy machine.
const SLACK: Duration = Duration::from_millis(1500);

/// With the patience for a fault that is told by what happens, not by the limit.
async fn behind_proxy() -> (RedisServer, Proxy, Arc<RedisNonceBackend>) {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.port()).await;
    let backend = crate::builder().connect(&proxy.url()).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    recovers(&Arc::new(backend), "at first").await;
    proxy.claims();
    let backend = crate::builder().connect(&proxy.url()).await.expect("connected");
    (server, proxy, Arc::new(backend))
}

/// For a fault that nothing but the limit ends.
async fn hasty(url: &str) -> Arc<RedisNonceBackend> {
    Arc::new(RedisNonceBackend::builder("test").connect(url).await.expect("connected"))
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn fails_in_time(
    backend: &RedisNonceBackend,
    proxy: &Proxy,
    what: &str,
    sent: usize,
) -> Option<RedisFault> {
    proxy.claims();
    let nonce = use_ahead(what);
    let begun = Instant::now();
    let fault = fault(backend, &nonce).await;
    assert!(begun.elapsed() < TIMEOUT + SLACK, "{what}: told after {:?}", begun.elapsed());
    // A repetition would come after the answer, too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let claims = proxy.claims();
    assert_eq!(claims.len(), sent, "{what}: the claim was sent {} times", claims.len());
    fault
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_one_packet_with_the_set_first() {
    let (_server, proxy, backend) = behind_proxy().await;
    fresh(&backend, &use_ahead("one")).await;
    let claims = proxy.claims();
    assert_eq!(claims.len(), 1);
    let text = String::from_utf8_lossy(&claims[0]).into_owned();
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?} is not in {text:?}"));
    // 100 s, and the millisecond that keeps the last one.
    assert!(place("SET") < place("100001") && place("100001") < place("GET"), "{text:?}");
    assert!(place("NX") < place("PX") && text.starts_with("*6\r\n$3\r\nSET\r\n"), "{text:?}");
    assert!(text.ends_with("test/since\r\n"), "nothing after the GET: {text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_after_the_command_was_sent_is_an_error_and_nothing_is_repeated() {
    let (_server, proxy, backend) = behind_proxy().await;
    proxy.set(Fault::Cut);
    let fault = fails_in_time(&backend, &proxy, "cut", 1).await;
    assert!(matches!(fault, Some(RedisFault::Lost { .. })), "{fault:?}");
    proxy.set(Fault::None);
    recovers(&backend, "after the cut").await;
    // The command was carried out: had it been repeated, or the error taken for an answer, this
    // would show.
    replayed(&backend, &use_ahead("cut")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_before_the_command_arrived_is_the_same_error() {
    let (_server, proxy, backend) = behind_proxy().await;
    proxy.set(Fault::CutBefore);
    let fault = fails_in_time(&backend, &proxy, "cut before", 1).await;
    assert!(matches!(fault, Some(RedisFault::Lost { .. })), "{fault:?}");
    proxy.set(Fault::None);
    recovers(&backend, "after the cut").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_went_dumb_is_replaced() {
    let (_server, proxy, patient) = behind_proxy().await;
    let backend = hasty(&proxy.url()).await;
    proxy.set(Fault::Swallow);
    let fault = fails_in_time(&backend, &proxy, "swallowed", 1).await;
    assert!(fault.is_none(), "a timeout has no source: {fault:?}");
    proxy.set(Fault::None);
    let before = proxy.connections();
    recovers(&backend, "after silence").await;
    assert!(proxy.connections() <= before + 1);
    replayed(&patient, &use_ahead("swallowed")).await;
}

/// As when callers hang up, or the engine gives a request up, before this limit: nobody waits for it, and it is found
/// all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_went_dumb_is_replaced_though_each_request_is_given_up() {
    const PATIENCE: Duration = Duration::from_millis(500);

    let (_server, proxy, _) = behind_proxy().await;
    let backend = crate::builder().timeout(Duration::from_secs(4)).connect(&proxy.url()).await;
    let backend = backend.expect("connected");
    proxy.set(Fault::Swallow);
    let given_up = tokio::time::timeout(PATIENCE, backend.consume(&use_ahead("swallowed"))).await;
    assert!(!matches!(given_up, Ok(Ok(_))), "{given_up:?}");
    proxy.set(Fault::None);
    let dumb = proxy.connections();
    // One after the other, so that each is alone.
    for round in 0..40 {
        let nonce = use_ahead(&format!("given up {round}"));
        match tokio::time::timeout(PATIENCE, backend.consume(&nonce)).await {
            Ok(Ok(NonceOutcome::Fresh)) => {
                assert!(proxy.connections() > dumb, "the connection was never dumb");
                return;
            }
            Ok(Ok(NonceOutcome::Replayed)) => panic!("a new nonce is Replayed"),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("it is not replaced");
}

/// However long it was ready before somebody came.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_made_while_nobody_asked_is_used() {
    let (_server, proxy, backend) = behind_proxy().await;
    proxy.set(Fault::Cut);
    assert!(fault(&backend, &use_ahead("cut")).await.is_some());
    proxy.set(Fault::None);
    // An attempt that takes longer is taken for one that does not go on.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let made = proxy.connections();
    fresh(&backend, &use_ahead("after a pause")).await;
    assert_eq!(proxy.connections(), made);
}

/// As a server's `timeout` or a proxy's limit does where requests are few.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_cut_while_nobody_asked_costs_no_claim() {
    let (server, proxy, backend) = behind_proxy().await;
    for round in 0..3 {
        server.ask::<()>("CONFIG SET timeout 1");
        until(&format!("round {round}: it is cut"), async || proxy.open() == 0).await;
        // The next connection is not to be cut, however long the machine stalls.
        server.ask::<()>("CONFIG SET timeout 0");
        // Several pauses, of which one alone is all that a stall takes: the driver has found out by then.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fresh(&backend, &use_ahead(&format!("round {round}"))).await;
        assert_eq!(proxy.claims().len(), 1, "round {round}: the claim was sent again");
    }
}

/// To connect takes most of a claim's time: what is left to those that waited for it is too little for an answer,
/// and must not end the connection for all others, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_slow_network_claims_that_waited_do_not_end_the_connection() {
    crate::undisturbed(async || {
        let (accepted, made) = claim_on_a_slow_network().await;
        move || {
            // One, and 14 that are too late. Else the first that waited for a connection ends it a quarter of a second
            // after it is there: one every 1.25 s, and a fifth of the claims fails.
            assert!(made <= 3, "{made} connections, {accepted} of 300 accepted");
            assert!((255..300).contains(&accepted), "{made} connections, {accepted} of 300 accepted");
        }
    })
    .await;
}

/// How many of 300 claims are accepted, and how many connections are made.
async fn claim_on_a_slow_network() -> (usize, usize) {
    let (_server, proxy, _) = behind_proxy().await;
    let backend = crate::builder().timeout(Duration::from_millis(1250)).connect(&proxy.url()).await;
    let backend = Arc::new(backend.expect("connected"));
    let before = proxy.connections();
    // Two answers until it is connected, 1 s, and a third for a claim: those of the first quarter of a second are
    // too late. Whoever comes when it is connected has 0.75 s to spare, and connecting 1 s.
    proxy.delay(Duration::from_millis(500));
    proxy.set(Fault::Cut);
    let cut = fault(&backend, &use_ahead("cut")).await;
    assert!(matches!(cut, Some(RedisFault::Lost { .. })), "{cut:?}");
    proxy.set(Fault::None);
    // At once: it is connecting now.
    let mut claims = JoinSet::new();
    for number in 0..300 {
        let backend = Arc::clone(&backend);
        claims.spawn(async move { backend.consume(&use_ahead(&format!("slow {number}"))).await.is_ok() });
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let accepted = claims.join_all().await.into_iter().filter(|is_accepted| *is_accepted).count();
    (accepted, proxy.connections() - before)
}

/// The claim takes most of the request's time: what is left is too little for the answer about the new mark, and must
/// not end the connection either.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_slow_network_a_new_mark_does_not_end_the_connection() {
    let (server, proxy, _) = behind_proxy().await;
    let backend = crate::builder().timeout(Duration::from_secs(3)).connect(&proxy.url()).await;
    let backend = Arc::new(backend.expect("connected"));
    for attempt in 0..5 {
        recovers(&backend, &format!("attempt {attempt}")).await;
        let made = proxy.connections();
        server.ask::<()>("FLUSHALL");
        proxy.delay(Duration::from_secs(2));
        let late = backend.consume(&use_ahead(&format!("late {attempt}"))).await;
        proxy.delay(Duration::ZERO);
        let is_marked = server.ask::<Option<String>>("GET test/since").is_some();
        if !is_marked || !matches!(late, Err(NonceError::Store(_))) {
            // The machine was so busy that the claim was too late itself, or nothing was.
            continue;
        }
        // Behind the answer about the mark, which is on its way.
        fresh(&backend, &use_ahead(&format!("after {attempt}"))).await;
        assert_eq!(proxy.connections(), made);
        return;
    }
    panic!("no claim is answered in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_limit_is_the_documented_one() {
    let server = RedisServer::start(&[]);
    let builder = RedisNonceBackend::builder("test");
    let backend = builder.clone().connect(&server.url()).await.expect("connected");
    let told = format!("{builder:?} {backend:?}");
    assert_eq!(told.matches(&format!("timeout: {TIMEOUT:?},")).count(), 2, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_says_so() {
    let (_server, proxy, _) = behind_proxy().await;
    let backend = hasty(&proxy.url()).await;
    proxy.set(Fault::Swallow);
    let error = backend.consume(&use_ahead("slow")).await.expect_err("an error");
    assert_eq!(told(&error), "consuming a nonce in Redis took too long");
}

/// Over a connection of the application's, whose driver gives an answer up by itself.
async fn over_a_manager(proxy: &Proxy, response_timeout: Duration) -> Arc<RedisNonceBackend> {
    let config = redis::aio::ConnectionManagerConfig::new()
        .set_connection_timeout(Some(crate::PATIENT))
        .set_response_timeout(Some(response_timeout));
    let client = redis::Client::open(proxy.url()).expect("a client");
    let manager = client.get_connection_manager_with_config(config).await.expect("connected");
    let backend = crate::builder().timeout(Duration::from_secs(60)).over(manager).await;
    Arc::new(backend.expect("a backend"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_manager_that_is_cut_repeats_nothing_and_connects_again() {
    let (_server, proxy, patient) = behind_proxy().await;
    let backend = over_a_manager(&proxy, crate::PATIENT).await;
    proxy.set(Fault::Cut);
    proxy.claims();
    let fault = fault(&backend, &use_ahead("cut")).await;
    assert!(matches!(fault, Some(RedisFault::Lost { .. })), "{fault:?}");
    proxy.set(Fault::None);
    // A repetition would come after the answer, when it is connected again.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(proxy.claims().len(), 1);
    recovers(&backend, "after the cut").await;
    replayed(&patient, &use_ahead("cut")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drivers_own_timeout_is_a_timeout() {
    let (_server, proxy, _) = behind_proxy().await;
    let backend = over_a_manager(&proxy, Duration::from_secs(3)).await;
    let connections = proxy.connections();
    proxy.set(Fault::Swallow);
    let silent = fault(&backend, &use_ahead("swallowed")).await;
    assert!(silent.is_none(), "a timeout has no source: {silent:?}");
    proxy.set(Fault::None);
    // Nor is it connected anew, as `over` says.
    let silent = fault(&backend, &use_ahead("silent")).await;
    assert!(silent.is_none(), "a timeout has no source: {silent:?}");
    assert_eq!(proxy.connections(), connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_server_are_told_apart() {
    let (_server, proxy, backend) = behind_proxy().await;
    for (answer, due) in [
        ("READONLY You can't write against a read only replica.", "READONLY"),
        ("LOADING Redis is loading the dataset in memory", "LOADING"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("MOVED 3999 127.0.0.1:1", "MOVED"),
        ("ASK 3999 127.0.0.1:1", "ASK"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "TRYAGAIN"),
        ("CLUSTERDOWN The cluster is down", "CLUSTERDOWN"),
        ("NOAUTH Authentication required.", "NOAUTH"),
        ("NOPERM this user has no permissions", "NOPERM"),
        ("MISCONF Redis is configured to save RDB snapshots", "MISCONF"),
        ("MASTERDOWN Link with MASTER is down", "MASTERDOWN"),
        ("ERR unknown command 'SET', with args beginning with: 'test/secret'", "ERR"),
        ("secret-in-place-of-a-code x", "an error"),
    ] {
        let line = format!("-{answer}\r\n");
        proxy.set(Fault::Answer(line.repeat(2).into_bytes()));
        let fault = fails_in_time(&backend, &proxy, answer, 1).await;
        let Some(RedisFault::Refused { code, .. }) = &fault else { panic!("{answer}: {fault:?}") };
        assert_eq!(code, due, "{answer}");
        let told = format!("{} {fault:?}", told(fault.as_ref().expect("a fault")));
        assert!(!told.contains("secret") && !told.contains("127.0.0.1:1"), "{told}");
        proxy.set(Fault::None);
        recovers(&backend, answer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_on_one_of_the_two_commands_is_an_error() {
    let (_server, proxy, backend) = behind_proxy().await;
    for answer in [
        "-OOM full\r\n$15\r\n1 0000000000000\r\n",
        "+OK\r\n-MOVED 1 127.0.0.1:1\r\n",
        "+OK\r\n-NOPERM no\r\n",
        "$-1\r\n-ERR no\r\n",
    ] {
        proxy.set(Fault::Answer(answer.into()));
        let fault = fails_in_time(&backend, &proxy, answer, 1).await;
        assert!(matches!(fault, Some(RedisFault::Refused { .. })), "{answer:?}: {fault:?}");
        proxy.set(Fault::None);
        recovers(&backend, answer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_make_no_sense_are_errors() {
    let (_server, proxy, backend) = behind_proxy().await;
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "+OK\r\n+OK\r\n",
        "+QUEUED\r\n+QUEUED\r\n",
        ":1\r\n$3\r\n1 x\r\n",
        "*0\r\n*0\r\n",
        "$2\r\nOK\r\n$1\r\n1\r\n",
        "+OK\r\n$7\r\nnothing\r\n",
        "+OK\r\n$0\r\n\r\n",
        "+OK\r\n:1790000000000\r\n",
        "%1\r\n+a\r\n+b\r\n+OK\r\n",
        "$99999999999\r\n",
    ] {
        proxy.set(Fault::AnswerAndCut(answer.into()));
        fails_in_time(&backend, &proxy, answer, 1).await;
        proxy.set(Fault::None);
        recovers(&backend, answer).await;
    }
}

/// The mark is as it should be; only what the SET is answered with is not.
#[tokio::test(flavor = "multi_thread")]
async fn only_ok_is_fresh() {
    let (server, proxy, backend) = behind_proxy().await;
    let mark = format!("$42\r\n0 {}\r\n", server.info("server", "run_id"));
    for answer in ["+QUEUED", ":1", ":0", "$2\r\nOK", "$0\r\n", "*0", "+ok", "*1\r\n+OK"] {
        proxy.set(Fault::Answer(format!("{answer}\r\n{mark}").into_bytes()));
        let fault = fails_in_time(&backend, &proxy, answer, 1).await;
        assert!(
            matches!(fault, Some(RedisFault::UnexpectedReply { command: "SET" })),
            "{answer:?}: {fault:?}"
        );
        proxy.set(Fault::None);
        recovers(&backend, answer).await;
    }
    proxy.set(Fault::Answer(format!("+OK\r\n{mark}").into_bytes()));
    fresh(&backend, &use_ahead("OK")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_is_an_error() {
    let (_server, proxy, backend) = behind_proxy().await;
    let hasty = hasty(&proxy.url()).await;
    for answer in ["+OK\r\n", "+OK\r\n$54\r\n17900", "+O", "$-1\r\n"] {
        proxy.set(Fault::AnswerAndCut(answer.into()));
        let fault = fails_in_time(&backend, &proxy, answer, 1).await;
        assert!(matches!(fault, Some(RedisFault::Lost { .. })), "{answer:?}: {fault:?}");
        proxy.set(Fault::Answer(answer.into()));
        let fault = fails_in_time(&hasty, &proxy, &format!("{answer} and silence"), 1).await;
        assert!(fault.is_none(), "{answer:?}: {fault:?}");
        proxy.set(Fault::None);
        recovers(&backend, answer).await;
        recovers(&hasty, &format!("{answer} and silence")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_load_let_nothing_through_twice() {
    let (_server, proxy, patient) = behind_proxy().await;
    let backend = hasty(&proxy.url()).await;
    for round in 0..20 {
        proxy.set(if round % 2 == 0 { Fault::Cut } else { Fault::Swallow });
        let mut uses = JoinSet::new();
        for task in 0_usize..16 {
            let backend = Arc::clone(&backend);
            let number = task % 4;
            let nonce = use_ahead(&format!("load {round} {number}"));
            uses.spawn(async move { (number, backend.consume(&nonce).await) });
        }
        let (mut accepted, mut errors) = ([0_usize; 4], 0);
        for (number, outcome) in uses.join_all().await {
            accepted[number] += usize::from(matches!(outcome, Ok(NonceOutcome::Fresh)));
            errors += usize::from(outcome.is_err());
        }
        assert!(errors > 0, "round {round}: none met the fault");
        proxy.set(Fault::None);
        proxy.claims();
        recovers(&backend, &format!("round {round}")).await;
        for (number, accepted) in accepted.iter_mut().enumerate() {
            let nonce = use_ahead(&format!("load {round} {number}"));
            let mut outcome = backend.consume(&nonce).await;
            if outcome.is_err() {
                // On a busy machine an answer may come after the limit.
                outcome = patient.consume(&nonce).await;
            }
            *accepted += usize::from(matches!(outcome, Ok(NonceOutcome::Fresh)));
            assert!(*accepted <= 1, "round {round}: nonce {number} was accepted {accepted} times");
            replayed(&patient, &nonce).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_an_error_at_once_and_comes_back() {
    let (mut server, backend) = direct().await;
    server.kill();
    let first = fault(&backend, &use_ahead("dead")).await;
    assert!(matches!(first, Some(RedisFault::Lost { .. } | RedisFault::Unreachable { .. })), "{first:?}");
    let second = fault(&backend, &use_ahead("dead")).await;
    let Some(RedisFault::Unreachable { server: name, .. }) = &second else { panic!("{second:?}") };
    assert_eq!(*name, format!("127.0.0.1:{}", server.port()));
    server.restart();
    // Empty: the guard refuses what is dated now, and takes what is dated later.
    recovers(&backend, "restarted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_is_a_timeout_and_works_when_it_goes_on() {
    let (server, patient) = direct().await;
    let backend = hasty(&server.url()).await;
    server.pause();
    for round in 0..3 {
        assert!(fault(&backend, &use_ahead(&format!("paused {round}"))).await.is_none());
    }
    server.resume();
    recovers(&backend, "resumed").await;
    replayed(&patient, &use_ahead("paused 0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_is_an_error() {
    let (server, backend) = direct().await;
    server.ask::<()>("CONFIG SET maxmemory 1");
    let refused = fault(&backend, &use_ahead("full")).await;
    assert!(matches!(&refused, Some(RedisFault::Refused { code, .. }) if code == "OOM"), "{refused:?}");
    server.ask::<()>("CONFIG SET maxmemory 0");
    recovers(&backend, "with room").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_an_error() {
    let (server, backend) = direct().await;
    server.ask::<()>("REPLICAOF 127.0.0.1 1");
    let refused = fault(&backend, &use_ahead("replica")).await;
    assert!(matches!(&refused, Some(RedisFault::Refused { code, .. }) if code == "READONLY"), "{refused:?}");
    server.ask::<()>("REPLICAOF NO ONE");
    recovers(&backend, "primary again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_password_later_is_an_error() {
    let (server, backend) = direct().await;
    let mut connection =
        redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("connected");
    redis::cmd("CONFIG").arg(&["SET", "requirepass", "s3cret"]).exec(&mut connection).expect("set");
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).exec(&mut connection).expect("killed");
    let _ = backend.consume(&use_ahead("locked")).await;
    let refused = fault(&backend, &use_ahead("locked")).await;
    assert!(matches!(&refused, Some(RedisFault::Refused { code, .. }) if code == "NOAUTH"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_shown() {
    // The user may not ask whether the server evicts, of which the log warns.
    let user = format!("--requirepass right --user app on >{PASSWORD} ~test/* +set +get +eval +time");
    let mut server = RedisServer::start(&user.split(' ').collect::<Vec<_>>());
    let mut hearing = Hearing::start();
    let host = format!("127.0.0.1:{}", server.port());
    let mut bad = malformed("redis");
    bad.extend([":", "guido:", "app:x"].map(|credentials| format!("redis://{credentials}{IN_URL}@{host}")));
    bad.extend(["127.0.0.1:1", "nowhere.invalid"].map(|host| format!("redis://app:{IN_URL}@{host}")));
    for url in bad {
        hearing.error(&crate::builder().connect(&url).await.expect_err("a server"));
        hearing.error(&crate::builder().connect_cluster(&[&url]).await.expect_err("a cluster"));
        hearing.error(&crate::builder().connect_sentinel(&[&url], &url).await.expect_err("a Sentinel"));
    }
    // A server without HELLO, or without AUTH, answers with all that it was sent.
    for command in ["HELLO", "AUTH"] {
        let old = RedisServer::start(&["--rename-command", command, ""]);
        for protocol in ["resp2", "resp3"] {
            let url = format!("redis://:{IN_URL}@127.0.0.1:{}?protocol={protocol}", old.port());
            match crate::builder().connect(&url).await {
                Ok(backend) => hearing.debug(&backend),
                Err(error) => hearing.error(&error),
            }
        }
    }

    let url = format!("redis://app:{IN_URL}@{host}");
    hearing.error(&crate::builder().connect_cluster(&[&url]).await.expect_err("a cluster"));
    let backend = crate::builder().trust_persistence().connect(&url).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    fresh(&backend, &use_ahead("one")).await;
    hearing.debug(&backend);
    server.kill();
    for _ in 0..2 {
        hearing.error(&backend.consume(&use_ahead("two")).await.expect_err("no server"));
    }
    hearing.finish(&["ajwt_redis"]);
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_a_reason() {
    let server = RedisServer::start(&[]);
    let error = RedisNonceBackend::builder("a b").connect(&server.url()).await.expect_err("an error");
    assert!(matches!(error, ConnectError::Prefix { .. }), "{error}");
    for timeout in [Duration::from_millis(9), Duration::from_secs(61), Duration::MAX] {
        let error = crate::builder().timeout(timeout).connect(&server.url()).await.expect_err("an error");
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    }
    let error = crate::builder().connect_cluster(&[]).await.expect_err("an error");
    assert!(matches!(error, ConnectError::NoUrl), "{error}");
    let error = crate::builder().connect_cluster(&[&server.url()]).await.expect_err("an error");
    assert!(matches!(error, ConnectError::Server(RedisFault::WrongMode { .. })), "{error}");
    let error = crate::builder().connect_cluster(&[&server.url(), "x://"]).await.expect_err("an error");
    assert!(matches!(error, ConnectError::Url { index: 1, .. }), "{error}");
}

async fn direct() -> (RedisServer, Arc<RedisNonceBackend>) {
    let server = RedisServer::start(&[]);
    let backend = crate::builder().connect(&server.url()).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    (server, Arc::new(backend))
}

/// Each refusal ends its connection, and dialling works.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_everything_is_not_flooded_with_connections() {
    let (server, backend) = direct().await;
    server.ask::<()>("ACL SETUSER default -set");
    let connections =
        || server.info("stats", "total_connections_received").parse::<usize>().expect("a number");
    let (before, begun) = (connections(), tokio::time::Instant::now());
    let mut requests = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(backend.consume(&use_ahead(&format!("{requests}"))).await.is_err());
        requests += 1;
    }
    let (dialled, took) = (connections() - before, begun.elapsed());
    // A tenth of a second between two, and one that asked for their number.
    let most = 2 + took.as_millis() as usize / 100;
    assert!((2..=most).contains(&dialled), "{dialled} connections for {requests} requests in {took:?}");
}
