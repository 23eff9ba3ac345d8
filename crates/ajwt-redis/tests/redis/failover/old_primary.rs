//! A primary that another one took over from, of which it does not hear.

use super::*;

/// A Sentinel that watches this primary.
fn sentinel_of(primary: &RedisServer) -> RedisServer {
    let sentinel = RedisServer::start(&["--sentinel"]);
    sentinel.ask::<()>(&format!("SENTINEL MONITOR orders 127.0.0.1 {} 1", primary.port()));
    sentinel
}

/// The replica takes over. The old primary does not hear of it, as behind a partition, and keeps its connections.
fn promote_behind_its_back(pair: &Pair, sentinel: &RedisServer) {
    // Not while the Sentinel knows them: it would make the one a replica of the other again.
    sentinel.ask::<()>("SENTINEL REMOVE orders");
    pair.replica.ask::<()>("REPLICAOF NO ONE");
    sentinel.ask::<()>(&format!("SENTINEL MONITOR orders 127.0.0.1 {} 1", pair.replica.port()));
    until_blocking("the old primary is alone", || {
        pair.primary.info("replication", "connected_slaves") == "0"
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_takes_no_writes_without_replicas_is_left() {
    let pair = Pair::start().await;
    pair.primary.ask::<()>("CONFIG SET min-replicas-to-write 1");
    let sentinel = sentinel_of(&pair.primary);
    let backend = builder().connect_sentinel(&[&sentinel.url()], "redis://orders").await.expect("connected");
    let backend = Arc::new(backend);
    fresh(&backend, &use_now("before")).await;
    promote_behind_its_back(&pair, &sentinel);
    let refused = fault(&backend, &use_ahead("alone")).await;
    let is_alone = matches!(&refused, Some(RedisFault::Refused { code, .. }) if code == "NOREPLICAS");
    assert!(is_alone, "{refused:?}");
    recovers(&backend, "after").await;
    may_have_been_used(&backend, &use_now("before")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_whose_replicas_do_not_answer_is_left() {
    let pair = Pair::start().await;
    // It follows the replica, for which it stands in later.
    let next = RedisServer::start(&["--replicaof", "127.0.0.1", &pair.replica.port().to_string()]);
    let is_up = || next.info("replication", "master_link_status") == "up";
    until_blocking("it is in step", is_up);
    let sentinel = sentinel_of(&pair.primary);
    let waiting = builder().timeout(Duration::from_secs(2)).wait_for_replicas(1);
    let backend = waiting.connect_sentinel(&[&sentinel.url()], "redis://orders").await.expect("connected");
    let backend = Arc::new(backend);
    fresh(&backend, &use_now("before")).await;
    promote_behind_its_back(&pair, &sentinel);
    until_blocking("the new primary has a replica", || {
        pair.replica.info("replication", "connected_slaves") != "0" && is_up()
    });
    // A stall of the machine may take the time for the answer.
    let refused = fault(&backend, &use_ahead("alone")).await;
    assert!(matches!(refused, None | Some(RedisFault::NotReplicated { .. })), "{refused:?}");
    recovers(&backend, "after").await;
    may_have_been_used(&backend, &use_now("before")).await;
}

/// What is wrong may last, and be no failover at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_takes_no_writes_is_asked_on_few_connections() {
    let pair = Pair::start().await;
    for waits in [false, true] {
        let builder = builder().timeout(Duration::from_secs(1));
        let builder = if waits { builder.wait_for_replicas(1) } else { builder };
        pair.primary.ask::<()>("CONFIG SET min-replicas-to-write 0");
        let backend = Arc::new(pair.connect(builder).await);
        pair.primary.ask::<()>("CONFIG SET min-replicas-to-write 2");
        let before = pair.address.connections();
        let clock = SystemClock::new();
        let start = clock.monotonic();
        let mut refused = 0;
        while clock.monotonic() - start < Duration::from_millis(2500) {
            let mut uses = tokio::task::JoinSet::new();
            for number in 0..8 {
                let (backend, label) = (Arc::clone(&backend), format!("{waits} {refused} {number}"));
                uses.spawn(async move { fault(&backend, &use_ahead(&label)).await });
            }
            let faults = uses.join_all().await;
            let is_refused = |fault: &&Option<RedisFault>| matches!(fault, Some(RedisFault::Refused { code, .. }) if code == "NOREPLICAS");
            refused += faults.iter().filter(is_refused).count();
        }
        let made = pair.address.connections() - before;
        // Eight at most for as many claims at once, and one a second in place of another.
        assert!(refused > 100 && made <= 8 + 3, "{waits}: {made} connections, {refused} were refused");
    }
}
