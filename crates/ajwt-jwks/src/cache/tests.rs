//! The cache on paused time: what is fetched when, and for how long it is used.

mod life;
#[cfg(feature = "metrics")]
mod recorder;
mod waiting;

use std::collections::BTreeSet;

use ajwt_core::{JwkSet, PrivateKey, PublicKey};
use ajwt_server::{KeySource, MemoryRepository, PublicKeyRepository, User};
use ajwt_test_support::TokioClock;
use http::{HeaderMap, HeaderValue, header::ETAG};
use tokio::{
    runtime::{self, Runtime},
    time::Instant,
};

use super::*;
use crate::JwksKeyRepository;

const A: &str = "https://a.example/jwks.json";
const B: &str = "https://b.example/jwks.json";

const DEADLINE: Duration = Duration::from_secs(5);

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// How an endpoint answers.
#[derive(Clone, Debug)]
enum Answer {
    Keys(Vec<PublicKey>),
    /// With a `Cache-Control` of so many seconds.
    FreshFor(u64, Vec<PublicKey>),
    /// A hundred entries that cannot be used, other ones each time, to be fetched again soon.
    Odd,
    NotModified,
    /// The keys, and from then on that nothing has changed, to whoever asks whether it has.
    Unchanged(Vec<PublicKey>),
    Fails,
    Hangs,
    Panics,
}

/// Endpoints that do as they are told.
#[derive(Debug)]
struct Script {
    answers: Mutex<HashMap<String, Answer>>,
    delay: Mutex<Duration>,
    fetches: Mutex<Vec<(String, f64)>>,
    at_once: Mutex<(usize, usize)>,
    start: Instant,
}

impl Script {
    fn answer(&self, url: &str, answer: Answer) {
        lock(&self.answers).insert(url.to_owned(), answer);
    }

    fn delay(&self, seconds: u64) {
        *lock(&self.delay) = Duration::from_secs(seconds);
    }

    /// When a URL was fetched since the last call, in seconds of the test.
    fn fetches(&self, url: &str) -> Vec<f64> {
        let mut fetches = lock(&self.fetches);
        let times = fetches.iter().filter(|(fetched, _)| fetched == url).map(|(_, at)| *at).collect();
        fetches.retain(|(fetched, _)| fetched != url);
        times
    }
}

#[async_trait]
impl Source for Script {
    async fn fetch(&self, url: &str, known: &Validators) -> Result<JwksResponse, FetchError> {
        lock(&self.fetches).push((url.to_owned(), self.start.elapsed().as_secs_f64()));
        let answer = lock(&self.answers).get(url).cloned().unwrap_or(Answer::Fails);
        {
            let mut at_once = lock(&self.at_once);
            at_once.0 += 1;
            at_once.1 = at_once.1.max(at_once.0);
        }
        let delay = *lock(&self.delay);
        tokio::time::sleep(if matches!(answer, Answer::Hangs) { DEADLINE } else { delay }).await;
        lock(&self.at_once).0 -= 1;
        let response = |set, fresh_for| JwksResponse { set, validators: Validators::default(), fresh_for };
        match answer {
            Answer::Keys(keys) => Ok(response(Some(JwkSet::of_keys(keys)), None)),
            Answer::FreshFor(seconds, keys) => {
                Ok(response(Some(JwkSet::of_keys(keys)), Some(Duration::from_secs(seconds))))
            }
            Answer::Odd => {
                let now = self.start.elapsed().as_millis();
                let entries = (0..100).map(|number| format!(r#"{{"kid":"{now} {number}","kty":"EC"}}"#));
                let document = format!(r#"{{"keys":[{}]}}"#, entries.collect::<Vec<_>>().join(","));
                let set = JwkSet::from_json(document).expect("a set");
                Ok(response(Some(set), Some(Duration::ZERO)))
            }
            Answer::NotModified => Ok(response(None, None)),
            Answer::Unchanged(keys) => {
                let set = known.is_empty().then(|| JwkSet::of_keys(keys));
                let etag = HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"1\""))]);
                Ok(JwksResponse { set, validators: Validators::of_response(&etag), fresh_for: None })
            }
            Answer::Fails => Err(FetchError::Status { found: 500 }),
            Answer::Hangs => Err(FetchError::Timeout { deadline: DEADLINE }),
            Answer::Panics => panic!("a fetch that panics, as this test wants it"),
        }
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }
}

struct Fixture {
    script: Arc<Script>,
    cache: Arc<JwksCache>,
    keys: JwksKeyRepository,
}

impl Fixture {
    /// With a key that `A` answers with.
    fn new() -> (Self, PublicKey) {
        let (start, key) = (Instant::now(), key());
        let script = Arc::new(Script {
            answers: Mutex::default(),
            delay: Mutex::default(),
            fetches: Mutex::default(),
            at_once: Mutex::default(),
            start,
        });
        script.answer(A, Answer::Keys(vec![key.clone()]));
        let builder = JwksCacheBuilder::new(Arc::clone(&script) as _);
        let cache = Arc::new(builder.clock(Arc::new(TokioClock(start))).build());
        let keys = JwksKeyRepository::new(Arc::clone(&cache));
        (Self { script, cache, keys }, key)
    }

    async fn candidates(&self, user: &User, key_id: &str) -> Vec<StoredKey> {
        self.keys.candidates(Some(user), Some(key_id)).await.expect("no store can fail").into_owned()
    }

    /// Whether a user of these URLs has the key.
    async fn has(&self, urls: &[&str], key: &PublicKey) -> bool {
        let found = self.candidates(&user(urls), key.fingerprint().as_str()).await;
        found.iter().any(|found| found.key() == key)
    }

    /// Asks for a key that nobody has.
    async fn ask_for_unknown(&self, urls: &[&str]) {
        let found = self.candidates(&user(urls), "no such key").await;
        assert!(found.is_empty(), "{found:?}");
    }

    /// Seconds since the test began.
    fn now(&self) -> f64 {
        self.script.start.elapsed().as_secs_f64()
    }

    async fn warm_up(&self, urls: &[&str]) -> WarmUp {
        self.cache.warm_up(&MemoryRepository::new([user(urls)])).await.expect("memory")
    }
}

fn key() -> PublicKey {
    PrivateKey::generate_ed25519().expect("a key").public_key().clone()
}

/// A user of the URLs, by trusts that are numbered from 1.
fn user(urls: &[&str]) -> User {
    let urls = (1..).zip(urls).map(|(id, url)| TrustedUrl::new(id, *url));
    User::new("guido").with_jwks_urls(urls.collect())
}

/// Which ends when it is dropped.
fn paused_runtime() -> Runtime {
    let mut runtime = runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime")
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("https://{number}.example/")).collect()
}

/// Whether each time is the one due, or up to a second later.
fn are_at(found: &[f64], due: &[f64]) -> bool {
    found.len() == due.len() && found.iter().zip(due).all(|(found, due)| (*due..=due + 1.01).contains(found))
}

/// Whether each is a refresh of the one before: so many seconds later, up to a tenth sooner and up to one later.
fn are_refreshes(found: &[f64], interval: f64) -> bool {
    let due = f64::max(0.9 * interval, 30.0) - 0.01..=interval + 1.01;
    found.windows(2).all(|pair| due.contains(&(pair[1] - pair[0])))
}

#[tokio::test(start_paused = true)]
async fn an_idle_set_is_refreshed_every_five_minutes() {
    let (fixture, key) = Fixture::new();
    fixture.warm_up(&[A]).await;
    pass(HOUR / 2).await;
    let fetches = fixture.script.fetches(A);
    assert!(are_refreshes(&fetches, 300.0) && (6..=7).contains(&fetches.len()), "{fetches:?}");
    assert!(fixture.has(&[A], &key).await);
    assert!(fixture.script.fetches(A).is_empty(), "requests read memory");
}

#[tokio::test(start_paused = true)]
async fn cache_control_moves_the_refresh_within_its_bounds() {
    for (says, due) in [(0, 30.0), (29, 30.0), (60, 60.0), (1799, 1799.0), (1801, 1800.0), (u64::MAX, 1800.0)]
    {
        let (fixture, key) = Fixture::new();
        fixture.script.answer(A, Answer::FreshFor(says, vec![key]));
        fixture.warm_up(&[A]).await;
        while fixture.script.fetches.lock().expect("lock").len() < 2 {
            pass(1).await;
        }
        let fetches = fixture.script.fetches(A);
        assert!(are_refreshes(&fetches, due) && fetches.len() == 2, "max-age={says}: {fetches:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_is_used_for_an_hour_after_its_last_success_and_no_longer() {
    let (fixture, key) = Fixture::new();
    fixture.warm_up(&[A]).await;
    fixture.script.answer(A, Answer::Fails);
    pass(59 * MINUTE + 58).await;
    assert!(fixture.has(&[A], &key).await, "in its 59th minute");
    pass(1).await;
    assert!(fixture.has(&[A], &key).await);
    pass(1).await;
    assert!(!fixture.has(&[A], &key).await, "an hour old");

    // It comes back by itself.
    fixture.script.answer(A, Answer::Keys(vec![key.clone()]));
    pass(6 * MINUTE + 20).await;
    assert!(fixture.has(&[A], &key).await);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_not_modified_is_trusted_anew() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(A, Answer::Unchanged(vec![key.clone()]));
    fixture.warm_up(&[A]).await;
    pass(55 * MINUTE).await;
    let age = fixture.cache.snapshot()[0].age.expect("a set");
    assert!(age < Duration::from_secs(302), "{age:?}");
    pass(5 * HOUR).await;
    assert!(fixture.has(&[A], &key).await);

    // Where there is none it says nothing.
    fixture.script.answer(B, Answer::NotModified);
    assert!(!fixture.has(&[B], &key).await);
    assert_eq!(fixture.cache.snapshot()[1].last_error.as_ref().map(|error| error.label()), Some("status"));
}

/// As from files of equal length whose times are fixed.
#[tokio::test(start_paused = true)]
async fn a_key_that_was_removed_ends_within_the_hour_though_its_set_seems_unchanged() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(A, Answer::Unchanged(vec![key.clone()]));
    fixture.warm_up(&[A]).await;
    fixture.script.answer(A, Answer::Unchanged(Vec::new()));
    pass(53 * MINUTE).await;
    assert!(fixture.has(&[A], &key).await);
    // And the cool-down, if it was asked for in the last moment of it.
    pass(7 * MINUTE + 32).await;
    assert!(!fixture.has(&[A], &key).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_missed_is_found_though_its_set_seems_unchanged() {
    let (fixture, old) = Fixture::new();
    fixture.script.answer(A, Answer::Unchanged(vec![old.clone()]));
    fixture.warm_up(&[A]).await;
    let new = key();
    fixture.script.answer(A, Answer::Unchanged(vec![old, new.clone()]));
    pass(MINUTE).await;
    assert!(!fixture.has(&[A], &new).await, "this request begins the fetch");
    pass(1).await;
    assert!(fixture.has(&[A], &new).await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_keys_removes_them_at_once() {
    let (fixture, key) = Fixture::new();
    fixture.warm_up(&[A]).await;
    fixture.script.answer(A, Answer::Keys(Vec::new()));
    pass(269).await;
    assert!(fixture.has(&[A], &key).await);
    pass(33).await;
    assert!(!fixture.has(&[A], &key).await);
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_at_growing_intervals() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(A, Answer::Fails);
    assert_eq!(fixture.warm_up(&[A]).await, WarmUp { trusted: 1, fetched: 0, failed: 1, pending: 0 });
    pass(HOUR).await;
    let fetches = fixture.script.fetches(A);
    let pauses: Vec<f64> = fetches.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, least) in pauses.iter().zip([30.0, 60.0, 120.0, 240.0].into_iter().chain([300.0; 20])) {
        assert!((least..=least * 1.25 + 1.01).contains(pause), "{pauses:?}");
    }
    assert!((10..=14).contains(&pauses.len()), "{pauses:?}");

    fixture.script.answer(A, Answer::Keys(vec![key.clone()]));
    pass(6 * MINUTE + 20).await;
    assert!(fixture.has(&[A], &key).await);
    // The next failure is the first again.
    fixture.script.fetches(A);
    fixture.script.answer(A, Answer::Fails);
    while fixture.script.fetches.lock().expect("lock").len() < 2 {
        pass(1).await;
    }
    let fetches = fixture.script.fetches(A);
    assert!((30.0..=38.6).contains(&(fetches[1] - fetches[0])), "{fetches:?}");
}

/// Else what failed at once would come back as one.
#[tokio::test(start_paused = true)]
async fn pauses_after_failures_are_not_the_same_for_all() {
    let (fixture, _) = Fixture::new();
    let failing = numbered(50);
    let urls: Vec<&str> = failing.iter().map(String::as_str).collect();
    assert_eq!(fixture.warm_up(&urls).await.failed, 50);
    let pauses: Vec<_> = fixture.cache.snapshot().iter().map(|set| set.next_refresh).collect();
    let bounds = Duration::from_secs(30)..=Duration::from_millis(37_500);
    assert!(pauses.iter().all(|pause| bounds.contains(pause)), "{pauses:?}");
    // 256 are possible, and each as likely.
    assert!(pauses.iter().collect::<BTreeSet<_>>().len() > 10, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn sets_that_came_at_once_are_not_refreshed_at_once() {
    let (fixture, key) = Fixture::new();
    let good = numbered(50);
    for url in &good {
        fixture.script.answer(url, Answer::Keys(vec![key.clone()]));
    }
    let urls: Vec<&str> = good.iter().map(String::as_str).collect();
    assert_eq!(fixture.warm_up(&urls).await.fetched, 50);
    let due: Vec<_> = fixture.cache.snapshot().iter().map(|set| set.next_refresh).collect();
    let bounds = Duration::from_secs(270)..=Duration::from_secs(300);
    assert!(due.iter().all(|due| bounds.contains(due)), "{due:?}");
    // As with the pauses.
    assert!(due.iter().collect::<BTreeSet<_>>().len() > 10, "{due:?}");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_random_kids_cause_one_fetch() {
    let (fixture, _) = Fixture::new();
    fixture.warm_up(&[A]).await;
    pass(MINUTE).await;
    fixture.script.fetches(A);
    fixture.script.delay(1);
    for number in 0..1000 {
        let found = fixture.candidates(&user(&[A]), &format!("random {number}")).await;
        assert!(found.is_empty());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(are_at(&fixture.script.fetches(A), &[60.0]), "ten seconds of them");
    pass(18).await;
    assert!(fixture.script.fetches(A).is_empty(), "the cool-down");
    pass(4).await;
    assert!(are_at(&fixture.script.fetches(A), &[90.0]), "what was asked for in the meantime");
    pass(4 * MINUTE).await;
    assert!(fixture.script.fetches(A).is_empty(), "and no more");
}

#[tokio::test(start_paused = true)]
async fn a_new_key_works_as_soon_as_the_cool_down_allows() {
    let (fixture, old) = Fixture::new();
    fixture.warm_up(&[A]).await;
    let new = key();
    fixture.script.answer(A, Answer::Keys(vec![old, new.clone()]));
    pass(10).await;
    assert!(!fixture.has(&[A], &new).await);
    assert_eq!(fixture.now(), 10.0, "no request waits for a set that was there");
    pass(22).await;
    assert!(fixture.has(&[A], &new).await);

    let newer = key();
    fixture.script.answer(A, Answer::Keys(vec![newer.clone()]));
    pass(MINUTE).await;
    assert!(!fixture.has(&[A], &newer).await, "this request begins the fetch");
    pass(1).await;
    assert!(fixture.has(&[A], &newer).await);
    assert!(!fixture.has(&[A], &new).await);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_needs_a_set_does_not_wait_for_the_pause_after_failures() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(A, Answer::Fails);
    fixture.warm_up(&[A]).await;
    pass(HOUR).await;
    while fixture.cache.snapshot()[0].next_refresh < Duration::from_secs(250) {
        pass(1).await;
    }
    pass(60).await;
    assert!(fixture.cache.snapshot()[0].next_refresh > Duration::from_secs(150), "by the timer");
    fixture.script.answer(A, Answer::Keys(vec![key.clone()]));
    fixture.script.delay(3);
    let asked = fixture.now();
    assert!(fixture.has(&[A], &key).await, "no set was ever there, so it waits");
    assert_eq!(fixture.now() - asked, 3.0);
}

#[tokio::test(start_paused = true)]
async fn a_kid_of_the_users_own_keys_fetches_nothing() {
    let (fixture, _) = Fixture::new();
    let own = key();
    let user = user(&[A]).with_keys([own.clone()]);
    let found = fixture.candidates(&user, own.fingerprint().as_str()).await;
    assert!(found.is_empty() && fixture.script.fetches(A).is_empty());
    assert!(fixture.keys.candidates(Some(&user), None).await.expect("memory").is_empty());
    assert!(fixture.keys.candidates(None::<&User>, Some("kid")).await.expect("memory").is_empty());
    assert!(fixture.script.fetches(A).is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_the_users_own_urls_count_each_by_its_trust() {
    let (fixture, shared) = Fixture::new();
    let other = key();
    fixture.script.answer(B, Answer::Keys(vec![shared.clone(), other.clone()]));
    fixture.warm_up(&[A, B]).await;
    assert!(!fixture.has(&[A], &other).await);
    assert!(fixture.has(&[B], &other).await);
    assert!(!fixture.has(&[], &shared).await);
    let user = User::new("guido").with_jwks_urls(vec![TrustedUrl::new(7, B), TrustedUrl::new(9, A)]);
    let found = fixture.candidates(&user, shared.fingerprint().as_str()).await;
    let sources: Vec<_> = found.iter().map(StoredKey::source).collect();
    assert_eq!(sources, [KeySource::Trust(7), KeySource::Trust(9)]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_like_another() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(A, Answer::Panics);
    assert!(!fixture.has(&[A], &key).await);
    let snapshot = fixture.cache.snapshot();
    assert_eq!(snapshot[0].last_error.as_ref().map(|error| error.label()), Some("panic"));
    fixture.script.answer(A, Answer::Keys(vec![key.clone()]));
    pass(40).await;
    assert!(fixture.has(&[A], &key).await);
}
