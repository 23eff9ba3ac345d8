//! What operators see: the log at its most talkative level, counters and gauges. One test, for the log
//! is that of the process.
#![cfg(feature = "metrics")]

#[path = "jwks/server.rs"]
#[allow(dead_code, reason = "this test uses a part")]
mod server;

use std::collections::BTreeMap;

use ajwt_core::PrivateKey;
use ajwt_jwks::{AddressPolicy, JwksCache, JwksClient};
use ajwt_server::{MemoryRepository, TrustedUrl, User};
use ajwt_test_support::{Level, Log, until};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use server::{Server, ok, set_of};

/// Values by name and label.
fn values(snapshotter: &Snapshotter) -> BTreeMap<(String, String), f64> {
    let values = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
        let value = match value {
            DebugValue::Counter(count) => f64::from(u32::try_from(count).expect("few")),
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(_) => panic!("there is none"),
        };
        ((key.key().name().to_owned(), labels.join(",")), value)
    });
    values.collect()
}

#[test]
fn fetches_and_sets_are_told_and_secrets_are_not() {
    let (log, recorder) = (Log::default(), DebuggingRecorder::new());
    let snapshotter = recorder.snapshotter();
    log.listen_to_all_threads(Level::TRACE);
    recorder.install().expect("no other recorder");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut seen = BTreeMap::new();
    let (good, bad) = runtime.block_on(async {
        let key = PrivateKey::generate_ed25519().expect("a key").public_key().clone();
        let odd = "odd\\u202e\\nkid";
        let set = set_of(&key).replacen("[{", &format!(r#"[{{"kid":"{odd}","kty":"EC"}},{{"#), 1);
        let good = Server::answering(ok(set)).await;
        let bad = Server::answering("HTTP/1.1 500 secret\r\nx-secret: secret\r\n\r\nsecret").await;
        let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
        let client = JwksClient::builder().address_policy(policy).insecure_allow_http();
        let cache = JwksCache::builder(client.build().expect("a client")).build();
        let urls = [
            format!("{}?token=secret#secret", good.url()),
            format!("{}?token=secret", bad.url()),
            format!("http://me:secret@{}/jwks.json", bad.address),
            "http://127.0.0.1:1/refused?token=secret".into(),
            "http://10.0.0.1/private?token=secret".into(),
        ];
        let trusts = (1..).zip(&urls).map(|(id, url)| TrustedUrl::new(id, url.as_str()));
        let user = User::new("guido").with_jwks_urls(trusts.collect());
        cache.warm_up(&MemoryRepository::new([user])).await.expect("memory");
        // By the sweep, a second later. What is read is 0 from then on.
        let gauge = ("ajwt_jwks_next_refresh_seconds".to_owned(), good.url());
        until("the gauges are told", async || {
            for (name, value) in values(&snapshotter) {
                *seen.entry(name).or_insert(0.0) += value;
            }
            seen.contains_key(&gauge)
        })
        .await;
        (good.url(), bad.url())
    });

    let value = |name: &str, label: &str| seen.get(&(name.to_owned(), label.to_owned())).copied();
    // Those of what did not happen are there, too.
    for (result, due) in [
        ("fetched", 1.0),
        ("status", 1.0),
        ("url", 1.0),
        ("connect", 1.0),
        ("address", 1.0),
        ("not_modified", 0.0),
        ("timeout", 0.0),
    ] {
        assert_eq!(value("ajwt_jwks_fetches_total", result), Some(due), "{result}: {seen:?}");
    }
    assert!(value("ajwt_jwks_set_age_seconds", &good).is_some_and(|age| (0.0..60.0).contains(&age)));
    assert_eq!(value("ajwt_jwks_set_age_seconds", &bad), Some(f64::INFINITY), "it was never fetched");
    assert!(value("ajwt_jwks_next_refresh_seconds", &good).is_some_and(|due| (240.0..300.0).contains(&due)));
    assert!(value("ajwt_jwks_next_refresh_seconds", &bad).is_some());

    assert_eq!(log.count("WARN", "not all key sets of trusted URLs were fetched"), 1, "{}", log.text());
    let log = log.text();
    let ours: Vec<&str> = log.lines().filter(|line| line.contains("ajwt_jwks")).collect();
    for (told, with) in [
        (good.as_str(), "fetched a key set"),
        (good.as_str(), "odd\\u{202e}\\nkid"),
        (bad.as_str(), "status"),
        ("http://127.0.0.1:1/refused", "connect"),
        ("http://10.0.0.1/private", "not a public address"),
    ] {
        assert!(ours.iter().any(|line| line.contains(told) && line.contains(with)), "{told} {with}:\n{log}");
    }
    assert!(ours.iter().all(|line| !line.contains("secret")), "{ours:#?}");
    // Nor do the crates below tell it.
    assert!(!log.contains("token=secret"), "{log}");
}
