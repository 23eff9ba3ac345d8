//! The layer and the extractors, over real sockets and as tower services.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use ajwt_axum::{AuthLayer, Authenticated, AuthenticatedRejection};
use ajwt_client::RequestSigner;
use ajwt_core::PrivateKey;
use ajwt_server::{
    Authenticator, InsecureNoReplayProtection, KeyedUser, MemoryNonceBackend, MemoryRepository, NonceBackend,
    RejectionBody, StoredKey, TrustedUrl, User,
};
use ajwt_test_support::{Level, Log};
use axum::{
    Router,
    body::Body,
    http::HeaderValue,
    routing::{any, get},
};
use http::{Method, Request, Response, StatusCode, header::AUTHORIZATION};
use tokio::net::TcpListener;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

fn signer() -> RequestSigner {
    RequestSigner::new("guido", PrivateKey::generate_ed25519().expect("a key")).expect("a signer")
}

fn authenticator(signer: &RequestSigner) -> Authenticator {
    with_nonces(signer, Arc::new(MemoryNonceBackend::default()))
}

fn with_nonces(signer: &RequestSigner, nonces: Arc<dyn NonceBackend>) -> Authenticator {
    let user = User::new("guido").with_keys([signer.public_key().clone()]);
    Authenticator::builder(Arc::new(MemoryRepository::new([user])), nonces).build().expect("an authenticator")
}

async fn required(caller: Authenticated) -> String {
    format!("hello, {}", caller.user().username())
}

async fn optional(_: Option<Authenticated>) {}

fn routes() -> Router {
    Router::new().route("/required", any(required)).route("/optional", get(optional))
}

fn request(path: &str, authorization: &[HeaderValue]) -> Request<Body> {
    let mut request = Request::builder().uri(path).body(Body::empty()).expect("a request");
    for value in authorization {
        request.headers_mut().append(AUTHORIZATION, value.clone());
    }
    request
}

async fn get_response(app: &Router, path: &str, authorization: &[HeaderValue]) -> Response<Body> {
    app.clone().oneshot(request(path, authorization)).await.expect("infallible")
}

async fn text(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1000).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

async fn get_text(app: &Router, path: &str, authorization: &[HeaderValue]) -> (StatusCode, String) {
    text(get_response(app, path, authorization).await).await
}

fn fresh(signer: &RequestSigner) -> HeaderValue {
    signer.authorization().expect("a token")
}

#[tokio::test]
async fn every_rejection_has_the_same_bytes_over_a_real_socket() {
    let signer = signer();
    let app = routes().layer(AuthLayer::new(authenticator(&signer)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/required", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");

    let used = fresh(&signer);
    let accepted = client.get(&url).header(AUTHORIZATION, used.clone()).send().await.expect("an answer");
    assert_eq!(accepted.status(), StatusCode::OK);
    assert_eq!(accepted.text().await.expect("text"), "hello, guido");

    let stranger =
        RequestSigner::new("nobody", PrivateKey::generate_ed25519().expect("a key")).expect("a signer");
    let (one, two) = (fresh(&signer), fresh(&signer));
    let bad: [(&str, Vec<HeaderValue>); 6] = [
        ("no header", vec![]),
        ("another scheme", vec![HeaderValue::from_static("Bearer abc")]),
        ("a malformed one", vec![HeaderValue::from_static("JWT abc")]),
        ("used before", vec![used]),
        ("an unknown user", vec![fresh(&stranger)]),
        ("two good ones", vec![one, two]),
    ];
    for (what, values) in bad {
        let mut request = client.get(&url);
        for value in values {
            request = request.header(AUTHORIZATION, value);
        }
        let response = request.send().await.expect("an answer");
        let mut headers: Vec<_> = response
            .headers()
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ascii")))
            .collect();
        headers.sort();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{what}");
        let expected =
            ["content-length: 13", "content-type: text/plain; charset=utf-8", "www-authenticate: JWT"];
        assert_eq!(headers, expected, "{what}");
        assert_eq!(response.text().await.expect("text"), "unauthorized\n", "{what}");
    }
}

#[tokio::test]
async fn a_body_may_be_of_any_media_type() {
    for media_type in ["application/vnd.api+json", r#"application/problem+json; profile="a b""#] {
        let body = move |_| RejectionBody::new(media_type, "{}").expect("a media type");
        let app = routes().layer(AuthLayer::new(authenticator(&signer())).rejection_body(body));
        let response = get_response(&app, "/required", &[]).await;
        assert_eq!(response.headers()["content-type"], media_type);
        assert_eq!(text(response).await, (StatusCode::UNAUTHORIZED, "{}".to_owned()));
    }
}

#[tokio::test]
async fn route_layer_leaves_unknown_paths_alone() {
    let signer = signer();
    let layer = AuthLayer::new(authenticator(&signer));
    let app = routes().route_layer(layer.clone());
    assert_eq!(get_text(&app, "/nowhere", &[]).await.0, StatusCode::NOT_FOUND);
    assert_eq!(get_text(&app, "/required", &[]).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(get_text(&app, "/required", &[fresh(&signer)]).await.0, StatusCode::OK);
    // One route only.
    let app =
        Router::new().route("/required", get(required).layer(layer)).route("/free", get(|| async { "" }));
    assert_eq!(get_text(&app, "/free", &[]).await.0, StatusCode::OK);
    assert_eq!(get_text(&app, "/required", &[]).await.0, StatusCode::UNAUTHORIZED);
}

async fn anybody() -> &'static str {
    "hello, anybody"
}

/// Which is why the layer comes last, and is no `route_layer` where there is a fallback.
#[tokio::test]
async fn a_fallback_and_later_routes_are_open_under_route_layer() {
    let signer = signer();
    let layer = AuthLayer::new(authenticator(&signer));
    let app = routes().fallback(anybody).route_layer(layer.clone()).route("/later", get(anybody));
    for path in ["/nowhere", "/later"] {
        assert_eq!(get_text(&app, path, &[]).await, (StatusCode::OK, "hello, anybody".into()), "{path}");
    }
    assert_eq!(get_text(&app, "/required", &[]).await.0, StatusCode::UNAUTHORIZED);

    let others = || any(anybody).get(anybody);
    for (what, methods, post_status) in [
        ("a later method", get(anybody).layer(layer.clone()).post(anybody), StatusCode::OK),
        ("any, under route_layer", others().route_layer(layer.clone()), StatusCode::OK),
        ("any, under layer", others().layer(layer.clone()), StatusCode::UNAUTHORIZED),
    ] {
        let app = Router::new().route("/", methods);
        assert_eq!(get_text(&app, "/", &[]).await.0, StatusCode::UNAUTHORIZED, "{what}");
        let post = Request::post("/").body(Body::empty()).expect("a request");
        assert_eq!(app.oneshot(post).await.expect("infallible").status(), post_status, "{what}");
    }

    let app = routes().fallback(anybody).route("/later", get(anybody)).layer(layer);
    for path in ["/nowhere", "/later", "/required"] {
        assert_eq!(get_text(&app, path, &[]).await.0, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(get_text(&app, path, &[fresh(&signer)]).await.0, StatusCode::OK, "{path}");
    }
}

/// For axum takes only a fallback of its own along with a nested router, and that not for `/api/`.
#[tokio::test]
async fn unknown_paths_below_a_nested_router_go_past_its_layer() {
    let layer = AuthLayer::new(authenticator(&signer()));
    let within = || routes().layer(layer.clone());
    let with_fallback = || routes().fallback(anybody).layer(layer.clone());
    for (what, app, nowhere, slash) in [
        ("nest", Router::new().nest("/api", within()), 200, 200),
        ("with a fallback", Router::new().nest("/api", with_fallback()), 401, 200),
        ("nest_service", Router::new().nest_service("/api", within()), 401, 401),
    ] {
        let app = app.fallback(anybody);
        for (path, status) in
            [("/api/nowhere", nowhere), ("/api/", slash), ("/api/required", 401), ("/nowhere", 200)]
        {
            assert_eq!(get_text(&app, path, &[]).await.0, status, "{what}: {path}");
        }
    }

    // Of two default answers the argument's.
    let free = || -> Router { Router::new().route("/free", get(anybody)) };
    for (app, status) in [(free().merge(within()), 401), (within().merge(free()), 404)] {
        assert_eq!(get_text(&app, "/nowhere", &[]).await.0, status);
        assert_eq!(get_text(&app, "/required", &[]).await.0, 401);
    }
}

#[tokio::test]
async fn a_token_is_used_up_once_under_two_layers_of_one_authenticator() {
    let signer = signer();
    let one = authenticator(&signer);
    let app = routes().route_layer(AuthLayer::new(one.clone())).layer(AuthLayer::new(one.clone()).optional());
    assert_eq!(get_text(&app, "/required", &[fresh(&signer)]).await.0, StatusCode::OK);
    // What the outer layer let through as anonymous, the inner one still refuses.
    assert_eq!(get_text(&app, "/optional", &[]).await.0, StatusCode::UNAUTHORIZED);
    // Another authenticator judges for itself, and here it knows nobody.
    let nobody = with_nonces(&self::signer(), Arc::new(InsecureNoReplayProtection));
    let app = routes().route_layer(AuthLayer::new(nobody)).layer(AuthLayer::new(one));
    assert_eq!(get_text(&app, "/required", &[fresh(&signer)]).await.0, StatusCode::UNAUTHORIZED);
}

/// Which nobody finds by `replayed` alone.
#[tokio::test]
async fn a_layer_within_that_of_another_authenticator_is_told_of_in_the_log() {
    let (signer, nonces) = (signer(), Arc::new(MemoryNonceBackend::default()));
    let another = || AuthLayer::new(with_nonces(&signer, nonces.clone()));
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let app = routes().route_layer(another());
    let header = fresh(&signer);
    for status in [StatusCode::OK, StatusCode::UNAUTHORIZED] {
        assert_eq!(get_text(&app, "/required", std::slice::from_ref(&header)).await.0, status);
    }
    assert!(!log.text().contains("another authenticator"), "a replay is none of it: {}", log.text());
    let app = app.layer(another().optional());
    assert_eq!(get_text(&app, "/required", &[fresh(&signer)]).await.0, StatusCode::UNAUTHORIZED);
    assert!(log.text().contains("used up by a layer of another authenticator"), "{}", log.text());
}

#[tokio::test]
async fn any_tower_service_can_stand_within() {
    let signer = signer();
    let seen = service_fn(|request: Request<String>| async move {
        assert_eq!(request.body(), "a body of any type");
        Ok::<_, Infallible>(Response::new(Body::from("within")))
    });
    let service = AuthLayer::new(authenticator(&signer)).layer(seen);
    let mut request = Request::new("a body of any type".to_owned());
    let response = service.clone().oneshot(request.clone()).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    request.headers_mut().insert(AUTHORIZATION, fresh(&signer));
    let response = service.oneshot(request).await.expect("infallible");
    assert_eq!(text(response).await, (StatusCode::OK, "within".into()));
}

/// Has one place, and counts who asked for it.
#[derive(Clone, Default)]
struct OnePlace {
    asked: Arc<AtomicUsize>,
    is_ready: bool,
}

impl Service<Request<Body>> for OnePlace {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called before it was ready");
        std::future::ready(Ok(Response::new(Body::empty())))
    }
}

/// Or strangers could keep callers out of a service that takes so many at a time.
#[tokio::test]
async fn who_is_refused_takes_no_place_in_the_service() {
    let signer = signer();
    let within = OnePlace::default();
    let mut service = AuthLayer::new(authenticator(&signer)).layer(within.clone());
    for (authorization, status, asked) in [(None, 401, 0), (Some(fresh(&signer)), 200, 1)] {
        let answer =
            service.ready().await.expect("infallible").call(request("/", authorization.as_slice())).await;
        assert_eq!(answer.expect("infallible").status(), status);
        assert_eq!(within.asked.load(Ordering::SeqCst), asked);
    }
}

#[tokio::test]
async fn a_grpc_rejection_ends_with_its_headers() {
    let signer = signer();
    let app = routes().layer(AuthLayer::new(authenticator(&signer)));
    for content_type in ["application/grpc", "application/grpc+proto"] {
        let mut request = request("/required", &[]);
        *request.method_mut() = Method::POST;
        request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        let response = app.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], "16");
        // No body and no trailers follow: over HTTP/2 the headers end the stream.
        assert!(http_body::Body::is_end_stream(response.body()));
    }
}

/// An application's own user type.
#[derive(Debug)]
struct Account;

impl KeyedUser for Account {
    fn username(&self) -> &str {
        ""
    }

    fn is_active(&self) -> bool {
        false
    }

    fn keys(&self) -> &[StoredKey] {
        &[]
    }

    fn jwks_urls(&self) -> &[TrustedUrl] {
        &[]
    }
}

#[tokio::test]
async fn a_missing_layer_is_500_and_the_log_names_it() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let app = routes();
    for path in ["/required", "/optional"] {
        assert_eq!(get_text(&app, path, &[]).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    }
    // A layer of another user type is not the one.
    let signer = signer();
    let handler = |_: Authenticated<Account>| async {};
    let app = Router::new().route("/", get(handler)).layer(AuthLayer::new(authenticator(&signer)));
    assert_eq!(get_text(&app, "/", &[fresh(&signer)]).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    let log = log.text();
    assert!(log.contains("AuthLayer<ajwt_server::user::User>"), "{log}");
    assert!(log.contains("Account>"), "{log}");
    assert_eq!(log.lines().count(), 3, "{log}");
}

/// With `?`, in code that has errors of its own.
#[test]
fn a_rejection_is_an_error() {
    fn caller(request: &Request<()>) -> Result<Authenticated, Box<dyn std::error::Error>> {
        Ok(Authenticated::from_extensions(request.extensions())?)
    }
    let error = caller(&Request::new(())).expect_err("no layer");
    assert!(error.to_string().contains("AuthLayer"), "{error}");
    let rejection = error.downcast_ref::<AuthenticatedRejection>();
    assert_eq!(rejection, Some(&AuthenticatedRejection::MissingLayer));
}

#[tokio::test]
async fn the_layer_adds_no_buffering() {
    use tokio::sync::mpsc;

    let signer = signer();
    let (sender, receiver) = mpsc::channel::<Result<bytes::Bytes, Infallible>>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let handler = move |_: Authenticated| {
        let mut receiver = receiver.lock().expect("lock").take().expect("one request");
        async move {
            let stream = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
            Body::from_stream(stream)
        }
    };
    let app = Router::new().route("/", get(handler)).layer(AuthLayer::new(authenticator(&signer)));
    let response = get_response(&app, "/", &[fresh(&signer)]).await;
    // The response is here before its body is, and the first part before the second.
    let mut body = response.into_body().into_data_stream();
    for part in ["one", "two"] {
        sender.send(Ok(part.into())).await.expect("a reader");
        let next = futures_util::StreamExt::next(&mut body);
        let got = tokio::time::timeout(Duration::from_secs(5), next).await.expect("in time");
        assert_eq!(got.expect("a part").expect("no error"), part);
    }
}
