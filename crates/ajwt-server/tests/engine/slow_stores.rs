//! Stores that answer late, or while time passes that counts.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ajwt_core::{Timestamp, Username};
use ajwt_server::{
    Authenticator, AuthenticatorBuilder, Found, Freshness, KeyAdmin as _, KeySource, MemoryRepository,
    MockClock, NonceBackend, NonceError, NonceOutcome, NonceUse, PublicKeyRepository, Reason,
    RepositoryError, StoredKey, UsageRecorder, User, UserKeys, UserRepository,
};
use async_trait::async_trait;

use crate::{NOW, engine::*, observe::observe};

/// A store of users, keys and nonces in each of whose answers time passes.
#[derive(Debug)]
struct Slow {
    clock: MockClock,
    keys: Vec<StoredKey>,
    nonces: Arc<Nonces>,
    read: Duration,
    consume: Duration,
}

#[async_trait]
impl UserRepository for Slow {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        self.clock.advance(self.read);
        Ok(Some(Found::current(Arc::new(User::new(username).with_stored_keys(self.keys.clone())))))
    }
}

#[async_trait]
impl NonceBackend for Slow {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        let answer = self.nonces.consume(nonce).await;
        self.clock.advance(self.consume);
        answer
    }
}

/// An authenticator over such a store.
fn slow(engine: &Engine, read: Duration, consume: Duration) -> Authenticator {
    let key = StoredKey::new(engine.key.public_key().clone(), KeySource::Key(1));
    slow_with(engine, vec![key], read, consume)
}

fn slow_with(engine: &Engine, keys: Vec<StoredKey>, read: Duration, consume: Duration) -> Authenticator {
    let (clock, nonces) = (engine.clock.clone(), Arc::clone(&engine.nonces));
    let store = Arc::new(Slow { clock, keys, nonces, read, consume });
    Authenticator::builder(Arc::clone(&store) as _, store)
        .clock(Arc::new(engine.clock.clone()))
        .nonce_margin(Duration::from_secs(1))
        .build()
        .expect("an authenticator")
}

/// Stores of which each answers, and ends, after a while only.
#[derive(Debug)]
struct Late {
    user: Arc<User>,
    user_after: Duration,
    /// For so long nothing goes on after the user is there.
    stall: Duration,
    keys_after: Duration,
    nonce_after: Duration,
}

#[async_trait]
impl UserRepository for Late {
    type User = User;

    async fn find_by_username(&self, _: &str, _: Freshness) -> Result<Option<Found<User>>, RepositoryError> {
        tokio::time::sleep(self.user_after).await;
        if !self.stall.is_zero() {
            tokio::time::advance(self.stall).await;
        }
        Ok(Some(Found::current(Arc::clone(&self.user))))
    }
}

#[async_trait]
impl PublicKeyRepository<User> for Late {
    async fn candidates<'u>(
        &'u self,
        user: Option<&'u User>,
        key_id: Option<&str>,
    ) -> Result<Cow<'u, [StoredKey]>, RepositoryError> {
        tokio::time::sleep(self.keys_after).await;
        UserKeys.candidates(user, key_id).await
    }
}

#[async_trait]
impl NonceBackend for Late {
    async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
        assert!(self.stall.is_zero(), "a nonce is used up for a request whose time is over");
        tokio::time::sleep(self.nonce_after).await;
        Ok(NonceOutcome::Fresh)
    }

    async fn close(&self) {
        std::future::pending().await
    }
}

#[async_trait]
impl UsageRecorder for Late {
    fn record(&self, _: KeySource, _: Timestamp) {}

    async fn flush(&self) {
        std::future::pending().await
    }
}

/// What a request comes to before such stores, and how long it takes; and how long it takes to close.
async fn late(
    stores: [u64; 3],
    stall: u64,
    configure: impl FnOnce(AuthenticatorBuilder) -> AuthenticatorBuilder,
) -> (Option<Reason>, Duration, Duration) {
    let engine = Engine::new();
    let user = Arc::new(User::new("guido").with_keys([engine.key.public_key().clone()]));
    let [user_after, keys_after, nonce_after] = stores.map(Duration::from_millis);
    let stall = Duration::from_millis(stall);
    let store = Arc::new(Late { user, user_after, stall, keys_after, nonce_after });
    let builder = Authenticator::builder(Arc::clone(&store) as _, Arc::clone(&store) as _);
    let builder = builder.without_user_keys().keys(Arc::clone(&store) as _).usage(store);
    let authenticator = configure(builder.clock(Arc::new(engine.clock.clone()))).build().expect("built");
    let begun = tokio::time::Instant::now();
    let answer = authenticator.authenticate([engine.header("guido").as_bytes()]).await;
    let took = begun.elapsed();
    authenticator.close().await;
    (answer.err().map(|rejection| rejection.reason()), took, begun.elapsed() - took)
}

/// To the millisecond, which is what paused timers have.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_all_of_its_stores_as_long_as_is_configured() {
    let ms = Duration::from_millis;
    let configured = |builder: AuthenticatorBuilder| builder.store_timeout(Duration::from_millis(300));
    let users = late([3_600_000, 0, 0], 0, |builder| builder).await;
    assert_eq!(users, (Some(Reason::StoreUnavailable), ms(2000), ms(4000)));
    assert_eq!(late([900, 1200, 0], 0, |builder| builder).await.1, ms(2000));
    let nonces = late([900, 900, 900], 0, |builder| builder).await;
    assert_eq!(nonces, (Some(Reason::NonceStoreUnavailable), ms(2000), ms(4000)));
    assert_eq!(late([900, 900, 100], 0, |builder| builder).await.0, None);
    let nonces = late([100, 100, 101], 0, configured).await;
    assert_eq!(nonces, (Some(Reason::NonceStoreUnavailable), ms(300), ms(600)));
    assert_eq!(late([100, 100, 90], 0, configured).await, (None, ms(290), ms(600)));
    let forever =
        late([3_600_000, 0, 0], 0, |builder| builder.store_timeout(Duration::from_secs(7200))).await;
    assert_eq!(forever.0, None);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_time_is_over_uses_no_nonce_up() {
    let (reason, took, _) = late([1, 0, 0], 2000, |builder| builder).await;
    assert_eq!((reason, took), (Some(Reason::StoreUnavailable), Duration::from_millis(2001)));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_named_waits_for_no_repository_after_its_own() {
    let silent = Arc::new(Keys { store: Store::Sleeps, asked: Mutex::default() });
    let engine = Engine::build(Store::Works, Store::Works, None, |builder| {
        builder.keys(Arc::new(UserKeys)).keys(Arc::clone(&silent) as _)
    });
    assert_eq!(engine.judge(&[&engine.header("guido")]).await, Ok(()));
    assert_eq!(silent.asked.lock().expect("lock").len(), 0);
    // One that is not named, or is not the one that signed, does not do.
    let payload = format!(r#"{{"username":"guido","time":{NOW},"nonce":"late"}}"#);
    let named = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, engine.key.public_key().fingerprint());
    for header in [raw(HEAD, &payload, &engine.key), raw(&named, &payload, &stranger())] {
        assert_eq!(engine.judge(&[&header]).await, Err(Reason::StoreUnavailable));
    }
    assert_eq!(silent.asked.lock().expect("lock").len(), 2);
}

#[tokio::test]
async fn a_use_is_told_the_time_after_a_slow_read() {
    let engine = Engine::new();
    let authenticator = slow(&engine, Duration::from_secs(2), Duration::ZERO);
    authenticator.authenticate([engine.header("guido").as_bytes()]).await.expect("accepted");
    let told = engine.nonces.uses.lock().expect("lock")[0].now();
    assert_eq!(told, Timestamp::from_secs(NOW + 2));
}

#[tokio::test]
async fn a_token_whose_window_closes_while_a_store_is_asked_is_refused() {
    let ms = Duration::from_millis;
    let cases = [(1, 0, true), (0, 1, true), (0, 0, false), (3_600_000, 0, true)];
    for (read, consume, is_late) in cases {
        let engine = Engine::new();
        let authenticator = slow(&engine, ms(read), ms(consume));
        // At the very end of its window when it comes in.
        let token = header(&claims("guido", NOW - 20), &engine.key);
        let answer = authenticator.authenticate([token.as_bytes()]).await;
        let reason = answer.err().map(|rejection| rejection.reason());
        assert_eq!(reason, is_late.then_some(Reason::OutsideWindow), "{read} ms, {consume} ms");
    }
}

#[tokio::test]
async fn a_key_that_expires_while_a_store_is_asked_is_of_no_use() {
    let ms = Duration::from_millis;
    for (read, consume, is_late) in [(1, 0, true), (0, 1, true), (0, 0, false)] {
        let engine = Engine::new();
        let key = StoredKey::new(engine.key.public_key().clone(), KeySource::Key(1));
        // For one millisecond more.
        let key = key.with_validity(None, Some(Timestamp::from_millis(NOW * 1000 + 1)));
        let authenticator = slow_with(&engine, vec![key], ms(read), ms(consume));
        let answer = authenticator.authenticate([engine.header("guido").as_bytes()]).await;
        let reason = answer.err().map(|rejection| rejection.reason());
        assert_eq!(reason, is_late.then_some(Reason::NoCandidateKey), "{read} ms, {consume} ms");
    }
}

#[tokio::test]
async fn a_slow_read_lets_no_token_outlive_its_nonce() {
    // Used as early as can be, and again when it comes in at the end of its window, to a store so
    // slow that the first use is forgotten by then.
    let engine = Engine::new();
    let token = header(&claims("guido", NOW + 20), &engine.key);
    let prompt = slow(&engine, Duration::ZERO, Duration::ZERO);
    prompt.authenticate([token.as_bytes()]).await.expect("accepted");
    engine.clock.advance(Duration::from_secs(40));
    let slow = slow(&engine, Duration::from_millis(1900), Duration::ZERO);
    let again = slow.authenticate([token.as_bytes()]).await;
    assert!(again.is_err_and(|rejection| rejection.reason() == Reason::OutsideWindow));
}

/// A store of nonces that is asked while somebody takes the user out.
#[derive(Debug)]
struct RevokesMeanwhile(Arc<MemoryRepository>);

#[async_trait]
impl NonceBackend for RevokesMeanwhile {
    async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
        let guido = Username::new("guido").expect("a name");
        self.0.set_user_active(&guido, false).await.expect("deactivated");
        Ok(NonceOutcome::Fresh)
    }
}

/// The nonce is used up, and what comes after it has to be quick.
#[tokio::test]
async fn what_is_revoked_while_a_store_is_asked_ends_with_the_next_request() {
    let engine = Engine::new();
    let user = User::new("guido").with_keys([engine.key.public_key().clone()]);
    let users = Arc::new(MemoryRepository::new([user]));
    let builder = Authenticator::builder(users.clone(), Arc::new(RevokesMeanwhile(users)));
    let authenticator = builder.clock(Arc::new(engine.clock.clone())).build().expect("built");
    authenticator.authenticate([engine.header("guido").as_bytes()]).await.expect("by what was read before");
    let next = authenticator.authenticate([engine.header("guido").as_bytes()]).await;
    assert!(next.is_err_and(|rejection| rejection.reason() == Reason::InactiveUser));
}

/// As asynchronous code does, once it has waited.
#[derive(Debug)]
struct Panics;

#[async_trait]
impl UserRepository for Panics {
    type User = User;

    async fn find_by_username(&self, _: &str, _: Freshness) -> Result<Option<Found<User>>, RepositoryError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        panic!("a store panics");
    }
}

#[test]
fn a_store_that_panics_is_not_told_as_given_up() {
    let (outcome, seen) = observe(async {
        let engine = Engine::new();
        let builder = Authenticator::builder(Arc::new(Panics), engine.nonces.clone());
        let authenticator = builder.clock(Arc::new(engine.clock.clone())).build().expect("built");
        let header = engine.header("guido");
        tokio::spawn(async move { authenticator.authenticate([header.as_bytes()]).await.is_ok() }).await
    });
    assert!(outcome.expect_err("a panic").is_panic());
    assert!(seen.counters.is_empty() && !seen.log.contains("ERROR"), "{:?}\n{}", seen.counters, seen.log);
}

/// A caller whose patience ends before the store's, as where a timeout stands around the layer.
#[test]
fn a_request_that_is_given_up_while_a_store_hangs_is_counted_and_told_of() {
    let sleeps = Store::Sleeps;
    let cases = [
        (sleeps, Store::Works, None, Reason::StoreUnavailable, "reading a user took too long"),
        (Store::Works, sleeps, None, Reason::StoreUnavailable, "reading keys took too long"),
        (
            Store::Works,
            Store::Works,
            Some(NonceStore::Store(sleeps)),
            Reason::NonceStoreUnavailable,
            "consuming a nonce took too long",
        ),
    ];
    for (users, keys, nonces, reason, told) in cases {
        let ((), seen) = observe(async {
            let engine = Engine::with(users, keys, nonces);
            // The first is no sign of a store that hangs.
            for patience in [499, 501, 501].map(Duration::from_millis) {
                let header = engine.header("guido");
                assert!(tokio::time::timeout(patience, engine.judge(&[&header])).await.is_err(), "{told}");
            }
        });
        let counted = BTreeMap::from([(("given_up".to_owned(), reason.label().to_owned()), 3)]);
        assert_eq!(seen.counters, counted, "{told}");
        let errors: Vec<_> = seen.log.lines().filter(|line| line.contains("ERROR")).collect();
        assert!(
            matches!(errors[..], [one] if one.contains(told) && one.contains("unlogged=0")),
            "{errors:?}"
        );
    }
}
