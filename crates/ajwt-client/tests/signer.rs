//! Signing requests.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::available_parallelism,
    time::Duration,
};

use ajwt_client::{RequestBuilderExt as _, RequestSigner, SignerError, SigningError};
use ajwt_core::{ClaimError, PrivateKey, RsaKeySize, Timestamp, UntrustedToken, Validation};
use ajwt_server::{Authenticator, MemoryNonceBackend, MemoryRepository};
use futures_util::FutureExt as _;
use http::{HeaderValue, header::AUTHORIZATION};
use tokio::runtime::Builder;

fn signer() -> RequestSigner {
    RequestSigner::new("guido", PrivateKey::generate_ed25519().expect("a key")).expect("a signer")
}

#[test]
fn each_header_is_a_fresh_token_of_the_user_dated_now() {
    let signer = signer();
    let now = Timestamp::from_millis(1_790_000_000_999);
    let mut nonces = HashSet::new();
    for _ in 0..1000 {
        let value = signer.authorization_at(now).expect("a token");
        assert!(value.is_sensitive());
        let token = value.to_str().expect("ascii").strip_prefix("JWT ").expect("the scheme").to_owned();
        let token = UntrustedToken::parse(&token).expect("a token");
        assert_eq!(token.key_id(), Some(signer.public_key().fingerprint().as_str()));
        let token = token.verify(&signer.public_key(), &Validation::default(), now).expect("a good token");
        assert_eq!((token.username().as_str(), token.time()), ("guido", 1_790_000_000));
        assert_eq!(token.audiences().count(), 0);
        assert!(nonces.insert(token.nonce().as_str().to_owned()));
    }
}

#[test]
fn the_audience_and_the_scheme_are_the_ones_asked_for() {
    let now = Timestamp::from_secs(1_790_000_000);
    let signer = signer().with_audience("https://api.example/").expect("an audience");
    let signer = signer.with_scheme("Token").expect("a scheme");
    let value = signer.authorization_at(now).expect("a token");
    let token = value.to_str().expect("ascii").strip_prefix("Token ").expect("the scheme").to_owned();
    let validation = Validation::default().with_audience("https://api.example/").expect("an audience");
    let token = UntrustedToken::parse(&token).expect("a token");
    assert!(token.verify(&signer.public_key(), &validation, now).is_ok());
    assert!(token.verify(&signer.public_key(), &Validation::default(), now).is_err());
}

#[test]
fn an_audience_or_a_scheme_that_no_server_has_is_refused_at_once() {
    for scheme in ["", "JWT,", "a b", "a/b", " JWT", "JWT\r\n", "To\nken", "JW\u{2c6}"] {
        let error = signer().with_scheme(scheme).expect_err(scheme);
        assert_eq!(error, SignerError::Scheme { found: scheme.into() });
        let told = format!("{scheme:?} is no authentication scheme");
        assert!(error.to_string().starts_with(&told), "{error}");
    }
    let error = signer().with_audience("").expect_err("no audience");
    assert_eq!(error, SignerError::EmptyAudience);
    assert!(error.to_string().starts_with("the audience is empty"), "{error}");
}

/// By each character of it.
#[test]
fn a_scheme_is_what_the_server_takes_for_one() {
    let users = Arc::new(MemoryRepository::new([]));
    let nonces = Arc::new(MemoryNonceBackend::default());
    let signer = signer();
    for character in '\0'..='\u{ff}' {
        let scheme = format!("J{character}");
        let server = Authenticator::builder(users.clone(), nonces.clone()).scheme(scheme.as_str()).build();
        let signer = signer.clone().with_scheme(scheme.as_str());
        assert_eq!(signer.is_ok(), server.is_ok(), "{scheme:?}");
        if let Ok(signer) = signer {
            let value = signer.authorization().expect("a token");
            assert!(value.to_str().expect("ascii").starts_with(&format!("{scheme} ey")), "{scheme}");
        }
    }
}

#[test]
fn a_request_gets_one_header_whatever_was_there() {
    let signer = signer();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.get("http://127.0.0.1/").header(AUTHORIZATION, "Basic abc").sign_with(&signer);
    let request =
        request.and_then(|request| request.sign_with(&signer)).expect("signed").build().expect("a request");
    let values: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
    assert_eq!(values.len(), 1);
    assert!(values[0].to_str().expect("ascii").starts_with("JWT ey"));
    assert!(!format!("{request:?}").contains("ey"), "{request:?}");
}

#[test]
fn bad_names_are_refused() {
    let key = || PrivateKey::generate_ed25519().expect("a key");
    let refused = |name: &str| match RequestSigner::new(name, key()) {
        Err(SignerError::Username(error)) => error,
        other => panic!("{name:?}: {other:?}"),
    };
    assert!(matches!(refused(""), ClaimError::UsernameLength { chars: 0, .. }));
    assert_eq!(refused("a\nb"), ClaimError::UsernameControl { found: 10 });
}

#[test]
fn nothing_secret_is_printed() {
    let signer = signer();
    let now = Timestamp::from(std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000));
    let token = signer.authorization_at(now).expect("a token");
    assert_eq!(format!("{token:?}"), "Sensitive");
    let key = signer.public_key();
    let shown = format!(
        "RequestSigner {{ username: Username(\"guido\"), keys: KeyRing([PublicKey {{ type: Ed25519, fingerprint: \"{}\" }}]), audience: None, .. }}",
        key.fingerprint()
    );
    assert_eq!(format!("{signer:?}"), shown);
}

/// Else many requests at once would take the processors from all else that runs, and the threads on which names are
/// resolved.
#[test]
fn large_rsa_keys_sign_on_few_threads() {
    let key = PrivateKey::generate_rsa(RsaKeySize::Bits3072).expect("a key");
    let signer = RequestSigner::new("guido", key).expect("a signer");
    let threads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&threads);
    let counts = move || {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let runtime = Builder::new_current_thread().on_thread_start(counts).build().expect("a runtime");
    let processors = available_parallelism().expect("a number").get();
    runtime.block_on(async {
        let signing: Vec<_> = (0..16 * processors)
            .map(|_| {
                let signer = signer.clone();
                tokio::spawn(async move { signer.authorization_async().await })
            })
            .collect();
        for signed in signing {
            signed.await.expect("no panic").expect("a token");
        }
    });
    let threads = threads.load(Ordering::SeqCst);
    // A thread that has signed takes a moment until it is there for another.
    assert!((1..=4 * processors).contains(&threads), "{threads} threads");
}

/// With the only blocking thread taken, what needs one waits, and what does not is ready at once.
#[test]
fn large_rsa_keys_sign_off_the_async_threads_and_fast_ones_on_them() {
    let now = Timestamp::from_secs(1_790_000_000);
    let ed25519 = PrivateKey::generate_ed25519().expect("a key");
    let rsa = |size| PrivateKey::generate_rsa(size).expect("a key");
    for (key, moves) in
        [(ed25519, false), (rsa(RsaKeySize::Bits2048), false), (rsa(RsaKeySize::Bits3072), true)]
    {
        let kind = key.public_key().key_type();
        let signer = RequestSigner::new("guido", key).expect("a signer");
        let dated_after = |value: Result<HeaderValue, SigningError>| {
            let value = value.expect("a token");
            let token = value.to_str().expect("ascii").strip_prefix("JWT ").expect("the scheme").to_owned();
            let token = UntrustedToken::parse(&token).expect("a token");
            let token =
                token.verify(&signer.public_key(), &Validation::default(), now).expect("a good token");
            token.time() - now.as_secs()
        };
        let runtime = Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let (free, taken) = mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || taken.recv());
            let mut signing = pin!(signer.authorization_async_at(now));
            let value = match (&mut signing).now_or_never() {
                Some(value) => {
                    assert!(!moves, "{kind} signs on the async thread");
                    value
                }
                None => {
                    assert!(moves, "{kind} waits for another thread");
                    std::thread::sleep(Duration::from_millis(1100));
                    free.send(()).expect("it waits");
                    signing.await
                }
            };
            // It is dated when its turn comes, not when it was asked for.
            assert_eq!(dated_after(value) >= 1, moves, "{kind}");
        });
        // Without a runtime it signs where it is.
        assert_eq!(dated_after(signer.authorization_async_at(now).now_or_never().expect("at once")), 0);
    }
}
