//! Slots of a cluster: on their way from one server to another, and served by none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_redis::{RedisFault, RedisNonceBackend};
use ajwt_server::{NonceBackend as _, NonceError, NonceOutcome, NonceUse};
use ajwt_test_servers::{redis::RedisServer, redis_cluster::RedisCluster};
use ajwt_test_support::until;

use crate::{
    batches::runtime,
    builder,
    cluster::{Backends as _, nonces},
    fresh, may_have_been_used, recovers, told, use_ahead,
};

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

/// No server is asked for what none of them serves: that alone must lead to where it is later.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_nobody_serves_is_looked_for_until_somebody_does() {
    let cluster = RedisCluster::start();
    let backend = cluster.new_backend(builder()).await;
    let nonce = use_ahead("not served");
    let slot: u16 = cluster.servers[0].ask(&format!("CLUSTER KEYSLOT {{{}}}", tag_of(&nonce)));
    let served_by = |server: &&RedisServer| {
        let slots: String = server.ask("CLUSTER NODES");
        let own = slots.lines().find(|line| line.contains("myself")).expect("its line").to_owned();
        own.split(' ').skip(8).any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().expect("a slot")..=last.parse().expect("a slot")).contains(&slot)
        })
    };
    let server = cluster.servers.iter().find(served_by).expect("its server");
    for server in &cluster.servers {
        server.ask::<()>(&format!("CLUSTER DELSLOTS {slot}"));
    }
    until("it is told that nobody serves the slot", async || {
        let found = crate::fault(&backend, &nonce).await;
        matches!(found, Some(RedisFault::SlotNotServed { slot: told }) if told == slot)
    })
    .await;
    server.ask::<()>(&format!("CLUSTER ADDSLOTS {slot}"));
    let mut last = String::new();
    for _ in 0..200 {
        match backend.consume(&nonce).await {
            Ok(outcome) => return assert_eq!(outcome, NonceOutcome::Fresh),
            Err(error) => last = told(&error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is not found: {last}");
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
pub(crate) fn tag_of(nonce: &NonceUse) -> String {
    format!("{:02x}", nonce.key().as_bytes()[31])
}
