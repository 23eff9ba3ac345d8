//! The JWKS handler, as a service of actix-web. Over real sockets it is tested beside the other adapters', in
//! `tests/end-to-end`.

use std::sync::{Arc, Mutex};

use actix_web::{
    App,
    dev::ServiceResponse,
    http::{Method, StatusCode},
    test, web,
};
use ajwt_actix::JwksService;
use ajwt_core::{JwkSet, PrivateKey, RsaKeySize};

async fn send(jwks: &JwksService, method: Method, if_none_match: &[&str]) -> ServiceResponse {
    let jwks = web::resource(JwksService::PATH).to(jwks.clone());
    let app = test::init_service(App::new().service(jwks)).await;
    let mut request = test::TestRequest::with_uri("/.well-known/jwks.json").method(method);
    for tags in if_none_match {
        request = request.append_header(("if-none-match", *tags));
    }
    test::call_service(&app, request.to_request()).await
}

fn header<'a>(response: &'a ServiceResponse, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("ascii"))
}

#[actix_web::test]
async fn it_serves_the_keys_and_answers_conditional_requests() {
    let ed25519 = PrivateKey::generate_ed25519().expect("a key");
    let rsa = PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key");
    let keys = [ed25519.public_key().clone(), rsa.public_key().clone()];
    let jwks = JwksService::new(keys.clone());

    let response = send(&jwks, Method::GET, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), Some("application/jwk-set+json"));
    assert_eq!(header(&response, "cache-control"), Some("public, max-age=300"));
    let etag = header(&response, "etag").expect("an entity tag").to_owned();
    let set = JwkSet::from_json(test::read_body(response).await).expect("a key set");
    assert!(set.skipped().is_empty());
    let served: Vec<_> = set.keys().iter().map(|jwk| (jwk.key().clone(), jwk.key_id())).collect();
    assert_eq!(served, keys.each_ref().map(|key| (key.clone(), key.fingerprint().as_str())));

    let response = send(&jwks, Method::GET, &["\"other\"", &etag]).await;
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(header(&response, "etag"), Some(&*etag));
    assert!(test::read_body(response).await.is_empty());
    assert_eq!(send(&jwks, Method::GET, &["\"other\""]).await.status(), StatusCode::OK);
    let fewer = JwksService::new([keys[0].clone()]);
    assert_eq!(send(&fewer, Method::GET, &[&etag]).await.status(), StatusCode::OK);
    let response = send(&jwks, Method::POST, &[]).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(header(&response, "allow"), Some("GET, HEAD"));
}

#[actix_web::test]
async fn keys_that_change_are_served_as_they_are() {
    let key = || PrivateKey::generate_ed25519().expect("a key").public_key().clone();
    let keys = Arc::new(Mutex::new(vec![key()]));
    let published = Arc::clone(&keys);
    let jwks = JwksService::from_fn(move || published.lock().expect("lock").clone());
    let first = send(&jwks, Method::GET, &[]).await;
    let first = header(&first, "etag").expect("an entity tag").to_owned();
    assert_eq!(send(&jwks, Method::GET, &[&first]).await.status(), StatusCode::NOT_MODIFIED);
    let both = [keys.lock().expect("lock")[0].clone(), key()];
    *keys.lock().expect("lock") = both.to_vec();
    let response = send(&jwks, Method::GET, &[&first]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let set = JwkSet::from_json(test::read_body(response).await).expect("a key set");
    let served: Vec<_> = set.keys().iter().map(|jwk| jwk.key().clone()).collect();
    assert_eq!(served, both);
}
