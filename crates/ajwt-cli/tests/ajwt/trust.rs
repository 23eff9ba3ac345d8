//! Keys from trusted URLs: another gateway publishes them, or a server with TLS.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, routing::any};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    https::{authorities, complaint, on_system_with},
    support::{AJWT, Folder, Gateway, eventually},
};

const DATABASE: &str = "--database-url sqlite://ajwt.db";
const LOCAL: &str = "--jwks-insecure-http --jwks-allow-network 127.0.0.0/8";

/// A service that publishes the key in `partner.key`, and its URL.
fn partner(folder: &Folder) -> (Gateway, String) {
    folder.good("keygen -o partner.key");
    std::fs::create_dir(folder.path("nobody")).expect("a folder");
    let gateway = Gateway::start(folder, "--keys nobody --nonce memory --publish-key partner.key");
    let url = format!("{}/.well-known/jwks.json", gateway.url());
    (gateway, url)
}

fn token(folder: &Folder) -> String {
    format!("JWT {}", folder.good("token --username partner --key partner.key").trim_end())
}

#[tokio::test]
async fn a_trusted_url_is_fetched_before_it_is_added_and_its_keys_count() {
    let folder = Folder::with_database();
    let (publisher, url) = partner(&folder);
    folder.good(&format!("user add partner {DATABASE}"));
    for (options, told) in [
        (
            "",
            "the URL was not added, for its key set cannot be fetched (--no-fetch): it is at http://, which is for \
             development: give --jwks-insecure-http, here and to the gateway, or a URL that begins with https://",
        ),
        (
            "--jwks-insecure-http",
            "the URL was not added, for its key set cannot be fetched (--no-fetch): 127.0.0.1 is at 127.0.0.1, which is \
             not a public address: if it is one of yours, give its network by --jwks-allow-network, here and to the \
             gateway",
        ),
        ("--jwks-allow-network nonsense", "\"nonsense\" is no network"),
    ] {
        let found = folder.bad(format!("trust add partner {url} {DATABASE} {options}").trim_end());
        assert!(found.starts_with(told), "{options}: {found}");
    }
    assert_eq!(folder.good(&format!("trust list partner {DATABASE}")).lines().count(), 1, "none was added");

    let shown = folder.good(&format!("trust add partner {url} {DATABASE} {LOCAL}"));
    let fingerprint = folder.good("key show partner.key --format fingerprint");
    assert_eq!(
        shown.split_whitespace().collect::<Vec<_>>(),
        ["KID", "TYPE", "FINGERPRINT", fingerprint.trim_end(), "Ed25519", fingerprint.trim_end()]
    );

    let gateway = Gateway::start(&folder, &format!("{DATABASE} --nonce memory {LOCAL}"));
    // Memory nonces refuse tokens from before the second of their start.
    eventually("acceptance", async || gateway.status(&token(&folder)).await == 200).await;
    let metrics = gateway.get("/metrics").await.text().await.expect("text");
    let is_fetched = |line: &str| line == "ajwt_jwks_fetches_total{result=\"fetched\"} 1";
    assert!(metrics.lines().any(is_fetched), "{metrics}");
    // What was fetched serves on, and ends with its trust.
    drop(publisher);
    assert_eq!(gateway.status(&token(&folder)).await, 200);
    folder.good(&format!("trust remove partner {url} {DATABASE}"));
    eventually("refusal", async || gateway.status(&token(&folder)).await == 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_fetched_once_when_it_is_added() {
    let folder = Folder::with_database();
    let set = folder.good("key show billing.key --format jwks");
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetches);
    let app = Router::new().fallback(any(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(set.clone())
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/jwks.json", listener.local_addr().expect("its address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let json_of = |words: &str| {
        let text = folder.good(&format!("trust {words} --json {DATABASE}"));
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };

    let fingerprint = folder.good("key show billing.key --format fingerprint");
    let fingerprint = fingerprint.trim_end();
    let keys = json!([{"kid": fingerprint, "type": "Ed25519", "fingerprint": fingerprint}]);
    assert_eq!(json_of(&format!("add billing {url} {LOCAL}")), keys);
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    assert_eq!(json_of("list billing"), json!([{"id": 1, "url": url, "last_used_on": null}]));
    folder.good(&format!("trust remove billing {url} {DATABASE}"));
    assert_eq!(json_of("list billing"), json!([]));
    folder.good(&format!("trust add --no-fetch billing {url} {DATABASE}"));
    assert_eq!(fetches.load(Ordering::SeqCst), 1, "it was not looked at");
}

/// After a start there is no last set to use: an alert on its age is to hear of it.
#[tokio::test]
async fn a_set_that_was_never_fetched_has_an_endless_age() {
    let folder = Folder::with_database();
    // Whatever listens there, it is no public address.
    let url = "https://127.0.0.1:1/jwks.json";
    folder.good(&format!("trust add --no-fetch billing {url} {DATABASE}"));
    let gateway = Gateway::start(&folder, &format!("{DATABASE} --nonce memory"));
    let told = gateway.log();
    let is_told = |line: &str| line.contains("WARN") && line.contains("not all key sets of trusted URLs");
    assert!(told.lines().any(is_told), "{told}");
    // As Prometheus reads it: an infinity, in whatever case.
    let due = format!("ajwt_jwks_set_age_seconds{{url=\"{url}\"}} inf");
    let has_it = async || gateway.text("/metrics").await.lines().any(|line| line == due);
    eventually("age of the set", has_it).await;
}

#[tokio::test]
async fn urls_in_a_folder_count_too() {
    let folder = Folder::new();
    let (_publisher, url) = partner(&folder);
    std::fs::create_dir(folder.path("callers")).expect("a folder");
    folder.write("callers/partner.jwks", format!("# the partner\n{url}\n"));
    let gateway = Gateway::start(&folder, &format!("--keys callers --nonce memory {LOCAL}"));
    eventually("acceptance", async || gateway.status(&token(&folder)).await == 200).await;
    std::fs::remove_file(folder.path("callers/partner.jwks")).expect("removed");
    eventually("refusal", async || gateway.status(&token(&folder)).await == 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_sets_may_come_from_servers_with_an_authority_of_their_own() {
    let folder = Folder::with_database();
    folder.good("keygen -o partner.key");
    folder.good(&format!("user add partner {DATABASE}"));
    let set = folder.good("key show partner.key --format jwks");
    let app = Router::new().fallback(any(move || std::future::ready(set.clone())));
    let url = authorities(&folder).serve(app).await + "/jwks.json";
    let options = format!("{DATABASE} --jwks-allow-network 127.0.0.0/8");
    let add = |more: &str| {
        on_system_with("other.pem", &folder, &format!("trust add partner {url} {options}{more}"))
    };
    let gateway = |more: &str| {
        let mut command = folder.command(AJWT);
        command.args(["gateway", "--listen", "127.0.0.1:0", "--nonce", "memory"]);
        command.args(format!("{options}{more}").split(' ')).env("SSL_CERT_FILE", folder.path("other.pem"));
        Gateway::of(&mut command, &folder)
    };

    for more in ["", " --jwks-ca other.pem"] {
        let told = complaint(&add(more));
        let due = "the URL was not added, for its key set cannot be fetched (--no-fetch): cannot connect";
        assert!(told.starts_with(due) && told.contains("invalid peer certificate"), "{more}: {told}");
    }
    assert_eq!(folder.good(&format!("trust list partner {DATABASE}")).lines().count(), 1, "none was added");
    let added = add(" --jwks-ca ca.pem");
    let fingerprint = folder.good("key show partner.key --format fingerprint");
    assert!(added.code == Some(0) && added.out.contains(fingerprint.trim_end()), "{added:?}");

    let without = gateway("");
    // Memory nonces refuse tokens from before the second of their start.
    let billing = async || without.status(&folder.authorization()).await == 200;
    eventually("acceptance of another user", billing).await;
    assert_eq!(without.status(&token(&folder)).await, 401);
    assert!(without.log().contains("invalid peer certificate"), "{}", without.log());
    assert!(!without.log().contains("rustls_platform_verifier"), "{}", without.log());
    drop(without);
    let trusting = gateway(" --jwks-ca ca.pem");
    eventually("acceptance", async || trusting.status(&token(&folder)).await == 200).await;
}
