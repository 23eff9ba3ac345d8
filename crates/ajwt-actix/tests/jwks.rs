//! The JWKS handler.

use actix_web::{
    App,
    dev::ServiceResponse,
    http::{Method, StatusCode},
    test, web,
};
use ajwt_actix::JwksService;
use ajwt_core::{JwkSet, PrivateKey, PublicKey, RsaKeySize};

async fn send(keys: &[PublicKey], method: Method, if_none_match: &[&str]) -> ServiceResponse {
    let jwks = JwksService::new(keys.iter().cloned());
    let app = test::init_service(App::new().service(web::resource(JwksService::PATH).to(jwks))).await;
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

    let response = send(&keys, Method::GET, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), Some("application/jwk-set+json"));
    assert_eq!(header(&response, "cache-control"), Some("public, max-age=300"));
    let etag = header(&response, "etag").expect("an entity tag").to_owned();
    let set = JwkSet::from_json(test::read_body(response).await).expect("a key set");
    assert!(set.skipped().is_empty());
    let served: Vec<_> = set.keys().iter().map(|jwk| (jwk.key().clone(), jwk.key_id())).collect();
    assert_eq!(served, keys.each_ref().map(|key| (key.clone(), key.fingerprint().as_str())));

    let response = send(&keys, Method::GET, &["\"other\"", &etag]).await;
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(header(&response, "etag"), Some(&*etag));
    assert!(test::read_body(response).await.is_empty());
    assert_eq!(send(&keys, Method::GET, &["\"other\""]).await.status(), StatusCode::OK);
    assert_eq!(send(&keys[..1], Method::GET, &[&etag]).await.status(), StatusCode::OK);
    let response = send(&keys, Method::POST, &[]).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(header(&response, "allow"), Some("GET, HEAD"));
}
