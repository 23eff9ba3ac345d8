//! Keys from a trusted URL through all crates: a caller that publishes its set, a store with the trust,
//! the user cache, the cache of sets, and the engine.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_axum::JwksService;
use ajwt_core::{Claims, Nonce, PrivateKey, PublicKey, Timestamp, Token, Username};
use ajwt_jwks::{AddressPolicy, JwksCache, JwksClient, JwksKeyRepository};
use ajwt_server::{
    Authenticator, CachedUserRepository, Clock, InsecureNoReplayProtection, KeyAdmin as _, KeySource,
    MockClock, NewKey, Reason, SystemClock, UserCacheOptions, UserKeys,
};
use ajwt_sqlx::SqliteRepository;
use ajwt_test_support::until;
use axum::{Router, middleware::map_request};
use tempfile::TempDir;
use tokio::net::TcpListener;

const STALENESS: Duration = Duration::from_secs(1);

/// What the machine may add to what the cache promises.
const SLACK: Duration = Duration::from_secs(2);

/// A service that calls others, and publishes its keys.
struct Caller {
    published: Arc<Mutex<Vec<PublicKey>>>,
    url: String,
    fetches: Arc<AtomicUsize>,
}

impl Caller {
    async fn start(key: &PrivateKey) -> Self {
        let published = Arc::new(Mutex::new(vec![key.public_key().clone()]));
        let keys = Arc::clone(&published);
        let jwks = JwksService::from_fn(move || keys.lock().expect("lock").clone());
        let fetches = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&fetches);
        let app = Router::new().route_service(JwksService::PATH, jwks).layer(map_request(
            move |request: axum::extract::Request| {
                count.fetch_add(1, Ordering::SeqCst);
                async { request }
            },
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}{}", listener.local_addr().expect("an address"), JwksService::PATH);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { published, url, fetches }
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

/// A service that trusts the caller's URL for the user guido.
struct Service {
    _folder: TempDir,
    repository: SqliteRepository,
    cache: Arc<JwksCache>,
    authenticator: Authenticator,
}

impl Service {
    async fn start(caller: &Caller, clock: Arc<dyn Clock>, staleness: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("ajwt.db").display());
        let repository = SqliteRepository::connect(&url).await.expect("opened");
        repository.migrate().await.expect("migrated");
        repository.add_user(&guido()).await.expect("added");
        repository.add_trust(&guido(), &caller.url).await.expect("trusted");

        let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
        let client = JwksClient::builder().address_policy(policy).insecure_allow_http();
        let cache = JwksCache::builder(client.build().expect("a client")).clock(Arc::clone(&clock));
        let cache = Arc::new(cache.build());
        let warm = cache.warm_up(&repository).await.expect("listed");
        assert_eq!((warm.trusted, warm.fetched), (1, 1));

        let options = UserCacheOptions::default().max_staleness(staleness);
        let users = CachedUserRepository::over(Arc::new(repository.clone()), options);
        let authenticator = Authenticator::builder(Arc::new(users), Arc::new(InsecureNoReplayProtection))
            .keys(Arc::new(JwksKeyRepository::new(Arc::clone(&cache))))
            .usage(Arc::new(repository.batched_usage()))
            .clock(clock)
            .build()
            .expect("an authenticator");
        Self { _folder: folder, repository, cache, authenticator }
    }

    async fn authenticate(&self, key: &PrivateKey, now: Timestamp) -> Result<KeySource, Reason> {
        authenticate(&self.authenticator, key, now).await
    }
}

async fn authenticate(
    authenticator: &Authenticator,
    key: &PrivateKey,
    now: Timestamp,
) -> Result<KeySource, Reason> {
    let claims = Claims::new(guido(), now, Nonce::generate(getrandom::fill).expect("a nonce"));
    let header = format!("JWT {}", Token::sign(&claims, key).expect("a token").as_str());
    let accepted = authenticator.authenticate([header.as_bytes()]).await;
    accepted.map(|accepted| accepted.key().source()).map_err(|rejection| rejection.reason())
}

fn guido() -> Username {
    Username::new("guido").expect("a name")
}

fn key() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_that_is_removed_or_a_user_that_is_deactivated_ends_the_use_of_cached_keys_in_time() {
    let clock = SystemClock::new();
    for staleness in [STALENESS, Duration::ZERO] {
        for change in ["trust", "deactivated", "removed"] {
            let key = key();
            let caller = Caller::start(&key).await;
            let service = Service::start(&caller, Arc::new(clock), staleness).await;
            for _ in 0..5 {
                let accepted = service.authenticate(&key, clock.now()).await;
                assert!(matches!(accepted, Ok(KeySource::Trust(_))), "{change}: {accepted:?}");
            }
            let due = match change {
                "trust" => {
                    let id = service.repository.trusts(&guido()).await.expect("listed")[0].id;
                    service.repository.remove_trust(&guido(), id).await.expect("removed");
                    Reason::NoCandidateKey
                }
                "deactivated" => {
                    service.repository.set_user_active(&guido(), false).await.expect("deactivated");
                    Reason::InactiveUser
                }
                _ => {
                    service.repository.remove_user(&guido()).await.expect("removed");
                    Reason::UnknownUser
                }
            };
            let changed = clock.monotonic();
            let refused = loop {
                // How long a request takes is the machine's affair: what counts is when it began.
                let begun = clock.monotonic() - changed;
                let Err(refused) = service.authenticate(&key, clock.now()).await else {
                    assert!(!staleness.is_zero(), "{change}: accepted once more");
                    assert!(begun <= staleness + SLACK, "{change}: accepted when it began {begun:?} after");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                break refused;
            };
            assert_eq!(refused, due, "{change}");
            // The set itself is still there, and nobody asked for it again.
            let state = service.cache.snapshot().remove(0);
            assert!(state.is_trusted && state.keys == 1, "{change}: {state:?}");
            assert_eq!(caller.fetches(), 1, "{change}");
        }
    }
}

#[tokio::test]
async fn a_use_is_noted_with_the_trust_and_closing_ends_the_background_work() {
    let (key, clock) = (key(), SystemClock::new());
    let caller = Caller::start(&key).await;
    let service = Service::start(&caller, Arc::new(clock), STALENESS).await;
    let trust = service.repository.trusts(&guido()).await.expect("listed").remove(0);
    assert_eq!(service.authenticate(&key, clock.now()).await, Ok(KeySource::Trust(trust.id)));
    service.authenticator.close().await;
    let noted = service.repository.trusts(&guido()).await.expect("listed")[0].last_used_on;
    assert!(noted.is_some_and(|noted| noted.as_secs().abs_diff(clock.now().as_secs()) < 60), "{noted:?}");

    // Nothing is fetched any more: a trust that is added now stays pending.
    service.repository.add_trust(&guido(), &format!("{}?again", caller.url)).await.expect("trusted");
    assert_eq!(service.cache.warm_up(&service.repository).await.expect("listed").pending, 1);
    assert_eq!(caller.fetches(), 1);
}

#[tokio::test]
async fn sets_come_before_stored_keys_unless_it_is_asked_otherwise() {
    let (key, clock) = (key(), SystemClock::new());
    let caller = Caller::start(&key).await;
    let service = Service::start(&caller, Arc::new(clock), STALENESS).await;
    let own = NewKey::of_key(key.public_key().clone());
    let own = service.repository.add_key(&guido(), &own).await.expect("added").id;
    assert!(matches!(service.authenticate(&key, clock.now()).await, Ok(KeySource::Trust(_))));

    let repository = Arc::new(service.repository.clone());
    let own_first = Authenticator::builder(repository, Arc::new(InsecureNoReplayProtection))
        .without_user_keys()
        .keys(Arc::new(UserKeys))
        .keys(Arc::new(JwksKeyRepository::new(Arc::clone(&service.cache))))
        .build()
        .expect("an authenticator");
    assert_eq!(authenticate(&own_first, &key, clock.now()).await, Ok(KeySource::Key(own)));
}

#[tokio::test]
async fn a_key_that_is_published_before_it_signs_works_from_its_first_token_on() {
    let clock = MockClock::new(SystemClock::new().now());
    let [old, next, hasty] = [key(), key(), key()];
    let public = |keys: &[&PrivateKey]| keys.iter().map(|key| key.public_key().clone()).collect::<Vec<_>>();
    let caller = Caller::start(&old).await;
    let service = Service::start(&caller, Arc::new(clock.clone()), STALENESS).await;
    *caller.published.lock().expect("lock") = public(&[&old, &next]);
    // The published document is fresh for five minutes; the caller waits for ten.
    clock.advance(Duration::from_secs(10 * 60));
    let are_there = async || caller.fetches() >= 2 && service.cache.snapshot()[0].keys >= 2;
    until("both keys are there", are_there).await;
    for signer in [&next, &old, &next] {
        assert!(service.authenticate(signer, clock.now()).await.is_ok());
    }
    assert_eq!(caller.fetches(), 2, "no request had to fetch");

    // One that signs as soon as it is published is refused until the fetch that its token causes ends.
    clock.advance(Duration::from_secs(31));
    *caller.published.lock().expect("lock") = public(&[&hasty]);
    until("its key is there", async || {
        let answer = service.authenticate(&hasty, clock.now()).await;
        assert!(matches!(answer, Ok(_) | Err(Reason::NoCandidateKey)), "{answer:?}");
        answer.is_ok()
    })
    .await;
    assert_eq!(caller.fetches(), 3);
    assert_eq!(service.authenticate(&old, clock.now()).await, Err(Reason::NoCandidateKey));
}
