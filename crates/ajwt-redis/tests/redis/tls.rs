//! `rediss://` through rustls.

use ajwt_redis::{ConnectError, RedisFault};
use ajwt_test_servers::{
    redis::{RedisServer, tls::tls_port},
    tls::Authority,
};

use crate::{builder, fresh, replayed, told, use_now};

struct Tls {
    server: RedisServer,
    root: String,
    client: (String, String),
}

fn start(host: &str, client_certificates: &str) -> Tls {
    let authority = Authority::new(host);
    let server = authority.start(client_certificates);
    Tls { server, root: authority.root_pem(), client: authority.issue("client") }
}

impl Tls {
    fn url(&self, host: &str) -> String {
        format!("rediss://{host}:{}", tls_port(&self.server))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_of_the_given_root_serves() {
    let tls = start("localhost", "no");
    let trusting = || builder().root_certificates_pem(tls.root.clone());
    let backend =
        trusting().connect(&tls.url("localhost")).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(backend.initialise().await.expect("new"));
    fresh(&backend, &use_now("one")).await;
    replayed(&backend, &use_now("one")).await;

    let other = || builder().root_certificates_pem(Authority::new("localhost").root_pem());
    for (what, result) in [
        ("another host", trusting().connect(&tls.url("127.0.0.1")).await),
        ("another root", other().connect(&tls.url("localhost")).await),
        ("no root", builder().connect(&tls.url("localhost")).await),
    ] {
        let error = result.expect_err(what);
        assert!(
            matches!(error, ConnectError::Server(RedisFault::Unreachable { .. })),
            "{what}: {}",
            told(&error)
        );
    }
    let careless =
        trusting().connect(&format!("{}#insecure", tls.url("localhost"))).await.expect_err("an error");
    assert!(matches!(careless, ConnectError::Url { .. }), "{careless}");
    // An s forgotten would send the password in clear.
    let plain = tls.url("localhost").replacen("rediss", "redis", 1);
    let plain = trusting().connect(&plain).await.expect_err("an error");
    assert!(matches!(plain, ConnectError::Url { .. }), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_ask_for_a_certificate() {
    let tls = start("localhost", "yes");
    let trusting = || builder().root_certificates_pem(tls.root.clone());
    trusting().connect(&tls.url("localhost")).await.expect_err("it asks for a certificate");
    let (certificate, key) = &tls.client;
    let known = trusting().client_certificate_pem(certificate.clone(), key.clone());
    assert!(!format!("{known:?}").contains("PRIVATE"));
    let backend =
        known.connect(&tls.url("localhost")).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(backend.initialise().await.expect("new"));
    fresh(&backend, &use_now("one")).await;
}
