//! `rediss://` through rustls.

use ajwt_redis::{ConnectError, RedisFault};
use ajwt_test_servers::redis::{RedisServer, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::{builder, fresh, replayed, told, use_now};

/// A root, and the files of a server that has a certificate by it.
pub(crate) struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new(host: &str) -> Self {
        let authority = Self { root: root(), folder: tempfile::tempdir().expect("a folder") };
        let (certificate, key) = authority.issue(host);
        let root = authority.root_pem();
        for (name, text) in [("server.pem", &certificate), ("server.key", &key), ("root.pem", &root)] {
            std::fs::write(authority.folder.path().join(name), text).expect("written");
        }
        authority
    }

    pub(crate) fn root_pem(&self) -> String {
        self.root.pem()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// What a server is started with, that it speaks TLS on a port of its own.
    pub(crate) fn arguments(&self, client_certificates: &str) -> Vec<String> {
        let (certificate, key) = (self.file("server.pem"), self.file("server.key"));
        let port = free_port().to_string();
        let mut arguments = vec!["--tls-port".to_owned(), port];
        for (name, value) in [
            ("--tls-cert-file", &*certificate),
            ("--tls-key-file", &key),
            ("--tls-ca-cert-file", &self.file("root.pem")),
            ("--tls-auth-clients", client_certificates),
        ] {
            arguments.extend([name.to_owned(), value.to_owned()]);
        }
        arguments
    }

    /// A certificate and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new([name.to_owned()]).expect("parameters");
        // A subject like the issuer's would look self-signed.
        parameters.distinguished_name.push(DnType::CommonName, name);
        (parameters.signed_by(&key, &self.root).expect("a certificate").pem(), key.serialize_pem())
    }
}

fn root() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new([]).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a certificate")
}

pub(crate) fn tls_port(server: &RedisServer) -> String {
    server.ask::<Vec<String>>("CONFIG GET tls-port").remove(1)
}

struct Tls {
    server: RedisServer,
    root: String,
    client: (String, String),
}

fn start(host: &str, client_certificates: &str) -> Tls {
    let authority = Authority::new(host);
    let arguments = authority.arguments(client_certificates);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let server = RedisServer::start(&arguments);
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

    for (what, result) in [
        ("another host", trusting().connect(&tls.url("127.0.0.1")).await),
        ("another root", builder().root_certificates_pem(root().pem()).connect(&tls.url("localhost")).await),
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
