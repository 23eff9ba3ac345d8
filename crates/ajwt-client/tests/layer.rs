//! The tower layer, under hyper's client and tonic's.

#[path = "support/server.rs"]
mod server;

use std::{
    collections::HashSet,
    convert::Infallible,
    error::Error as _,
    future::{Ready, ready},
    sync::{Arc, Mutex},
};

use ajwt_client::{ClockSkewError, OriginError, OriginSigner, RequestSigner, SigningError, SigningLayer};
use ajwt_server::InsecureNoReplayProtection;
use axum::{Router, body::Body, http::Request, routing::any};
use http::{Response, StatusCode, header::AUTHORIZATION};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use server::{Seen, SkewedClock, authenticator, dated, ed25519, serve, service, signer, with_nonces};
use tonic::{
    Code, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

fn layer(signer: &RequestSigner, origin: &str) -> SigningLayer {
    SigningLayer::new(OriginSigner::new(signer.clone(), [origin]).expect("an origin"))
}

fn hyper_client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn request(uri: &str) -> Request<Body> {
    Request::builder().uri(uri).body(Body::empty()).expect("a request")
}

#[tokio::test]
async fn requests_of_hyper_are_signed_for_their_origin_only() {
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let origin = serve(seen.layer(service(authenticator(signer.public_key())))).await;
    let client = layer(&signer, &origin).layer(hyper_client());
    for path in ["/", "/a?b=c"] {
        let response = client.clone().oneshot(request(&format!("{origin}{path}"))).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(seen.all().len(), 2);

    // A request to elsewhere, and one that does not say where it goes.
    let other = layer(&signer, "https://orders.example").layer(hyper_client());
    let error = other.clone().oneshot(request(&origin)).await.expect_err("refused");
    let error = error.downcast_ref().expect("a SigningError");
    assert!(matches!(error, SigningError::Origin(OriginError::NotListed { .. })), "{error}");
    let error = other.oneshot(request("/path")).await.expect_err("refused");
    let error = error.downcast_ref().expect("a SigningError");
    assert!(matches!(error, SigningError::Origin(OriginError::Relative)), "{error}");
    assert_eq!(seen.all().len(), 2, "nothing was sent");

    let mut foreign = request(&origin);
    foreign.headers_mut().insert(AUTHORIZATION, "Bearer abc".parse().expect("a value"));
    let response = client.oneshot(foreign).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(seen.all().last(), Some(&Some("Bearer abc".to_owned())));
}

#[tokio::test]
async fn plain_http_to_another_host_is_signed_for_those_who_ask_for_it() {
    let signer = signer(ed25519());
    let signer = OriginSigner::insecure_allow_http(signer, ["http://orders:8080"]).expect("an origin");
    let is_signed = service_fn(|request: Request<()>| {
        ready(Ok::<_, Infallible>(Response::new(request.headers().contains_key(AUTHORIZATION))))
    });
    let client = SigningLayer::new(signer).layer(is_signed);
    let request = |uri: &'static str| Request::builder().uri(uri).body(()).expect("a request");
    let answer = client.clone().oneshot(request("http://orders:8080/x")).await.expect("an answer");
    assert!(answer.into_body());
    let error = client.oneshot(request("https://orders:8080/x")).await.expect_err("refused");
    let error = error.downcast_ref().expect("a SigningError");
    assert!(matches!(error, SigningError::Origin(OriginError::NotListed { .. })), "{error}");
}

#[tokio::test]
async fn each_attempt_within_a_retry_layer_has_a_token_of_its_own() {
    /// Three attempts, whatever the answer.
    #[derive(Clone)]
    struct Thrice(usize);

    impl tower::retry::Policy<Request<()>, Response<()>, tower::BoxError> for Thrice {
        type Future = Ready<()>;

        fn retry(
            &mut self,
            _: &mut Request<()>,
            _: &mut Result<Response<()>, tower::BoxError>,
        ) -> Option<Ready<()>> {
            self.0 = self.0.checked_sub(1)?;
            Some(ready(()))
        }

        fn clone_request(&mut self, request: &Request<()>) -> Option<Request<()>> {
            Some(request.clone())
        }
    }

    let values = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&values);
    let inner = service_fn(move |request: Request<()>| {
        noted.lock().expect("lock").push(request.headers()[AUTHORIZATION].as_bytes().to_vec());
        ready(Ok::<_, Infallible>(Response::new(())))
    });
    let signed = layer(&signer(ed25519()), "https://orders.example").layer(inner);
    let client = tower::retry::Retry::new(Thrice(2), signed);
    let request = Request::builder().uri("https://orders.example/").body(()).expect("a request");
    client.oneshot(request).await.expect("an answer");
    let values = values.lock().expect("lock").clone();
    assert_eq!(values.iter().collect::<HashSet<_>>().len(), 3);
    assert_eq!(values.len(), 3);
}

#[tokio::test]
async fn clocks_apart_are_told() {
    let signer = signer(ed25519());
    let nonces = Arc::new(InsecureNoReplayProtection);
    let clock = Arc::new(SkewedClock((-60).into()));
    // A server whose Date is right and whose authenticator's clock is not refuses for no reason that
    // is seen here.
    let origin = serve(service(with_nonces(signer.public_key(), nonces, clock))).await;
    let client = layer(&signer, &origin).layer(hyper_client());
    let response = client.oneshot(request(&origin)).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);

    // gRPC has a status of its own; others of it say nothing of clocks.
    for (status, grpc_status, is_told) in
        [(401, None, true), (200, Some("16"), true), (200, Some("7"), false), (200, None, false)]
    {
        let dated = service_fn(move |_: Request<()>| async move {
            let mut response =
                Response::builder().status(status).header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
            if let Some(grpc_status) = grpc_status {
                response = response.header("grpc-status", grpc_status);
            }
            Ok::<_, Infallible>(response.body(()).expect("a response"))
        });
        let request = Request::builder().uri("https://orders.example/").body(()).expect("a request");
        let answer = layer(&signer, "https://orders.example").layer(dated).oneshot(request).await;
        assert_eq!(answer.is_err(), is_told, "{status} {grpc_status:?}");
        if let Err(error) = answer {
            let error: &ClockSkewError = error.downcast_ref().expect("a ClockSkewError");
            assert!(error.origin() == "https://orders.example" && error.offset_ms() < 0, "{error}");
        }
    }
}

/// The body of the one that was refused is gone.
#[tokio::test]
async fn the_request_after_a_refusal_is_dated_by_the_servers_clock() {
    const ORIGIN: &str = "https://orders.example";
    let (signer, clock) = (signer(ed25519()), Arc::new(SkewedClock(90.into())));
    let nonces = Arc::new(InsecureNoReplayProtection);
    let app = service(with_nonces(signer.public_key(), nonces, Arc::clone(&clock) as _));
    let corrected = OriginSigner::new(signer, [ORIGIN]).expect("an origin").with_clock_correction();
    // Over TLS as far as the layer can tell.
    let client = SigningLayer::new(corrected).layer(dated(app, clock));
    let error = client.clone().oneshot(request(ORIGIN)).await.expect_err("refused");
    let error: &ClockSkewError = error.downcast_ref().expect("a ClockSkewError");
    assert!(error.is_corrected(), "{error}");
    for _ in 0..2 {
        let response = client.clone().oneshot(request(ORIGIN)).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// Messages of gRPC without a meaning.
#[derive(Clone, Copy, Default)]
struct Nothing;

impl Codec for Nothing {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Nothing {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Nothing {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(Some(()))
    }
}

/// The status that a call ends with.
async fn call(channel: Channel, layer: SigningLayer, origin: Option<&str>) -> Status {
    let channel = layer.layer(channel);
    let mut client = match origin {
        Some(origin) => tonic::client::Grpc::with_origin(channel, origin.parse().expect("a URI")),
        None => tonic::client::Grpc::new(channel),
    };
    client.ready().await.expect("a connection");
    let path = http::uri::PathAndQuery::from_static("/greeter/hello");
    client.unary(tonic::Request::new(()), path, Nothing).await.expect_err("a status")
}

#[tokio::test]
async fn calls_of_tonic_are_signed() {
    let signer = signer(ed25519());
    // A call that passes the authenticator meets a method that does not exist.
    let unimplemented = || async { [("content-type", "application/grpc"), ("grpc-status", "12")] };
    let app = Router::new()
        .fallback(any(unimplemented))
        .layer(ajwt_axum::AuthLayer::new(authenticator(signer.public_key())));
    let origin = server::serve_http2(app).await;
    let channel = Channel::from_shared(origin.clone()).expect("a URI").connect().await.expect("a connection");
    for _ in 0..3 {
        let status = call(channel.clone(), layer(&signer, &origin), Some(&origin)).await;
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    }
    let stranger = self::signer(ed25519());
    let status = call(channel.clone(), layer(&stranger, &origin), Some(&origin)).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");

    // Nothing was signed; clocks are apart.
    let status = call(channel, layer(&signer, &origin), None).await;
    assert!(format!("{status:?}").contains("with_origin"), "{status:?}");
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    let error: Option<&SigningError> = status.source().and_then(|source| source.downcast_ref());
    assert!(matches!(error, Some(SigningError::Origin(OriginError::Relative))), "{status:?}");
    let clock = Arc::new(SkewedClock(60.into()));
    let nonces = Arc::new(InsecureNoReplayProtection);
    let app = service(with_nonces(signer.public_key(), nonces, Arc::clone(&clock) as _));
    let origin = server::serve_http2(dated(app, clock)).await;
    let channel = Channel::from_shared(origin.clone()).expect("a URI").connect().await.expect("a connection");
    let status = call(channel, layer(&signer, &origin), Some(&origin)).await;
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    let error: Option<&ClockSkewError> = status.source().and_then(|source| source.downcast_ref());
    assert_eq!(error.map(ClockSkewError::origin), Some(origin.as_str()), "{status:?}");
}
