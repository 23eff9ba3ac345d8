//! Claims that come at the same time share a round trip, and nothing else.

use std::{pin::Pin, slice::from_ref, sync::Arc, task::Poll, time::Duration};

use ajwt_redis::{RedisFault, RedisNonceBackend};
use ajwt_server::{Clock as _, NonceBackend as _, NonceError, NonceOutcome, NonceUse, SystemClock};
use ajwt_test_servers::{redis::RedisServer, redis_cluster::RedisCluster};
use futures_util::FutureExt as _;
use tokio::task::JoinSet;

use crate::{
    builder,
    cluster::Backends as _,
    fresh,
    proxy::{Fault, Proxy},
    replayed, use_ahead,
};

type Answer = Result<NonceOutcome, NonceError>;

async fn new_backend(url: &str) -> Arc<RedisNonceBackend> {
    let backend = builder().connect(url).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    Arc::new(backend)
}

/// A claim under way, so that those after it go together. It has been carried out, and does not know.
async fn company(
    backend: &Arc<RedisNonceBackend>,
    servers: &[RedisServer],
) -> Pin<Box<dyn Future<Output = Answer>>> {
    // What comes last of a claim.
    let carried_out = || servers.iter().map(|server| calls(server, "get")).sum::<u64>();
    let before = carried_out();
    let backend = Arc::clone(backend);
    let mut claim: Pin<Box<dyn Future<Output = Answer>>> =
        Box::pin(async move { backend.consume(&use_ahead("company")).await });
    assert!((&mut claim).now_or_never().is_none());
    for _ in 0..1000 {
        let is_carried_out = carried_out() > before;
        // Who stands between passes the answer on meanwhile.
        tokio::time::sleep(Duration::from_millis(10)).await;
        if is_carried_out {
            return claim;
        }
    }
    panic!("a claim is not carried out in 10 s");
}

/// The answers, in the order of the nonces. On a runtime of one thread all of them are asked for before the
/// first is sent.
async fn at_once(
    backend: &Arc<RedisNonceBackend>,
    _company: &impl Future,
    nonces: Vec<NonceUse>,
) -> Vec<Answer> {
    let mut claims = JoinSet::new();
    for (number, nonce) in nonces.into_iter().enumerate() {
        let backend = Arc::clone(backend);
        claims.spawn(async move { (number, backend.consume(&nonce).await) });
    }
    let mut answers = claims.join_all().await;
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn several(label: &str, count: usize) -> Vec<NonceUse> {
    (0..count).map(|number| use_ahead(&format!("{label} {number}"))).collect()
}

/// How often the server has carried out a command.
pub(crate) fn calls(server: &RedisServer, command: &str) -> u64 {
    let all: String = server.ask("INFO commandstats");
    let begin = format!("cmdstat_{command}:calls=");
    // One that was never called is not there.
    let Some(stats) = all.lines().find_map(|line| line.strip_prefix(&begin)) else { return 0 };
    let calls = stats.split(',').next().and_then(|calls| calls.parse().ok());
    calls.unwrap_or_else(|| panic!("no calls in {stats:?}"))
}

#[tokio::test]
async fn claims_at_the_same_time_share_one_look_at_the_mark() {
    let server = RedisServer::start(&[]);
    let backend = new_backend(&server.url()).await;
    let company = company(&backend, from_ref(&server)).await;
    let (sets, gets) = (calls(&server, "set"), calls(&server, "get"));
    let answers = at_once(&backend, &company, several("many", 2000)).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(NonceOutcome::Fresh))), "{answers:?}");
    assert_eq!(calls(&server, "set") - sets, 2000);
    // A third of those under way when the first of them came, two at least and 256 at most: 25 times, and more
    // often where the machine stalls while they come.
    let gets = calls(&server, "get") - gets;
    assert!((25..=100).contains(&gets), "{gets}");
    let answers = at_once(&backend, &company, several("many", 2000)).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(NonceOutcome::Replayed))), "{answers:?}");
}

#[tokio::test]
async fn the_same_nonce_twice_in_a_batch_is_fresh_once() {
    let server = RedisServer::start(&[]);
    let backend = new_backend(&server.url()).await;
    let company = company(&backend, from_ref(&server)).await;
    let gets = calls(&server, "get");
    let answers = at_once(&backend, &company, vec![use_ahead("a"), use_ahead("a")]).await;
    assert_eq!(calls(&server, "get") - gets, 1, "they do not go together");
    let [Ok(first), Ok(second)] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!([*first, *second], [NonceOutcome::Fresh, NonceOutcome::Replayed]);
}

#[tokio::test]
async fn each_claim_of_a_batch_has_its_own_answer() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.port()).await;
    let backend = new_backend(&proxy.url()).await;
    let mark = format!("$42\r\n0 {}\r\n", server.info("server", "run_id"));
    let error = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    let company = company(&backend, from_ref(&server)).await;
    proxy.set(Fault::Answer(format!("+OK\r\n{error}{mark}").into_bytes()));
    let answers = at_once(&backend, &company, several("refused", 2)).await;
    let [Ok(NonceOutcome::Fresh), Err(refused)] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(crate::told(refused).contains("OOM"), "{refused:?}");
    proxy.set(Fault::Answer(format!("$-1\r\n+OK\r\n{mark}").into_bytes()));
    let answers = at_once(&backend, &company, several("replayed", 2)).await;
    let [Ok(NonceOutcome::Replayed), Ok(NonceOutcome::Fresh)] = answers.as_slice() else {
        panic!("{answers:?}")
    };
}

#[tokio::test]
async fn what_ends_the_connection_refuses_the_whole_batch() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.port()).await;
    let backend = new_backend(&proxy.url()).await;
    let mark = format!("$42\r\n0 {}\r\n", server.info("server", "run_id"));
    let company = company(&backend, from_ref(&server)).await;
    for (round, answers) in [
        format!("+OK\r\n-READONLY no\r\n{mark}"),
        format!("+OK\r\n:1\r\n{mark}"),
        "+OK\r\n+OK\r\n:1\r\n".to_owned(),
        "+OK\r\n+OK\r\n-NOPERM no\r\n".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        proxy.set(Fault::Answer(answers.clone().into_bytes()));
        let refused = at_once(&backend, &company, several(&format!("ended {round}"), 2)).await;
        assert!(
            refused.iter().all(|answer| matches!(answer, Err(NonceError::Store(_)))),
            "{answers:?}: {refused:?}"
        );
        proxy.set(Fault::None);
        let before = proxy.connections();
        crate::recovers(&backend, &format!("round {round}")).await;
        assert_eq!(proxy.connections(), before + 1, "{answers:?}");
    }
}

/// An answer is missing: none of them can be told whose it is.
#[tokio::test]
async fn half_an_answer_to_a_batch_refuses_all_of_it() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.port()).await;
    let backend = new_backend(&proxy.url()).await;
    let company = company(&backend, from_ref(&server)).await;
    proxy.set(Fault::AnswerAndCut("+OK\r\n+OK\r\n".into()));
    let refused = at_once(&backend, &company, several("half", 2)).await;
    for answer in &refused {
        let Err(error) = answer else { panic!("{refused:?}") };
        let fault = std::error::Error::source(error).and_then(|source| source.downcast_ref());
        assert!(matches!(fault, Some(RedisFault::Lost { .. })), "{fault:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_costs_the_others_nothing() {
    let server = RedisServer::start(&[]);
    let backend = new_backend(&server.url()).await;
    let _company = company(&backend, from_ref(&server)).await;
    let (first, second) = (use_ahead("given up"), use_ahead("goes on"));
    let mut given_up = Box::pin(backend.consume(&first));
    let mut goes_on = Box::pin(backend.consume(&second));
    assert!((&mut given_up).now_or_never().is_none());
    assert!((&mut goes_on).now_or_never().is_none());
    drop(given_up);
    assert!(matches!(goes_on.await, Ok(NonceOutcome::Fresh)));
    replayed(&backend, &use_ahead("goes on")).await;
    // It was sent all the same.
    replayed(&backend, &use_ahead("given up")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_claim_again_and_again_go_together() {
    let server = RedisServer::start(&[]);
    let backend = new_backend(&server.url()).await;
    fresh(&backend, &use_ahead("first")).await;
    let (sets, gets) = (calls(&server, "set"), calls(&server, "get"));
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            for number in 0..100 {
                fresh(&backend, &use_ahead(&format!("{task} {number}"))).await;
            }
        });
    }
    tasks.join_all().await;
    let (sets, gets) = (calls(&server, "set") - sets, calls(&server, "get") - gets);
    assert_eq!(sets, 6400);
    assert!(gets * 4 < sets, "{gets} round trips for {sets} claims");
}

#[tokio::test]
async fn a_batch_that_is_not_answered_is_given_up_in_time() {
    let server = RedisServer::start(&[]);
    new_backend(&server.url()).await;
    let backend = builder().timeout(Duration::from_millis(250)).connect(&server.url()).await;
    let backend = Arc::new(backend.expect("connected"));
    let company = company(&backend, from_ref(&server)).await;
    server.pause();
    let answers =
        tokio::time::timeout(Duration::from_secs(3), at_once(&backend, &company, several("late", 9)));
    for answer in answers.await.expect("in time") {
        assert_eq!(crate::told(&answer.expect_err("no answer")), "consuming a nonce in Redis took too long");
    }
    server.resume();
    crate::recovers(&backend, "resumed").await;
}

/// While other tasks are ready: the server has it while the next one is made.
#[test]
fn a_full_batch_waits_for_nobody() {
    let server = RedisServer::start(&[]);
    // Whoever lets others go first waits until none is ready.
    let runtime = tokio::runtime::Builder::new_current_thread().event_interval(u32::MAX).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let backend = new_backend(&server.url()).await;
        let company = company(&backend, from_ref(&server)).await;
        let (sets, clock) = (calls(&server, "set"), SystemClock::new());
        let busy = tokio::spawn(std::future::poll_fn(move |context| {
            context.waker().wake_by_ref();
            let is_sent = calls(&server, "set") == sets + 2;
            let is_over = clock.monotonic() > Duration::from_secs(5);
            if is_sent || is_over { Poll::Ready(is_sent) } else { Poll::Pending }
        }));
        let answers = at_once(&backend, &company, several("full", 2)).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(NonceOutcome::Fresh))), "{answers:?}");
        assert!(busy.await.expect("it ends"), "it was sent when nobody else was ready");
    });
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// As when one of several workers with a runtime each ends, or stalls.
#[test]
fn a_runtime_that_ends_or_stalls_takes_nobody_with_it_who_comes_later() {
    for ends in [true, false] {
        let (stays, goes) = (runtime(), runtime());
        let server = RedisServer::start(&[]);
        let backend = stays.block_on(new_backend(&server.url()));
        let (early, late) = (use_ahead("early"), use_ahead("late"));
        let _company = stays.block_on(company(&backend, from_ref(&server)));
        let mut begun = Box::pin(backend.consume(&early));
        goes.block_on(async { assert!((&mut begun).now_or_never().is_none()) });
        if ends {
            drop(goes);
        }
        stays.block_on(async {
            let limit = Duration::from_secs(5);
            tokio::time::sleep(Duration::from_millis(50)).await;
            // In company still.
            let answer = tokio::time::timeout(limit, backend.consume(&late)).await.expect("an answer");
            assert!(matches!(answer, Ok(NonceOutcome::Fresh)), "{answer:?}");
        });
    }
}

/// A worker gave up on a connection, and went while it made another.
#[test]
fn a_runtime_that_ends_or_stalls_while_it_connects_is_not_waited_for() {
    for ends in [true, false] {
        let (stays, goes) = (runtime(), runtime());
        let server = RedisServer::start(&[]);
        stays.block_on(new_backend(&server.url()));
        let backend = stays.block_on(RedisNonceBackend::builder("test").connect(&server.url()));
        let backend = Arc::new(backend.expect("connected"));
        server.pause();
        goes.block_on(async {
            assert!(backend.consume(&use_ahead("paused")).await.is_err());
            // It is connecting now.
            assert!(backend.consume(&use_ahead("connecting")).await.is_err());
        });
        if ends {
            drop(goes);
        }
        server.resume();
        stays.block_on(crate::recovers(&backend, "on another runtime"));
    }
}

#[tokio::test]
async fn claims_of_many_buckets_heed_each_its_own_mark() {
    let cluster = RedisCluster::start();
    let backend = Arc::new(cluster.new_backend(builder()).await);
    let company = company(&backend, &cluster.servers).await;
    let nonces = several("buckets", 2000);
    let bucket = |nonce: &NonceUse| nonce.key().as_bytes().last().copied().expect("32 bytes");
    let forgotten = nonces.first().map(bucket).expect("some");
    for server in &cluster.servers {
        // The others do not have it, and say where it is.
        let _ = server.try_ask::<()>(&format!("DEL test/{{{forgotten:02x}}}since"));
    }
    let answers = at_once(&backend, &company, nonces.clone()).await;
    assert!(
        matches!(answers.first(), Some(Err(NonceError::MayHaveBeenUsed { .. }))),
        "{:?}",
        answers.first()
    );
    for (nonce, answer) in nonces.iter().zip(&answers) {
        // Of that bucket some may come after the new mark.
        let forgot = bucket(nonce) == forgotten && matches!(answer, Err(NonceError::MayHaveBeenUsed { .. }));
        assert!(forgot || matches!(answer, Ok(NonceOutcome::Fresh)), "{answer:?}");
    }
}
