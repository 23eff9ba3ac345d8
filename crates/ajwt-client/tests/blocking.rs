//! The client of programs without async, and what the environment must not change.

#[path = "support/server.rs"]
mod server;

use std::{convert::Infallible, env, process::Command, thread, time::Duration};

use ajwt_client::{
    BlockingClient, BlockingError, BuildError, ClientBuilder, OriginError, OriginSigner, RequestSigner,
    SigningError,
};
use axum::{Router, body::Body, routing::any};
use futures_util::stream;
use http::{Method, StatusCode};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use server::{Seen, authenticator, ed25519, serve, service, signer};
use tokio::{net::TcpListener, runtime::Runtime};

fn client(signer: RequestSigner, origin: &str) -> BlockingClient {
    let signer = OriginSigner::new(signer, [origin]).expect("an origin");
    ClientBuilder::new(signer).build_blocking().expect("a client")
}

#[test]
fn a_script_calls() {
    let runtime = Runtime::new().expect("a runtime");
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let origin = runtime.block_on(serve(seen.layer(service(authenticator(signer.public_key())))));
    let client = client(signer, &origin);
    for method in [Method::GET, Method::POST] {
        let response = client.send(client.request(method, &origin).body("a body")).expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-length"], "12");
        assert_eq!(response.body().as_ref(), b"hello, guido");
    }
    let response = client.send(client.get(&origin).bearer_auth("abc")).expect("an answer");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(seen.all().len(), 3);

    let error = client.send(client.get("https://elsewhere.example")).expect_err("refused");
    let BlockingError::Request(source) = &error else { panic!("{error:?}") };
    let source: &SigningError = source.downcast_ref().expect("a SigningError");
    assert!(matches!(source, SigningError::Origin(OriginError::NotListed { .. })), "{source}");

    // In async code it says what to use instead, also when it was made before.
    runtime.block_on(async {
        let signer = OriginSigner::new(self::signer(ed25519()), [&origin]).expect("an origin");
        assert!(matches!(ClientBuilder::new(signer).build_blocking(), Err(BuildError::InAsyncCode)));
        let sent = client.send(client.get(&origin));
        assert!(matches!(sent, Err(BlockingError::InAsyncCode)), "{sent:?}");
        drop(client);
    });
}

#[test]
fn an_answer_that_is_too_long_is_given_up() {
    let runtime = Runtime::new().expect("a runtime");
    let endless = || stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 1 << 16]));
    let app = Router::new()
        .route("/endless", any(move || async move { Body::from_stream(endless()) }))
        .route("/thousand", any(|| async { vec![b'x'; 1000] }));
    let origin = runtime.block_on(serve(app));
    let builder = || {
        let signer = OriginSigner::new(signer(ed25519()), [&origin]).expect("an origin");
        ClientBuilder::new(signer)
    };
    let [endless, thousand] = ["endless", "thousand"].map(|path| format!("{origin}/{path}"));
    for (builder, url, due) in [
        (builder(), &endless, Err(64 * 1024 * 1024)),
        (builder().max_answer_len(1000), &endless, Err(1000)),
        (builder().max_answer_len(999), &thousand, Err(999)),
        (builder().max_answer_len(1000), &thousand, Ok(1000)),
    ] {
        let client = builder.build_blocking().expect("a client");
        let found = match client.send(client.get(url)) {
            Ok(response) => Ok(response.body().len()),
            Err(BlockingError::TooLong { max }) => Err(max),
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(found, due, "{url}");
    }
}

/// A server that closes an idle connection costs no request, also none that may not be repeated.
#[test]
fn a_script_that_pauses_calls_again() {
    let runtime = Runtime::new().expect("a runtime");
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let app = seen.layer(service(authenticator(signer.public_key())));
    let origin = runtime.block_on(serve_for_a_moment(app));
    let client = client(signer, &origin);
    for _ in 0..10 {
        let response = client.send(client.request(Method::POST, &origin).body("a body")).expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        thread::sleep(IDLE * 3);
    }
    assert_eq!(seen.all().len(), 10);
}

/// How long a connection is kept.
const IDLE: Duration = Duration::from_millis(100);

/// Closes a connection that has been there for a moment, and has promised to keep it.
async fn serve_for_a_moment(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = server::origin(listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = TowerToHyperService::new(app.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let server = server.serve_connection(TokioIo::new(stream), service);
                let mut server = std::pin::pin!(server);
                if tokio::time::timeout(IDLE, server.as_mut()).await.is_err() {
                    // Not in the midst of a request, on a machine that stalls.
                    server.as_mut().graceful_shutdown();
                    let _ = server.await;
                }
            });
        }
    });
    origin
}

/// Runs itself again with a proxy in the environment, for a process cannot change its own safely.
#[test]
fn a_proxy_in_the_environment_sees_no_token() {
    const CHILD: &str = "AJWT_TEST_CHILD";
    let runtime = Runtime::new().expect("a runtime");
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let origin = runtime.block_on(serve(service(authenticator(signer.public_key()))));
    if env::var_os(CHILD).is_some() {
        let client = client(signer, &origin);
        assert_eq!(client.send(client.get(&origin)).expect("an answer").status(), StatusCode::OK);
        return;
    }
    let proxy = runtime.block_on(serve(seen.layer(Router::new())));
    let child = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "a_proxy_in_the_environment_sees_no_token"])
        .env(CHILD, "1")
        .envs(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].map(|name| (name, &proxy)))
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && told.contains("1 passed"), "{told}");
    assert_eq!(seen.all(), []);
}
