//! The whole client, over real sockets.

#[path = "support/server.rs"]
mod server;

use std::{
    collections::HashSet,
    error::Error as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ajwt_client::{
    ClientBuilder, OriginError, OriginSigner, RemoteKeyError, RequestSigner, SigningError, SigningKey,
    SigningMiddleware,
};
use ajwt_core::{Algorithm, PrivateKey, RsaKeySize, UntrustedToken};
use async_trait::async_trait;
use axum::{
    Router,
    http::{
        HeaderMap, HeaderValue, Method, Response, StatusCode,
        header::{AUTHORIZATION, LOCATION},
    },
    response::{IntoResponse as _, Redirect},
    routing::{any, get},
};
use h2::Reason;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest_middleware::{ClientWithMiddleware, Error, Middleware, Next};
use server::{Seen, authenticator, ed25519, serve, service, signer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

fn client(signer: RequestSigner, origins: &[&str]) -> ClientWithMiddleware {
    ClientBuilder::new(OriginSigner::new(signer, origins).expect("origins")).build().expect("a client")
}

/// The tokens of these headers, each of which must be one, and all of which must differ.
fn tokens(seen: &Seen) -> Vec<String> {
    let all = seen.all();
    let distinct: HashSet<_> = all.iter().flatten().cloned().collect();
    assert_eq!(distinct.len(), all.len(), "a token was sent twice, or none");
    for value in &distinct {
        UntrustedToken::parse(value.strip_prefix("JWT ").expect("the scheme")).expect("a token");
    }
    distinct.into_iter().collect()
}

/// What the client's own error is.
fn signing_error(result: Result<reqwest::Response, Error>) -> SigningError {
    match result {
        Err(Error::Middleware(error)) => error.downcast().expect("a SigningError"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_to_its_origins_are_accepted() {
    let signer = signer(ed25519());
    let app = service(authenticator(signer.public_key()));
    let (one, two) = (serve(app.clone()).await, serve(app).await);
    let client = client(signer, &[&one, &two]);
    for url in [format!("{one}/"), format!("{two}/a?b=c"), one.clone(), one] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let response = client.request(method, &url).body("a body").send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.text().await.expect("text"), "hello, guido");
        }
    }
}

#[tokio::test]
async fn requests_to_others_are_not_sent() {
    let seen = Seen::default();
    let other = serve(seen.layer(Router::new())).await;
    let client = client(signer(ed25519()), &["https://orders.example", "http://localhost:1"]);
    let error = signing_error(client.get(&other).send().await);
    assert!(matches!(&error, SigningError::Origin(OriginError::NotListed { origin }) if **origin == *other));
    assert!(error.to_string().contains(&other), "{error}");
    for url in
        ["http://orders.example/", "https://orders.example:8443", "https://orders.example.evil.example/"]
    {
        let error = signing_error(client.get(url).send().await);
        assert!(matches!(error, SigningError::Origin(OriginError::NotListed { .. })), "{url}: {error}");
    }
    // reqwest makes an Authorization of what stands before the @.
    for url in [other.replace("://", "://user:password@"), other.replace("://", "://user@")] {
        let error = signing_error(client.get(&url).send().await);
        assert!(matches!(error, SigningError::Origin(OriginError::NotListed { .. })), "{url}: {error}");
    }
    let foreign = signing_error(client.get(&other).bearer_auth("abc").send().await);
    assert!(matches!(foreign, SigningError::Origin(OriginError::NotListed { .. })), "{foreign}");
    assert_eq!(seen.all(), []);

    let refused = |origins: &[&str]| OriginSigner::new(signer(ed25519()), origins).expect_err("refused");
    assert_eq!(refused(&[]), OriginError::NoOrigins);
    assert!(matches!(refused(&["http://orders.example"]), OriginError::Insecure { .. }));
    assert!(matches!(refused(&["orders.example"]), OriginError::Malformed { .. }));
}

/// As in a service mesh: the name is that of another host, and what is sent to it is not encrypted by us.
#[tokio::test]
async fn plain_http_to_another_host_is_signed_for_those_who_ask_for_it() {
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let here = serve(seen.layer(service(authenticator(signer.public_key())))).await;
    let address: SocketAddr = here.trim_start_matches("http://").parse().expect("an address");
    let origin = format!("http://orders:{}", address.port());
    let refused = OriginSigner::new(signer.clone(), [&origin]).expect_err("not encrypted");
    assert_eq!(refused, OriginError::Insecure { origin: origin.as_str().into() });

    let allowed = OriginSigner::insecure_allow_http(signer, [&origin]).expect("an origin");
    let client = ClientBuilder::new(allowed).transport(|reqwest| reqwest.resolve("orders", address));
    let client = client.build().expect("a client");
    let response = client.get(&origin).send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(tokens(&seen).len(), 1);
    // And no other one: by https the same host is another origin.
    for url in [origin.replace("http://", "https://"), here] {
        let error = signing_error(client.get(&url).send().await);
        assert!(matches!(error, SigningError::Origin(OriginError::NotListed { .. })), "{url}: {error}");
    }
    assert_eq!(seen.all().len(), 1);

    let refused = |origins: &[&str]| {
        OriginSigner::insecure_allow_http(self::signer(ed25519()), origins).expect_err("none")
    };
    assert_eq!(refused(&[]), OriginError::NoOrigins);
    assert!(matches!(refused(&["orders:8080"]), OriginError::Malformed { .. }));
}

#[tokio::test]
async fn a_remote_key_signs_each_request() {
    for key in [ed25519(), PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key")] {
        let public = key.public_key().clone();
        let seen = Seen::default();
        let origin = serve(seen.layer(service(authenticator(public.clone())))).await;
        let key = SigningKey::remote(public, move |algorithm, message| Ok(key.sign(algorithm, message)?));
        let client = client(RequestSigner::new("guido", key).expect("a signer"), &[&origin]);
        for method in [Method::GET, Method::POST, Method::GET] {
            let response = client.request(method, &origin).send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.text().await.expect("text"), "hello, guido");
        }
        assert_eq!(tokens(&seen).len(), 3);
    }
}

#[tokio::test]
async fn what_a_remote_key_does_not_sign_is_not_sent() {
    let seen = Seen::default();
    let origin = serve(seen.layer(Router::new())).await;
    let client = |key: SigningKey| client(RequestSigner::new("guido", key).expect("a signer"), &[&origin]);
    let public = ed25519().public_key().clone();
    let refusing = client(SigningKey::remote(public, |_, _| Err("the token is locked".into())));
    let error = signing_error(refusing.get(&origin).send().await);
    assert!(matches!(error, SigningError::Remote(RemoteKeyError::Failed { .. })), "{error:?}");
    assert_eq!(error.to_string(), "the remote key did not sign");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("the token is locked"));

    type Sign = fn(&PrivateKey, Algorithm, &[u8]) -> Vec<u8>;
    let wrong: [Sign; 3] = [
        |_, algorithm, message| ed25519().sign(algorithm, message).expect("signed"),
        |key, algorithm, message| key.sign(algorithm, &message[1..]).expect("signed"),
        |key, algorithm, message| key.sign(algorithm, message).expect("signed")[1..].to_vec(),
    ];
    for (sign, len) in wrong.into_iter().zip([64, 64, 63]) {
        let key = ed25519();
        let public = key.public_key().clone();
        let key = SigningKey::remote(public, move |algorithm, message| Ok(sign(&key, algorithm, message)));
        match signing_error(client(key).get(&origin).send().await) {
            SigningError::Remote(RemoteKeyError::WrongSignature { algorithm, found, due }) => {
                assert_eq!((algorithm, found, due), (Algorithm::EdDsa, len, 64));
            }
            error => panic!("{error:?}"),
        }
    }
    assert_eq!(seen.all(), []);
}

#[tokio::test]
async fn an_authorization_that_is_there_is_left_alone() {
    let seen = Seen::default();
    let origin = serve(seen.layer(Router::new().fallback(any(|| async {})))).await;
    let client = client(signer(ed25519()), &[&origin]);
    client.get(&origin).bearer_auth("abc").send().await.expect("an answer");
    client.get(origin.replace("://", "://u:p@")).send().await.expect("an answer");
    assert_eq!(seen.all(), [Some("Bearer abc".to_owned()), Some("Basic dTpw".to_owned())]);
}

/// reqwest adds its own where there is none, which is beneath the signing.
#[tokio::test]
async fn an_authorization_of_the_transport_gives_way_to_the_token() {
    let seen = Seen::default();
    let origin = serve(seen.layer(Router::new().fallback(any(|| async {})))).await;
    let signer = OriginSigner::new(signer(ed25519()), [&origin]).expect("an origin");
    let basic = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Basic dTpw"))]);
    let client = ClientBuilder::new(signer).transport(|reqwest| reqwest.default_headers(basic));
    client.build().expect("a client").get(&origin).send().await.expect("an answer");
    assert_eq!(tokens(&seen).len(), 1);
}

/// Reads a request's head.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("a request");
        head.extend(byte);
    }
    String::from_utf8(head).expect("ascii")
}

/// Answers the third request only: the others' connections are closed once they have been read.
#[tokio::test]
async fn attempts_after_a_dropped_connection_have_new_nonces() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = server::origin(listener.local_addr().expect("an address"));
    let signer = signer(ed25519());
    let authenticator = authenticator(signer.public_key());
    let dropping = tokio::spawn(async move {
        let mut values = Vec::new();
        for attempt in 1..=3 {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let head = read_head(&mut stream).await;
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization: "));
            values.push(line.expect("signed").split_once(": ").expect("a value").1.to_owned());
            if attempt == 3 {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
            }
        }
        // Each of them was good, and none was used by then: the server that was dropped may have.
        for value in &values {
            authenticator.authenticate([value.as_bytes()]).await.expect("a fresh token");
        }
        values
    });
    let response = client(signer, &[&origin]).get(&origin).send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let values: HashSet<_> = dropping.await.expect("served").into_iter().collect();
    assert_eq!(values.len(), 3);
}

/// Answers with these statuses in turn, then 200.
fn failing(statuses: &'static [u16]) -> Router {
    let count = Arc::new(AtomicUsize::new(0));
    Router::new().fallback(any(move || {
        let status = statuses.get(count.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(200);
        async move { StatusCode::from_u16(status).expect("a status") }
    }))
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a test measures")]
async fn idempotent_requests_are_sent_again_on_502_503_and_504_and_others_are_not() {
    for (method, statuses, answer, attempts) in [
        (Method::GET, &[502, 503, 504][..], 200, 4),
        (Method::PUT, &[503], 200, 2),
        (Method::DELETE, &[503], 200, 2),
        (Method::QUERY, &[503], 200, 2),
        (Method::GET, &[503, 503, 503, 503], 503, 4),
        (Method::GET, &[500], 500, 1),
        (Method::GET, &[429], 429, 1),
        (Method::GET, &[401], 401, 1),
        (Method::POST, &[503], 503, 1),
        (Method::PATCH, &[502], 502, 1),
    ] {
        let seen = Seen::default();
        let origin = serve(seen.layer(failing(statuses))).await;
        let client = client(signer(ed25519()), &[&origin]);
        let started = Instant::now();
        let response = client.request(method.clone(), &origin).body("x").send().await.expect("an answer");
        let took = started.elapsed();
        assert_eq!(response.status(), answer, "{method} {statuses:?}");
        assert_eq!(tokens(&seen).len(), attempts, "{method} {statuses:?}");
        // Jitter only adds to 0.1, 0.2 and 0.4 s.
        let waits = [0, 100, 300, 700].map(Duration::from_millis);
        assert!(took >= waits[attempts - 1], "{method} {statuses:?}: {took:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_a_stream_is_sent_once() {
    let seen = Seen::default();
    let origin = serve(seen.layer(failing(&[503]))).await;
    let client = client(signer(ed25519()), &[&origin]);
    let parts = futures_util::stream::iter([Ok::<_, std::io::Error>("one"), Ok("two")]);
    let request = client.put(&origin).body(reqwest::Body::wrap_stream(parts));
    assert_eq!(request.send().await.expect("an answer").status(), 503);
    assert_eq!(tokens(&seen).len(), 1);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a test measures")]
async fn a_server_says_how_long_to_wait() {
    // A clock that is not ours: a date is told from it.
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (asked, status, attempts) in [
        ("1", 200, 2),
        ("3600", 503, 1),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200, 2),
        ("Sun, 06 Nov 1994 09:49:37 GMT", 503, 1),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let app = Router::new().fallback(any(move || {
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            let refusal = (StatusCode::SERVICE_UNAVAILABLE, [("date", DATE), ("retry-after", asked)]);
            async move { if is_first { refusal.into_response() } else { StatusCode::OK.into_response() } }
        }));
        let seen = Seen::default();
        let origin = serve(seen.layer(app)).await;
        let started = Instant::now();
        let response = client(signer(ed25519()), &[&origin]).get(&origin).send().await.expect("an answer");
        assert_eq!((response.status().as_u16(), tokens(&seen).len()), (status, attempts));
        // And a part of our own, which is not the same for all callers.
        assert!(attempts == 1 || started.elapsed() >= Duration::from_millis(1100));
    }
}

/// Else each request that waits holds a connection of a server that has asked for less.
#[tokio::test]
async fn a_failed_answer_is_let_go_of_before_the_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = server::origin(listener.local_addr().expect("an address"));
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_head(&mut stream).await;
        // The body does not come.
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 3\r\ncontent-length: 10\r\n\r\n";
        stream.write_all(refusal).await.expect("sent");
        let mut more = [0];
        let is_closed = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut more)).await.is_ok();
        drop(stream);
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
        is_closed
    });
    let response = client(signer(ed25519()), &[&origin]).get(&origin).send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(serving.await.expect("served"), "the connection stayed open");
}

/// Sends each request twice.
struct Twice;

#[async_trait]
impl Middleware for Twice {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let copy = request.try_clone().expect("no stream");
        next.clone().run(copy, extensions).await?;
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn a_middleware_stands_around_the_signing_or_within_as_it_was_added() {
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let origin = serve(seen.layer(service(authenticator(signer.public_key())))).await;
    let builder = || ClientBuilder::new(OriginSigner::new(signer.clone(), [&origin]).expect("an origin"));

    let around = builder().middleware(Twice).build().expect("a client");
    let response = around.post(&origin).body("a body").send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(tokens(&seen).len(), 2);

    let within = builder().build().expect("a client");
    let within = reqwest_middleware::ClientBuilder::from_client(within).with(Twice).build();
    let response = within.post(&origin).body("a body").send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let seen = seen.all();
    assert_eq!((seen.len(), &seen[2]), (4, &seen[3]));
}

/// A resolver that is asked once for each connection, and counts.
#[derive(Clone, Default)]
struct Resolver {
    asked: Arc<AtomicUsize>,
    /// Never answers, so that connecting takes too long.
    hangs: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, _: Name) -> Resolving {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let hangs = self.hangs;
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(Box::new(std::iter::once(SocketAddr::from(([127, 0, 0, 1], 0)))) as Addrs)
        })
    }
}

/// A connection that is refused, and one that takes too long.
#[tokio::test]
async fn nobody_listening_is_tried_again_and_then_an_error() {
    // It has its port, so that nobody else has, and does not listen.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let origin = format!("http://localhost:{}", socket.local_addr().expect("an address").port());
    for (hangs, limit) in [(false, Duration::from_secs(20)), (true, Duration::from_millis(100))] {
        let resolver = Resolver { hangs, ..Resolver::default() };
        let signer = OriginSigner::new(signer(ed25519()), [&origin]).expect("an origin");
        let client = ClientBuilder::new(signer)
            .transport(|reqwest| reqwest.connect_timeout(limit).dns_resolver(resolver.clone()));
        let error = client.build().expect("a client").get(&origin).send().await.expect_err("nobody");
        assert_eq!((error.is_connect(), error.is_timeout()), (true, hangs), "{error:?}");
        assert_eq!(resolver.asked.load(Ordering::SeqCst), 4, "tries, hangs: {hangs}");
    }
}

/// On a clock that jumps to the next limit: the resolver never answers, so that nothing else is waited for.
#[tokio::test(start_paused = true)]
async fn connecting_takes_five_seconds_at_most_and_an_attempt_thirty() {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    const ORIGIN: &str = "http://localhost:1";
    for (is_connect, limit) in [(true, Duration::from_secs(5)), (false, Duration::from_secs(30))] {
        let signer = OriginSigner::new(signer(ed25519()), [ORIGIN]).expect("an origin");
        let client = ClientBuilder::new(signer).retries(0).transport(|reqwest| {
            let reqwest = reqwest.dns_resolver(Resolver { hangs: true, ..Resolver::default() });
            // The limit of the whole is seen where that of its part is not reached.
            if is_connect { reqwest } else { reqwest.connect_timeout(HOUR) }
        });
        let client = client.build().expect("a client");
        let started = tokio::time::Instant::now();
        let result = tokio::time::timeout(2 * HOUR, client.get(ORIGIN).send()).await;
        let (error, took) = (result.expect("a limit").expect_err("no address"), started.elapsed());
        assert_eq!((error.is_connect(), error.is_timeout()), (is_connect, true), "{error:?}");
        assert!(took >= limit && took < limit + Duration::from_secs(1), "{took:?}: {error:?}");
    }
}

#[tokio::test]
async fn what_timed_out_is_not_sent_again() {
    let seen = Seen::default();
    let app = Router::new().fallback(any(std::future::pending::<()>));
    let origin = serve(seen.layer(app)).await;
    let signer = OriginSigner::new(signer(ed25519()), [&origin]).expect("an origin");
    let client = ClientBuilder::new(signer).transport(|reqwest| reqwest.timeout(Duration::from_millis(300)));
    let error = client.build().expect("a client").get(&origin).send().await.expect_err("no answer");
    assert!(error.is_timeout(), "{error:?}");
    assert!(seen.all().len() <= 1, "{:?}", seen.all());
}

/// A stream that HTTP/2 refuses was not looked at (RFC 9113 section 8.7): reqwest by itself sends it again, beneath
/// the middleware and with the same token.
#[tokio::test]
async fn a_refused_stream_is_sent_again_with_a_token_of_its_own_or_not_at_all() {
    for (method, attempts) in [(Method::GET, 2), (Method::POST, 1)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = server::origin(listener.local_addr().expect("an address"));
        let values = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&values);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let value = request.headers()[AUTHORIZATION].to_str().expect("ascii").to_owned();
                        let is_first = {
                            let mut noted = noted.lock().expect("lock");
                            noted.push(value);
                            noted.len() == 1
                        };
                        if is_first {
                            respond.send_reset(Reason::REFUSED_STREAM);
                        } else {
                            respond.send_response(Response::new(()), true).expect("sent");
                        }
                    }
                });
            }
        });
        let signer = OriginSigner::new(signer(ed25519()), [&origin]).expect("an origin");
        let client = ClientBuilder::new(signer).transport(reqwest::ClientBuilder::http2_prior_knowledge);
        let client = client.build().expect("a client");
        let result = client.request(method.clone(), &origin).send().await;
        assert_eq!(result.is_ok(), attempts == 2, "{method}: {result:?}");
        let values = values.lock().expect("lock").clone();
        let distinct: HashSet<_> = values.iter().collect();
        assert_eq!((values.len(), distinct.len()), (attempts, attempts), "{method}: a token was sent twice");
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_carries_no_token() {
    for status in [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ] {
        let (here, elsewhere) = (Seen::default(), Seen::default());
        let to = serve(elsewhere.layer(Router::new().fallback(any(|| async {})))).await;
        let to = format!("{to}/x");
        let redirect = [(LOCATION, to.clone())];
        let app = Router::new().fallback(any(move || async move { (status, redirect) }));
        let from = serve(here.layer(app)).await;

        // The client of this crate does not go there, whatever the transport is told.
        let signed = || OriginSigner::new(signer(ed25519()), [&from]).expect("an origin");
        let follow = reqwest::redirect::Policy::default;
        let client = ClientBuilder::new(signed()).transport(|reqwest| reqwest.redirect(follow()));
        let response = client.build().expect("a client").get(&from).send().await.expect("an answer");
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[LOCATION], to);
        assert_eq!((tokens(&here).len(), elsewhere.all().len()), (1, 0), "{status}");

        // reqwest itself goes, beneath the middleware, and takes the token off.
        let reqwest = reqwest::Client::builder().no_proxy().redirect(follow()).build().expect("a client");
        let client =
            reqwest_middleware::ClientBuilder::new(reqwest).with(SigningMiddleware::new(signed())).build();
        let response = client.get(&from).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{status}");
        assert_eq!((tokens(&here).len(), elsewhere.all()), (2, vec![None]), "{status}");
    }
}

/// Without TLS, reqwest would send the proxy the request itself, token and all, in the place of CONNECT.
#[tokio::test]
async fn a_proxy_sees_no_token_of_https() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = server::origin(listener.local_addr().expect("an address"));
    let seeing = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_head(&mut stream).await
    });
    let signer = OriginSigner::new(signer(ed25519()), ["https://orders.example"]).expect("an origin");
    let client = ClientBuilder::new(signer)
        .retries(0)
        .transport(|reqwest| reqwest.proxy(reqwest::Proxy::all(&proxy).expect("a proxy")));
    let client = client.build().expect("a client");
    client.get("https://orders.example/hello").send().await.expect_err("no tunnel");
    let head = seeing.await.expect("a request");
    assert_eq!(head.lines().next(), Some("CONNECT orders.example:443 HTTP/1.1"));
    assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
}

#[tokio::test]
async fn a_redirect_on_the_same_origin_is_not_followed_with_a_used_token() {
    let seen = Seen::default();
    let signer = signer(ed25519());
    let origin = serve(
        seen.layer(
            service(authenticator(signer.public_key()))
                .route("/moved", get(|| async { Redirect::temporary("/new") })),
        ),
    )
    .await;
    let client = client(signer, &[&origin]);
    let moved = client.get(format!("{origin}/moved")).send().await.expect("an answer");
    assert_eq!(moved.status(), StatusCode::TEMPORARY_REDIRECT);
    // Followed by hand it is another request.
    let url = moved.url().join(moved.headers()[LOCATION].to_str().expect("ascii")).expect("a URL");
    assert_eq!(client.get(url).send().await.expect("an answer").status(), StatusCode::OK);
    assert_eq!(tokens(&seen).len(), 2);
}

/// A connection that the server has closed in the meantime is replaced, and the token with it.
#[tokio::test]
async fn connections_that_were_closed_while_idle_cost_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = server::origin(listener.local_addr().expect("an address"));
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let head = read_head(&mut stream).await;
            noted.lock().expect("lock").push(head);
            // It promises to keep the connection, and closes it.
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
        }
    });
    let client = client(signer(ed25519()), &[&origin]);
    for _ in 0..20 {
        assert_eq!(client.get(&origin).send().await.expect("an answer").status(), 200);
    }
    let heads: HashSet<_> = heads.lock().expect("lock").drain(..).collect();
    assert_eq!(heads.len(), 20);
}
