//! The JWKS handler.

use ajwt_axum::JwksService;
use ajwt_client::KeyRing;
use ajwt_core::{JwkSet, PrivateKey, RsaKeySize};
use axum::{Router, body::Body};
use http::{Request, Response, StatusCode};
use tower::ServiceExt as _;

async fn send(app: &Router, method: &str, if_none_match: &[&str]) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(JwksService::PATH);
    for tags in if_none_match {
        request = request.header("if-none-match", *tags);
    }
    app.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("infallible")
}

async fn body(response: Response<Body>) -> Vec<u8> {
    axum::body::to_bytes(response.into_body(), 100_000).await.expect("a body").to_vec()
}

#[tokio::test]
async fn it_serves_the_keys_and_answers_conditional_requests() {
    let ed25519 = PrivateKey::generate_ed25519().expect("a key");
    let rsa = PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key");
    let keys = [ed25519.public_key().clone(), rsa.public_key().clone()];
    let app = Router::new().route_service(JwksService::PATH, JwksService::new(keys.clone()));

    let response = send(&app, "GET", &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/jwk-set+json");
    assert_eq!(response.headers()["cache-control"], "public, max-age=300");
    let etag = response.headers()["etag"].to_str().expect("ascii").to_owned();
    let set = JwkSet::from_json(body(response).await).expect("a key set");
    assert!(set.skipped().is_empty());
    for (jwk, key) in set.keys().iter().zip(&keys) {
        assert_eq!(jwk.key(), key);
        assert_eq!(jwk.key_id(), key.fingerprint().as_str());
        assert_eq!(jwk.algorithm(), Some(key.preferred_algorithm()));
    }
    assert_eq!(set.keys().len(), 2);

    let weak = format!("\"other\", W/{etag}");
    for known in [vec![etag.as_str()], vec![weak.as_str()], vec!["*"], vec!["\"other\"", etag.as_str()]] {
        let response = send(&app, "GET", &known).await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known:?}");
        assert_eq!(response.headers()["etag"], etag.as_str());
        assert!(body(response).await.is_empty());
    }
    assert_eq!(send(&app, "GET", &["\"other\""]).await.status(), StatusCode::OK);
    let head = send(&app, "HEAD", &[]).await;
    assert_eq!((head.status(), head.headers()["etag"].to_str().ok()), (StatusCode::OK, Some(etag.as_str())));
    assert!(body(head).await.is_empty());
    let post = send(&app, "POST", &[]).await;
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(post.headers()["allow"], "GET, HEAD");
}

#[tokio::test]
async fn other_keys_have_another_etag() {
    let app = |key: &PrivateKey| {
        Router::new().route_service(JwksService::PATH, JwksService::new([key.public_key().clone()]))
    };
    let (one, two) =
        (PrivateKey::generate_ed25519().expect("a key"), PrivateKey::generate_ed25519().expect("a key"));
    let first = send(&app(&one), "GET", &[]).await.headers()["etag"].clone();
    assert_eq!(send(&app(&one), "GET", &[]).await.headers()["etag"], first);
    assert_ne!(send(&app(&two), "GET", &[]).await.headers()["etag"], first);
}

#[tokio::test]
async fn keys_that_change_are_served_as_they_are() {
    let key = || PrivateKey::generate_ed25519().expect("a key");
    let keys = KeyRing::new(key());
    let published = keys.clone();
    let jwks = JwksService::from_fn(move || published.public_keys());
    let app = Router::new().route_service(JwksService::PATH, jwks);
    let first = send(&app, "GET", &[]).await.headers()["etag"].to_str().expect("ascii").to_owned();
    assert_eq!(send(&app, "GET", &[&first]).await.status(), StatusCode::NOT_MODIFIED);
    keys.add(key());
    let response = send(&app, "GET", &[&first]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let set = JwkSet::from_json(body(response).await).expect("a key set");
    let served: Vec<_> = set.keys().iter().map(|jwk| jwk.key().clone()).collect();
    assert_eq!(served, keys.public_keys());
    assert_eq!(served.len(), 2);
}
