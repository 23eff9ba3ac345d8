use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ajwt_core::Timestamp;
use async_trait::async_trait;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{KeySource, RepositoryError, sync::lock, turn};

/// Notes when a key was last used. Best effort: it neither delays nor fails a request.
///
/// [`KeySource::Unrecorded`] is no row, and no recorder writes anything for it.
///
/// ```
/// use std::{collections::HashMap, sync::{Mutex, PoisonError}};
/// use ajwt_core::Timestamp;
/// use ajwt_server::{KeySource, UsageRecorder};
/// use async_trait::async_trait;
///
/// /// Keeps last uses in memory, to be shown to an operator.
/// #[derive(Debug, Default)]
/// struct LastUses(Mutex<HashMap<KeySource, Timestamp>>);
///
/// #[async_trait]
/// impl UsageRecorder for LastUses {
///     fn record(&self, source: KeySource, at: Timestamp) {
///         if source != KeySource::Unrecorded {
///             let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///             let last = uses.entry(source).or_insert(at);
///             *last = at.max(*last);
///         }
///     }
///
///     async fn flush(&self) {
///         // Nothing waits to be written.
///     }
/// }
/// ```
#[async_trait]
pub trait UsageRecorder: Debug + Send + Sync + 'static {
    /// Notes a use. Called on the request path: it must not wait. A slow request may come with an older time than the
    /// last one: the newest counts.
    fn record(&self, source: KeySource, at: Timestamp);

    /// Writes what is noted and not written yet.
    async fn flush(&self);
}

/// Notes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoUsage;

#[async_trait]
impl UsageRecorder for NoUsage {
    fn record(&self, _: KeySource, _: Timestamp) {}

    async fn flush(&self) {}
}

/// Where [`BatchedUsage`] writes to.
///
/// ```
/// use std::{collections::HashMap, sync::{Mutex, PoisonError}};
/// use ajwt_core::Timestamp;
/// use ajwt_server::{KeySource, RepositoryError, UsageStore};
/// use async_trait::async_trait;
///
/// /// Rows of keys and trusts, each with its last use.
/// #[derive(Debug)]
/// struct Rows(Mutex<HashMap<KeySource, Option<Timestamp>>>);
///
/// #[async_trait]
/// impl UsageStore for Rows {
///     async fn write(&self, uses: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError> {
///         let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         for (source, at) in uses {
///             if let Some(last_used_on) = rows.get_mut(source) {
///                 *last_used_on = (*last_used_on).max(Some(*at));
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait UsageStore: Debug + Send + Sync + 'static {
    /// Writes the last use of each row. A row that is gone is not an error, and an older time never
    /// replaces a newer one, nor does it where a row is among them twice. [`KeySource::Unrecorded`] is never among
    /// them.
    ///
    /// # Errors
    /// [`RepositoryError`]; the uses are written with the next batch.
    async fn write(&self, uses: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError>;
}

/// Uses in one write: a store holds its locks no longer than that takes.
const WRITTEN_AT_ONCE: usize = 500;

/// How long one write may take, or a connection that went silent would end them all.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Collects uses and writes each key's last one at most once per interval.
#[derive(Debug)]
pub struct BatchedUsage {
    batch: Arc<Batch>,
    interval: Duration,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Batch {
    store: Arc<dyn UsageStore>,
    uses: Mutex<HashMap<KeySource, Timestamp>>,
    /// Held while a batch is written, so that a flush also waits for the one under way.
    writing: tokio::sync::Mutex<()>,
    /// Whether there is a task that writes.
    is_written: AtomicBool,
}

impl BatchedUsage {
    /// How often the stores that come with ajwt are written to.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

    /// Starts the background task that writes every `interval`. It ends when this is dropped; call
    /// [`flush`](UsageRecorder::flush) first, or what is not written yet is lost. Where its runtime ends before, the
    /// next use that is noted on another one starts it anew.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    #[must_use]
    pub fn new(store: Arc<dyn UsageStore>, interval: Duration) -> Self {
        let (uses, writing, is_written) = (Mutex::default(), Default::default(), AtomicBool::new(false));
        let batch = Arc::new(Batch { store, uses, writing, is_written });
        let usage = Self { batch, interval, writer: Mutex::default() };
        usage.start();
        usage
    }

    fn start(&self) {
        let mut writer = lock(&self.writer);
        if !self.batch.is_written.swap(true, Ordering::Relaxed) {
            let (writing, interval) = (Writing(Arc::clone(&self.batch)), self.interval);
            *writer = Some(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(interval).await;
                    turn::run("writing the last use of keys", writing.0.write()).await;
                }
            }));
        }
    }
}

impl Drop for BatchedUsage {
    fn drop(&mut self) {
        if let Some(writer) = lock(&self.writer).take() {
            writer.abort();
        }
    }
}

/// The background task. However it ends, nothing is written any more.
struct Writing(Arc<Batch>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.is_written.store(false, Ordering::Relaxed);
    }
}

#[async_trait]
impl UsageRecorder for BatchedUsage {
    fn record(&self, source: KeySource, at: Timestamp) {
        self.batch.note(source, at);
        if !self.batch.is_written.load(Ordering::Relaxed) && Handle::try_current().is_ok() {
            self.start();
        }
    }

    async fn flush(&self) {
        self.batch.write().await;
    }
}

impl Batch {
    fn note(&self, source: KeySource, at: Timestamp) {
        if source == KeySource::Unrecorded {
            return;
        }
        let mut uses = lock(&self.uses);
        let last = uses.entry(source).or_insert(at);
        *last = at.max(*last);
    }

    async fn write(&self) {
        let _writing = self.writing.lock().await;
        let uses = std::mem::take(&mut *lock(&self.uses));
        if uses.is_empty() {
            return;
        }
        let mut unwritten = Unwritten { batch: self, uses: uses.into_iter().collect() };
        let mut failed = Unwritten { batch: self, uses: Vec::new() };
        while !unwritten.uses.is_empty() {
            let rest = unwritten.uses.len().saturating_sub(WRITTEN_AT_ONCE);
            let (_, some) = unwritten.uses.split_at(rest);
            let writing = tokio::time::timeout(WRITE_TIMEOUT, self.store.write(some)).await;
            let is_over = writing.is_err();
            if let Err(error) = writing.unwrap_or_else(|_| Err(RepositoryError::timeout("writing"))) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the last use of keys could not be written; it is tried again"
                );
                failed.uses.extend_from_slice(some);
            }
            if is_over {
                // Each that is given up may leave a connection behind at the server.
                return;
            }
            unwritten.uses.truncate(rest);
        }
    }
}

/// Uses that were taken out to be written. What is left of them goes back, also when a flush is given up.
struct Unwritten<'b> {
    batch: &'b Batch,
    uses: Vec<(KeySource, Timestamp)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.uses.iter().for_each(|(source, at)| self.batch.note(*source, *at));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Store {
        rows: Mutex<Vec<(KeySource, Timestamp)>>,
        failures: AtomicUsize,
    }

    #[async_trait]
    impl UsageStore for Store {
        async fn write(&self, uses: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError> {
            if self.failures.load(Ordering::SeqCst) > 0 {
                self.failures.fetch_sub(1, Ordering::SeqCst);
                return Err(RepositoryError::timeout("writing"));
            }
            self.rows.lock().expect("lock").extend_from_slice(uses);
            Ok(())
        }
    }

    /// As docs/database.md says.
    #[test]
    fn the_interval_of_the_stores_is_30_seconds() {
        assert_eq!(BatchedUsage::DEFAULT_INTERVAL, Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn the_use_of_a_key_without_a_row_is_written_nowhere() {
        let store = Arc::new(Store::default());
        let usage = BatchedUsage::new(Arc::clone(&store) as _, Duration::from_secs(3600));
        usage.record(KeySource::Unrecorded, Timestamp::from_millis(5));
        usage.record(KeySource::Key(7), Timestamp::from_millis(5));
        usage.flush().await;
        assert_eq!(*store.rows.lock().expect("lock"), [(KeySource::Key(7), Timestamp::from_millis(5))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_write_per_key_and_interval() {
        let store = Arc::new(Store::default());
        let usage = BatchedUsage::new(Arc::clone(&store) as _, BatchedUsage::DEFAULT_INTERVAL);
        for at in 0..10_000 {
            usage.record(KeySource::Key(1), Timestamp::from_millis(at));
            usage.record(KeySource::Trust(1), Timestamp::from_millis(at));
        }
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert!(store.rows.lock().expect("lock").is_empty());
        tokio::time::sleep(Duration::from_secs(100)).await;
        let mut rows = store.rows.lock().expect("lock").clone();
        rows.sort();
        let last = Timestamp::from_millis(9999);
        assert_eq!(rows, [(KeySource::Key(1), last), (KeySource::Trust(1), last)]);
    }

    /// As where one runtime sets a service up and another serves.
    #[test]
    fn what_is_noted_on_another_runtime_is_written_there() {
        let runtime = || {
            let builder = &mut tokio::runtime::Builder::new_current_thread();
            builder.enable_time().start_paused(true).build().expect("a runtime")
        };
        let store = Arc::new(Store::default());
        let usage =
            runtime().block_on(async { BatchedUsage::new(Arc::clone(&store) as _, Duration::from_secs(30)) });
        // No runtime, no task, and no panic.
        usage.record(KeySource::Key(1), Timestamp::from_millis(5));
        runtime().block_on(async {
            usage.record(KeySource::Key(2), Timestamp::from_millis(5));
            tokio::time::sleep(Duration::from_secs(31)).await;
        });
        let mut rows = store.rows.lock().expect("lock").clone();
        rows.sort();
        assert_eq!(rows, [1, 2].map(|id| (KeySource::Key(id), Timestamp::from_millis(5))));
    }

    /// A store that takes its time.
    #[derive(Debug, Default)]
    struct Slow(Store);

    #[async_trait]
    impl UsageStore for Slow {
        async fn write(&self, uses: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError> {
            tokio::time::sleep(Duration::from_secs(5)).await;
            self.0.write(uses).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_waits_for_the_batch_that_is_being_written() {
        let store = Arc::new(Slow::default());
        let usage = BatchedUsage::new(Arc::clone(&store) as _, Duration::from_secs(30));
        usage.record(KeySource::Key(1), Timestamp::from_millis(5));
        tokio::time::sleep(Duration::from_secs(31)).await;
        // The background task has taken the batch; the process ends after this flush.
        usage.flush().await;
        drop(usage);
        assert_eq!(*store.0.rows.lock().expect("lock"), [(KeySource::Key(1), Timestamp::from_millis(5))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_that_is_given_up_loses_no_use() {
        let store = Arc::new(Slow::default());
        let usage = BatchedUsage::new(Arc::clone(&store) as _, Duration::from_secs(3600));
        let sources: Vec<_> = (0..).map(KeySource::Key).take(WRITTEN_AT_ONCE * 2 + 1).collect();
        sources.iter().for_each(|source| usage.record(*source, Timestamp::from_millis(5)));
        // Of three writes of five seconds the second is under way.
        assert!(tokio::time::timeout(Duration::from_secs(7), usage.flush()).await.is_err());
        usage.flush().await;
        let mut written: Vec<_> =
            store.0.rows.lock().expect("lock").iter().map(|(source, _)| *source).collect();
        written.sort();
        written.dedup();
        assert_eq!(written, sources);
    }

    /// A store that does not answer.
    #[derive(Debug, Default)]
    struct Silent(AtomicUsize);

    #[async_trait]
    impl UsageStore for Silent {
        async fn write(&self, _: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_asked_once_in_each_round() {
        let store = Arc::new(Silent::default());
        let usage = BatchedUsage::new(Arc::clone(&store) as _, Duration::from_secs(3600));
        let uses = (0..).map(KeySource::Key).take(WRITTEN_AT_ONCE * 2 + 1);
        uses.for_each(|source| usage.record(source, Timestamp::from_millis(5)));
        for round in 1..=3 {
            usage.flush().await;
            assert_eq!(store.0.load(Ordering::SeqCst), round);
            assert_eq!(lock(&usage.batch.uses).len(), WRITTEN_AT_ONCE * 2 + 1, "none is lost");
        }
    }

    /// A store that panics once.
    #[derive(Debug, Default)]
    struct Panicking {
        has_panicked: AtomicBool,
        store: Store,
    }

    #[async_trait]
    impl UsageStore for Panicking {
        async fn write(&self, uses: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError> {
            assert!(self.has_panicked.swap(true, Ordering::SeqCst), "panics once, as this test wants it");
            self.store.write(uses).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_panics_is_made_up_for_in_the_next_round() {
        let store = Arc::new(Panicking::default());
        let usage = BatchedUsage::new(Arc::clone(&store) as _, Duration::from_secs(30));
        usage.record(KeySource::Key(1), Timestamp::from_millis(5));
        tokio::time::sleep(Duration::from_secs(45)).await;
        assert!(store.has_panicked.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_secs(30)).await;
        let rows = store.store.rows.lock().expect("lock").clone();
        assert_eq!(rows, [(KeySource::Key(1), Timestamp::from_millis(5))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_write_is_made_up_for_and_keeps_the_newest() {
        let store = Arc::new(Store { failures: AtomicUsize::new(1), ..Store::default() });
        let usage = BatchedUsage::new(Arc::clone(&store) as _, Duration::from_secs(3600));
        usage.record(KeySource::Key(1), Timestamp::from_millis(5));
        usage.flush().await;
        usage.record(KeySource::Key(1), Timestamp::from_millis(3));
        usage.flush().await;
        assert_eq!(*store.rows.lock().expect("lock"), [(KeySource::Key(1), Timestamp::from_millis(5))]);
    }
}
