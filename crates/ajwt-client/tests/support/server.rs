//! A service that authenticates, on a loopback port.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use ajwt_axum::{AuthLayer, Authenticated};
use ajwt_client::RequestSigner;
use ajwt_core::{PrivateKey, PublicKey, Timestamp};
use ajwt_server::{
    Authenticator, Clock, MemoryNonceBackend, MemoryRepository, NonceBackend, SystemClock, User,
};
use axum::{
    Router,
    extract::Request,
    http::{
        HeaderValue,
        header::{AUTHORIZATION, DATE},
    },
    middleware::{Next, from_fn, map_response},
    response::Response,
    routing::any,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;

pub(crate) fn ed25519() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

pub(crate) fn signer(key: PrivateKey) -> RequestSigner {
    RequestSigner::new("guido", key).expect("a signer")
}

pub(crate) fn users(keys: impl IntoIterator<Item = PublicKey>) -> MemoryRepository {
    MemoryRepository::new([User::new("guido").with_keys(keys)])
}

pub(crate) fn authenticator(key: PublicKey) -> Authenticator {
    with_nonces(key, Arc::new(MemoryNonceBackend::default()), Arc::new(SystemClock::new()))
}

pub(crate) fn with_nonces(
    key: PublicKey,
    nonces: Arc<dyn NonceBackend>,
    clock: Arc<dyn Clock>,
) -> Authenticator {
    Authenticator::builder(Arc::new(users([key])), nonces).clock(clock).build().expect("an authenticator")
}

/// The operating system's clock, put forward or (negative) back by this many seconds.
#[derive(Debug)]
pub(crate) struct SkewedClock(pub(crate) AtomicI64);

impl Clock for SkewedClock {
    #[allow(clippy::disallowed_methods, reason = "a clock")]
    fn now(&self) -> Timestamp {
        let now = Timestamp::from(SystemTime::now());
        Timestamp::from_millis(now.as_millis() + self.0.load(Ordering::SeqCst) * 1000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Answers every path within the authenticator.
pub(crate) fn service(authenticator: Authenticator) -> Router {
    let hello = |caller: Authenticated| async move { format!("hello, {}", caller.user().username()) };
    Router::new().fallback(any(hello)).layer(AuthLayer::new(authenticator))
}

/// Dates its answers by this clock.
pub(crate) fn dated(app: Router, clock: Arc<SkewedClock>) -> Router {
    app.layer(map_response(move |mut response: Response| {
        let now = clock.now().to_system_time().expect("a time");
        async move {
            let date = HeaderValue::from_str(&httpdate::fmt_http_date(now));
            response.headers_mut().insert(DATE, date.expect("a date"));
            response
        }
    }))
}

/// Serves until the test ends; returns the origin.
pub(crate) async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = origin(listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    origin
}

/// As [`serve`], by HTTP/2 too: ten thousand requests at once need no ten thousand connections.
pub(crate) async fn serve_http2(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = origin(listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = TowerToHyperService::new(app.clone());
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().max_concurrent_streams(10_000);
                server.serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    origin
}

pub(crate) fn origin(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// The `Authorization` headers that came in, in order; `None` for a request without one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<Option<String>>>>);

impl Seen {
    pub(crate) fn layer(&self, app: Router) -> Router {
        let seen = self.clone();
        app.layer(from_fn(move |request: Request, next: Next| {
            seen.note(&request);
            next.run(request)
        }))
    }

    fn note(&self, request: &Request) {
        let value = request.headers().get(AUTHORIZATION);
        let value = value.map(|value| value.to_str().expect("ascii").to_owned());
        self.0.lock().expect("lock").push(value);
    }

    pub(crate) fn all(&self) -> Vec<Option<String>> {
        self.0.lock().expect("lock").clone()
    }
}
