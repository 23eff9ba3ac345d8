//! The decision path: what each refusal touches, what faults of stores come to, what is told.

#[path = "support/engine.rs"]
mod engine;
#[path = "support/observe.rs"]
mod observe;
#[path = "engine/slow_stores.rs"]
mod slow_stores;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_core::{Claims, KeyType, Nonce, PrivateKey, RsaKeySize, Timestamp, Token, Username, Validation};
use ajwt_server::{
    Authenticator, AuthenticatorBuilder, BuildError, Clock as _, Found, Freshness, KeySource,
    MemoryNonceBackend, MemoryRepository, MockClock, NonceBackend, NonceError, NonceOutcome, NonceUse,
    PublicKeyRepository, Reason, RejectionKind, RepositoryError, StoredKey, SystemClock, UsageRecorder, User,
    UserKeys, UserRepository,
};
use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use engine::*;
use observe::observe;

const NOW: i64 = 1_790_000_000;

#[tokio::test]
async fn refusals_touch_the_stores_in_order_and_leave_no_trace_in_those_behind() {
    let engine = Engine::new();
    let mut failures = Vec::new();
    for (due, reads_store, headers) in refused(&engine) {
        let before = engine.users.reads.load(Ordering::SeqCst);
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let outcome = engine.judge(&headers).await;
        let reads = engine.users.reads.load(Ordering::SeqCst) - before;
        let nonces = engine.nonces.uses.lock().expect("lock").len();
        let uses = engine.usage.uses.lock().expect("lock").len();
        if outcome != Err(due) || reads != usize::from(reads_store) || (nonces, uses) != (0, 0) {
            failures.push(format!(
                "{headers:?}: {outcome:?}, not {due:?}; {reads} reads, {nonces} nonces, {uses} uses"
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn key_repositories_do_the_same_work_for_users_that_are_unknown_or_inactive() {
    let engine = Engine::new();
    for username in ["guido", "nobody", "inactive", "keyless"] {
        let _ = engine.judge(&[&engine.header(username)]).await;
    }
    let asked = engine.keys.asked.lock().expect("lock").clone();
    assert_eq!(asked, [Some("guido".to_owned()), None, None, Some("keyless".to_owned())]);
}

#[tokio::test]
async fn an_accepted_token_is_used_up_and_its_key_recorded_once() {
    let engine = Engine::new();
    let header = engine.header("guido");
    let accepted = engine.authenticator.authenticate([header.as_bytes()]).await.expect("accepted");
    assert_eq!(accepted.key().source(), KeySource::Key(42));
    assert_eq!(accepted.key().key(), engine.key.public_key());
    assert_eq!(accepted.key().key().key_type(), KeyType::Ed25519);
    assert_eq!(engine.judge(&[&header]).await, Err(Reason::Replayed));

    let uses = engine.usage.uses.lock().expect("lock").clone();
    assert_eq!(uses, [(KeySource::Key(42), Timestamp::from_secs(NOW))]);
    let nonces = engine.nonces.uses.lock().expect("lock");
    assert_eq!(nonces.len(), 2);
    assert!(nonces.iter().all(|nonce| nonce.lifetime() == Duration::from_secs(100)
        && nonce.tolerance() == Duration::from_secs(20)
        && nonce.time() == NOW
        && nonce.now() == Timestamp::from_secs(NOW)));
}

#[tokio::test]
async fn closing_flushes_usage_and_closes_the_nonce_store() {
    let engine = Engine::new();
    engine.authenticator.clone().close().await;
    assert_eq!(engine.usage.flushed.load(Ordering::SeqCst), 1);
    assert_eq!(engine.nonces.closed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_scheme_is_compared_without_ascii_case() {
    let engine = Engine::build(Store::Works, Store::Works, None, |builder| builder.scheme("AjWt"));
    let mut failures = Vec::new();
    for (scheme, due) in [
        ("AjWt", Ok(())),
        ("ajwt", Ok(())),
        ("AJWT", Ok(())),
        ("JWT", Err(Reason::NoCredentials)),
        ("AjWt2", Err(Reason::NoCredentials)),
        ("\u{212a}jwt", Err(Reason::NoCredentials)),
    ] {
        let header = engine.header("guido").replacen("JWT", scheme, 1);
        let outcome = engine.judge(&[&header]).await;
        if outcome != due {
            failures.push(format!("{scheme}: {outcome:?}, not {due:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn with_a_quantum_every_rejected_token_waits_for_its_end_and_nothing_else_does() {
    let quantum = Duration::from_millis(20);
    let engine = Engine::build(Store::Works, Store::Works, None, |builder| builder.refusal_quantum(quantum));
    let clock = SystemClock::new();
    let mut failures = Vec::new();
    let down = Engine::build(Store::Fails, Store::Works, None, |builder| builder.refusal_quantum(quantum));
    let header = down.header("guido");
    let begun = clock.monotonic();
    assert_eq!(down.judge(&[&header]).await, Err(Reason::StoreUnavailable));
    assert!(clock.monotonic() - begun >= quantum, "a store that is down tells of no user either");
    let mut refused = refused(&engine);
    let used = engine.header("guido");
    assert_eq!(engine.judge(&[&used]).await, Ok(()));
    refused.push((Reason::Replayed, true, vec![used]));
    for (due, _, headers) in refused {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let begun = clock.monotonic();
        let outcome = engine.judge(&headers).await;
        let taken = clock.monotonic() - begun;
        if outcome != Err(due) || due.kind() == RejectionKind::Refused && taken < quantum {
            failures.push(format!("{headers:?}: {outcome:?} in {taken:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    let second = Duration::from_secs(1);
    let engine = Engine::build(Store::Works, Store::Works, None, |builder| builder.refusal_quantum(second));
    let header = engine.header("guido");
    for (headers, due) in [(vec![header.as_str()], Ok(())), (Vec::new(), Err(Reason::NoCredentials))] {
        let judged = tokio::time::timeout(second / 2, engine.judge(&headers)).await;
        assert_eq!(judged.expect("at once"), due);
    }
}

#[test]
fn what_cannot_be_built_is_refused() {
    type Configure = fn(AuthenticatorBuilder) -> AuthenticatorBuilder;

    let second = Duration::from_secs(1);
    let short = Duration::from_millis(999);
    let scheme = |found: &str| Some(BuildError::Scheme { found: found.into() });
    let quantum = |found| {
        let (min, max) = (Duration::from_millis(1), second);
        Some(BuildError::RefusalQuantum { found, min, max })
    };
    let cases: [(&str, Configure, Option<BuildError>); 13] = [
        ("as it comes", |builder| builder, None),
        ("margin of 1 s", |builder| builder.nonce_margin(Duration::from_secs(1)), None),
        (
            "margin below 1 s",
            |builder| builder.nonce_margin(Duration::from_millis(999)),
            Some(BuildError::Margin { found: short, min: second }),
        ),
        ("no timeout", |builder| builder.store_timeout(Duration::ZERO), Some(BuildError::StoreTimeout)),
        ("quantum of 1 ms", |builder| builder.refusal_quantum(Duration::from_millis(1)), None),
        ("quantum of 1 s", |builder| builder.refusal_quantum(Duration::from_secs(1)), None),
        (
            "quantum below 1 ms",
            |builder| builder.refusal_quantum(Duration::from_micros(999)),
            quantum(Duration::from_micros(999)),
        ),
        (
            "quantum above 1 s",
            |builder| builder.refusal_quantum(Duration::from_millis(1001)),
            quantum(Duration::from_millis(1001)),
        ),
        ("empty scheme", |builder| builder.scheme(""), scheme("")),
        ("scheme of two words", |builder| builder.scheme("J WT"), scheme("J WT")),
        ("scheme with a line end", |builder| builder.scheme("JWT\r\n"), scheme("JWT\r\n")),
        ("scheme beyond ASCII", |builder| builder.scheme("JW\u{2c6}"), scheme("JW\u{2c6}")),
        ("scheme of odd characters", |builder| builder.scheme("!#$%&'*+-.^_`|~9"), None),
    ];
    let mut failures = Vec::new();
    for (what, configure, due) in cases {
        let engine = Engine::new();
        let builder = Authenticator::builder(engine.users as _, engine.nonces as _);
        let error = configure(builder).build().err();
        if error != due {
            failures.push(format!("{what}: {error:?}, not {due:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Here a thread asks for a stack larger than the address space, which only a process of its own can be told.
#[cfg(target_os = "linux")]
#[test]
fn a_quantum_without_a_thread_to_keep_it_is_not_built() {
    use std::{env, process::Command};

    const CHILD: &str = "AJWT_TEST_CHILD";
    if env::var_os(CHILD).is_some() {
        let engine = Engine::new();
        let builder = Authenticator::builder(engine.users as _, engine.nonces as _);
        let error = builder.refusal_quantum(Duration::from_millis(2)).build().err();
        assert_eq!(error, Some(BuildError::Thread { kind: std::io::ErrorKind::WouldBlock }));
        return;
    }
    let child = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "a_quantum_without_a_thread_to_keep_it_is_not_built"])
        .env(CHILD, "1")
        .env("RUST_MIN_STACK", (1_u64 << 60).to_string())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
fn a_store_that_fails_or_is_slow_is_told_apart_counted_and_logged_once() {
    let cases = [
        ("users fail", Store::Fails, Store::Works, None, Reason::StoreUnavailable, "the disk is on fire"),
        (
            "users sleep",
            Store::Sleeps,
            Store::Works,
            None,
            Reason::StoreUnavailable,
            "reading a user took too long",
        ),
        ("keys fail", Store::Works, Store::Fails, None, Reason::StoreUnavailable, "the disk is on fire"),
        (
            "keys sleep",
            Store::Works,
            Store::Sleeps,
            None,
            Reason::StoreUnavailable,
            "reading keys took too long",
        ),
        (
            "nonces full",
            Store::Works,
            Store::Works,
            Some(NonceStore::Full),
            Reason::NonceStoreFull,
            "is full: 3 entries",
        ),
        (
            "nonces starting",
            Store::Works,
            Store::Works,
            Some(NonceStore::Starting),
            Reason::NonceStoreStarting,
            "knows nothing of tokens used before",
        ),
        (
            "nonces fail",
            Store::Works,
            Store::Works,
            Some(NonceStore::Store(Store::Fails)),
            Reason::NonceStoreUnavailable,
            "the disk is on fire",
        ),
        (
            "nonces sleep",
            Store::Works,
            Store::Works,
            Some(NonceStore::Store(Store::Sleeps)),
            Reason::NonceStoreUnavailable,
            "consuming a nonce took too long",
        ),
    ];
    let mut failures = Vec::new();
    for (what, users, keys, nonces, due, logged) in cases {
        let (outcomes, seen) = observe(async {
            let engine = Engine::with(users, keys, nonces);
            let mut outcomes = Vec::new();
            for _ in 0..5 {
                outcomes.push(engine.judge(&[&engine.header("guido")]).await);
            }
            engine.clock.advance(Duration::from_secs(60));
            let late = header(&claims("guido", NOW + 60), &engine.key);
            outcomes.push(engine.judge(&[&late]).await);
            assert!(engine.usage.uses.lock().expect("lock").is_empty(), "a use was recorded");
            outcomes
        });
        // A start passes by itself: it is a warning, and keeps no failure out of the log.
        let level = if due == Reason::NonceStoreStarting { "WARN" } else { "ERROR" };
        let errors: Vec<_> = seen.log.lines().filter(|line| line.contains(level)).collect();
        let is_logged = errors.len() == 2
            && errors.iter().all(|line| line.contains(logged) && line.contains("503"))
            && errors[0].contains("unlogged=0")
            && errors[1].contains("unlogged=4");
        let counted = BTreeMap::from([(("unavailable".to_owned(), due.label().to_owned()), 6)]);
        if outcomes.iter().any(|outcome| *outcome != Err(due)) || due.kind() != RejectionKind::Unavailable {
            failures.push(format!("{what}: {outcomes:?}, not {due:?}"));
        }
        if !is_logged {
            failures.push(format!("{what}: not logged once a minute with {logged:?}:\n{}", seen.log));
        }
        if seen.counters != counted {
            failures.push(format!("{what}: counted {:?}, not {counted:?}", seen.counters));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn a_store_that_fails_behind_its_cache_refuses_nobody_for_good() {
    let engine = Engine::with(Store::FailsBehindItsCache, Store::Works, None);
    // What the cache is enough for is accepted; whether to refuse only the store may say.
    assert_eq!(engine.judge(&[&engine.header("guido")]).await, Ok(()));
    for username in ["inactive", "keyless", "other"] {
        assert_eq!(
            engine.judge(&[&engine.header(username)]).await,
            Err(Reason::StoreUnavailable),
            "{username}"
        );
    }
}

#[tokio::test]
async fn keys_of_other_repositories_stand_beside_the_users_own() {
    let engine = Engine::new();
    let accepts = async |builder: ajwt_server::AuthenticatorBuilder| {
        let authenticator = builder.clock(Arc::new(engine.clock.clone())).build().expect("built");
        authenticator.authenticate([engine.header("guido").as_bytes()]).await.is_ok()
    };
    let builder = || {
        let user = User::new("guido").with_keys([engine.key.public_key().clone()]);
        let users = Arc::new(ajwt_server::MemoryRepository::new([user]));
        Authenticator::builder(users, Arc::new(ajwt_server::InsecureNoReplayProtection))
    };
    let others = || Arc::new(Keys { store: Store::Works, asked: Mutex::default() });
    assert!(accepts(builder()).await);
    assert!(accepts(builder().keys(others())).await);
    assert!(!accepts(builder().keys(others()).without_user_keys()).await);
    assert!(accepts(builder().keys(Arc::new(UserKeys)).keys(others()).without_user_keys()).await);
}

#[test]
fn outcomes_are_counted_by_reason() {
    let ((), seen) = observe(async {
        let engine = Engine::new();
        for (_, _, headers) in refused(&engine) {
            let headers: Vec<_> = headers.iter().map(String::as_str).collect();
            engine.judge(&headers).await.expect_err("refused");
        }
        let header = engine.header("guido");
        engine.judge(&[&header]).await.expect("accepted");
        engine.judge(&[&header]).await.expect_err("replayed");
    });
    let mut due: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (reason, _, _) in refused(&Engine::new()) {
        let outcome = if reason == Reason::NoCredentials { "no_credentials" } else { "refused" };
        *due.entry((outcome.into(), reason.label().into())).or_default() += 1;
    }
    due.insert(("refused".into(), "replayed".into()), 1);
    due.insert(("accepted".into(), "accepted".into()), 1);
    assert_eq!(seen.counters, due);
    // With the four of stores that fail these are all there are.
    assert_eq!(due.len(), Reason::ALL.len() - 4 + 1);
}

#[test]
fn many_tokens_outside_of_the_window_hint_at_ntp_once_a_minute() {
    let ((), seen) = observe(async {
        let engine = Engine::new();
        let late = |passed| header(&claims("guido", NOW + passed - 3600), &engine.key);
        for _ in 0..19 {
            assert_eq!(engine.judge(&[&late(0)]).await, Err(Reason::OutsideWindow));
        }
        tracing::info!("after 19");
        assert_eq!(engine.judge(&[&late(0)]).await, Err(Reason::OutsideWindow));
        tracing::info!("after 20");
        for _ in 0..99 {
            assert_eq!(engine.judge(&[&late(0)]).await, Err(Reason::OutsideWindow));
        }
        tracing::info!("after 119");
        engine.clock.advance(Duration::from_secs(60));
        for _ in 0..100 {
            assert_eq!(engine.judge(&[&late(60)]).await, Err(Reason::OutsideWindow));
        }
    });
    let hints = |log: &str| log.lines().filter(|line| line.contains("WARN") && line.contains("NTP")).count();
    let (first, rest) = seen.log.split_once("after 19").expect("the first part");
    let (second, rest) = rest.split_once("after 20").expect("the second part");
    let (third, fourth) = rest.split_once("after 119").expect("the other parts");
    assert_eq!([first, second, third, fourth].map(hints), [0, 1, 0, 1], "{}", seen.log);
}

#[tokio::test]
async fn audiences_and_tolerance_are_those_configured() {
    let validation = Validation::default()
        .with_tolerance(Duration::from_secs(5))
        .and_then(|validation| validation.with_audience("api"))
        .expect("a validation");
    let engine = Engine::build(Store::Works, Store::Works, None, |builder| builder.validation(validation));
    let judge = async |time, audience: Option<&str>| {
        let claims = claims("guido", time);
        let claims = match audience {
            Some(audience) => claims.with_audience(audience),
            None => claims,
        };
        engine.judge(&[&header(&claims, &engine.key)]).await
    };
    assert_eq!(judge(NOW - 5, Some("api")).await, Ok(()));
    assert_eq!(judge(NOW - 6, Some("api")).await, Err(Reason::OutsideWindow));
    assert_eq!(judge(NOW, Some("other")).await, Err(Reason::WrongAudience));
    assert_eq!(judge(NOW, None).await, Err(Reason::WrongAudience));
    let lifetime = engine.nonces.uses.lock().expect("lock")[0].lifetime();
    assert_eq!(lifetime, Duration::from_secs(70));
}

/// Neither the key nor the algorithm is a part of what is used up.
#[tokio::test]
async fn the_same_claims_by_another_key_of_the_user_are_a_replay() {
    let keys = [PrivateKey::generate_ed25519(), PrivateKey::generate_rsa(RsaKeySize::Bits2048)];
    let keys = keys.map(|key| key.expect("a key"));
    let user = User::new("guido").with_keys(keys.iter().map(|key| key.public_key().clone()));
    let users = Arc::new(MemoryRepository::new([user]));
    for order in [[0, 1], [1, 0]] {
        let nonces = Arc::new(MemoryNonceBackend::default());
        let authenticator = Authenticator::builder(users.clone(), nonces).build().expect("built");
        let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
        let name = Username::new("guido").expect("a name");
        let claims = Claims::new(name, SystemClock::new().now(), nonce);
        let mut outcomes = Vec::new();
        for key in order.map(|number| &keys[number]) {
            let header = format!("JWT {}", Token::sign(&claims, key).expect("signed").as_str());
            let outcome = authenticator.authenticate([header.as_bytes()]).await;
            outcomes.push(outcome.map(drop).map_err(|rejection| rejection.reason()));
        }
        assert_eq!(outcomes, [Ok(()), Err(Reason::Replayed)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn of_64_simultaneous_requests_with_one_token_one_is_accepted() {
    let engine = Engine::new();
    let mut failures = Vec::new();
    for round in 0..200 {
        let header = Arc::new(engine.header("guido"));
        let start = Arc::new(tokio::sync::Barrier::new(64));
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let (authenticator, header, start) =
                (engine.authenticator.clone(), Arc::clone(&header), Arc::clone(&start));
            requests.spawn(async move {
                start.wait().await;
                authenticator.authenticate([header.as_bytes()]).await.map(drop)
            });
        }
        let outcomes = requests.join_all().await;
        let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let replayed = outcomes
            .iter()
            .filter(|outcome| outcome.is_err_and(|rejection| rejection.reason() == Reason::Replayed))
            .count();
        if (accepted, replayed) != (1, 63) {
            failures.push(format!("round {round}: {accepted} accepted, {replayed} replayed"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(engine.usage.uses.lock().expect("lock").len(), 200);
}
