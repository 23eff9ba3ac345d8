//! Three primaries: how nonces spread, and what is noticed when one of them forgets.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ajwt_redis::{ConnectError, RedisFault, RedisNonceBackend, RedisNonceBackendBuilder};
use ajwt_server::{NonceBackend as _, NonceError, NonceOutcome, NonceUse, testing};
use ajwt_test_servers::{
    redis::RedisServer,
    redis_cluster::{ARGUMENTS, RedisCluster},
};
#[cfg(feature = "tls")]
use ajwt_test_servers::{redis::tls::tls_port, tls::Authority};
use ajwt_test_support::{Level, Log, until, until_blocking};

use crate::{
    batches::{calls, runtime},
    builder, fault, fresh, may_have_been_used, recovers,
    slots::tag_of,
    told, use_ahead, use_now,
};

/// Enough for each of 256 buckets.
const NONCES: usize = 4096;

/// Backends on a cluster.
pub(crate) trait Backends {
    async fn connect(&self, builder: RedisNonceBackendBuilder) -> RedisNonceBackend;
    async fn new_backend(&self, builder: RedisNonceBackendBuilder) -> RedisNonceBackend;
}

impl Backends for RedisCluster {
    async fn connect(&self, builder: RedisNonceBackendBuilder) -> RedisNonceBackend {
        let urls = self.urls();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        builder.connect_cluster(&urls).await.expect("connected")
    }

    async fn new_backend(&self, builder: RedisNonceBackendBuilder) -> RedisNonceBackend {
        let backend = self.connect(builder).await;
        assert!(backend.initialise().await.expect("new"));
        backend
    }
}

/// All of whose connections are encrypted.
#[cfg(feature = "tls")]
fn start_with_tls(count: usize, authority: &Authority) -> RedisCluster {
    let start = |_| {
        let mut arguments = authority.arguments("no");
        arguments.extend(["--tls-cluster", "yes", "--tls-replication", "yes"].map(str::to_owned));
        let arguments = ARGUMENTS.into_iter().chain(arguments.iter().map(String::as_str));
        RedisServer::start(&arguments.collect::<Vec<_>>())
    };
    let root = authority.file("root.pem");
    RedisCluster::of((0..count).map(start).collect(), tls_port, &["--tls", "--cacert", &root])
}

pub(crate) fn nonces(label: &str) -> Vec<NonceUse> {
    (0..NONCES).map(|number| use_now(&format!("{label} {number}"))).collect()
}

/// The numbers of the nonces with this answer.
async fn those(
    backend: &RedisNonceBackend,
    nonces: &[NonceUse],
    wanted: impl Fn(&Result<NonceOutcome, NonceError>) -> bool,
) -> HashSet<usize> {
    let mut found = HashSet::new();
    for (number, nonce) in nonces.iter().enumerate() {
        if wanted(&backend.consume(nonce).await) {
            found.insert(number);
        }
    }
    found
}

fn is_replayed(answer: &Result<NonceOutcome, NonceError>) -> bool {
    matches!(answer, Ok(NonceOutcome::Replayed))
}

fn is_fresh(answer: &Result<NonceOutcome, NonceError>) -> bool {
    matches!(answer, Ok(NonceOutcome::Fresh))
}

fn is_refused(answer: &Result<NonceOutcome, NonceError>) -> bool {
    matches!(answer, Err(NonceError::MayHaveBeenUsed { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let cluster = RedisCluster::start();
    testing::nonce_backend(Arc::new(cluster.new_backend(builder()).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_of_a_cluster_share_the_nonces() {
    let cluster = RedisCluster::start();
    let backend = cluster.connect(builder()).await;
    assert!(backend.initialise().await.expect("new"));
    assert!(backend.initialise().await.expect("an answer"), "once more changes nothing");
    let nonces = nonces("spread");
    assert_eq!(those(&backend, &nonces, is_fresh).await.len(), NONCES);
    assert_eq!(those(&cluster.connect(builder()).await, &nonces, is_replayed).await.len(), NONCES);
    let mut sizes: Vec<usize> = Vec::new();
    for server in &cluster.servers {
        sizes.push(server.ask("DBSIZE"));
        let error = builder().connect(&server.url()).await.expect_err("an error");
        assert!(matches!(error, ConnectError::Server(RedisFault::WrongMode { .. })), "{error}");
    }
    assert_eq!(sizes.iter().sum::<usize>(), NONCES + 256);
    assert!(sizes.iter().all(|size| *size > NONCES / 5), "{sizes:?}");
}

/// A bucket without a mark may have lost it with its data: nobody but a token writes another.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_marked_in_part_is_not_new() {
    let cluster = RedisCluster::start();
    let backend = cluster.new_backend(builder()).await;
    let server = &cluster.servers[0];
    let marks: Vec<String> = server.ask("KEYS test/*since");
    let [gone, others @ ..] = marks.as_slice() else { panic!("no marks") };
    server.ask::<()>(&format!("DEL {gone}"));
    assert!(!backend.initialise().await.expect("an answer"));
    assert_eq!(server.ask::<Option<String>>(&format!("GET {gone}")), None);
    // A whole server without marks may have been emptied.
    for mark in others {
        server.ask::<()>(&format!("DEL {mark}"));
    }
    assert!(!backend.initialise().await.expect("an answer"));
    assert_eq!(server.ask::<usize>("DBSIZE"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_server_of_the_cluster_is_noticed_and_the_others_go_on() {
    let cluster = RedisCluster::start();
    let backend = cluster.new_backend(builder()).await;
    let nonces = nonces("used");
    assert_eq!(those(&backend, &nonces, is_fresh).await.len(), NONCES);
    let lost = cluster.servers[1].ask::<usize>("DBSIZE");
    cluster.servers[1].ask::<()>("FLUSHALL");
    // Twice: what is refused stays so.
    let refused = those(&backend, &nonces, is_refused).await;
    assert_eq!(refused, those(&backend, &nonces, is_refused).await);
    let replayed = those(&backend, &nonces, is_replayed).await;
    assert_eq!(refused.len() + replayed.len(), NONCES);
    assert!(refused.is_disjoint(&replayed));
    let marks = lost - refused.len();
    assert!((60..=110).contains(&marks), "{lost} keys were lost, {} nonces are refused", refused.len());
}

/// The marks of a server, by their keys.
fn marks(server: &RedisServer) -> BTreeMap<String, String> {
    let keys: Vec<String> = server.ask("KEYS test/*since");
    keys.into_iter().map(|key| (key.clone(), server.ask(&format!("GET {key}")))).collect()
}

/// The key of the mark of a nonce's bucket.
fn mark_of(nonce: &NonceUse) -> String {
    format!("test/{{{}}}since", tag_of(nonce))
}

/// Else each bucket would refuse tokens from its own next request on: where those are few, for as long as the last of
/// the buckets waits for one.
#[tokio::test(flavor = "multi_thread")]
async fn one_claim_marks_all_buckets_of_a_server_that_was_restarted() {
    let mut cluster = RedisCluster::start();
    let backend = cluster.new_backend(builder()).await;
    let before: Vec<_> = cluster.servers.iter().map(marks).collect();
    cluster.servers[0].restart();
    until_blocking("it is back", || {
        let up = |server: &RedisServer| server.ask::<String>("CLUSTER INFO").contains("cluster_state:ok");
        cluster.servers.iter().all(up)
    });
    let server = &cluster.servers[0];
    assert_eq!(marks(server), BTreeMap::new(), "it is empty");
    let nonces = nonces("restarted");
    let nonce = nonces.iter().find(|nonce| before[0].contains_key(&mark_of(nonce))).expect("one of its");
    // At first the connection is found broken.
    let mut errors = Vec::new();
    loop {
        match backend.consume(nonce).await {
            Err(NonceError::MayHaveBeenUsed { .. }) => break,
            Ok(outcome) => panic!("{outcome:?}"),
            Err(error) => errors.push(told(&error)),
        }
        assert!(errors.len() < 200, "{errors:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let is_marked = || server.ask::<Vec<String>>("KEYS test/*since").len() == before[0].len();
    until_blocking("all of its buckets are marked", is_marked);
    let after: Vec<_> = cluster.servers.iter().map(marks).collect();
    assert!(after[0].keys().eq(before[0].keys()), "{after:?}");
    assert_eq!(after[1..], before[1..], "those of the other servers stay");
    let run_id = server.info("server", "run_id");
    for (key, mark) in &after[0] {
        let (since, process) = mark.split_once(' ').expect("a mark");
        assert_eq!(process, run_id, "{key}");
        let since: i64 = since.parse().expect("a number");
        assert!(since >= nonce.now().as_millis(), "{key} is dated back: {mark}");
    }
    // None of the buckets has anything to notice any more.
    for number in 0..300 {
        fresh(&backend, &use_ahead(&format!("later {number}"))).await;
    }
}

/// What is asked for all buckets of a server changes nothing where nothing was lost, whosever word is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_lost_its_mark_leaves_those_of_the_others() {
    let cluster = RedisCluster::start();
    cluster.new_backend(builder()).await;
    let server = &cluster.servers[0];
    let before = marks(server);
    let nonces = nonces("lost");
    let nonce = nonces.iter().find(|nonce| before.contains_key(&mark_of(nonce))).expect("one of its");
    let lost = mark_of(nonce);
    for settings in [builder(), builder().trust_persistence()] {
        let backend = cluster.connect(settings).await;
        server.ask::<()>(&format!("DEL {lost}"));
        let asked = calls(server, "eval");
        may_have_been_used(&backend, nonce).await;
        until_blocking("all are asked for", || calls(server, "eval") - asked >= before.len() as u64);
        let mut after = marks(server);
        let new = after.insert(lost.clone(), before[&lost].clone());
        assert!(new.as_ref().is_some_and(|new| *new != before[&lost]), "{new:?}");
        assert_eq!(after, before);
    }
}

/// Not once for each bucket.
#[test]
fn a_server_that_forgot_is_told_once() {
    let cluster = RedisCluster::start();
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    runtime().block_on(async {
        let backend = cluster.new_backend(builder()).await;
        cluster.servers[0].ask::<()>("FLUSHALL");
        let refused = those(&backend, &nonces("forgotten"), is_refused).await;
        assert!(refused.len() > NONCES / 5, "{} are refused", refused.len());
    });
    let log = log.text();
    assert_eq!(log.matches("was emptied").count(), 1, "{log}");
}

/// Each look for the slots ends at another server, and there are up to ten a second.
#[test]
fn a_cluster_that_is_down_does_not_fill_the_log() {
    let mut cluster = RedisCluster::start();
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    runtime().block_on(async {
        let backend = cluster.new_backend(builder()).await;
        cluster.servers.iter_mut().for_each(RedisServer::kill);
        for number in 0..100 {
            let answer = backend.consume(&use_ahead(&format!("down {number}"))).await;
            assert!(matches!(answer, Err(NonceError::Store(_))), "{answer:?}");
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    });
    let log = log.text();
    let told: Vec<_> = log.lines().filter_map(|line| line.split_once("is not known")).collect();
    let texts: HashSet<_> = told.iter().map(|(_, text)| *text).collect();
    assert!(!told.is_empty(), "{log}");
    assert_eq!(told.len(), texts.len(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_of_the_cluster_holds_nothing_else_up_and_comes_back() {
    let mut cluster = RedisCluster::start();
    let backend = cluster.new_backend(builder()).await;
    // The others go on without it, else the whole cluster refuses.
    for server in &cluster.servers {
        server.ask::<()>("CONFIG SET cluster-require-full-coverage no");
    }
    let nonces: Vec<_> = nonces("used").into_iter().take(300).collect();
    let fresh = those(&backend, &nonces, is_fresh).await;
    assert_eq!(fresh.len(), 300);
    cluster.servers[0].kill();
    let unknown = those(&backend, &nonces, |answer| matches!(answer, Err(NonceError::Store(_)))).await;
    let replayed = those(&backend, &nonces, is_replayed).await;
    assert!((50..=150).contains(&unknown.len()), "{} unknown", unknown.len());
    assert_eq!(unknown.len() + replayed.len(), 300);
    cluster.servers[0].restart();
    until_blocking("it is back", || {
        cluster.servers[1].ask::<String>("CLUSTER INFO").contains("cluster_slots_fail:0")
    });
    until_blocking("it is back", || {
        cluster.servers[0].ask::<String>("CLUSTER INFO").contains("cluster_state:ok")
    });
    // It is empty: nothing that was used there is good again.
    let mut refused = HashSet::new();
    until("as many are refused as were unknown", async || {
        refused = those(&backend, &nonces, is_refused).await;
        refused.len() == unknown.len()
    })
    .await;
    assert_eq!(refused, unknown);
}

/// What was lost must not keep new processes from what is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_starts_while_a_server_of_the_cluster_is_down_and_checks_it_when_it_is_back() {
    let mut cluster = RedisCluster::start();
    cluster.new_backend(builder()).await;
    for server in &cluster.servers {
        server.ask::<()>("CONFIG SET cluster-require-full-coverage no");
        // A machine that stalls must not make one of the two that are left believe that it is alone.
        server.ask::<()>("CONFIG SET cluster-node-timeout 15000");
    }
    let lost = marks(&cluster.servers[0]);
    cluster.servers[0].kill();
    let backend = cluster.connect(builder()).await;
    let nonces: Vec<_> = nonces("started").into_iter().take(300).collect();
    let (its, others): (Vec<_>, Vec<_>) =
        nonces.into_iter().partition(|nonce| lost.contains_key(&mark_of(nonce)));
    for nonce in &others {
        fresh(&backend, nonce).await;
    }
    let its = its.first().expect("one of its");
    let unreachable = fault(&backend, its).await;
    assert!(matches!(unreachable, Some(RedisFault::Unreachable { .. })), "{unreachable:?}");
    let unreachable = backend.initialise().await.expect_err("an error");
    assert!(matches!(unreachable, RedisFault::Unreachable { .. }), "{unreachable:?}");

    // What says that a server must not be used is an error as ever.
    evict(&cluster.servers[1], true);
    let urls = cluster.urls();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let error = builder().connect_cluster(&urls).await.expect_err("an error");
    assert!(matches!(error, ConnectError::Server(RedisFault::Evicts { .. })), "{error}");
    evict(&cluster.servers[1], false);

    // The one that was never reached is checked before a token counts there.
    cluster.servers[0].restart();
    evict(&cluster.servers[0], true);
    let is_back = || cluster.servers[0].ask::<String>("CLUSTER INFO").contains("cluster_state:ok");
    until_blocking("it is back", is_back);
    let is_refused = async || matches!(fault(&backend, its).await, Some(RedisFault::Evicts { .. }));
    until("it is refused, for it evicts", is_refused).await;
    assert_eq!(cluster.servers[0].ask::<usize>("DBSIZE"), 0);
    evict(&cluster.servers[0], false);
    for _ in 0..200 {
        match backend.consume(its).await {
            // It is empty.
            Err(NonceError::MayHaveBeenUsed { .. }) => return,
            Ok(outcome) => panic!("{outcome:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("it is not used without eviction");
}

/// Makes it a server that may evict nonces, or none.
fn evict(server: &RedisServer, may_evict: bool) {
    let (policy, maxmemory) = if may_evict { ("allkeys-lru", "100mb") } else { ("noeviction", "0") };
    server.ask::<()>(&format!("CONFIG SET maxmemory {maxmemory}"));
    server.ask::<()>(&format!("CONFIG SET maxmemory-policy {policy}"));
}

/// Their replicas tell where they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_none_of_whose_primaries_can_be_reached_is_an_error() {
    let mut cluster = RedisCluster::start_with(6);
    let is_primary = |server: &RedisServer| server.info("replication", "role") == "master";
    let replica = cluster.servers.iter().find(|server| !is_primary(server)).expect("a replica").url();
    let (primaries, replicas): (Vec<usize>, Vec<usize>) =
        (0..6).partition(|server| is_primary(&cluster.servers[*server]));
    for server in replicas {
        cluster.servers[server].ask::<()>("CONFIG SET cluster-replica-no-failover yes");
    }
    for server in primaries {
        cluster.servers[server].kill();
    }
    let error = builder().connect_cluster(&[&replica]).await.expect_err("an error");
    assert!(matches!(error, ConnectError::Server(RedisFault::Unreachable { .. })), "{error}");
}

/// A replica takes over without the last writes. Its mark is of another process.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_does_not_make_used_tokens_good() {
    let mut cluster = RedisCluster::start_with(6);
    cluster.new_backend(builder()).await;
    let backend = cluster.connect(builder().timeout(Duration::from_secs(1))).await;
    let primary = (0..6)
        .find(|server| cluster.servers[*server].info("replication", "role") == "master")
        .expect("a primary");
    let port = cluster.servers[primary].port();
    let is_its_replica = |server: &RedisServer| {
        server.info("replication", "role") == "slave"
            && server.info("replication", "master_port") == port.to_string()
    };
    until_blocking("replicas are in step", || {
        let links = cluster.servers.iter().filter(|server| server.info("replication", "role") == "slave");
        links.filter(|server| server.info("replication", "master_link_status") == "up").count() == 3
    });
    let replica = cluster.servers.iter().position(is_its_replica).expect("a replica");
    // The replica has the marks, then falls behind.
    until_blocking("the replica has the marks", || cluster.servers[replica].ask::<usize>("DBSIZE") >= 70);
    cluster.servers[replica].pause();
    // Else the writes wait in the replica's socket, and it reads them when it goes on.
    assert_eq!(cluster.servers[primary].ask::<i64>("CLIENT KILL TYPE replica"), 1);
    let nonces: Vec<_> = nonces("used").into_iter().take(200).collect();
    assert_eq!(those(&backend, &nonces, is_fresh).await.len(), 200);
    cluster.servers[primary].kill();
    cluster.servers[replica].resume();
    until_blocking("the replica took over", || {
        // It does not fail over by itself if it was away for too long.
        let _ = cluster.servers[replica].try_ask::<()>("CLUSTER FAILOVER TAKEOVER");
        cluster.servers[replica].info("replication", "role") == "master"
    });
    until_blocking("the others know", || {
        let others = cluster.servers.iter().enumerate().filter(|(server, _)| *server != primary);
        let up = |server: &RedisServer| server.ask::<String>("CLUSTER INFO").contains("cluster_state:ok");
        others.map(|(_, server)| server).all(up)
    });
    let mut refused = 0;
    for _ in 0..50 {
        let mut unknown = 0;
        refused = 0;
        for nonce in &nonces {
            match backend.consume(nonce).await {
                Ok(NonceOutcome::Fresh) => panic!("a used token is good again"),
                Ok(NonceOutcome::Replayed) => {}
                Err(NonceError::MayHaveBeenUsed { .. }) => refused += 1,
                Err(_) => unknown += 1,
            }
        }
        if unknown == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((30..=110).contains(&refused), "{refused} of 200 are refused");
    // A bucket of that server that none of them was in was marked with theirs, or is by the first token that is.
    recovers(&Arc::new(backend), "later").await;
}

/// Each primary waits for its own replica.
#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread")]
async fn each_primary_waits_for_its_replicas() {
    let authority = Authority::new("127.0.0.1");
    let cluster = start_with_tls(6, &authority);
    let urls: Vec<_> =
        cluster.servers.iter().map(|server| format!("rediss://127.0.0.1:{}", tls_port(server))).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let role = |server: &RedisServer| server.info("replication", "role");
    until_blocking("replicas are in step", || {
        let links = cluster.servers.iter().filter(|server| role(server) == "slave");
        links.filter(|server| server.info("replication", "master_link_status") == "up").count() == 3
    });
    let patient = builder().wait_for_replicas(1).root_certificates_pem(authority.root_pem());
    let backend = patient.connect_cluster(&urls).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(backend.initialise().await.expect("new"));
    let nonces: Vec<_> = nonces("waited for").into_iter().take(60).collect();
    let (before, after) = nonces.split_at(30);
    assert_eq!(those(&backend, before, is_fresh).await.len(), 30);

    let backend = Arc::new(backend);
    let replica = cluster.servers.iter().find(|server| role(server) == "slave").expect("a replica");
    replica.pause();
    let mut claims = tokio::task::JoinSet::new();
    for nonce in after {
        let (backend, nonce) = (Arc::clone(&backend), nonce.clone());
        claims.spawn(async move { backend.consume(&nonce).await });
    }
    let mut alone = 0;
    for answer in claims.join_all().await {
        match answer {
            Ok(outcome) => assert_eq!(outcome, NonceOutcome::Fresh),
            Err(error) => {
                let fault = std::error::Error::source(&error).and_then(|fault| fault.downcast_ref());
                let is_alone =
                    matches!(fault, Some(RedisFault::NotReplicated { wanted: 1, acknowledged: 0 }));
                assert!(is_alone, "{}", told(&error));
                alone += 1;
            }
        }
    }
    replica.resume();
    assert!((1..30).contains(&alone), "{alone} of 30 belong to the primary whose replica is away");
}

/// Nobody waits for the answer that tells that a primary is gone: where its slots are is looked for all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_is_found_though_each_request_is_given_up() {
    let cluster = RedisCluster::start_with(6);
    let backend = cluster.new_backend(builder().timeout(Duration::from_secs(3))).await;
    let role = |server: &RedisServer, role: &str| server.info("replication", "role") == role;
    until_blocking("replicas are in step", || {
        let replicas = cluster.servers.iter().filter(|server| role(server, "slave"));
        replicas.filter(|server| server.info("replication", "master_link_status") == "up").count() == 3
    });
    let primary = cluster.servers.iter().position(|server| role(server, "master")).expect("a primary");
    let port = cluster.servers[primary].port().to_string();
    let is_its_replica =
        |server: &RedisServer| role(server, "slave") && server.info("replication", "master_port") == port;
    let replica = cluster.servers.iter().position(is_its_replica).expect("a replica");
    // One nonce of each bucket: some are of this primary.
    let nonces: Vec<_> = nonces("before").into_iter().take(200).collect();
    assert_eq!(those(&backend, &nonces, is_fresh).await.len(), 200);
    // It takes connections, and answers nothing.
    cluster.servers[primary].pause();
    until_blocking("the replica took over", || {
        let _ = cluster.servers[replica].try_ask::<()>("CLUSTER FAILOVER TAKEOVER");
        role(&cluster.servers[replica], "master")
    });
    // One after the other, so that each is alone, and soon given up.
    let begun = tokio::time::Instant::now();
    let mut silent = Vec::new();
    for nonce in &nonces {
        let answer = tokio::time::timeout(Duration::from_millis(300), backend.consume(nonce)).await;
        if answer.is_err() {
            silent.push(nonce);
            if silent.len() == 3 {
                break;
            }
        }
    }
    assert!(!silent.is_empty(), "no nonce is of the primary that is paused");
    while begun.elapsed() < Duration::from_secs(40) {
        match tokio::time::timeout(Duration::from_millis(300), backend.consume(silent[0])).await {
            Ok(Ok(NonceOutcome::Replayed) | Err(NonceError::MayHaveBeenUsed { .. })) => return,
            Ok(Ok(NonceOutcome::Fresh)) => panic!("a used token is good again"),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    panic!("the replica is not found");
}

/// The permissions that docs/operations.md names.
#[tokio::test(flavor = "multi_thread")]
async fn few_permissions_are_enough() {
    let cluster = RedisCluster::start();
    for server in &cluster.servers {
        let rules = "ACL SETUSER app on >pw ~test/* +set +get +eval +time +info +config|get +cluster|slots";
        server.ask::<()>(rules);
    }
    let urls: Vec<_> = cluster.urls().iter().map(|url| url.replace("://", "://app:pw@")).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let backend = builder().connect_cluster(&urls).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    let nonces = nonces("permitted");
    assert_eq!(those(&backend, &nonces, is_fresh).await.len(), NONCES);
    for server in &cluster.servers {
        server.ask::<()>("FLUSHALL");
    }
    assert_eq!(those(&backend, &nonces, is_refused).await.len(), NONCES);
}

/// Though the server of that URL is down, and the others' URLs have none.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_the_first_url_serves_for_all() {
    let cluster = RedisCluster::start();
    cluster.new_backend(builder()).await;
    for server in &cluster.servers {
        server.ask::<()>("CONFIG SET requirepass pw");
    }
    let other = cluster.servers[0].url();
    let connected = builder().connect_cluster(&["redis://:pw@127.0.0.1:1", &other]).await;
    let backend = connected.unwrap_or_else(|error| panic!("{}", told(&error)));
    fresh(&backend, &use_now("one")).await;
    let refused = builder().connect_cluster(&["redis://127.0.0.1:1", &other]).await.expect_err("an error");
    assert!(told(&refused).contains("NOAUTH"), "{}", told(&refused));
}

/// One that left the cluster, or has not joined it yet, knows of no slots.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_slots_is_passed_over() {
    let cluster = RedisCluster::start();
    cluster.new_backend(builder()).await;
    let lone = RedisServer::start(&ARGUMENTS);
    // The first is asked first.
    let urls = [lone.url(), cluster.servers[0].url()];
    let backend = builder().connect_cluster(&[&urls[0], &urls[1]]).await.expect("connected");
    fresh(&backend, &use_now("one")).await;
    let error = builder().connect_cluster(&[&urls[0]]).await.expect_err("an error");
    assert!(matches!(error, ConnectError::Server(RedisFault::SlotNotServed { .. })), "{error}");
}
