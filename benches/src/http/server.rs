use std::{hint::black_box, sync::Arc};

use ajwt_axum::{AuthLayer, Authenticated};
use ajwt_core::{PublicKey, Username};
use ajwt_server::{
    Authenticator, CachedUserRepository, KeyAdmin as _, NewKey, User, UserCacheOptions, UserRepository,
};
use aws_lc_rs::signature::ParsedPublicKey;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::get,
};

use crate::{
    bare::{Bare, check_token, parsed},
    callers::{NAME, builder, ed25519, header, open_store, users},
    measure::{cpu_per_op, in_turn, runtime},
    peers::JsonWebToken,
    timing,
};

/// Services, by name.
pub(crate) const VARIANTS: &[&str] = &[
    "axum",
    "calibration",
    "axum + bare check",
    "axum + ajwt",
    "axum + ajwt, SQLite",
    "axum + ajwt, hot keys",
    "axum + jsonwebtoken",
    "actix",
    "actix + ajwt",
];

/// What stands beside what.
pub(crate) const COMPARED: &[(&str, &[&str])] = &[
    ("axum + ajwt", &["axum", "calibration", "axum + bare check", "axum + jsonwebtoken"]),
    ("axum + ajwt, SQLite", &["calibration", "axum + jsonwebtoken"]),
    ("axum + ajwt, hot keys", &["axum + jsonwebtoken"]),
    ("actix + ajwt", &["actix", "axum + jsonwebtoken"]),
];

/// Serves until it is killed. The port is the first line on stdout.
pub(crate) fn serve(variant: &str, pem: &str) {
    let key = PublicKey::from_pem(pem).expect("a key");
    if variant.starts_with("actix") {
        return serve_actix(variant, &key);
    }
    let runtime = runtime();
    runtime.block_on(async {
        let (router, _folder) = match variant {
            "axum" => (Router::new().route("/hello", get(async || "hello, guido")), None),
            "calibration" => (calibration(&key), None),
            "axum + ajwt" => (with_layer(builder(users(&key)).build().expect("built")), None),
            "axum + ajwt, hot keys" => {
                (with_layer(builder(users(&key)).hot_keys(8).build().expect("built")), None)
            }
            "axum + ajwt, SQLite" => {
                let (folder, users) = in_sqlite(&key).await;
                (with_layer(builder(users).build().expect("built")), Some(folder))
            }
            "axum + bare check" => (with_bare_check(&key), None),
            "axum + jsonwebtoken" => (with_jsonwebtoken(&key), None),
            timing::READING | timing::CACHING | timing::HELD_BACK => {
                let folder = tempfile::tempdir().expect("a folder");
                (with_layer(timing::authenticator(variant, folder.path()).await), Some(folder))
            }
            other => panic!("no service {other:?}"),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("an address").port());
        axum::serve(listener, router).await.expect("served");
    });
}

fn serve_actix(variant: &str, key: &PublicKey) {
    use actix_web::{App, HttpServer, web};

    actix_web::rt::System::new().block_on(async {
        let authenticator = builder(users(key)).build().expect("built");
        let is_guarded = variant == "actix + ajwt";
        let server = HttpServer::new(move || {
            let hello =
                async |caller: ajwt_actix::Authenticated| format!("hello, {}", caller.user().username());
            let guarded = web::resource("/hello")
                .wrap(ajwt_actix::AuthMiddleware::new(authenticator.clone()))
                .route(web::get().to(hello));
            let open = web::resource("/hello").route(web::get().to(async || "hello, guido"));
            if is_guarded { App::new().service(guarded) } else { App::new().service(open) }
        });
        let server = server.workers(1).bind("127.0.0.1:0").expect("a port");
        println!("{}", server.addrs().first().expect("an address").port());
        server.run().await.expect("served");
    });
}

fn with_layer(authenticator: Authenticator) -> Router {
    let hello = async |caller: Authenticated| format!("hello, {}", caller.user().username());
    Router::new().route("/hello", get(hello)).route_layer(AuthLayer::new(authenticator))
}

async fn in_sqlite(key: &PublicKey) -> (tempfile::TempDir, Arc<dyn UserRepository<User = User>>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_store(folder.path()).await;
    let name = Username::new(NAME).expect("a name");
    store.add_user(&name).await.expect("added");
    store.add_key(&name, &NewKey::of_key(key.clone())).await.expect("added");
    let store = Arc::new(store);
    (folder, Arc::new(CachedUserRepository::over(store, UserCacheOptions::default())))
}

/// Spins for each request for as long as a bare signature check takes in a row, and does nothing else. How many steps
/// that is, is measured as the service starts.
fn calibration(key: &PublicKey) -> Router {
    const CHECKS: usize = 500;
    const STEPS: usize = 1 << 20;

    // A check of a signature that does not verify takes as long.
    let check = parsed(key);
    let stranger = header(NAME, &ed25519());
    let message = Bare::of(stranger.trim_start_matches("JWT "));
    let mut signature = vec![0x5a; key.signature_len()];
    signature[0] = 0;
    if let Some(last) = signature.last_mut() {
        *last = 0;
    }
    let check = || {
        let _ = black_box(check.verify_sig(message.message(), &signature));
    };
    let [checks, steps] = in_turn(
        21,
        [&mut |_| cpu_per_op(CHECKS, || (0..CHECKS).for_each(|_| check())), &mut |_| {
            cpu_per_op(STEPS, || spin(STEPS))
        }],
    );
    let mut ratios: Vec<_> = checks.iter().zip(&steps).map(|(check, step)| check / step).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let steps = ratios[10] as usize;
    let hello = async move || {
        spin(steps);
        "hello, guido"
    };
    Router::new().route("/hello", get(hello))
}

/// Steps that each wait for the one before, and for no memory. By a clock it would go on while the processor is taken
/// from it or runs slower, as no check does.
#[inline(never)]
fn spin(steps: usize) {
    // xorshift64
    let mut state = black_box(1_u64);
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    let _ = black_box(state);
}

/// The signature check of each token in the midst of a service, where caches are cold, and nothing else but to find it.
fn with_bare_check(key: &PublicKey) -> Router {
    // The request itself: an extractor of headers copies them all.
    let hello = async |State(key): State<Arc<ParsedPublicKey>>, request: Request| {
        let header = request.headers().get(AUTHORIZATION).expect("a header");
        let text = std::str::from_utf8(header.as_bytes()).expect("a token");
        check_token(text.strip_prefix("JWT ").expect("our scheme"), &key);
        "hello, guido"
    };
    Router::new().route("/hello", get(hello)).with_state(Arc::new(parsed(key)))
}

/// As its users write it: claims from a signature that verifies, no nonce, no store.
fn with_jsonwebtoken(key: &PublicKey) -> Router {
    let hello = async |State(peer): State<Arc<JsonWebToken>>, headers: HeaderMap| {
        let token = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok()?.strip_prefix("JWT "));
        let claims = token.and_then(|token| peer.claims(token)).ok_or(StatusCode::UNAUTHORIZED)?;
        Ok::<_, StatusCode>(format!("hello, {}", claims.username))
    };
    Router::new().route("/hello", get(hello)).with_state(Arc::new(JsonWebToken::new(key)))
}
