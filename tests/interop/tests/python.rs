//! Tokens, keys and servers of both sides, against each other.

use std::sync::Arc;

use ajwt_axum::{AuthLayer, Authenticated};
use ajwt_client::{RequestBuilderExt as _, RequestSigner};
use ajwt_core::{PrivateKey, PublicKey, RsaKeySize};
use ajwt_interop::Python;
use ajwt_server::{Authenticator, MemoryNonceBackend, MemoryRepository, User};
use axum::{Router, routing::get};
use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The kinds of key that both sides make.
fn kinds() -> [Value; 4] {
    [
        json!({"action": "generate", "type": "rsa", "bits": 2048}),
        json!({"action": "generate", "type": "rsa", "bits": 3072}),
        json!({"action": "generate", "type": "rsa", "bits": 4096}),
        json!({"action": "generate", "type": "ed25519"}),
    ]
}

fn our_keys() -> Vec<PrivateKey> {
    let sizes = [RsaKeySize::Bits2048, RsaKeySize::Bits3072, RsaKeySize::Bits4096];
    let mut keys: Vec<_> =
        sizes.into_iter().map(|size| PrivateKey::generate_rsa(size).expect("a key")).collect();
    keys.push(PrivateKey::generate_ed25519().expect("a key"));
    keys
}

fn str<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value}"))
}

fn client() -> Client {
    Client::builder().no_proxy().build().expect("a client")
}

async fn hello(caller: Authenticated) -> String {
    format!("hello, {}", caller.user().username())
}

/// An axum service that knows these users; returns its URL.
async fn axum_service(users: Vec<User>) -> String {
    let nonces = Arc::new(MemoryNonceBackend::default());
    let authenticator = Authenticator::builder(Arc::new(MemoryRepository::new(users)), nonces).build();
    let layer = AuthLayer::new(authenticator.expect("an authenticator"));
    let app = Router::new().route("/hello", get(hello)).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hello", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn send(url: &str, authorization: &str) -> (StatusCode, String) {
    let response = client().get(url).header(AUTHORIZATION, authorization).send().await.expect("an answer");
    (response.status(), response.text().await.expect("text"))
}

#[tokio::test]
async fn tokens_that_python_signs_are_accepted_once() {
    let mut python = Python::start();
    for (number, kind) in kinds().iter().enumerate() {
        let key = python.ask(kind);
        let username = format!("guido-{number}");
        let public = PublicKey::from_pem(str(&key, "public_pem")).expect("Python's key");
        let url = axum_service(vec![User::new(username.as_str()).with_keys([public])]).await;
        let sign = json!({"action": "sign", "username": username, "private_pem": key["private_pem"]});
        let signed = python.ask(&sign);
        let authorization = str(&signed, "authorization");
        assert_eq!(send(&url, authorization).await, (StatusCode::OK, format!("hello, {username}")), "{kind}");
        assert_eq!(send(&url, authorization).await.0, StatusCode::UNAUTHORIZED, "{kind}: a replay");
        let other = json!({"action": "sign", "username": "somebody else", "private_pem": key["private_pem"]});
        let other = python.ask(&other);
        assert_eq!(send(&url, str(&other, "authorization")).await.0, StatusCode::UNAUTHORIZED, "{kind}");
    }
}

#[tokio::test]
async fn tokens_that_we_sign_are_accepted_by_django_once() {
    let mut python = Python::start();
    let serve = python.ask(&json!({"action": "serve"}));
    let url = str(&serve, "url");
    for (number, key) in our_keys().into_iter().enumerate() {
        let username = format!("guido-{number}");
        let public = key.public_key();
        // Registered in both formats that the library's tables hold.
        let text = if number % 2 == 0 { public.to_pem() } else { public.to_openssh("from a test") };
        let what = format!("{:?}", public.key_type());
        python.ask(&json!({"action": "add_user", "username": username, "key": text}));

        let signer = RequestSigner::new(username.as_str(), key).expect("a signer");
        let request = client().get(url).sign_with(&signer).expect("signed").build().expect("a request");
        let authorization = request.headers()[AUTHORIZATION].to_str().expect("ascii").to_owned();
        let response = client().execute(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{what}");
        assert_eq!(response.text().await.expect("text"), format!("hello, {username}"), "{what}");
        assert_eq!(send(url, &authorization).await.0, StatusCode::UNAUTHORIZED, "{what}: a replay");

        let stranger = PrivateKey::generate_ed25519().expect("a key");
        let stranger = RequestSigner::new(username.as_str(), stranger).expect("a signer");
        let refused =
            client().get(url).sign_with(&stranger).expect("signed").send().await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{what}: another key");
    }
}

#[test]
fn fingerprints_and_jwks_agree() {
    let mut python = Python::start();
    let mut seen = Vec::new();
    for kind in kinds() {
        let theirs = python.ask(&kind);
        let ours = PrivateKey::from_pem(str(&theirs, "private_pem"), None).expect("Python's key");
        seen.push((ours.public_key().clone(), theirs));
    }
    for ours in our_keys() {
        let pem = ours.to_pem().expect("pem");
        let theirs = python.ask(&json!({"action": "load_private", "pem": pem.as_str()}));
        seen.push((ours.public_key().clone(), theirs));
        let encrypted = ours.to_encrypted_pem(b"correct horse").expect("pem");
        let request =
            json!({"action": "load_private", "pem": encrypted.as_str(), "password": "correct horse"});
        let theirs = python.ask(&request);
        seen.push((ours.public_key().clone(), theirs));
        let theirs = python.ask(&json!({"action": "load_public", "text": ours.public_key().to_openssh("c")}));
        seen.push((ours.public_key().clone(), theirs));
    }
    for (ours, theirs) in seen {
        assert_eq!(ours.fingerprint().as_str(), str(&theirs, "fingerprint"));
        assert_eq!(ours.to_pem(), str(&theirs, "public_pem"));
        if theirs["jwk"].is_object() {
            let jwk: Value = serde_json::from_str(&ours.to_jwk().to_json()).expect("JSON");
            assert_eq!(jwk, theirs["jwk"], "member for member");
        }
    }
}
