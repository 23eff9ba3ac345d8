//! The cache of key sets: one fetch at a time, sets that are swapped whole, and an end that is one.

use std::{
    borrow::Cow,
    future::pending,
    sync::{Arc, LazyLock},
    time::Duration,
};

use ajwt_core::{JwkSet, PrivateKey, PublicKey};
use ajwt_models::{
    FetchError, JwksCache, JwksClient, JwksKeyRepository, JwksResponse, Validators, schedules, spawn,
    time::{ModelClock, advance},
};
use ajwt_server::{Clock as _, PublicKeyRepository as _, TrustedUrl, User};
use shuttle::{
    future::yield_now,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

static KEYS: LazyLock<[PublicKey; 3]> =
    LazyLock::new(|| [(); 3].map(|()| PrivateKey::generate_ed25519().expect("a key").public_key().clone()));

/// The first set and the second; the key in the middle is in both.
static SETS: LazyLock<[JwkSet; 2]> =
    LazyLock::new(|| [0, 1].map(|first| JwkSet::of_keys(KEYS[first..first + 2].to_vec())));

/// Between two fetches of a URL.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// An endpoint, and what is seen of its fetches.
#[derive(Default)]
struct Seen {
    under_way: AtomicUsize,
    begun: Mutex<Vec<Duration>>,
    is_closed: AtomicBool,
}

/// A fetch, until it ends or is given up.
struct Fetch(Arc<Seen>);

impl Fetch {
    fn begin(seen: &Arc<Seen>) -> Self {
        assert!(!seen.is_closed.load(Ordering::SeqCst), "a fetch began after the end");
        assert_eq!(seen.under_way.fetch_add(1, Ordering::SeqCst), 0, "two fetches at once");
        seen.begun.lock().expect("no panic").push(ModelClock.monotonic());
        Self(Arc::clone(seen))
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A cache whose one endpoint answers the n-th fetch, from 0, so.
fn cache(
    seen: &Arc<Seen>,
    answer: impl Fn(usize) -> Result<&'static JwkSet, FetchError> + Copy + Send + Sync + 'static,
) -> Arc<JwksCache> {
    let seen = Arc::clone(seen);
    let client = JwksClient::new(move || {
        let seen = Arc::clone(&seen);
        async move {
            let _fetch = Fetch::begin(&seen);
            let number = seen.begun.lock().expect("no panic").len() - 1;
            yield_now().await;
            let set = answer(number)?;
            Ok(JwksResponse { set: Some(set.clone()), validators: Validators, fresh_for: None })
        }
    });
    Arc::new(JwksCache::builder(client).clock(Arc::new(ModelClock)).build())
}

/// Whether a request finds a key.
async fn has(keys: &JwksKeyRepository, key: usize) -> bool {
    let user = User::new("u").with_jwks_urls(vec![TrustedUrl::new(1, "https://a.example/jwks.json")]);
    let found: Cow<'_, _> =
        keys.candidates(Some(&user), Some(KEYS[key].fingerprint().as_str())).await.expect("never fails");
    assert!(found.len() <= 1);
    !found.is_empty()
}

/// Requests at once for a set that is not there: one fetch, which all find the key by.
#[test]
fn first_requests_share_one_fetch_and_all_find_the_key() {
    LazyLock::force(&SETS);
    schedules::random_tasks(2000, || async {
        let seen = Arc::new(Seen::default());
        let cache = cache(&seen, |_| Ok(&SETS[0]));
        let keys = Arc::new(JwksKeyRepository::new(cache));
        let requests = [0, 1, 0].map(|key| {
            let keys = Arc::clone(&keys);
            spawn(async move { assert!(has(&keys, key).await, "the key is there") })
        });
        // The timer wants the set too.
        for _ in 0..2 {
            advance(Duration::from_secs(1));
            yield_now().await;
        }
        for request in requests {
            request.await.expect("no panic");
        }
        assert_eq!(seen.begun.lock().expect("no panic").len(), 1);
    });
}

/// The timer refreshes a set that requests read and ask for more of.
#[test]
fn a_set_is_swapped_whole_and_never_back() {
    LazyLock::force(&SETS);
    schedules::random_tasks(2000, || async {
        let seen = Arc::new(Seen::default());
        // The second fetch fails; the third brings the second set.
        let cache = cache(&seen, |number| match number {
            0 => Ok(&SETS[0]),
            1 => Err(FetchError::Failed),
            _ => Ok(&SETS[1]),
        });
        let keys = Arc::new(JwksKeyRepository::new(cache));
        assert!(has(&keys, 1).await);
        let requests = [0; 2].map(|_| {
            let keys = Arc::clone(&keys);
            spawn(async move {
                let mut is_second = false;
                for _ in 0..6 {
                    assert!(has(&keys, 1).await, "a key of both sets is gone");
                    let (has_old, has_new) = (has(&keys, 0).await, has(&keys, 2).await);
                    assert!(!(is_second && has_old), "the first set is back");
                    assert!(!is_second || has_new, "the second set is gone");
                    assert!(has_old || has_new || is_second || has(&keys, 2).await, "there is no set");
                    is_second |= has_new || !has_old;
                }
            })
        });
        for _ in 0..8 {
            advance(Duration::from_secs(60));
            yield_now().await;
        }
        for request in requests {
            request.await.expect("no panic");
        }
        let begun = seen.begun.lock().expect("no panic").clone();
        // The cache dates a fetch when it begins it; here it is seen some time later, though before the
        // next is begun.
        for fetches in begun.windows(3) {
            assert!(fetches[2] >= fetches[0] + COOL_DOWN, "{begun:?}");
        }
    });
}

/// The end meets requests that begin fetches and wait for them. No time passes: nobody is woken by it.
#[test]
fn no_fetch_outlives_the_end_and_nobody_waits_for_one() {
    schedules::random_tasks(3000, || async {
        let seen = Arc::new(Seen::default());
        let hanging = Arc::clone(&seen);
        let client = JwksClient::new(move || {
            let fetch = Fetch::begin(&hanging);
            async move {
                let _fetch = fetch;
                pending().await
            }
        });
        let cache = Arc::new(JwksCache::builder(client).clock(Arc::new(ModelClock)).build());
        let keys = Arc::new(JwksKeyRepository::new(Arc::clone(&cache)));
        let requests = [0; 2].map(|key| {
            let keys = Arc::clone(&keys);
            spawn(async move { assert!(!has(&keys, key).await) })
        });
        yield_now().await;
        cache.close().await;
        assert_eq!(seen.under_way.load(Ordering::SeqCst), 0, "a fetch outlived the end");
        seen.is_closed.store(true, Ordering::SeqCst);
        for request in requests {
            request.await.expect("no panic");
        }
    });
}
