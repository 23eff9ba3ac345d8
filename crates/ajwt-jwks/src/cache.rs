pub(crate) mod endpoint;
mod key_set;
mod place;
mod refresh;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, time::Duration};

use ajwt_server::{Clock, RepositoryError, StoredKey, SystemClock, TrustedUrl, TrustedUrls};
use async_trait::async_trait;
use foldhash::fast::RandomState;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

pub use self::snapshot::SetSnapshot;
use self::{
    endpoint::{Demand, Endpoint},
    key_set::TrustedKeys,
    place::Place,
};
use crate::{
    FetchError, JwksClient, JwksResponse, Validators,
    report::Report,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        lock, read, write,
    },
};

/// Fetches at once of each kind: endpoints that are new or fail must not delay those that are well.
const REFRESHES: usize = 64;
const FIRST_FETCHES: usize = 64;
const RETRIES: usize = 16;

const DEFAULT_WARM_UP_LIMIT: Duration = Duration::from_secs(30);

/// The key sets of trusted URLs, in memory.
///
/// Requests read memory: a set is refreshed in the background after 5 minutes, or after what its
/// `Cache-Control` says, within 30 s and 30 min; up to a tenth sooner, by chance. It is not used once its
/// last success is an hour ago, so that a key that was taken out of it ends within the hour, though the
/// endpoint is not reached any more. An answer that it has not changed (304) is a success, but within an hour
/// the set is asked for whole, whatever validators the endpoint has. A failed fetch changes nothing else, and is
/// tried again after 30 s, then twice as long, up to 5 min. An answer without keys removes them all at once.
///
/// A URL is fetched at most every 30 s, and once at a time. A token whose `kid` none of the user's
/// keys has lets its URLs be fetched, whole, as soon as that allows, in the background too. Only where a
/// URL's set was never there, or is not used any more, does the request wait for it, no longer than the client's
/// deadline, and then not again within the 30 s, even if its first fetch stands behind those of many others for
/// longer. [`warm_up`](Self::warm_up) fetches all of them beforehand.
///
/// A set that neither a request nor a warm-up has asked for in a day is dropped: it counts as one that was
/// never there. Memory is bounded by the trusted URLs of the store: up to 100 keys each.
///
/// The background work runs on the runtime that the cache was built on, and once that has ended, on the one of the
/// next request or warm-up. Dropping the cache, or [closing](Self::close) it, ends that work. The last
/// [`JwksKeyRepository`](crate::JwksKeyRepository) on it that is closed closes it.
pub struct JwksCache {
    shared: Arc<Shared>,
    sweeper: Mutex<JoinHandle<()>>,
}

/// Where sets come from: a [`JwksClient`], or the script of a test on paused time.
#[async_trait]
trait Source: Send + Sync + 'static {
    async fn fetch(&self, url: &str, known: &Validators) -> Result<JwksResponse, FetchError>;

    /// How long a fetch takes at most.
    fn deadline(&self) -> Duration;
}

#[async_trait]
impl Source for JwksClient {
    async fn fetch(&self, url: &str, known: &Validators) -> Result<JwksResponse, FetchError> {
        self.fetch(url, known).await
    }

    fn deadline(&self) -> Duration {
        self.deadline()
    }
}

struct Shared {
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    warm_up_limit: Duration,
    /// By their URLs, which come from the store: the hash need not stand up to whoever chooses them. Held
    /// for a look-up or a change in memory, never across a fetch.
    places: RwLock<HashMap<Box<str>, Place, RandomState>>,
    refreshes: Arc<Semaphore>,
    first_fetches: Arc<Semaphore>,
    retries: Arc<Semaphore>,
    /// Where fetches and sweeps run, whichever runtime a request is on.
    runtime: Mutex<Handle>,
    /// Whether there is a task that sweeps.
    is_swept: AtomicBool,
    tasks: Mutex<JoinSet<()>>,
    is_closed: AtomicBool,
    /// Whether it was said that it is asked though it is closed.
    has_warned: AtomicBool,
    /// Repositories on it that are open.
    repositories: AtomicUsize,
    report: Report,
}

/// Who needs a set.
#[derive(Clone, Copy)]
enum Asker {
    Request,
    WarmUp,
}

/// What came of [`JwksCache::warm_up`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmUp {
    /// URLs that the store trusts.
    pub trusted: usize,
    /// Those whose set is there, and used.
    pub fetched: usize,
    /// Those whose fetch failed: they are tried again in the background.
    pub failed: usize,
    /// Those that were not done within the limit: they go on in the background.
    pub pending: usize,
}

impl JwksCache {
    /// A cache of what this client fetches.
    #[must_use]
    pub fn builder(client: JwksClient) -> JwksCacheBuilder {
        JwksCacheBuilder::new(Arc::new(client))
    }

    /// Fetches the set of each trusted URL, all at once within the bounds of the cache. Await it before
    /// the service says that it is ready: no request then waits for a fetch. It is done when each URL
    /// was tried once, or at the limit (30 s by default).
    ///
    /// Call it again, twice a day say, where users may stay away for longer than a day, or sign with a key of an
    /// earlier repository for so long: else their sets are dropped, and the first request in their name waits. A
    /// trust that was removed is not asked for any more, and its set dropped within a day.
    ///
    /// # Errors
    /// [`RepositoryError`] if the URLs could not be listed. A set that could not be fetched is none.
    pub async fn warm_up(&self, urls: &dyn TrustedUrls) -> Result<WarmUp, RepositoryError> {
        let urls = urls.all().await?;
        let shared = &self.shared;
        shared.warn_if_closed();
        self.go_on();
        let endpoints: Vec<_> = urls.iter().map(|url| shared.endpoint(url)).collect();
        let demand = |endpoint| shared.demand(endpoint, Asker::WarmUp);
        let mut waiting: FuturesUnordered<_> = endpoints.iter().filter_map(demand).map(done).collect();
        // Those that are not done are counted below.
        let all_done = async { while waiting.next().await.is_some() {} };
        let _ = tokio::time::timeout(shared.warm_up_limit, all_done).await;

        let now = shared.clock.monotonic();
        let mut warm = WarmUp { trusted: endpoints.len(), fetched: 0, failed: 0, pending: 0 };
        for endpoint in endpoints {
            let count = match endpoint.has_set(now) {
                Some(true) => &mut warm.fetched,
                Some(false) => &mut warm.failed,
                None => &mut warm.pending,
            };
            *count = count.saturating_add(1);
        }
        shared.report.warm(&warm);
        Ok(warm)
    }

    /// The state of each set, for a health page; by URL.
    #[must_use]
    pub fn snapshot(&self) -> Vec<SetSnapshot> {
        let now = self.shared.clock.monotonic();
        let mut sets: Vec<_> =
            self.shared.endpoints().iter().map(|endpoint| endpoint.snapshot(now)).collect();
        sets.sort_by(|a, b| a.url.cmp(&b.url));
        sets
    }

    /// Ends background work: fetches under way are given up, and none begins any more. What is in
    /// memory serves until it is too old.
    pub async fn close(&self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        lock(&self.sweeper).abort();
        let mut tasks = std::mem::take(&mut *lock(&self.shared.tasks));
        tasks.shutdown().await;
    }

    /// From now on a repository is on it.
    pub(crate) fn join(&self) {
        self.shared.repositories.fetch_add(1, Ordering::SeqCst);
    }

    /// A repository is on it no longer. Returns whether that was the last one.
    pub(crate) fn leave(&self) -> bool {
        self.shared.repositories.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// The keys of this id in the sets of these URLs, each with the trust it came by; `is_known` where
    /// the user has another key of that id. Waits where no set is there that is trusted.
    pub(crate) async fn keys(&self, urls: &[TrustedUrl], key_id: &str, is_known: bool) -> Vec<StoredKey> {
        let shared = &self.shared;
        shared.warn_if_closed();
        self.go_on();
        let find = || shared.find(urls, key_id);
        let is_enough = |found: &Vec<StoredKey>| is_known || !found.is_empty();
        if let Some(found) = find().filter(is_enough) {
            return found;
        }
        let endpoints: Vec<_> = urls.iter().map(|url| shared.endpoint(url.url())).collect();
        let found = find().unwrap_or_default();
        if is_enough(&found) {
            return found;
        }
        let demand = |endpoint| shared.demand(endpoint, Asker::Request);
        let mut waiting: FuturesUnordered<_> = endpoints.iter().filter_map(demand).map(done).collect();
        let first_found = async {
            loop {
                // First without waiting: a fetch may have ended just now.
                let found = find().unwrap_or_default();
                if !found.is_empty() || waiting.next().await.is_none() {
                    return found;
                }
            }
        };
        tokio::time::timeout(shared.source.deadline(), first_found).await.unwrap_or_default()
    }

    /// Lets the background work go on, on this runtime, if the one that it was on has ended.
    fn go_on(&self) {
        let shared = &self.shared;
        if shared.is_swept.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let mut sweeper = lock(&self.sweeper);
        // Another request may have been first. Who closes the cache says so before it locks the sweeper.
        if !shared.is_swept.load(Ordering::Acquire) && !shared.is_closed.load(Ordering::SeqCst) {
            // First, as those who see that it is swept begin fetches.
            *lock(&shared.runtime) = runtime.clone();
            *sweeper = shared.sweep_on(&runtime);
        }
    }
}

/// Waits until a fetch that is under way has ended.
async fn done(mut attempts: watch::Receiver<u64>) {
    // An error says that the endpoint is gone, and with it its fetch.
    let _ = attempts.changed().await;
}

impl Shared {
    /// Somebody asks: once it is said if that is too late, for then all keys end within the hour.
    fn warn_if_closed(&self) {
        if self.is_closed.load(Ordering::Relaxed) && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a closed cache of key sets is asked: it fetches nothing, and its keys end within the hour"
            );
        }
    }

    /// The keys of this id in the sets of these URLs. `None`: one of the URLs was not asked for before.
    fn find(&self, urls: &[TrustedUrl], key_id: &str) -> Option<Vec<StoredKey>> {
        let now = self.clock.monotonic();
        let places = read(&self.places);
        let mut found = Vec::new();
        for url in urls {
            let place = places.get(url.url())?;
            place.use_now(now);
            if let Some(keys) = &place.keys {
                keys.find(key_id, url.source(), now, &mut found);
            }
        }
        Some(found)
    }

    /// The endpoint of a URL that is asked for, perhaps a new one.
    fn endpoint(&self, url: &str) -> Arc<Endpoint> {
        let now = self.clock.monotonic();
        if let Some(place) = read(&self.places).get(url) {
            place.use_now(now);
            return Arc::clone(&place.endpoint);
        }
        let mut places = write(&self.places);
        Arc::clone(&places.entry(url.into()).or_insert_with(|| Place::new(url, now)).endpoint)
    }

    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let places = read(&self.places);
        places.values().map(|place| Arc::clone(&place.endpoint)).collect()
    }

    /// Drops what nobody has asked for in a day.
    fn drop_unused(&self, now: Duration) {
        let places = read(&self.places);
        let any = places.values().any(|place| place.is_unused(now));
        drop(places);
        if any {
            let mut places = write(&self.places);
            places.retain(|_, place| !place.is_unused(now));
        }
    }

    /// Shows requests what they may use from now on, unless the endpoint was dropped.
    fn publish(&self, endpoint: &Arc<Endpoint>, keys: TrustedKeys) {
        let mut places = write(&self.places);
        let place = places.get_mut(&endpoint.url).filter(|place| Arc::ptr_eq(&place.endpoint, endpoint));
        if let Some(place) = place {
            place.keys = Some(keys);
        }
    }

    /// A request, or the warm-up, needs what the endpoint has now: a fetch begins, at once or when it
    /// may. Tells when it has ended, if that is to be waited for: no set is there that is trusted, and the fetch
    /// is the first or has begun.
    ///
    /// For the first, requests wait as [`Endpoint::lets_wait`] says; the warm-up, which ends at a limit of its
    /// own, always does. Who does not wait has the keys that are there, as after a fetch that failed.
    fn demand(self: &Arc<Self>, endpoint: &Arc<Endpoint>, asker: Asker) -> Option<watch::Receiver<u64>> {
        if self.is_closed.load(Ordering::SeqCst) {
            return None;
        }
        let attempts = endpoint.attempts();
        let now = self.clock.monotonic();
        let has_begun = match endpoint.demand(now, asker) {
            Demand::Begin => self.begin(Arc::clone(endpoint)),
            Demand::UnderWay => true,
            Demand::Waiting => false,
            Demand::Later => return None,
        };
        let waits = match (endpoint.has_set(now), asker) {
            // A retry may stand behind others that fail for minutes, in which each request would wait anew.
            (Some(has_set), _) => has_begun && !has_set,
            (None, Asker::Request) => endpoint.lets_wait(now, self.source.deadline()),
            (None, Asker::WarmUp) => true,
        };
        waits.then_some(attempts)
    }
}

impl Drop for JwksCache {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        lock(&self.sweeper).abort();
        lock(&self.shared.tasks).abort_all();
    }
}

impl fmt::Debug for JwksCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksCache").field("sets", &self.snapshot().len()).finish_non_exhaustive()
    }
}

/// Makes a [`JwksCache`].
pub struct JwksCacheBuilder {
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    warm_up_limit: Duration,
}

impl JwksCacheBuilder {
    fn new(source: Arc<dyn Source>) -> Self {
        Self { source, clock: Arc::new(SystemClock::new()), warm_up_limit: DEFAULT_WARM_UP_LIMIT }
    }

    /// Reads the time here. Default: the operating system's clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long a [warm-up](JwksCache::warm_up) may take. Default: 30 s.
    #[must_use]
    pub const fn warm_up_limit(mut self, limit: Duration) -> Self {
        self.warm_up_limit = limit;
        self
    }

    /// Makes the cache and starts its background work, on this runtime, and once it has ended on that of the next
    /// request or warm-up. Not noticed is a runtime that nobody drives any more, as one of a single thread outside of
    /// its `block_on`: nothing is fetched then. With the feature `metrics` its counters begin at 0, so install the
    /// recorder before.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer and I/O enabled.
    #[must_use]
    pub fn build(self) -> JwksCache {
        let runtime = Handle::current();
        let shared = Arc::new(Shared {
            source: self.source,
            clock: self.clock,
            warm_up_limit: self.warm_up_limit,
            places: RwLock::default(),
            refreshes: Arc::new(Semaphore::new(REFRESHES)),
            first_fetches: Arc::new(Semaphore::new(FIRST_FETCHES)),
            retries: Arc::new(Semaphore::new(RETRIES)),
            runtime: Mutex::new(runtime.clone()),
            is_swept: AtomicBool::new(false),
            tasks: Mutex::default(),
            is_closed: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
            repositories: AtomicUsize::new(0),
            report: Report::new(),
        });
        let sweeper = Mutex::new(shared.sweep_on(&runtime));
        JwksCache { shared, sweeper }
    }
}

impl fmt::Debug for JwksCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksCacheBuilder")
            .field("clock", &self.clock)
            .field("warm_up_limit", &self.warm_up_limit)
            .finish_non_exhaustive()
    }
}
