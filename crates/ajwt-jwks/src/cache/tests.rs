//! The cache on paused time: what is fetched when, for how long it is used, and what waits.

mod life;
#[cfg(feature = "metrics")]
mod recorder;

use std::collections::BTreeSet;

use ajwt_core::{JwkSet, PrivateKey, PublicKey, Timestamp};
use ajwt_server::{KeySource, MemoryRepository, PublicKeyRepository, User};
use http::{HeaderMap, HeaderValue, header::ETAG};
use tokio::time::Instant;

use super::*;
use crate::JwksKeyRepository;

const A: &str = "https://a.example/jwks.json";
const B: &str = "https://b.example/jwks.json";

const DEADLINE: Duration = Duration::from_secs(5);

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// tokio's clock, which the tests let pass.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(0)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

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

/// As after an hour in which the machine slept or the endpoint failed.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_too_old_is_waited_for_once_within_the_cool_down() {
    let (fixture, key) = Fixture::new();
    fixture.warm_up(&[A]).await;
    fixture.script.answer(A, Answer::Fails);
    pass(HOUR + MINUTE).await;
    assert_eq!(fixture.warm_up(&[A]).await, WarmUp { trusted: 1, fetched: 0, failed: 1, pending: 0 });
    while fixture.cache.snapshot()[0].next_refresh < Duration::from_secs(250) {
        pass(1).await;
    }
    pass(MINUTE).await;
    fixture.script.answer(A, Answer::Hangs);
    let asked = fixture.now();
    for waited in [5.0, 5.0, 5.0] {
        fixture.ask_for_unknown(&[A]).await;
        assert_eq!(fixture.now() - asked, waited);
    }
    pass(MINUTE).await;
    fixture.script.answer(A, Answer::Keys(vec![key.clone()]));
    fixture.script.delay(3);
    let asked = fixture.now();
    assert!(fixture.has(&[A], &key).await);
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
async fn first_requests_wait_for_one_fetch() {
    let (fixture, key) = Fixture::new();
    fixture.script.delay(4);
    let fixture = Arc::new(fixture);
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let (fixture, key) = (Arc::clone(&fixture), key.clone());
            tokio::spawn(async move { fixture.has(&[A], &key).await })
        })
        .collect();
    for request in requests {
        assert!(request.await.expect("joined"));
    }
    assert_eq!(fixture.now(), 4.0);
    assert_eq!(fixture.script.fetches(A).len(), 1);
    // What the endpoint said, it said some time after the fetch began.
    assert_eq!(fixture.cache.snapshot()[0].age, Some(Duration::from_secs(4)));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_waits_no_longer_than_the_deadline_and_the_next_ones_not_at_all() {
    let (fixture, _) = Fixture::new();
    fixture.script.answer(A, Answer::Hangs);
    for waited in [5.0, 5.0, 5.0] {
        fixture.ask_for_unknown(&[A]).await;
        assert_eq!(fixture.now(), waited);
    }
    assert_eq!(fixture.script.fetches(A).len(), 1);

    // Given up by a request, a fetch goes on.
    let (fixture, key) = Fixture::new();
    fixture.script.delay(4);
    let waiting = fixture.has(&[A], &key);
    assert!(tokio::time::timeout(Duration::from_secs(2), waiting).await.is_err());
    pass(3).await;
    assert!(fixture.has(&[A], &key).await);
    assert_eq!((fixture.now(), fixture.script.fetches(A).len()), (5.0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_url_that_hangs_does_not_hold_up_the_users_other_one() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(B, Answer::Hangs);
    assert!(fixture.has(&[B, A], &key).await);
    assert_eq!(fixture.now(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn fifty_endpoints_that_hang_do_not_delay_the_next() {
    let (fixture, key) = Fixture::new();
    let hanging = numbered(50);
    for url in &hanging {
        fixture.script.answer(url, Answer::Hangs);
    }
    let mut urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    urls.push(A);
    let warm = fixture.warm_up(&urls).await;
    assert_eq!(warm, WarmUp { trusted: 51, fetched: 1, failed: 50, pending: 0 });
    pass(HOUR).await;
    let fetches = fixture.script.fetches(A);
    assert!(are_refreshes(&fetches, 300.0) && (12..=14).contains(&fetches.len()), "{fetches:?}");
    assert!(fixture.has(&[A], &key).await);
}

/// Their sets are there, so that they are refreshed beside the one that is well.
#[tokio::test(start_paused = true)]
async fn fifty_endpoints_that_begin_to_hang_do_not_delay_the_next() {
    let (fixture, key) = Fixture::new();
    let others = numbered(50);
    let mut urls: Vec<&str> = others.iter().map(String::as_str).collect();
    urls.push(A);
    for url in &urls {
        fixture.script.answer(url, Answer::FreshFor(30, vec![key.clone()]));
    }
    assert_eq!(fixture.warm_up(&urls).await.fetched, 51);
    pass(20).await;
    for url in &others {
        fixture.script.answer(url, Answer::Hangs);
    }
    pass(12).await;
    // All are due at once, for none may come sooner than the cool-down, in whatever order: none waits for
    // another, so neither does the last of them.
    for url in urls {
        let fetches = fixture.script.fetches(url);
        assert!(are_at(&fetches, &[0.0, 30.0]), "{url}: {fetches:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fetches_at_once_are_bounded_and_endpoints_that_hang_delay_only_each_other() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(A, Answer::FreshFor(30, vec![key]));
    fixture.warm_up(&[A]).await;
    let hanging = numbered(1500);
    for url in &hanging {
        fixture.script.answer(url, Answer::Hangs);
    }
    let urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    let warm = fixture.warm_up(&urls).await;
    // 64 at a time for 5 s each, until the limit of 30 s.
    assert_eq!((fixture.now(), warm.trusted), (30.0, 1500));
    assert!((320..=384).contains(&warm.failed) && warm.failed + warm.pending == 1500, "{warm:?}");
    pass(272).await;
    let fetches = fixture.script.fetches(A);
    let gaps = fetches.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.fold(0.0, f64::max) <= 31.01 && fetches.len() >= 10, "{fetches:?}");
    assert!(lock(&fixture.script.at_once).1 <= REFRESHES + FIRST_FETCHES + RETRIES);
}

/// A request waits for a fetch, not for its turn.
#[tokio::test(start_paused = true)]
async fn a_retry_that_stands_behind_others_is_not_waited_for() {
    let (fixture, _) = Fixture::new();
    let hanging = numbered(200);
    for url in &hanging {
        fixture.script.answer(url, Answer::Hangs);
    }
    let urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    assert_eq!(fixture.warm_up(&urls).await.failed, 200);
    // By now all are due again, and stand behind each other.
    pass(38).await;
    let asked = fixture.now();
    let fixture = Arc::new(fixture);
    let requests: Vec<_> = hanging
        .into_iter()
        .map(|url| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move {
                fixture.ask_for_unknown(&[url.as_str()]).await;
                fixture.now()
            })
        })
        .collect();
    let mut waited = 0;
    for request in requests {
        waited += usize::from(request.await.expect("joined") > asked);
    }
    assert!((1..=RETRIES).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_good_endpoint_that_failed_once_does_not_stand_behind_those_that_hang() {
    let (fixture, key) = Fixture::new();
    fixture.script.answer(A, Answer::FreshFor(30, vec![key]));
    fixture.warm_up(&[A]).await;
    let hanging = numbered(500);
    for url in &hanging {
        fixture.script.answer(url, Answer::Hangs);
    }
    let urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    fixture.warm_up(&urls).await;
    // From now on hundreds of them wait to be tried again, 16 in 5 s.
    pass(60).await;
    fixture.script.answer(A, Answer::Fails);
    let failures = || fixture.cache.snapshot().last().expect("that of A comes last").failures;
    while failures() == 0 {
        pass(1).await;
    }
    fixture.script.fetches(A);
    pass(39).await;
    assert_eq!(fixture.script.fetches(A).len(), 1);
    assert_eq!(failures(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_moment_wait_for_a_retry_together() {
    let (fixture, _) = Fixture::new();
    fixture.script.answer(A, Answer::Hangs);
    assert_eq!(fixture.warm_up(&[A]).await.failed, 1);
    // The cool-down is over, and the next by the timer is not due yet.
    tokio::time::sleep_until(fixture.script.start + Duration::from_secs(31)).await;
    let ask = async || {
        fixture.ask_for_unknown(&[A]).await;
        fixture.now()
    };
    let answered = tokio::join!(ask(), ask());
    assert_eq!(answered, (36.0, 36.0));
}

/// As long as nothing was fetched, neither the queue nor the fetch itself lets each request wait anew.
#[tokio::test(start_paused = true)]
async fn a_first_fetch_that_stands_behind_others_is_waited_for_once_within_the_cool_down() {
    let (fixture, _) = Fixture::new();
    let hanging = numbered(500);
    let mut urls: Vec<&str> = hanging.iter().map(String::as_str).collect();
    urls.push(A);
    for url in &urls {
        fixture.script.answer(url, Answer::Hangs);
    }
    // It is given up; the fetches go on, 64 at a time for 5 s each, by the order of their URLs: this one's is last.
    assert!(tokio::time::timeout(Duration::from_secs(1), fixture.warm_up(&urls)).await.is_err());
    let start = fixture.script.start;
    for (asked, answered) in [(1, 6), (7, 7), (30, 30), (31, 36), (37, 37)] {
        tokio::time::sleep_until(start + Duration::from_secs(asked)).await;
        fixture.ask_for_unknown(&[A]).await;
        assert_eq!(start.elapsed(), Duration::from_secs(answered), "asked at {asked}");
    }
    // The warm-up waits all the same, for it has a limit of its own.
    assert_eq!(fixture.warm_up(&[A]).await.failed, 1);
    assert_eq!(start.elapsed(), Duration::from_secs(40));
    let fetches = fixture.script.fetches(A);
    assert!(are_at(&fetches, &[35.0]), "{fetches:?}");
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
