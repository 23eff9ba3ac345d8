//! Three primaries: how nonces spread, and what is noticed when one of them forgets.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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

use crate::{batches::runtime, builder, fresh, may_have_been_used, recovers, told, use_ahead, use_now};

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

fn nonces(label: &str) -> Vec<NonceUse> {
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

/// A bucket without a mark may have lost it with its data: nobody but its first token writes another.
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
    cluster.until("it is back", || {
        cluster.servers[1].ask::<String>("CLUSTER INFO").contains("cluster_slots_fail:0")
    });
    cluster.until("it is back", || {
        cluster.servers[0].ask::<String>("CLUSTER INFO").contains("cluster_state:ok")
    });
    // It is empty: nothing that was used there is good again.
    let mut refused = HashSet::new();
    for _ in 0..50 {
        refused = those(&backend, &nonces, is_refused).await;
        if refused.len() == unknown.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(refused, unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_on_its_way_is_an_error_and_works_at_its_new_place() {
    let cluster = RedisCluster::start();
    let backend = cluster.new_backend(builder()).await;
    let [from, to, _] = cluster.servers.as_slice() else { panic!("three servers") };
    // A bucket of the first server, by its mark.
    let marks: Vec<String> = from.ask("KEYS test/*since");
    let mark = marks.first().expect("a mark");
    let slot: u16 = from.ask(&format!("CLUSTER KEYSLOT {mark}"));
    let tag = mark.trim_start_matches("test/{").split('}').next().expect("a tag");
    let in_slot: Vec<_> = nonces("moved").into_iter().filter(|nonce| tag_of(nonce) == tag).collect();
    let (used, unused) = in_slot.split_at(in_slot.len() / 2);
    for nonce in used {
        fresh(&backend, nonce).await;
    }
    let ids: Vec<String> = [from, to].iter().map(|server| server.ask("CLUSTER MYID")).collect();
    to.ask::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[0]));
    from.ask::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[1]));
    let asked = crate::fault(&backend, &unused[0]).await;
    assert!(matches!(&asked, Some(RedisFault::Refused { code, .. }) if code == "ASK"), "{asked:?}");
    let keys: Vec<Vec<u8>> = from.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 10000"));
    let mut connection =
        redis::Client::open(from.url()).and_then(|client| client.get_connection()).expect("connected");
    for key in keys {
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(to.port()).arg(key).arg(0).arg(5000);
        migrate.exec(&mut connection).expect("moved");
    }
    // Half moved: neither side may say Fresh.
    for nonce in used.iter().chain(unused) {
        let answer = backend.consume(nonce).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    for server in [to, from, &cluster.servers[2]] {
        server.ask::<()>(&format!("CLUSTER SETSLOT {slot} NODE {}", ids[1]));
    }
    let moved = crate::fault(&backend, &used[0]).await;
    assert!(matches!(&moved, Some(RedisFault::Refused { code, .. }) if code == "MOVED"), "{moved:?}");
    // At the new place the mark is of another process: refused for a while, then as before.
    let mut last = String::new();
    for _ in 0..100 {
        match backend.consume(&used[0]).await {
            Err(NonceError::MayHaveBeenUsed { .. }) => {
                for nonce in used.iter().chain(unused) {
                    may_have_been_used(&backend, nonce).await;
                }
                return;
            }
            Ok(outcome) => panic!("{outcome:?}"),
            Err(error) => last = told(&error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new place is not found: {last}");
}

/// A replica takes over without the last writes. Its mark is of another process.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_does_not_make_used_tokens_good() {
    let mut cluster = RedisCluster::start_with(6);
    let backend = cluster.new_backend(builder().timeout(Duration::from_secs(1))).await;
    let primary = (0..6)
        .find(|server| cluster.servers[*server].info("replication", "role") == "master")
        .expect("a primary");
    let port = cluster.servers[primary].port();
    let is_its_replica = |server: &RedisServer| {
        server.info("replication", "role") == "slave"
            && server.info("replication", "master_port") == port.to_string()
    };
    cluster.until("replicas are in step", || {
        let links = cluster.servers.iter().filter(|server| server.info("replication", "role") == "slave");
        links.filter(|server| server.info("replication", "master_link_status") == "up").count() == 3
    });
    let replica = cluster.servers.iter().position(is_its_replica).expect("a replica");
    // The replica has the marks, then falls behind.
    cluster.until("the replica has the marks", || cluster.servers[replica].ask::<usize>("DBSIZE") >= 70);
    cluster.servers[replica].pause();
    // Else the writes wait in the replica's socket, and it reads them when it goes on.
    assert_eq!(cluster.servers[primary].ask::<i64>("CLIENT KILL TYPE replica"), 1);
    let nonces: Vec<_> = nonces("used").into_iter().take(200).collect();
    assert_eq!(those(&backend, &nonces, is_fresh).await.len(), 200);
    cluster.servers[primary].kill();
    cluster.servers[replica].resume();
    cluster.until("the replica took over", || {
        // It does not fail over by itself if it was away for too long.
        let _ = cluster.servers[replica].try_ask::<()>("CLUSTER FAILOVER TAKEOVER");
        cluster.servers[replica].info("replication", "role") == "master"
    });
    cluster.until("the others know", || {
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
    // A bucket of that server that none of them was in is noticed by the first token that is.
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
    cluster.until("replicas are in step", || {
        let links = cluster.servers.iter().filter(|server| role(server) == "slave");
        links.filter(|server| server.info("replication", "master_link_status") == "up").count() == 3
    });
    let patient = builder().wait_for_replicas(1).root_certificates_pem(authority.root_pem());
    let backend = patient.connect_cluster(&urls).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(backend.initialise().await.expect("new"));
    let nonces: Vec<_> = nonces("waited for").into_iter().take(60).collect();
    let (before, after) = nonces.split_at(30);
    assert_eq!(those(&backend, before, is_fresh).await.len(), 30);

    let hasty = builder().wait_for_replicas(1).timeout(Duration::from_secs(5));
    let hasty = hasty.root_certificates_pem(authority.root_pem()).connect_cluster(&urls).await;
    let backend = Arc::new(hasty.unwrap_or_else(|error| panic!("{}", told(&error))));
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

/// Slots move from one server to another and back while many tasks use them.
#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_under_many_tasks_let_nothing_through_twice() {
    const TASKS: usize = 64;
    const ENOUGH: usize = 1000;

    let cluster = RedisCluster::start();
    let backend = Arc::new(cluster.new_backend(builder().timeout(Duration::from_secs(1))).await);
    let [from, to, _] = cluster.servers.as_slice() else { panic!("three servers") };
    let marks: Vec<String> = from.ask("KEYS test/*since");
    let slots: Vec<u16> =
        marks.iter().take(30).map(|mark| from.ask(&format!("CLUSTER KEYSLOT {mark}"))).collect();
    let connections = |server: &RedisServer| {
        server.info("stats", "total_connections_received").parse::<usize>().expect("a number")
    };
    let (before, begun) = (connections(from) + connections(to), tokio::time::Instant::now());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    // How many were fresh, how many failed.
    let counts = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (backend, stopped, counts) = (Arc::clone(&backend), stopped.clone(), Arc::clone(&counts));
        tasks.spawn(async move {
            // Two tasks use the same nonces.
            let pair = task / 2;
            let mut fresh = Vec::new();
            for number in 0.. {
                if *stopped.borrow() {
                    break;
                }
                let nonce = format!("{pair} {number}");
                match backend.consume(&use_ahead(&nonce)).await {
                    Ok(NonceOutcome::Fresh) => {
                        fresh.push(nonce);
                        counts[0].fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(NonceOutcome::Replayed) => {}
                    Err(_) => _ = counts[1].fetch_add(1, Ordering::Relaxed),
                }
            }
            fresh
        });
    }
    let mover = {
        let servers = [(from.url(), from.port()), (to.url(), to.port())];
        let ids: Vec<String> = [from, to].iter().map(|server| server.ask("CLUSTER MYID")).collect();
        let counts = Arc::clone(&counts);
        let is_enough = move || {
            let [fresh, errors] = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
            fresh > ENOUGH && errors > 0
        };
        tokio::task::spawn_blocking(move || {
            let mut connections = servers.each_ref().map(|(url, _)| {
                redis::Client::open(url.as_str())
                    .and_then(|client| client.get_connection())
                    .expect("connected")
            });
            // There and back, as often as a slow machine needs.
            while !is_enough() && begun.elapsed() < Duration::from_secs(60) {
                for (from, to) in [(0, 1), (1, 0)] {
                    for slot in &slots {
                        move_slot(&mut connections, [from, to], *slot, &ids, servers[to].1);
                    }
                }
            }
        })
    };
    mover.await.expect("moved");
    stop.send(true).expect("they run");
    let mut fresh = tasks.join_all().await.concat();
    let all = fresh.len();
    fresh.sort_unstable();
    fresh.dedup();
    assert_eq!(fresh.len(), all, "a nonce was Fresh twice");
    let errors = counts[1].load(Ordering::Relaxed);
    assert!(all > ENOUGH && errors > 0, "{all} were fresh, {errors} failed");
    let dialled = connections(from) + connections(to) - before;
    // To each of the two a tenth of a second between two; and those of this test.
    let most = 20 + 2 * begun.elapsed().as_millis() as usize / 100;
    assert!(dialled <= most, "{dialled} connections, {errors} failed");
    recovers(&backend, "after").await;
}

/// As redis-cli does it: the keys one after the other, then the slot's new owner.
fn move_slot(
    connections: &mut [redis::Connection; 2],
    ends: [usize; 2],
    slot: u16,
    ids: &[String],
    port: u16,
) {
    let [from, to] = ends;
    let set = |connections: &mut [redis::Connection; 2], end: usize, state: &str, id: &str| {
        redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(id).exec(&mut connections[end])
    };
    for attempt in 1.. {
        let importing = set(connections, to, "IMPORTING", &ids[from]);
        let Err(error) = importing.and_then(|()| set(connections, from, "MIGRATING", &ids[to])) else {
            break;
        };
        assert!(attempt < 500, "slot {slot}: {error}");
        // Servers that have not heard of all of each other's moves may each take the other for its owner. What they
        // are told counts.
        for end in ends {
            let _ = set(connections, end, "NODE", &ids[from]);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    loop {
        let mut keys = redis::cmd("CLUSTER");
        keys.arg("GETKEYSINSLOT").arg(slot).arg(100);
        let keys: Vec<Vec<u8>> = keys.query(&mut connections[from]).expect("keys");
        if keys.is_empty() {
            break;
        }
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(port).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
        migrate.exec(&mut connections[from]).expect("migrated");
    }
    for end in [to, from] {
        set(connections, end, "NODE", &ids[to]).expect("set");
    }
}

/// Nobody waits for the answer that tells that a primary is gone: where its slots are is looked for all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_is_found_though_each_request_is_given_up() {
    let cluster = RedisCluster::start_with(6);
    let backend = cluster.new_backend(builder().timeout(Duration::from_secs(3))).await;
    let role = |server: &RedisServer, role: &str| server.info("replication", "role") == role;
    cluster.until("replicas are in step", || {
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
    cluster.until("the replica took over", || {
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

/// A worker began to look where the slots are, and went.
#[test]
fn a_runtime_that_ends_or_stalls_while_it_looks_for_slots_is_not_waited_for() {
    for ends in [true, false] {
        let (stays, goes) = (runtime(), runtime());
        let cluster = RedisCluster::start();
        stays.block_on(cluster.new_backend(builder()));
        let backend = stays.block_on(cluster.connect(RedisNonceBackend::builder("test")));
        let [from, to, _] = cluster.servers.as_slice() else { panic!("three servers") };
        let marks: Vec<String> = from.ask("KEYS test/*since");
        let mark = marks.first().expect("a mark");
        let slot: u16 = from.ask(&format!("CLUSTER KEYSLOT {mark}"));
        let tag = mark.trim_start_matches("test/{").split('}').next().expect("a tag");
        let nonce = nonces("looking").into_iter().find(|nonce| tag_of(nonce) == tag).expect("a nonce");
        goes.block_on(async {
            // No answer comes: the connection is driven by the other runtime.
            assert!(backend.consume(&nonce).await.is_err());
            // It looks now.
            tokio::task::yield_now().await;
        });
        if ends {
            drop(goes);
        }
        let ids: Vec<String> = [from, to].iter().map(|server| server.ask("CLUSTER MYID")).collect();
        let mut connections = [from, to].map(|server| {
            redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("connected")
        });
        move_slot(&mut connections, [0, 1], slot, &ids, to.port());
        stays.block_on(async {
            let mut last = String::new();
            for _ in 0..200 {
                match backend.consume(&nonce).await {
                    // The mark came with the slot, and is of another process there.
                    Err(NonceError::MayHaveBeenUsed { .. }) => return,
                    Ok(outcome) => panic!("{outcome:?}"),
                    Err(error) => last = told(&error),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("the new place is not found, ends: {ends}: {last}");
        });
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_lost_their_slots_are_errors() {
    let cluster = RedisCluster::start();
    let backend = cluster.new_backend(builder()).await;
    for server in &cluster.servers {
        server.ask::<()>("FLUSHALL");
        server.ask::<()>("CLUSTER RESET HARD");
    }
    for number in 0..50 {
        let answer = backend.consume(&use_ahead(&format!("{number}"))).await;
        assert!(matches!(answer, Err(NonceError::Store(_))), "{answer:?}");
    }
}

/// The hash tag of a nonce's bucket: its last byte.
fn tag_of(nonce: &NonceUse) -> String {
    format!("{:02x}", nonce.key().as_bytes()[31])
}
