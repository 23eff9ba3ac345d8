//! What a decision costs: reads of the store and signature checks.

use std::sync::{Mutex, atomic::AtomicUsize, atomic::Ordering};

use ajwt_core::{Claims, JwkSet, Nonce, PrivateKey, RsaKeySize, SignedToken, Username};
use async_trait::async_trait;

use super::*;
use crate::{InsecureNoReplayProtection, KeySource, MockClock};

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

/// A store and, before it, a cache that may be out of date. Counts reads of the store.
#[derive(Debug, Default)]
struct CachedStore {
    cache: Mutex<Option<Arc<User>>>,
    store: Mutex<Option<Arc<User>>>,
    reads: AtomicUsize,
}

impl CachedStore {
    fn new(cache: Option<User>, store: Option<User>) -> Arc<Self> {
        let [cache, store] = [cache, store].map(|user| Mutex::new(user.map(Arc::new)));
        Arc::new(Self { cache, store, reads: AtomicUsize::new(0) })
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl UserRepository for CachedStore {
    type User = User;

    async fn find_by_username(
        &self,
        _: &str,
        freshness: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        let cached = self.cache.lock().expect("lock").clone();
        if let (Freshness::MayBeCached, Some(user)) = (freshness, cached) {
            return Ok(Some(Found::cached(user)));
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(self.store.lock().expect("lock").clone().map(Found::current))
    }
}

fn authenticator(users: &Arc<CachedStore>) -> Authenticator {
    Authenticator::builder(Arc::clone(users) as _, Arc::new(InsecureNoReplayProtection))
        .clock(Arc::new(MockClock::new(NOW)))
        .build()
        .expect("an authenticator")
}

fn sign(key: &PrivateKey) -> SignedToken {
    let name = Username::new("guido").expect("a name");
    let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
    Token::sign(&Claims::new(name, NOW, nonce), key).expect("a token")
}

#[test]
fn clones_are_one_authenticator_and_others_are_not() {
    let users = CachedStore::new(None, None);
    let (one, other) = (authenticator(&users), authenticator(&users));
    assert!(one.is_clone_of(&one.clone()));
    assert!(!one.is_clone_of(&other));
}

/// The outcome, and how many signature checks it took.
async fn verify(authenticator: &Authenticator, token: &SignedToken) -> (Result<PublicKey, Reason>, usize) {
    let token = UntrustedToken::parse(token.as_str()).expect("well-formed");
    let inner = &*authenticator.inner;
    let mut checks = inner.checks(&token, NOW);
    let outcome = inner.verify(&mut checks, &inner.patience()).await;
    let with_hot_keys = inner.hot_keys.is_some() && token.algorithm() == Algorithm::EdDsa;
    if outcome.is_err() {
        assert_eq!(checks.made_by_table, with_hot_keys, "a refusal by {outcome:?}");
    }
    (outcome.map(|(_, _, key)| key.key().clone()), checks.made + usize::from(checks.made_by_table))
}

fn ed25519() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

fn ed25519_keys(count: usize) -> Vec<PublicKey> {
    (0..count).map(|_| ed25519().public_key().clone()).collect()
}

/// Moduli of nobody.
fn rsa_keys(count: usize, bits: usize) -> Vec<PublicKey> {
    let key = |number: usize| {
        let mut modulus = vec![0xc5; bits / 8];
        modulus[1] = u8::try_from(number).expect("few keys");
        PublicKey::from_rsa_components(&modulus, &[1, 0, 1]).expect("a key")
    };
    (0..count).map(key).collect()
}

fn guido(keys: Vec<PublicKey>) -> User {
    User::new("guido").with_keys(keys)
}

#[tokio::test]
async fn every_refusal_costs_one_read_and_four_signature_checks() {
    let mut users = vec![("unknown".to_owned(), None, Reason::UnknownUser)];
    let mut add = |what: String, user: User, reason| users.push((what, Some(user), reason));
    add("without keys".into(), guido(Vec::new()), Reason::NoCandidateKey);
    add("found by a folded name".into(), User::new("GUIDO").with_keys(ed25519_keys(2)), Reason::UnknownUser);
    for count in 1..=6 {
        let mixed = || [ed25519_keys(count), rsa_keys(count, 2048)].concat();
        add(format!("with {count} keys of each type"), guido(mixed()), Reason::BadSignature);
        add(format!("inactive, {count} keys"), guido(mixed()).with_active(false), Reason::InactiveUser);
        let other_length = guido(rsa_keys(count, 3072));
        add(format!("with {count} RSA keys of another length"), other_length, Reason::NoCandidateKey);
    }
    let expired = |key| StoredKey::new(key, KeySource::Key(1)).with_validity(None, Some(NOW));
    let expired = [ed25519_keys(2), rsa_keys(2, 2048)].concat().into_iter().map(expired).collect();
    let expired = User::new("guido").with_stored_keys(expired);
    add("with expired keys".into(), expired, Reason::NoCandidateKey);
    let of_jwks = |key: PublicKey| StoredKey::of_jwk(&key.to_jwk(), KeySource::Trust(1));
    let of_jwks = [ed25519_keys(2), rsa_keys(2, 2048)].concat().into_iter().map(of_jwks).collect();
    let of_jwks = User::new("guido").with_stored_keys(of_jwks);
    add("with JWKS keys of other ids".into(), of_jwks, Reason::NoCandidateKey);

    let strangers =
        [ed25519(), PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("an RSA key of a stranger")];
    let mut failures = Vec::new();
    for (what, user, reason) in users {
        for stranger in &strangers {
            let is_cached = [false, true].into_iter().filter(|cached| user.is_some() || !cached);
            for is_cached in is_cached {
                let cache = user.clone().filter(|_| is_cached);
                let users = CachedStore::new(cache, user.clone());
                let (outcome, made) = verify(&authenticator(&users), &sign(stranger)).await;
                let algorithm = stranger.public_key().preferred_algorithm();
                let reads = users.reads();
                if outcome.as_ref() != Err(&reason) || (reads, made) != (1, 4) {
                    failures.push(format!(
                        "{what}, {algorithm:?}, cached: {is_cached}: {outcome:?}, not {reason:?}; \
                         {reads} reads, not 1; {made} checks, not 4"
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn a_key_is_used_from_its_beginning_until_before_its_end() {
    let key = ed25519();
    let at = |offset: Option<i64>| offset.map(|offset| Timestamp::from_millis(NOW.as_millis() + offset));
    for (not_before, expires_at, is_used) in [
        (None, None, true),
        (Some(-1), None, true),
        (Some(0), None, true),
        (Some(1), None, false),
        (None, Some(-1), false),
        (None, Some(0), false),
        (None, Some(1), true),
        (Some(0), Some(1), true),
        (Some(0), Some(0), false),
    ] {
        let stored = StoredKey::new(key.public_key().clone(), KeySource::Key(1));
        let stored = stored.with_validity(at(not_before), at(expires_at));
        let users = CachedStore::new(None, Some(User::new("guido").with_stored_keys(vec![stored])));
        let (outcome, _) = verify(&authenticator(&users), &sign(&key)).await;
        let due = if is_used { Ok(key.public_key().clone()) } else { Err(Reason::NoCandidateKey) };
        assert_eq!(outcome, due, "from {not_before:?} until {expires_at:?} ms");
    }
}

#[tokio::test]
async fn an_acceptance_from_the_cache_costs_no_read_and_one_check() {
    let key = ed25519();
    let mut keys = ed25519_keys(3);
    keys.push(key.public_key().clone());
    let users = CachedStore::new(Some(guido(keys.clone())), Some(guido(keys)));
    let (outcome, made) = verify(&authenticator(&users), &sign(&key)).await;
    assert_eq!(outcome.as_ref(), Ok(key.public_key()));
    // `kid` names the fourth key: it is tried first.
    assert_eq!((users.reads(), made), (0, 1));
}

#[tokio::test]
async fn a_key_that_was_just_added_works_at_once_for_one_read() {
    let (old, new) = (ed25519_keys(2), ed25519());
    let store = [vec![new.public_key().clone()], old.clone()].concat();
    let users = CachedStore::new(Some(guido(old)), Some(guido(store)));
    let (outcome, made) = verify(&authenticator(&users), &sign(&new)).await;
    assert_eq!(outcome.as_ref(), Ok(new.public_key()));
    // The two that the cache knew, then the new one alone.
    assert_eq!((users.reads(), made), (1, 3));
}

#[tokio::test]
async fn what_the_cache_says_never_refuses() {
    let key = ed25519();
    let store = guido(vec![key.public_key().clone()]);
    let caches = [
        ("inactive", store.clone().with_active(false)),
        ("without keys", guido(Vec::new())),
        ("with another key", guido(ed25519_keys(1))),
        ("of another name", User::new("GUIDO")),
    ];
    let mut failures = Vec::new();
    for (what, cache) in caches {
        let users = CachedStore::new(Some(cache), Some(store.clone()));
        let (outcome, _) = verify(&authenticator(&users), &sign(&key)).await;
        if outcome.as_ref() != Ok(key.public_key()) || users.reads() != 1 {
            failures.push(format!("cached {what}: {outcome:?} after {} reads", users.reads()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Has the keys of a user who is inactive or not there, which no repository should.
#[derive(Debug)]
struct Careless(Vec<StoredKey>);

#[async_trait]
impl PublicKeyRepository<User> for Careless {
    async fn candidates<'a>(
        &'a self,
        _: Option<&'a User>,
        _: Option<&str>,
    ) -> Result<Cow<'a, [StoredKey]>, RepositoryError> {
        Ok(Cow::Borrowed(&self.0))
    }
}

#[tokio::test]
async fn a_careless_repository_lets_nobody_in_who_is_inactive_or_unknown() {
    let key = ed25519();
    let careless = Arc::new(Careless(vec![StoredKey::new(key.public_key().clone(), KeySource::Key(1))]));
    for (user, due) in [
        (Some(guido(Vec::new())), Ok(key.public_key().clone())),
        (Some(guido(Vec::new()).with_active(false)), Err(Reason::InactiveUser)),
        (None, Err(Reason::UnknownUser)),
    ] {
        let users = CachedStore::new(None, user);
        let authenticator = Authenticator::builder(users, Arc::new(InsecureNoReplayProtection))
            .clock(Arc::new(MockClock::new(NOW)))
            .keys(Arc::clone(&careless) as _)
            .build()
            .expect("an authenticator");
        assert_eq!(verify(&authenticator, &sign(&key)).await.0, due);
    }
}

#[tokio::test]
async fn a_removed_user_is_refused_by_the_store_behind_a_cache_that_has_another_key() {
    let users = CachedStore::new(Some(guido(ed25519_keys(2))), None);
    let (outcome, made) = verify(&authenticator(&users), &sign(&ed25519())).await;
    assert_eq!(outcome, Err(Reason::UnknownUser));
    assert_eq!((users.reads(), made), (1, 4));
}

#[tokio::test]
async fn at_most_four_keys_are_tried_the_named_one_first_then_the_newest() {
    let keys: Vec<_> = (0..6).map(|_| ed25519()).collect();
    let public = keys.iter().map(|key| key.public_key().clone());
    let users = CachedStore::new(None, Some(guido(public.collect())));
    let authenticator = authenticator(&users);
    let mut failures = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let (outcome, made) = verify(&authenticator, &sign(key)).await;
        if outcome.as_ref() != Ok(key.public_key()) || made != 1 {
            failures.push(format!("key {index}, named: {outcome:?} after {made} checks"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A store that is down, and before it a cache that lets entries serve all the same.
#[derive(Debug)]
struct Down {
    cache: Option<Arc<User>>,
    reads: AtomicUsize,
}

#[async_trait]
impl UserRepository for Down {
    type User = User;

    async fn find_by_username(
        &self,
        _: &str,
        freshness: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let cached = self.cache.clone().filter(|_| freshness == Freshness::MayBeCached);
        let error = || RepositoryError::timeout("reading a user");
        cached.map(|user| Some(Found::cached(user).after_failed_read())).ok_or_else(error)
    }
}

/// Known or not, forged tokens cost one read and four checks, and are answered with 503.
#[tokio::test]
async fn a_store_that_is_down_tells_no_names() {
    let users = [None, Some(guido(Vec::new())), Some(guido(ed25519_keys(3))), Some(guido(ed25519_keys(9)))];
    for user in users {
        let store = Arc::new(Down { cache: user.map(Arc::new), reads: AtomicUsize::new(0) });
        let authenticator =
            Authenticator::builder(Arc::clone(&store) as _, Arc::new(InsecureNoReplayProtection))
                .clock(Arc::new(MockClock::new(NOW)))
                .build()
                .expect("an authenticator");
        let (outcome, made) = verify(&authenticator, &sign(&ed25519())).await;
        assert_eq!(outcome, Err(Reason::StoreUnavailable), "{store:?}");
        assert_eq!((store.reads.load(Ordering::SeqCst), made), (1, 4), "{store:?}");
    }
}

#[test]
fn candidates_are_tried_by_kid_then_age_over_all_repositories() {
    let keys = ed25519_keys(8);
    let key_of = |number: usize| StoredKey::new(keys[number].clone(), KeySource::Key(number as i64));
    let of_jwks = |number: usize| StoredKey::of_jwk(&keys[number].to_jwk(), KeySource::Trust(number as i64));
    let signer = ed25519();
    let token = sign(&signer);
    let token = UntrustedToken::parse(token.as_str()).expect("well-formed");
    // Of the token's `kid`, and none that has signed it.
    let (own, named) = (keys[7].fingerprint().as_str(), signer.public_key().fingerprint().as_str());
    let set = format!(r#"{{"keys":[{}]}}"#, keys[7].to_jwk().to_json().replace(own, named));
    let set = JwkSet::from_json(set).expect("a set");
    let named = StoredKey::of_jwk(&set.keys()[0], KeySource::Trust(7));
    let lists = [
        Cow::Owned(vec![of_jwks(0), key_of(1), key_of(2)]),
        Cow::Owned(vec![key_of(1), key_of(3), named, key_of(4), key_of(5), of_jwks(6)]),
    ];
    let authenticator = authenticator(&CachedStore::new(None, None));
    let mut checks = authenticator.inner.checks(&token, NOW);
    assert_eq!(
        checks.first_that_verifies(&lists, &[Rank::Named, Rank::Static]).err(),
        Some(Reason::BadSignature)
    );
    assert_eq!(checks.tried, [7, 1, 2, 3].map(|number| keys[number].clone()));
    assert_eq!(checks.made, 4);
}

/// What is hot is no more than faster: every refusal costs four checks and one by a table.
#[tokio::test]
async fn refusals_cost_the_same_whether_a_key_is_hot_or_not() {
    let (hot, cold) = (ed25519(), ed25519());
    let store = CachedStore::new(None, None);
    let authenticator = Authenticator::builder(Arc::clone(&store) as _, Arc::new(InsecureNoReplayProtection))
        .clock(Arc::new(MockClock::new(NOW)))
        .hot_keys(1)
        .build()
        .expect("an authenticator");
    let set = |user| *store.store.lock().expect("lock") = user;
    let guido = |keys: &[&PrivateKey]| {
        Some(Arc::new(self::guido(keys.iter().map(|key| key.public_key().clone()).collect())))
    };
    set(guido(&[&hot]));
    let hot_keys = authenticator.inner.hot_keys.as_ref().expect("asked for");
    let heated = async {
        while hot_keys.table_of(hot.public_key()).is_none() {
            assert!(verify(&authenticator, &sign(&hot)).await.0.is_ok());
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), heated).await.expect("a table is built in time");
    let token = sign(&hot);
    let token = UntrustedToken::parse(token.as_str()).expect("well-formed");
    let mut checks = authenticator.inner.checks(&token, NOW);
    assert!(authenticator.inner.verify(&mut checks, &authenticator.inner.patience()).await.is_ok());
    assert_eq!((checks.made, checks.made_by_table), (0, true), "by the table alone");
    set(guido(&[&cold]));
    let (outcome, checks) = verify(&authenticator, &sign(&cold)).await;
    assert_eq!((outcome.as_ref(), checks), (Ok(cold.public_key()), 1));

    let stranger = ed25519();
    for (user, reason) in [
        (guido(&[&hot]), Reason::BadSignature),
        (guido(&[&cold]), Reason::BadSignature),
        (guido(&[&cold, &hot]), Reason::BadSignature),
        (guido(&[]), Reason::NoCandidateKey),
        (None, Reason::UnknownUser),
    ] {
        set(user);
        assert_eq!(verify(&authenticator, &sign(&stranger)).await, (Err(reason), 5));
    }
    // There are tables for Ed25519 alone.
    let of_rsa = PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("an RSA key of a stranger");
    assert_eq!(verify(&authenticator, &sign(&of_rsa)).await, (Err(Reason::UnknownUser), 4));
    // A key that is not the user's any more accepts nothing, hot or not.
    set(guido(&[&cold]));
    assert_eq!(verify(&authenticator, &sign(&hot)).await, (Err(Reason::BadSignature), 5));
}
