//! The cache over real servers: conditional requests, and what a failed refresh leaves.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ajwt_core::{JwkSet, PublicKey, Timestamp};
use ajwt_jwks::{JwksCache, JwksKeyRepository, SetSnapshot};
use ajwt_server::{
    KeySource, MemoryRepository, MockClock, PublicKeyRepository as _, StoredKey, TrustedUrl, User, testing,
};
use ajwt_test_support::until;

use crate::{
    client, fetch, key,
    server::{Server, Step, ok, set_of, with_headers},
};

/// A cache, its clock, and a user that trusts one URL.
pub(crate) struct Cached {
    pub(crate) clock: MockClock,
    pub(crate) cache: Arc<JwksCache>,
    keys: JwksKeyRepository,
    user: User,
}

impl Cached {
    pub(crate) fn new(url: &str) -> Self {
        let clock = MockClock::new(Timestamp::from_secs(1_790_000_000));
        let cache = Arc::new(JwksCache::builder(client()).clock(Arc::new(clock.clone())).build());
        let keys = JwksKeyRepository::new(Arc::clone(&cache));
        let user = User::new("guido").with_jwks_urls(vec![TrustedUrl::new(1, url)]);
        Self { clock, cache, keys, user }
    }

    pub(crate) async fn warm_up(&self) {
        self.cache.warm_up(&MemoryRepository::new([self.user.clone()])).await.expect("memory");
    }

    /// The keys of this id.
    pub(crate) async fn find(&self, key_id: &str) -> Vec<PublicKey> {
        let found = self.keys.candidates(Some(&self.user), Some(key_id)).await.expect("memory");
        found.iter().map(|found| found.key().clone()).collect()
    }

    pub(crate) async fn has(&self, key: &PublicKey) -> bool {
        self.find(key.fingerprint().as_str()).await.contains(key)
    }

    pub(crate) fn state(&self) -> SetSnapshot {
        self.cache.snapshot().remove(0)
    }

    /// Lets half an hour pass, and waits for the fetch that is due then.
    pub(crate) async fn refresh(&self) {
        let passed = Duration::from_secs(30 * 60);
        self.clock.advance(passed);
        let failures = self.state().failures;
        self.warm_up().await;
        let has_ended =
            async || self.state().failures != failures || self.state().age.is_some_and(|age| age < passed);
        until("the fetch has ended", has_ended).await;
    }
}

/// A server whose answer can be changed.
pub(crate) async fn changing(first: Vec<u8>) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let answer = Arc::new(Mutex::new(first));
    let current = Arc::clone(&answer);
    let server = Server::start(move |_| vec![Step::Send(current.lock().expect("a lock").clone())]).await;
    (server, answer)
}

#[tokio::test]
async fn a_set_is_asked_for_by_its_validators_and_304_renews_it() {
    let (one, two) = (key(), key());
    let headers = "ETag: \"one\"\r\nLast-Modified: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
                   Cache-Control: max-age=900\r\nAge: 100\r\n";
    let (server, answer) = changing(with_headers(headers, set_of(&one))).await;
    let cached = Cached::new(&server.url());
    cached.warm_up().await;
    let next_refresh = cached.state().next_refresh.as_secs_f64();
    assert!((720.0..=800.0).contains(&next_refresh), "{next_refresh}");
    let not_modified = "HTTP/1.1 304 Not Modified\r\ncache-control: max-age=600\r\n\r\n";
    let last_head = || server.heads().pop().expect("a request").to_ascii_lowercase();
    for _ in 0..2 {
        // Half an hour after it was sent, and an hour after.
        *answer.lock().expect("a lock") = not_modified.into();
        cached.refresh().await;
        assert!(cached.has(&one).await);
        let head = last_head();
        assert!(head.contains("if-none-match: \"one\"\r\n"), "{head}");
        assert!(head.contains("if-modified-since: tue, 24 nov 2026 12:00:00 gmt\r\n"), "{head}");
        let next_refresh = cached.state().next_refresh.as_secs_f64();
        assert!((540.0..=600.0).contains(&next_refresh), "{next_refresh}");
        *answer.lock().expect("a lock") = with_headers(headers, set_of(&one));
        cached.refresh().await;
        assert!(cached.has(&one).await);
        assert!(!last_head().contains("if-"), "{}", last_head());
    }
    *answer.lock().expect("a lock") = with_headers("ETag: \"two\"\r\n", set_of(&two));
    cached.refresh().await;
    assert!(cached.has(&two).await);
    assert_eq!(cached.state().keys, 1);
    cached.refresh().await;
    let head = last_head();
    assert!(head.contains("if-none-match: \"two\"\r\n") && !head.contains("if-modified-since"), "{head}");

    // By a token with a key that is missed it is asked for as it is.
    let passed = Duration::from_secs(60);
    cached.clock.advance(passed);
    assert!(cached.find("no such key").await.is_empty());
    until("it is fetched", async || cached.state().age < Some(passed)).await;
    assert!(!last_head().contains("if-"), "{}", last_head());

    // Without any there is nothing to ask by.
    *answer.lock().expect("a lock") = ok(set_of(&two));
    cached.refresh().await;
    cached.refresh().await;
    assert!(!last_head().contains("if-"), "{}", last_head());
}

#[tokio::test]
async fn a_304_leaves_the_validators_that_it_does_not_name() {
    let (server, answer) = changing(with_headers("ETag: \"one\"\r\n", set_of(&key()))).await;
    let client = client();
    let mut known = fetch(&client, &server.url()).await.expect("a set").validators;
    for (named, asked_by) in
        [("", "\"one\""), ("", "\"one\""), ("ETag: \"two\"\r\n", "\"one\""), ("", "\"two\"")]
    {
        *answer.lock().expect("a lock") = format!("HTTP/1.1 304 Not Modified\r\n{named}\r\n").into();
        let response = client.fetch(&server.url(), &known).await.expect("the same set");
        assert!(response.set.is_none());
        let head = server.heads().pop().expect("a request").to_ascii_lowercase();
        assert!(head.contains(&format!("if-none-match: {asked_by}\r\n")), "{head}");
        known = response.validators;
    }
}

#[tokio::test]
async fn it_is_a_public_key_repository() {
    let sets = [vec![key(), key()], vec![key()], vec![key()]];
    let mut servers = Vec::new();
    for set in &sets {
        servers.push(Server::answering(ok(JwkSet::of_keys(set.clone()).to_json())).await);
    }
    let trusting = |name, numbers: &[usize]| {
        let urls = numbers.iter().map(|&number| TrustedUrl::new(number as i64, servers[number].url()));
        let due = numbers.iter().flat_map(|&number| {
            let source = KeySource::Trust(number as i64);
            let set = JwkSet::of_keys(sets[number].clone());
            set.keys().iter().map(|jwk| StoredKey::of_jwk(jwk, source)).collect::<Vec<_>>()
        });
        (User::new(name).with_jwks_urls(urls.collect()), due.collect())
    };
    let users = [trusting("guido", &[0, 1]), trusting("ada", &[2]), trusting("nobody's friend", &[])];
    let keys = JwksKeyRepository::new(Arc::new(JwksCache::builder(client()).build()));
    testing::public_key_repository(&keys, &users).await;
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_set_and_an_empty_one_removes_it() {
    let key = key();
    let (server, answer) = changing(ok(set_of(&key))).await;
    for bad in ["HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n".into(), ok(""), ok("{}"), ok("[]"), Vec::new()]
    {
        *answer.lock().expect("a lock") = ok(set_of(&key));
        let cached = Cached::new(&server.url());
        cached.warm_up().await;
        *answer.lock().expect("a lock") = bad;
        cached.refresh().await;
        assert_eq!(cached.state().failures, 1);
        assert!(cached.has(&key).await);
        cached.clock.advance(Duration::from_secs(30 * 60 - 1));
        assert!(cached.has(&key).await, "in the 59th minute");
        cached.clock.set(Timestamp::from_secs(0));
        cached.clock.advance(Duration::from_secs(1));
        assert!(!cached.has(&key).await, "an hour after the success, by whatever the time of day");
    }
    *answer.lock().expect("a lock") = ok(set_of(&key));
    let cached = Cached::new(&server.url());
    cached.warm_up().await;
    *answer.lock().expect("a lock") = ok(r#"{"keys":[]}"#);
    cached.refresh().await;
    assert!(!cached.has(&key).await);
    assert_eq!((cached.state().failures, cached.state().keys), (0, 0));
}

#[tokio::test]
async fn odd_keys_do_not_disable_good_ones() {
    let key = key();
    let set = set_of(&key).replacen("[{", r#"[{"kid":"odd\u202e\n","kty":"EC"},null,{"#, 1);
    let server = Server::answering(ok(set)).await;
    let cached = Cached::new(&server.url());
    assert!(cached.has(&key).await);
    assert_eq!((cached.state().keys, cached.state().skipped), (1, 2));
}
