//! What the layer allocates besides the engine, so that no allocation comes back unseen.

use std::{convert::Infallible, sync::Arc, time::Duration};

use ajwt_axum::AuthLayer;
use ajwt_core::{Claims, Nonce, PrivateKey, Token, Username};
use ajwt_server::{
    Authenticator, Clock as _, MemoryNonceBackend, MemoryRepository, MockClock, SystemClock, User,
};
use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, header::AUTHORIZATION},
};
use tower::{Layer as _, ServiceExt as _};

/// The engine's (6), which has a test of its own; the future, which services return in a box (1); what the handler may
/// keep of the caller (1), and its place among the request's extensions (1).
const ALLOCATIONS: u64 = 9;

/// The median of many requests: a map that grows is not the request's.
#[test]
fn a_request_that_passes_the_layer_allocates_what_it_must() {
    let key = PrivateKey::generate_ed25519().expect("a key");
    let users = MemoryRepository::new([User::new("guido").with_keys([key.public_key().clone()])]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    // It stands still: nonces of a new second have a place of their own, which is allocated.
    let clock = MockClock::new(SystemClock::new().now());
    let nonces = Arc::new(MemoryNonceBackend::with_clock(1 << 16, Arc::new(clock.clone())));
    let builder = Authenticator::builder(Arc::new(users), nonces).clock(Arc::new(clock.clone()));
    // Memory nonces refuse tokens from before the second of their start.
    clock.advance(Duration::from_secs(1));
    let within =
        tower::service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let service = AuthLayer::new(builder.build().expect("built")).layer(within);
    let request = || {
        let name = Username::new("guido").expect("a name");
        let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
        let token = Token::sign(&Claims::new(name, clock.now(), nonce), &key).expect("signed");
        let mut request = Request::new(Body::empty());
        let value: HeaderValue = format!("JWT {}", token.as_str()).parse().expect("a value");
        // As those that a server has read, which are parts of what it shares: by its first clone it becomes one.
        request.headers_mut().insert(AUTHORIZATION, value.clone());
        // As a server's, which has something of its own among them.
        request.extensions_mut().insert(());
        request
    };
    let count = |request: Request<Body>, passes: bool| {
        let counted = allocation_counter::measure(|| {
            let response = if passes {
                runtime.block_on(service.clone().oneshot(request)).expect("infallible")
            } else {
                runtime.block_on(within.oneshot(request)).expect("infallible")
            };
            assert_eq!(response.status(), 200);
        });
        counted.count_total
    };
    // What is made once is made by the first ones.
    for _ in 0..1000 {
        count(request(), true);
    }
    let mut counted: Vec<_> = (0..100).map(|_| count(request(), true) - count(request(), false)).collect();
    counted.sort_unstable();
    assert_eq!(counted.get(50), Some(&ALLOCATIONS));
}
