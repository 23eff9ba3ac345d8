//! How a protected route is tested without any server: a signer, the application's own user with its
//! key, and a nonce store in memory.

use std::sync::Arc;

use ajwt_server::{Authenticator, MemoryNonceBackend, testing::TestSigner};
use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode, header::AUTHORIZATION},
};
use axum_redis::{Accounts, router};
use tower::ServiceExt as _;

fn authenticator_of(signer: &TestSigner, suspended: bool) -> Authenticator<axum_redis::Account> {
    let key = signer.public_key().to_pem();
    let json = serde_json::json!([{"name": "guido", "plan": "gold", "suspended": suspended, "keys": [key]}]);
    let accounts = Accounts::from_json(&json.to_string()).expect("accounts");
    let nonces = Arc::new(MemoryNonceBackend::default());
    Authenticator::builder(Arc::new(accounts), nonces).build().expect("an authenticator")
}

async fn get(
    authenticator: Authenticator<axum_redis::Account>,
    path: &str,
    token: Option<String>,
) -> (StatusCode, String) {
    let mut request = Request::builder().uri(path);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = router(authenticator).oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = to_bytes(response.into_body(), 1000).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn handlers_get_the_account() {
    let signer = TestSigner::new("guido");
    let authenticator = authenticator_of(&signer, false);
    let (status, body) = get(authenticator.clone(), "/plan", Some(signer.authorization())).await;
    let key_id = signer.public_key().fingerprint().as_str();
    assert_eq!(status, StatusCode::OK);
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body, serde_json::json!({"account": "guido", "plan": "gold", "key": key_id}));
    assert_eq!(get(authenticator.clone(), "/plan", None).await.0, StatusCode::UNAUTHORIZED);

    assert_eq!(get(authenticator.clone(), "/", None).await.1, "welcome, stranger\n");
    assert_eq!(get(authenticator, "/", Some(signer.authorization())).await.1, "welcome back, guido\n");
}

/// Also one that the route does not have: `any(..)` and a fallback would serve it.
#[tokio::test]
async fn every_method_needs_a_token() {
    let router = router(authenticator_of(&TestSigner::new("guido"), false));
    let request = Request::post("/plan").body(Body::empty()).expect("a request");
    assert_eq!(router.oneshot(request).await.expect("infallible").status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_suspended_account_cannot_call() {
    let signer = TestSigner::new("guido");
    let authenticator = authenticator_of(&signer, true);
    let token = Some(signer.authorization());
    assert_eq!(get(authenticator, "/plan", token).await.0, StatusCode::UNAUTHORIZED);
}

#[test]
fn a_bad_key_is_told_with_its_account() {
    let json = r#"[{"name": "guido", "plan": "gold", "keys": ["ssh-dss AAAA"]}]"#;
    let error = Accounts::from_json(json).expect_err("no accounts");
    assert!(error.to_string().starts_with("guido: "), "{error}");
}

/// Which of the two would count, with its keys, depended on their order.
#[test]
fn two_accounts_of_one_name_are_told() {
    let json =
        r#"[{"name": "guido", "plan": "gold", "keys": []}, {"name": "guido", "plan": "tin", "keys": []}]"#;
    let error = Accounts::from_json(json).expect_err("no accounts");
    assert_eq!(error.to_string(), "guido: two accounts have this name");
}
