//! What the gateway answers.

use ajwt_axum::{AuthLayer, Authenticated, JwksService};
use ajwt_core::PublicKey;
use ajwt_server::{Authenticator, Clock as _, Readiness, ReadinessState, SystemClock};
use axum::{
    Router,
    extract::Request,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use metrics::histogram;
use metrics_exporter_prometheus::PrometheusHandle;

use super::metrics::DECISION_SECONDS;

const USERNAME: HeaderName = HeaderName::from_static("x-ajwt-username");
const KEY_ID: HeaderName = HeaderName::from_static("x-ajwt-key-id");

/// What a proxy asks, and below it whatever path it adds; then what an operator asks.
pub(super) fn router(
    authenticator: Authenticator,
    published: Vec<PublicKey>,
    readiness: Readiness,
    metrics: PrometheusHandle,
) -> Router {
    let ready = move || {
        let readiness = readiness.clone();
        async move { ready(&readiness).await }
    };
    let metrics = move || async move {
        let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        ([(CONTENT_TYPE, content_type)], metrics.render())
    };
    Router::new()
        .route("/auth", any(accepted))
        .route("/auth/", any(accepted))
        .route("/auth/{*path}", any(accepted))
        // A proxy passes the client's content type on, and takes a 200 of gRPC for yes.
        .route_layer(AuthLayer::new(authenticator).http_answers_only())
        .route_layer(middleware::from_fn(measured))
        .route_service(JwksService::PATH, JwksService::new(published))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// The layer answers all requests that do not come here.
async fn accepted(caller: Authenticated) -> Response {
    let (username, key) = (caller.token().username(), caller.key().key());
    let username = HeaderValue::try_from(username.to_percent_encoded());
    // Of the key itself: the `kid` of a key set is whatever its publisher likes.
    let key_id = HeaderValue::try_from(key.fingerprint().as_str());
    let (Ok(username), Ok(key_id)) = (username, key_id) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    [(USERNAME, username), (KEY_ID, key_id)].into_response()
}

async fn measured(request: Request, next: Next) -> Response {
    let clock = SystemClock::new();
    let mut response = next.run(request).await;
    // Each answer is right for one request, a refusal too.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // By what the proxy is told: why it was, the counters of decisions say.
    let outcome = match response.status() {
        StatusCode::OK => "accepted",
        StatusCode::UNAUTHORIZED => "refused",
        _ => "unavailable",
    };
    histogram!(DECISION_SECONDS, "outcome" => outcome).record(clock.monotonic());
    response
}

async fn ready(readiness: &Readiness) -> Response {
    let state = readiness.state().await;
    let status = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, told(state)).into_response()
}

/// Whether the gateway can decide at all, and why not.
const fn told(state: ReadinessState) -> &'static str {
    match state {
        ReadinessState::Ready => "ready\n",
        ReadinessState::NoUserStore => "not ready: the user store does not answer\n",
        ReadinessState::NoNonceStore => "not ready: the nonce store does not answer\n",
        ReadinessState::NonceStoreFull => "not ready: the nonce store is full\n",
        ReadinessState::NonceStoreStarting => "not ready: the nonce store was just started; this passes\n",
        // The library may tell more apart one day.
        _ => "not ready\n",
    }
}
