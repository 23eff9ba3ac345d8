//! HTTPS: only a certificate that a trusted root issued, for the host and now, will do.

use std::{env, io, net::IpAddr, process::Command, sync::Arc};

use ajwt_jwks::{AddressPolicy, ClientError, HostResolver, JwksCache, JwksClient, JwksClientBuilder};
use ajwt_server::{MemoryRepository, TrustedUrl, User};
use ajwt_test_support::{Level, Log};
use async_trait::async_trait;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::{
    PATIENT, fetch, key, keys, refused,
    server::{Server, Step, Transport, ok, set_of},
    told,
};

const HOST: &str = "keys.example";

/// Every host is here.
#[derive(Debug)]
struct Here;

#[async_trait]
impl HostResolver for Here {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![[127, 0, 0, 1].into()])
    }
}

fn root() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new([]).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A server with a certificate for this host, valid until the first day of this year.
async fn serve(root: &CertifiedIssuer<'_, KeyPair>, host: &str, until: i32, answer: Vec<u8>) -> Server {
    serve_names(root, vec![host.to_owned()], until, answer).await
}

async fn serve_names(
    root: &CertifiedIssuer<'_, KeyPair>,
    names: Vec<String>,
    until: i32,
    answer: Vec<u8>,
) -> Server {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(names).expect("parameters");
    // A subject like the issuer's would look self-signed.
    parameters.distinguished_name.push(DnType::CommonName, HOST);
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(until, 1, 1);
    let certificate = parameters.signed_by(&key, root).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a configuration");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let transport = Transport::Tls(TlsAcceptor::from(Arc::new(config)));
    Server::start_at("127.0.0.1:0", transport, move |_| vec![Step::Send(answer.clone())]).await
}

fn url(server: &Server, host: &str) -> String {
    format!("https://{host}:{}/jwks.json", server.address.port())
}

fn builder() -> JwksClientBuilder {
    let policy = AddressPolicy::public().allow_network("127.0.0.1/32").expect("a network");
    JwksClient::builder().address_policy(policy).resolver(Arc::new(Here)).deadline(PATIENT)
}

fn trusting(root: &CertifiedIssuer<'_, KeyPair>) -> JwksClient {
    builder().add_root_certificates_pem(root.pem()).expect("a root").build().expect("a client")
}

#[tokio::test]
async fn a_set_is_fetched_over_https() {
    let (root, key) = (root(), key());
    let server = serve(&root, HOST, 2100, ok(set_of(&key))).await;
    assert_eq!(keys(fetch(&trusting(&root), &url(&server, HOST)).await), [key]);
}

#[tokio::test]
async fn certificates_that_will_not_do_are_failures() {
    let (root, other_root) = (root(), self::root());
    let server = serve(&root, HOST, 2100, ok(set_of(&key()))).await;
    let expired = serve(&root, HOST, 2021, ok(set_of(&key()))).await;
    let without = builder().build().expect("a client");
    for (what, client, url) in [
        ("a root that is not trusted", &without, url(&server, HOST)),
        ("another root", &trusting(&other_root), url(&server, HOST)),
        ("another host", &trusting(&root), url(&server, "other.example")),
        ("an address", &trusting(&root), url(&server, "127.0.0.1")),
        ("an expired certificate", &trusting(&root), url(&expired, HOST)),
    ] {
        refused(fetch(client, &url).await, what, "connect");
        let requests = server.heads().len() + expired.heads().len();
        assert_eq!(requests, 0, "{what}: nothing was asked for");
    }
    let plain = Server::start_at("127.0.0.1:0", Transport::Hasty(ok(set_of(&key()))), |_| Vec::new()).await;
    refused(fetch(&trusting(&root), &url(&plain, HOST)).await, "a server without TLS", "connect");
}

#[tokio::test]
async fn names_in_a_certificate_begin_no_line_of_the_log_and_do_not_fill_it() {
    let root = root();
    let mut names = vec!["a\n\u{1b}[2J1970-01-01T00:00:00Z ERROR ajwt: forged".to_owned()];
    names.extend((0..100).map(|number| format!("{number}.{}.example", "x".repeat(190))));
    let server = serve_names(&root, names, 2100, ok(set_of(&key()))).await;
    let cache = JwksCache::builder(trusting(&root)).build();
    let user = User::new("guido").with_jwks_urls(vec![TrustedUrl::new(1, url(&server, HOST))]);

    let log = Log::default();
    let listening = log.listen(Level::WARN);
    cache.warm_up(&MemoryRepository::new([user])).await.expect("memory");
    drop(listening);
    let text = log.text();
    let failures = log.lines("a key set was not fetched");
    assert!(failures.len() == 1 && failures[0].len() < 700, "{text}");
    assert!(failures[0].contains(r"a\n\u{1b}[2J1970"), "{text}");
    assert_eq!(text.lines().count(), 2, "the other one is of all sets: {text}");
    assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");

    let error = cache.snapshot().remove(0).last_error.expect("it failed");
    let told = told(&*error);
    assert!(told.len() < 500 && !told.contains(char::is_control), "{told:?}");
}

#[test]
fn roots_that_are_none_are_told() {
    for no_root in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let built =
            JwksClient::builder().add_root_certificates_pem(no_root).and_then(JwksClientBuilder::build);
        let error = built.expect_err(no_root);
        assert!(matches!(error, ClientError::Certificates { .. } | ClientError::Tls { .. }), "{error:?}");
    }
}

/// As in a container that has none.
#[test]
fn a_system_without_roots_is_told() {
    const IS_CHILD: &str = "AJWT_TEST_WITHOUT_ROOTS";

    if env::var_os(IS_CHILD).is_some() {
        let error = builder().build().expect_err("no roots");
        assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("ca-certificates"), "{error}");
        trusting(&root());
        return;
    }
    let mut child = Command::new(env::current_exe().expect("this program"));
    child.args(["--exact", "tls::a_system_without_roots_is_told", "--nocapture"]).env(IS_CHILD, "1");
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        child.env(variable, "/nowhere");
    }
    let output = child.output().expect("started");
    let [told, errors] = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream));
    assert!(output.status.success() && told.contains("1 passed"), "{told}{errors}");
}
