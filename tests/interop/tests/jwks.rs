//! Key sets of both sides: each is published by one, trusted by the other, and called by its tokens.

use std::sync::Arc;

use ajwt_axum::{AuthLayer, Authenticated, JwksService};
use ajwt_client::{RequestBuilderExt as _, RequestSigner};
use ajwt_core::{PrivateKey, RsaKeySize, Username};
use ajwt_interop::Python;
use ajwt_jwks::{AddressPolicy, JwksCache, JwksClient, JwksKeyRepository};
use ajwt_server::{Authenticator, KeyAdmin as _};
use ajwt_sqlx::{SqliteNonceBackend, SqliteRepository};
use axum::{Router, routing::get};
use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use serde_json::{Value, json};
use tokio::net::TcpListener;

fn str<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value}"))
}

fn client() -> Client {
    Client::builder().no_proxy().build().expect("a client")
}

async fn hello(caller: Authenticated) -> String {
    format!("hello, {}", caller.user().username())
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_django_service_that_publishes_its_keys_is_trusted() {
    let mut python = Python::start();
    let serving = python.ask(&json!({"action": "serve"}));
    let (django, _) = str(&serving, "url").split_once("/hello").expect("a URL");
    // The library publishes RSA keys only: its as_jwk raises for Ed25519.
    let keys: Vec<Value> = [2048, 3072]
        .map(|bits| python.ask(&json!({"action": "generate", "type": "rsa", "bits": bits})))
        .into();
    let pems: Vec<&Value> = keys.iter().map(|key| &key["public_pem"]).collect();
    let published = python.ask(&json!({"action": "publish", "keys": pems}));
    let trusted = format!("{django}{}", str(&published, "path"));

    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite://{}", folder.path().join("ajwt.db").display());
    let repository = SqliteRepository::connect(&store).await.expect("opened");
    repository.migrate().await.expect("migrated");
    let nonces = SqliteNonceBackend::new(repository.pool().clone());
    nonces.initialise().await.expect("marked");
    let guido = Username::new("guido").expect("a name");
    repository.add_user(&guido).await.expect("added");
    repository.add_user(&Username::new("barry").expect("a name")).await.expect("added");
    repository.add_trust(&guido, &trusted).await.expect("trusted");

    let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
    let client = JwksClient::builder().address_policy(policy).insecure_allow_http();
    let cache = Arc::new(JwksCache::builder(client.build().expect("a client")).build());
    let warm = cache.warm_up(&repository).await.expect("listed");
    assert_eq!((warm.trusted, warm.fetched), (1, 1), "{:?}", cache.snapshot());
    let authenticator = Authenticator::builder(Arc::new(repository.clone()), Arc::new(nonces))
        .keys(Arc::new(JwksKeyRepository::new(cache)))
        .usage(Arc::new(repository.batched_usage()))
        .build()
        .expect("an authenticator");
    let ours = serve(Router::new().route("/", get(hello)).layer(AuthLayer::new(authenticator.clone()))).await;

    let mut sign = |username: &str, key: &Value| {
        let sign = json!({"action": "sign", "username": username, "private_pem": key["private_pem"]});
        str(&python.ask(&sign), "authorization").to_owned()
    };
    let send = async |authorization: &str| {
        let request = self::client().get(&ours).header(AUTHORIZATION, authorization);
        let response = request.send().await.expect("an answer");
        (response.status(), response.text().await.expect("text"))
    };
    for key in &keys {
        let token = sign("guido", key);
        assert_eq!(send(&token).await, (StatusCode::OK, "hello, guido".into()));
        assert_eq!(send(&token).await.0, StatusCode::UNAUTHORIZED, "a replay");
        assert_eq!(send(&sign("barry", key)).await.0, StatusCode::UNAUTHORIZED, "who trusts no URL");
    }
    authenticator.close().await;
    assert!(repository.trusts(&guido).await.expect("listed")[0].last_used_on.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_we_publish_is_trusted_by_django() {
    let keys = [
        PrivateKey::generate_ed25519().expect("a key"),
        PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key"),
        PrivateKey::generate_rsa(RsaKeySize::Bits4096).expect("a key"),
    ];
    let published = JwksService::new(keys.iter().map(|key| key.public_key().clone()));
    let ours = serve(Router::new().route_service(JwksService::PATH, published)).await;

    let mut python = Python::start();
    let serving = python.ask(&json!({"action": "serve"}));
    for username in ["guido", "barry"] {
        python.ask(&json!({"action": "create_user", "username": username}));
    }
    let trusted = format!("{ours}{}", JwksService::PATH);
    python.ask(&json!({"action": "add_trust", "username": "guido", "url": trusted}));
    for key in keys {
        let what = format!("{:?}", key.public_key().key_type());
        let signer = RequestSigner::new("guido", key).expect("a signer");
        let request = client().get(str(&serving, "url")).sign_with(&signer).expect("signed");
        let again = request.try_clone().expect("no body");
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{what}");
        assert_eq!(response.text().await.expect("text"), "hello, guido", "{what}");
        let replayed = again.send().await.expect("an answer");
        assert_eq!(replayed.status(), StatusCode::UNAUTHORIZED, "{what}: a replay");
    }
    let stranger = PrivateKey::generate_ed25519().expect("a key");
    let stranger = RequestSigner::new("guido", stranger).expect("a signer");
    let refused = client().get(str(&serving, "url")).sign_with(&stranger).expect("signed");
    assert_eq!(refused.send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    let records = python.ask(&json!({"action": "records", "username": "guido"}));
    assert!(records["trusts"][0]["last_used_on"].is_i64(), "{records}");
}
