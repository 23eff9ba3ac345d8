//! Used nonces in Redis: one server, Sentinel, a cluster.

use std::time::Duration;

use ajwt_server::{Clock as _, SystemClock};
use ajwt_test_servers::{
    redis::{RedisServer, tls::tls_port},
    tls::Authority,
};

use crate::support::{Folder, Gateway, authorization_ahead, eventually};

/// Marks the store as new, and sees a token accepted once by two gateways.
async fn a_token_works_once(folder: &Folder, nonce: &str) -> (Gateway, Gateway) {
    folder.good(&format!("nonce init {nonce}"));
    let words = format!("--database-url sqlite://ajwt.db {nonce}");
    let gateways = (Gateway::start(folder, &words), Gateway::start(folder, &words));
    let token = accepted(&gateways.0, folder).await;
    let token = token.unwrap_or_else(|| panic!("at once, since the store is new: {}", gateways.0.log()));
    // By the other one too, once Redis answers it in time.
    let mut status = 503;
    eventually("answer", async || {
        status = gateways.1.status(&token).await.as_u16();
        status != 503
    })
    .await;
    assert_eq!(status, 401);
    eventually("readiness", async || gateways.0.text("/readyz").await == "ready\n").await;
    gateways
}

#[tokio::test]
async fn one_server() {
    let folder = Folder::with_database();
    let redis = RedisServer::start(&[]);
    let nonce = format!("--nonce {} --redis-prefix test", redis.url());
    let (gateway, _other) = a_token_works_once(&folder, &nonce).await;
    assert_eq!(redis.ask::<u32>("EXISTS test/since"), 1, "under its prefix");
    folder.good(&format!("nonce init {nonce}"));

    drop(redis);
    assert_eq!(gateway.status(&folder.authorization()).await, 503);
    eventually("word of it", async || {
        gateway.text("/readyz").await.contains("the nonce store does not answer")
    })
    .await;
    assert!(gateway.text("/metrics").await.contains("ajwt_nonce_store_up 0"));
    let told = folder.bad(&format!("nonce init {nonce}"));
    assert!(told.starts_with("cannot connect to the Redis server 127.0.0.1:"), "{told}");
}

/// A store that was not marked as new, and has been used: nobody may say that it is.
#[tokio::test]
async fn a_store_in_use_is_not_new() {
    let folder = Folder::with_database();
    let redis = RedisServer::start(&[]);
    let nonce = format!("--nonce {}", redis.url());
    let gateway = Gateway::start(&folder, &format!("--database-url sqlite://ajwt.db {nonce}"));
    assert_eq!(gateway.status(&folder.authorization()).await, 503);
    assert_eq!(
        folder.bad(&format!("nonce init {nonce}")),
        "the store is not new (in use, restarted, or marked in part), and no mark that was there was changed"
    );
}

#[tokio::test]
async fn a_cluster() {
    let folder = Folder::with_database();
    let redis = RedisServer::start(&["--cluster-enabled", "yes"]);
    redis.ask::<()>("CLUSTER ADDSLOTSRANGE 0 16383");
    eventually("cluster", async || redis.ask::<String>("CLUSTER INFO").contains("cluster_state:ok")).await;
    let url = redis.url();
    let told = folder.bad(&format!("nonce init --nonce {url}"));
    assert!(told.ends_with("runs in mode cluster, not standalone: give --redis-cluster"), "{told}");
    a_token_works_once(&folder, &format!("--nonce {url},{url} --redis-cluster")).await;
}

/// Methods of the library help nobody who has a command line.
#[test]
fn a_server_that_must_not_be_used_is_told_with_the_option_that_helps() {
    let folder = Folder::with_database();
    let (plain, sentinel) = (RedisServer::start(&[]), RedisServer::start(&["--sentinel"]));
    plain.ask::<()>("ACL SETUSER app on nopass ~* +@all -info");
    let silent = plain.url().replace("redis://", "redis://app:any@");
    let evicting = RedisServer::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    for (nonce, told) in [
        (format!("{} --redis-cluster", plain.url()), "leave out --redis-cluster"),
        (format!("{}/99", plain.url()), "at the number of a database in the URL"),
        (sentinel.url(), "name the Sentinels by --redis-sentinel"),
        (silent, "with --redis-trust-persistence"),
        (evicting.url(), "set maxmemory-policy noeviction, or give another --nonce"),
    ] {
        let words = format!("--nonce {nonce} --database-url sqlite://ajwt.db");
        for command in ["nonce init", "gateway --listen 192.0.2.1:1"] {
            let ran = folder.ajwt(&format!("{command} {words}").split(' ').collect::<Vec<_>>());
            assert!(ran.code == Some(1) && ran.err.contains(told), "{command} {words}: {ran:?}");
            assert!(!ran.err.contains("()"), "{command} {words}: {ran:?}");
        }
    }
}

#[tokio::test]
async fn a_primary_that_sentinels_name() {
    let folder = Folder::with_database();
    let (redis, sentinel) = (RedisServer::start(&[]), RedisServer::start(&["--sentinel"]));
    sentinel.ask::<()>(&format!("SENTINEL MONITOR orders 127.0.0.1 {} 1", redis.port()));
    let nonce = format!("--nonce redis://orders --redis-sentinel redis://127.0.0.1:1,{}", sentinel.url());
    a_token_works_once(&folder, &nonce).await;
}

/// A gateway with these words about its nonces.
fn gateway(folder: &Folder, nonce: &str) -> Gateway {
    Gateway::start(folder, &format!("--database-url sqlite://ajwt.db {nonce}"))
}

/// A token that it accepts soon, and not only when those from before a start have expired, after 25 s. Each has a quarter
/// of a second for Redis, which a busy machine may take.
async fn accepted(gateway: &Gateway, folder: &Folder) -> Option<String> {
    let clock = SystemClock::new();
    while clock.monotonic() < Duration::from_secs(10) {
        let token = folder.authorization();
        match gateway.status(&token).await.as_u16() {
            200 => return Some(token),
            status => assert_eq!(status, 503),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// Of servers whose clocks are a minute apart, another one may have accepted what is dated so far ahead.
#[tokio::test]
async fn a_new_store_waits_for_the_clocks_of_other_servers() {
    let folder = Folder::with_database();
    let redis = RedisServer::start(&[]);
    let nonce = format!("--nonce {}", redis.url());
    let waiting = gateway(&folder, &format!("{nonce} --server-skew 60"));
    let by_default = gateway(&folder, &nonce);
    for gateway in [&waiting, &by_default] {
        assert_eq!(gateway.status(&authorization_ahead(&folder, 19)).await, 503);
    }
    let accepts = async || by_default.status(&authorization_ahead(&folder, 19)).await == 200;
    eventually("acceptance", accepts).await;
    assert_eq!(waiting.status(&authorization_ahead(&folder, 19)).await, 503);
}

#[tokio::test]
async fn a_nonce_counts_when_the_replicas_have_it() {
    let folder = Folder::with_database();
    let redis = RedisServer::start(&[]);
    let nonce = format!("--nonce {}", redis.url());
    folder.good(&format!("nonce init {nonce}"));
    let content = gateway(&folder, &nonce);
    assert!(accepted(&content, &folder).await.is_some(), "{}", content.log());
    // There is none.
    let demanding = gateway(&folder, &format!("{nonce} --redis-wait-for-replicas 1"));
    assert_eq!(demanding.status(&folder.authorization()).await, 503);
}

#[tokio::test]
async fn a_restart_costs_no_outage_on_the_operators_word() {
    let folder = Folder::with_database();
    let mut redis = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let nonce = format!("--nonce {}", redis.url());
    folder.good(&format!("nonce init {nonce}"));
    redis.restart();
    // Not after the other: that one begins the memory anew, for both.
    let trusting = gateway(&folder, &format!("{nonce} --redis-trust-persistence"));
    assert!(accepted(&trusting, &folder).await.is_some(), "{}", trusting.log());
    let careful = gateway(&folder, &nonce);
    assert_eq!(careful.status(&folder.authorization()).await, 503);
}

#[tokio::test]
async fn a_server_with_a_certificate_of_the_given_authority() {
    let folder = Folder::with_database();
    let authority = Authority::new("127.0.0.1");
    let redis = authority.start("no");
    let nonce = format!("--nonce rediss://127.0.0.1:{}", tls_port(&redis));
    let trusting = format!("{nonce} --redis-ca {}", authority.file("root.pem"));
    folder.good(&format!("nonce init {trusting}"));
    let trusting = gateway(&folder, &trusting);
    assert!(accepted(&trusting, &folder).await.is_some(), "{}", trusting.log());
    let words = format!("gateway --listen 127.0.0.1:0 --database-url sqlite://ajwt.db {nonce}");
    let ran = folder.ajwt(&words.split(' ').collect::<Vec<_>>());
    assert!(ran.code == Some(1) && ran.err.contains("the Redis server 127.0.0.1:"), "{ran:?}");
}
