//! One application behind three front doors on real sockets: axum, actix-web, and hyper alone.

use std::{net::SocketAddr, sync::LazyLock};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    http::{StatusCode as ActixStatusCode, header::UPGRADE as ACTIX_UPGRADE},
    middleware::Condition,
    web,
};
use ajwt_actix::AuthMiddleware;
use ajwt_axum::{AuthLayer, Authenticated, JwksService};
use ajwt_core::{PrivateKey, PublicKey};
use ajwt_server::{Authentication, Authenticator, problem_details};
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
    response::IntoResponse as _,
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::net::TcpListener;
use tower::{Layer as _, Service, service_fn};
use tower_http::cors::CorsLayer;

/// The names of the doors, in the order of addresses.
pub(crate) const NAMES: [&str; 3] = ["axum", "actix", "hyper"];

/// The keys that each door publishes, to whom it lets in and to whom it does not.
pub(crate) static PUBLISHED: LazyLock<Vec<PublicKey>> = LazyLock::new(|| {
    let key = || PrivateKey::generate_ed25519().expect("a key").public_key().clone();
    vec![key(), key()]
});

/// How the doors are guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Required,
    Optional,
    BadIsAnonymous,
    ProblemDetails,
    ShowingReasons,
    HttpOnly,
}

impl Mode {
    pub(crate) const ALL: [Self; 6] = [
        Self::Required,
        Self::Optional,
        Self::BadIsAnonymous,
        Self::ProblemDetails,
        Self::ShowingReasons,
        Self::HttpOnly,
    ];
}

/// The options are the same on both adapters' types.
macro_rules! guarded {
    ($adapter:ident, $authenticator:expr, $mode:expr) => {
        match $mode {
            Mode::Required => $adapter::new($authenticator),
            Mode::Optional => $adapter::new($authenticator).optional(),
            Mode::BadIsAnonymous => $adapter::new($authenticator).bad_credentials_are_anonymous(),
            Mode::ProblemDetails => $adapter::new($authenticator).rejection_body(problem_details),
            Mode::ShowingReasons => $adapter::new($authenticator).insecure_show_reasons(),
            Mode::HttpOnly => $adapter::new($authenticator).http_answers_only(),
        }
    };
}

/// An authenticator for each door, so that a token can be sent to each.
pub(crate) fn three(authenticator: impl Fn() -> Authenticator) -> [Authenticator; 3] {
    [(); 3].map(|()| authenticator())
}

/// Opens the three doors, each on an authenticator of its own. `cors` puts a CORS layer outside.
pub(crate) async fn open([one, two, three]: [Authenticator; 3], mode: Mode, cors: bool) -> [SocketAddr; 3] {
    [open_axum(one, mode, cors).await, open_actix(two, mode, cors), open_hyper(three, mode, cors).await]
}

async fn open_axum(authenticator: Authenticator, mode: Mode, cors: bool) -> SocketAddr {
    let required = |caller: Authenticated, request: Request| async move { respond(Some(&caller), request) };
    let optional =
        |caller: Option<Authenticated>, request: Request| async move { respond(caller.as_deref(), request) };
    let app = Router::new()
        .route("/required", axum::routing::any(required))
        .fallback(optional)
        .layer(guarded!(AuthLayer, authenticator, mode))
        .route_service(JwksService::PATH, JwksService::from_fn(|| PUBLISHED.to_vec()));
    let app = if cors { app.layer(CorsLayer::permissive()) } else { app };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn open_hyper(authenticator: Authenticator, mode: Mode, cors: bool) -> SocketAddr {
    let guarded =
        guarded!(AuthLayer, authenticator, mode).layer(service_fn(async |request: Request<Incoming>| {
            let caller = Authenticated::from_extensions(request.extensions());
            let request = request.map(Body::new);
            Ok::<_, hyper::Error>(match caller {
                Ok(caller) => respond(Some(&caller), request),
                Err(rejection) if request.uri().path() == "/required" => rejection.into_response(),
                Err(_) => respond(None, request),
            })
        }));
    let jwks = JwksService::from_fn(|| PUBLISHED.to_vec());
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut guarded, mut jwks) = (guarded.clone(), jwks.clone());
        async move {
            if request.uri().path() != JwksService::PATH {
                return guarded.call(request).await;
            }
            let Ok(response) = jwks.call(request).await;
            Ok(response)
        }
    });
    if cors { serve(CorsLayer::permissive().layer(service)).await } else { serve(service).await }
}

async fn serve<S>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = hyper::Error> + Clone + Send + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = TowerToHyperService::new(service.clone());
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    address
}

/// The application: of axum and hyper alike.
fn respond(caller: Option<&Authentication>, request: Request) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    match parts.uri.path() {
        "/echo" => Response::new(body),
        "/upgrade" => upgrade(&mut parts),
        _ => {
            let mut response = Response::new(Body::from(greeting(caller)));
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, text);
            response
        }
    }
}

/// Returns the bytes it is sent. actix-web upgrades to WebSocket only; bytes are bytes.
fn upgrade(parts: &mut Parts) -> Response<Body> {
    let upgraded = parts.extensions.remove::<hyper::upgrade::OnUpgrade>().expect("an upgrade");
    tokio::spawn(async move {
        let io = TokioIo::new(upgraded.await.expect("upgraded"));
        let (mut reader, mut writer) = tokio::io::split(io);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
}

pub(crate) fn greeting(caller: Option<&Authentication>) -> String {
    match caller {
        Some(caller) => format!(
            "hello, {} with {} of {}\n",
            caller.user().username(),
            caller.key().key_id(),
            caller.token().time()
        ),
        None => "hello, stranger\n".to_owned(),
    }
}

fn open_actix(authenticator: Authenticator, mode: Mode, cors: bool) -> SocketAddr {
    let required = |caller: ajwt_actix::Authenticated| async move { greeting(Some(&caller)) };
    let optional = |caller: Option<ajwt_actix::Authenticated>| async move { greeting(caller.as_deref()) };
    let factory = move || {
        let jwks = ajwt_actix::JwksService::from_fn(|| PUBLISHED.to_vec());
        let guarded = web::scope("")
            .wrap(guarded!(AuthMiddleware, authenticator.clone(), mode))
            .route("/required", web::to(required))
            .route("/echo", web::to(actix_echo))
            .route("/upgrade", web::to(actix_echo))
            .default_service(web::to(optional));
        App::new()
            .wrap(Condition::new(cors, actix_cors::Cors::permissive()))
            .service(web::resource(ajwt_actix::JwksService::PATH).to(jwks))
            .service(guarded)
    };
    let server = HttpServer::new(factory).workers(1).disable_signals();
    let server = server.bind(("127.0.0.1", 0)).expect("a port");
    let address = server.addrs()[0];
    tokio::spawn(server.run());
    address
}

/// What is sent comes back, as a body or as the bytes of an upgraded connection.
async fn actix_echo(request: HttpRequest, body: web::Payload) -> HttpResponse {
    if request.headers().contains_key(ACTIX_UPGRADE) {
        HttpResponse::build(ActixStatusCode::SWITCHING_PROTOCOLS).upgrade("websocket").streaming(body)
    } else {
        HttpResponse::Ok().streaming(body)
    }
}
