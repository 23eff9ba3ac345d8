//! Clocks that are apart: what the caller is told, and the correction that it may ask for.

#[path = "support/server.rs"]
mod server;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use ajwt_axum::{AuthLayer, Authenticated};
use ajwt_client::{ClientBuilder, ClockSkewError, OriginSigner, RequestSigner, SigningKey};
use ajwt_core::UntrustedToken;
use ajwt_server::InsecureNoReplayProtection;
use ajwt_test_servers::tls::Authority;
use ajwt_test_support::{Level, Log};
use axum::{
    Router,
    http::{HeaderValue, Method, StatusCode, header::DATE},
    middleware::map_response,
    response::Response,
    routing::any,
};
use futures_util::stream;
use reqwest::{Body, Certificate};
use reqwest_middleware::{ClientWithMiddleware, Error};
use server::{Seen, SkewedClock, dated, ed25519, serve, service, signer, with_nonces};
use tokio::time::sleep;

/// A server whose clock is this many seconds ahead of ours (or, negative, behind).
fn skewed(signer: &RequestSigner, ahead: i64, seen: &Seen) -> Router {
    on_clock(signer, Arc::new(SkewedClock(ahead.into())), seen)
}

/// A server on this clock, which dates its answers too.
fn on_clock(signer: &RequestSigner, clock: Arc<SkewedClock>, seen: &Seen) -> Router {
    let nonces = Arc::new(InsecureNoReplayProtection);
    let app = service(with_nonces(signer.public_key(), nonces, Arc::clone(&clock) as _));
    dated(seen.layer(app), clock)
}

/// Serves over TLS; returns the origin and the certificate of its authority.
async fn serve_tls(app: Router) -> (String, Certificate) {
    let authority = Authority::new("localhost");
    let root = Certificate::from_pem(authority.root_pem().as_bytes()).expect("a certificate");
    (authority.serve(app).await, root)
}

fn client(signer: OriginSigner, certificate: Option<Certificate>) -> ClientWithMiddleware {
    let trusted = ClientBuilder::new(signer).transport(|reqwest| reqwest.tls_certs_only(certificate));
    trusted.build().expect("a client")
}

fn skew(result: Result<reqwest::Response, Error>) -> ClockSkewError {
    match result {
        Err(Error::Middleware(error)) => error.downcast().expect("a ClockSkewError"),
        other => panic!("{other:?}"),
    }
}

/// What these tokens were dated ahead of our clock, in seconds, rounded.
#[allow(clippy::disallowed_methods, reason = "tokens are dated by the clock")]
fn dated_ahead(signer: &RequestSigner, seen: &Seen) -> Vec<i64> {
    let now = ajwt_core::Timestamp::from(SystemTime::now()).as_secs();
    let validation =
        ajwt_core::Validation::default().with_tolerance(Duration::from_secs(600)).expect("ten minutes");
    seen.all()
        .iter()
        .flatten()
        .map(|value| {
            let token =
                UntrustedToken::parse(value.strip_prefix("JWT ").expect("the scheme")).expect("a token");
            let now = ajwt_core::Timestamp::from_secs(now);
            token.verify(&signer.public_key(), &validation, now).expect("a good token").time() - now.as_secs()
        })
        .collect()
}

fn is_about(found: i64, due: i64) -> bool {
    // A Date has whole seconds; an answer takes its time on a busy machine.
    (found - due).abs() <= 8
}

#[tokio::test]
async fn a_refusal_by_a_server_with_another_clock_says_so_once() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let clocks = [(90, "ahead of"), (-90, "behind"), (3600, "ahead of")];
    let mut origins = Vec::new();
    for (ahead, _) in clocks {
        origins.push(serve(skewed(&signer, ahead, &seen)).await);
    }
    // Of each origin of one signer.
    let client = client(OriginSigner::new(signer.clone(), &origins).expect("origins"), None);
    for (origin, (ahead, direction)) in origins.iter().zip(clocks) {
        let mut errors = Vec::new();
        for _ in 0..3 {
            let error = skew(client.get(origin).send().await);
            assert_eq!((error.origin(), error.is_corrected()), (origin.as_str(), false));
            assert!(is_about(error.offset_ms() / 1000, ahead), "{error}");
            let text = error.to_string();
            assert!(text.contains(origin) && text.contains(direction) && text.contains("NTP"), "{text}");
            errors.push(error);
        }
        assert_eq!(log.count("WARN", origin), 1, "{}", log.text());
        // It tells the first one, and what was measured.
        let (text, measured) = (errors[0].to_string(), format!("offset_ms={} ", errors[0].offset_ms()));
        let is_told = |line: &String| line.contains(&text) && line.contains(&measured);
        assert!(log.lines("WARN").iter().any(is_told), "{measured}: {}", log.text());
    }
    // Nobody asked for a correction.
    assert!(dated_ahead(&signer, &seen).iter().all(|ahead| is_about(*ahead, 0)));
}

#[tokio::test]
async fn each_origin_has_an_offset_of_its_own() {
    let signer = signer(ed25519());
    let authority = Authority::new("localhost");
    let (ahead, right) = (Seen::default(), Seen::default());
    let origins = [
        authority.serve(skewed(&signer, 90, &ahead)).await,
        authority.serve(skewed(&signer, 0, &right)).await,
    ];
    let certificate = Certificate::from_pem(authority.root_pem().as_bytes()).expect("a certificate");
    let corrected = OriginSigner::new(signer.clone(), &origins).expect("origins").with_clock_correction();
    let client = client(corrected, Some(certificate));
    for origin in origins.iter().chain(&origins) {
        let response = client.get(origin).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }
    for (seen, due) in [(&ahead, &[0, 90, 90][..]), (&right, &[0, 0])] {
        let dated = dated_ahead(&signer, seen);
        let is_due = dated.iter().zip(due).all(|(dated, due)| is_about(*dated, *due));
        assert!(dated.len() == due.len() && is_due, "{dated:?} instead of {due:?}");
    }
}

/// A token is dated when the turn of its signature comes: what it waited for that hides no clock that is apart.
#[tokio::test]
async fn clocks_are_compared_from_when_a_token_is_dated() {
    /// Signatures of a remote key that may be under way.
    const AT_ONCE: usize = 16;
    let (under_way, is_free) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, free) = (Arc::clone(&under_way), Arc::clone(&is_free));
    let key = ed25519();
    let public = key.public_key().clone();
    let key = SigningKey::remote(public, move |algorithm, message| {
        count.fetch_add(1, Ordering::SeqCst);
        while !free.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(key.sign(algorithm, message)?)
    });
    let signer = RequestSigner::new("guido", key).expect("a signer");
    for _ in 0..AT_ONCE {
        let signer = signer.clone();
        tokio::spawn(async move { signer.authorization_async().await });
    }
    while under_way.load(Ordering::SeqCst) < AT_ONCE {
        sleep(Duration::from_millis(5)).await;
    }
    let refusing = Router::new().fallback(|| async { StatusCode::UNAUTHORIZED });
    // Beyond half of the tolerance by 4 s: that much of waiting would hide it.
    let origin = serve(dated(refusing, Arc::new(SkewedClock((-14).into())))).await;
    let client = client(OriginSigner::new(signer, [&origin]).expect("an origin"), None);
    let free = async {
        sleep(Duration::from_secs(4)).await;
        is_free.store(true, Ordering::SeqCst);
    };
    let (answer, ()) = tokio::join!(client.get(&origin).send(), free);
    let error = skew(answer);
    // Nearer than half of the wait: neither end of the time in which the server answered counts it in.
    assert!((-15_500..=-12_500).contains(&error.offset_ms()), "{error}");
}

#[tokio::test]
async fn a_refusal_for_another_reason_is_a_response() {
    let (stranger, seen) = (signer(ed25519()), Seen::default());
    // With clocks together; a little apart; and with a tolerance by which they are not far apart.
    for (ahead, tolerance) in [(0, 20), (8, 20), (-8, 20), (90, 200)] {
        let origin = serve(skewed(&signer(ed25519()), ahead, &seen)).await;
        let signer = OriginSigner::new(stranger.clone(), [&origin]).expect("an origin");
        let signer = signer.with_tolerance(Duration::from_secs(tolerance)).with_clock_correction();
        let response = client(signer, None).get(&origin).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{ahead}");
    }
    assert_eq!(seen.all().len(), 4, "each was sent once");
    // Without a Date nothing is known, and a foreign header is none of our business.
    let bare = Router::new().fallback(|| async { StatusCode::UNAUTHORIZED });
    let bare = bare.layer(map_response(|mut response: Response| async move {
        response.headers_mut().insert(DATE, HeaderValue::from_static("yesterday"));
        response
    }));
    let origin = serve(bare).await;
    let plain = client(OriginSigner::new(stranger.clone(), [&origin]).expect("an origin"), None);
    assert_eq!(plain.get(&origin).send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    let origin = serve(skewed(&stranger, 90, &seen)).await;
    let plain = client(OriginSigner::new(stranger, [&origin]).expect("an origin"), None);
    let response = plain.get(&origin).bearer_auth("abc").send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn asked_for_it_corrects_over_https_and_keeps_the_offset() {
    for ahead in [90, -90, 280] {
        let (signer, seen) = (signer(ed25519()), Seen::default());
        let (origin, certificate) = serve_tls(skewed(&signer, ahead, &seen)).await;
        let corrected =
            OriginSigner::new(signer.clone(), [&origin]).expect("an origin").with_clock_correction();
        let client = client(corrected, Some(certificate));
        // A refused POST was not carried out, so it is sent again as well.
        for _ in 0..3 {
            let response = client.post(&origin).body("a body").send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
        }
        let dated = dated_ahead(&signer, &seen);
        assert_eq!(dated.len(), 4, "one attempt was dated wrongly: {dated:?}");
        assert!(is_about(dated[0], 0) && dated[1..].iter().all(|dated| is_about(*dated, ahead)), "{dated:?}");
    }
}

/// Its body is gone.
#[tokio::test]
async fn a_stream_is_not_sent_again_and_the_next_request_is_dated_by_the_servers_clock() {
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let (origin, certificate) = serve_tls(skewed(&signer, 90, &seen)).await;
    let corrected = OriginSigner::new(signer.clone(), [&origin]).expect("an origin").with_clock_correction();
    let client = client(corrected, Some(certificate));
    let parts = stream::iter([Ok::<_, std::io::Error>("one"), Ok("two")]);
    let error = skew(client.put(&origin).body(Body::wrap_stream(parts)).send().await);
    assert!(error.is_corrected() && error.is_out_of_window(), "{error:?}");
    assert_eq!(client.get(&origin).send().await.expect("an answer").status(), StatusCode::OK);
    let dated = dated_ahead(&signer, &seen);
    assert!(dated.len() == 2 && is_about(dated[0], 0) && is_about(dated[1], 90), "{dated:?}");
}

#[tokio::test]
async fn clones_share_the_offset_if_they_asked_for_it() {
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let (origin, certificate) = serve_tls(skewed(&signer, 90, &seen)).await;
    let plain = OriginSigner::new(signer.clone(), [&origin]).expect("an origin");
    let corrected = plain.clone().with_clock_correction();
    for clone in [corrected.clone(), corrected] {
        let response = client(clone, Some(certificate.clone())).get(&origin).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert!(!skew(client(plain, Some(certificate)).get(&origin).send().await).is_corrected());
    let dated = dated_ahead(&signer, &seen);
    assert_eq!(dated.len(), 4, "the second client knew of it: {dated:?}");
    for (dated, due) in dated.into_iter().zip([0, 90, 90, 0]) {
        assert!(is_about(dated, due), "{dated} instead of {due}");
    }
}

/// Who answers 401 may be the service behind: what a token within the window led to is not done twice.
#[tokio::test]
async fn what_may_have_been_carried_out_is_not_repeated() {
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let nonces = Arc::new(InsecureNoReplayProtection);
    let clock = Arc::new(SkewedClock(15.into()));
    let done = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&done);
    // A service that is refused by another one.
    let handler = move |_: Authenticated| async move {
        count.fetch_add(1, Ordering::SeqCst);
        StatusCode::UNAUTHORIZED
    };
    let app = Router::new().fallback(any(handler));
    let app = app.layer(AuthLayer::new(with_nonces(signer.public_key(), nonces, Arc::clone(&clock) as _)));
    let (origin, certificate) = serve_tls(dated(seen.layer(app), clock)).await;
    for (method, times) in [(Method::POST, 1), (Method::PATCH, 1), (Method::PUT, 2)] {
        let corrected =
            OriginSigner::new(signer.clone(), [&origin]).expect("an origin").with_clock_correction();
        let client = client(corrected, Some(certificate.clone()));
        let result = client.request(method.clone(), &origin).send().await;
        assert_eq!(done.swap(0, Ordering::SeqCst), times, "{method}");
        if times == 1 {
            let error = skew(result);
            assert!(error.is_corrected() && !error.is_out_of_window(), "{error:?}");
        } else {
            assert_eq!(result.expect("dated by the server's clock").status(), StatusCode::UNAUTHORIZED);
        }
    }
}

#[tokio::test]
async fn it_does_not_correct_by_more_than_five_minutes_nor_over_http() {
    for ahead in [330, -330] {
        let (signer, seen) = (signer(ed25519()), Seen::default());
        let (origin, certificate) = serve_tls(skewed(&signer, ahead, &seen)).await;
        let corrected =
            OriginSigner::new(signer.clone(), [&origin]).expect("an origin").with_clock_correction();
        let client = client(corrected, Some(certificate));
        for _ in 0..2 {
            assert!(!skew(client.get(&origin).send().await).is_corrected());
        }
        let dated = dated_ahead(&signer, &seen);
        assert!(dated.len() == 2 && dated.iter().all(|dated| is_about(*dated, 0)), "{dated:?}");
    }
    // By http of this host, and by that of another one, which was asked for.
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let here = serve(skewed(&signer, 90, &seen)).await;
    let address: SocketAddr = here.trim_start_matches("http://").parse().expect("an address");
    let elsewhere = format!("http://orders:{}", address.port());
    for (plain, origin) in [
        (OriginSigner::new(signer.clone(), [&here]), &here),
        (OriginSigner::insecure_allow_http(signer.clone(), [&elsewhere]), &elsewhere),
    ] {
        let corrected = plain.expect("an origin").with_clock_correction();
        let client = ClientBuilder::new(corrected).transport(|reqwest| reqwest.resolve("orders", address));
        let client = client.build().expect("a client");
        for _ in 0..2 {
            assert!(!skew(client.get(origin).send().await).is_corrected());
        }
    }
    let dated = dated_ahead(&signer, &seen);
    assert!(dated.len() == 4 && dated.iter().all(|dated| is_about(*dated, 0)), "{dated:?}");
}

/// A proxy dates its answers by a clock of its own, and the service behind refuses for another reason.
#[tokio::test]
async fn an_offset_that_does_not_help_is_dropped() {
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let (nonces, clock) = (Arc::new(InsecureNoReplayProtection), Arc::new(SkewedClock(0.into())));
    let refusals = Arc::new(AtomicUsize::new(2));
    let left = Arc::clone(&refusals);
    let app = service(with_nonces(signer.public_key(), nonces, clock)).layer(map_response(
        move |mut response: Response| {
            let is_refused =
                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if is_refused.is_ok() {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            async move { response }
        },
    ));
    let (origin, certificate) = serve_tls(dated(seen.layer(app), Arc::new(SkewedClock(60.into())))).await;
    let corrected = OriginSigner::new(signer.clone(), [&origin]).expect("an origin").with_clock_correction();
    let client = client(corrected, Some(certificate));
    assert_eq!(client.get(&origin).send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refusals.load(Ordering::SeqCst), 0, "it was corrected, and sent again");
    for _ in 0..2 {
        assert_eq!(client.get(&origin).send().await.expect("an answer").status(), StatusCode::OK);
    }
}

/// The proxy's clock again. What seems to prove that its offset is right is an answer that needs no token.
#[tokio::test]
async fn an_offset_that_seemed_to_help_is_dropped() {
    // Such an answer comes once; between all others.
    for is_alternating in [false, true] {
        let (signer, seen) = (signer(ed25519()), Seen::default());
        let (nonces, clock) = (Arc::new(InsecureNoReplayProtection), Arc::new(SkewedClock(0.into())));
        let count = Arc::new(AtomicUsize::new(0));
        let public = move || {
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if is_first { StatusCode::UNAUTHORIZED } else { StatusCode::OK } }
        };
        let app = service(with_nonces(signer.public_key(), nonces, clock));
        // Without the layer of the routes before.
        let app = app.route("/public", any(public));
        let (origin, certificate) = serve_tls(dated(seen.layer(app), Arc::new(SkewedClock(60.into())))).await;
        let corrected =
            OriginSigner::new(signer.clone(), [&origin]).expect("an origin").with_clock_correction();
        let client = client(corrected, Some(certificate));
        let public = format!("{origin}/public");
        assert_eq!(client.get(&public).send().await.expect("an answer").status(), StatusCode::OK);
        assert!(is_about(*dated_ahead(&signer, &seen).last().expect("a second attempt"), 60));

        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(client.get(&origin).send().await.expect("an answer").status());
            if is_alternating {
                assert_eq!(client.get(&public).send().await.expect("an answer").status(), StatusCode::OK);
            }
        }
        assert!(statuses[..3].contains(&StatusCode::OK), "{is_alternating} {statuses:?}");
        assert_eq!(statuses[3], StatusCode::OK, "{is_alternating} {statuses:?}");
    }
}

/// What was right no longer is, and nothing shows by how much.
#[tokio::test]
async fn an_offset_is_dropped_by_refusals_without_a_date_too() {
    let (signer, seen, clock) = (signer(ed25519()), Seen::default(), Arc::new(SkewedClock(120.into())));
    let is_dated = Arc::new(AtomicBool::new(true));
    let shows = Arc::clone(&is_dated);
    let app = on_clock(&signer, Arc::clone(&clock), &seen);
    let app = app.layer(map_response(move |mut response: Response| {
        if !shows.load(Ordering::SeqCst) {
            response.headers_mut().insert(DATE, HeaderValue::from_static("yesterday"));
        }
        async move { response }
    }));
    let (origin, certificate) = serve_tls(app).await;
    let corrected = OriginSigner::new(signer, [&origin]).expect("an origin").with_clock_correction();
    let client = client(corrected, Some(certificate));
    assert_eq!(client.get(&origin).send().await.expect("an answer").status(), StatusCode::OK);
    clock.0.store(0, Ordering::SeqCst);
    is_dated.store(false, Ordering::SeqCst);
    // The first refusal may be for another reason, for the offset has helped.
    for due in [StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED, StatusCode::OK, StatusCode::OK] {
        assert_eq!(client.get(&origin).send().await.expect("an answer").status(), due);
    }
}

/// It was refused for another reason, and the offset is right.
#[tokio::test]
async fn an_offset_that_has_helped_outlives_a_refusal() {
    let (signer, seen) = (signer(ed25519()), Seen::default());
    let refusals = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&refusals);
    let app = skewed(&signer, 90, &seen).layer(map_response(move |mut response: Response| {
        let is_refused = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if is_refused.is_ok() {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        async move { response }
    }));
    let (origin, certificate) = serve_tls(app).await;
    let corrected = OriginSigner::new(signer, [&origin]).expect("an origin").with_clock_correction();
    let client = client(corrected, Some(certificate));
    let once = [(0, 200, 2), (1, 401, 1), (0, 200, 1)];
    // Another refusal drops it, and the next one measures it again.
    let again = [(1, 401, 1), (0, 200, 2), (1, 401, 1), (0, 200, 1)];
    for (refused, status, attempts) in once.into_iter().chain(again) {
        refusals.store(refused, Ordering::SeqCst);
        let before = seen.all().len();
        assert_eq!(client.get(&origin).send().await.expect("an answer").status(), status);
        assert_eq!(seen.all().len() - before, attempts);
    }
}

/// An offset that was right no longer is: the server's clock was set.
#[tokio::test]
async fn an_offset_that_no_longer_holds_is_measured_anew() {
    let (signer, seen, clock) = (signer(ed25519()), Seen::default(), Arc::new(SkewedClock(0.into())));
    let (origin, certificate) = serve_tls(on_clock(&signer, Arc::clone(&clock), &seen)).await;
    let corrected = OriginSigner::new(signer.clone(), [&origin]).expect("an origin").with_clock_correction();
    let client = client(corrected, Some(certificate));
    for (server, attempts) in [(120, 2), (120, 1), (0, 2), (0, 1), (-120, 2)] {
        clock.0.store(server, Ordering::SeqCst);
        let before = seen.all().len();
        assert_eq!(client.get(&origin).send().await.expect("an answer").status(), StatusCode::OK);
        let dated = dated_ahead(&signer, &seen);
        assert_eq!(dated.len() - before, attempts, "{server}: {dated:?}");
        assert!(is_about(*dated.last().expect("one"), server), "{server}: {dated:?}");
    }
}
