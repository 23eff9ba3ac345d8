use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use ajwt_core::Timestamp;
use ajwt_server::{Clock, NonceError, NonceOutcome, NonceUse, RepositoryError, StartRule};
use async_trait::async_trait;
use tokio::task::JoinHandle;

use crate::failure::failed;

/// Between two removals of expired rows.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// After so many, ten minutes, one begins at the beginning of the table, for what came late.
const SWEEPS_BETWEEN_WHOLE_ONES: u32 = 60;

/// How far a removal goes back behind the last one, in milliseconds: another process may have had rows locked, and not
/// removed them.
const SWEEP_OVERLAP_MS: i64 = 60_000;

/// Before each row.
const BEGINNING: i64 = i64::MIN;

/// Rows that one statement removes: locks are held no longer than that takes.
pub(crate) const SWEEP_BATCH: u16 = 1000;

/// Between two batches: other writers get their turn.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// How long one removal may take, or a connection that went silent would end them all.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(30);

const REMOVING: &str = "removing expired nonces";

/// Between two looks at the mark for what is refused by it, in milliseconds.
const LOOK_ANEW_MS: u64 = 1000;

const NOT_BEGUN: &str = "this server's clock is more than a minute ahead of the database's (set the clocks), or the \
    table was emptied once more";

/// Stands for "not read yet".
const UNKNOWN: i64 = i64::MIN;

/// The statements of one database. One row of the table, the mark, says since when it is whole.
#[async_trait]
pub(crate) trait NonceTable: Debug + Send + Sync + 'static {
    /// Adds a nonce in one statement, and commits it. It is added only while the mark stands as it was read, or may be
    /// there afterwards all the same, for a token that is refused.
    async fn add(&self, key: &[u8; 32], expires_at: i64, since: i64) -> Result<Added, sqlx::Error>;

    /// Since when the table is whole, in milliseconds; `None` if the mark is gone.
    async fn since(&self) -> Result<Option<i64>, sqlx::Error>;

    /// Sets the mark, unless there is one: since ever (0), or since `since` by this server's clock or now by the
    /// database's, whichever is later, for a server whose clock is behind would have the table whole before others
    /// emptied it. Clocks may be a minute apart. Where this server's is further ahead there is no mark, or all
    /// others would refuse until then; where the database's is, a minute counts. SQLite has no clock but this
    /// host's.
    async fn begin(&self, since: i64) -> Result<(), sqlx::Error>;

    /// Removes at most [`SWEEP_BATCH`] rows that expire at `from` or later, and before `now`; says how many.
    async fn remove_expired(&self, from: i64, now: i64) -> Result<u64, sqlx::Error>;
}

/// What became of a nonce that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It was not there, and now it is; and the mark stands.
    Yes,
    /// It was there.
    #[cfg(feature = "mysql")]
    WasThere,
    /// It was there, or the mark is another.
    WasThereOrEmptied,
}

/// A nonce backend over such a table: the rule of the mark, and the removal of expired rows.
#[derive(Debug)]
pub(crate) struct Nonces<T> {
    shared: Arc<Shared<T>>,
    start_rule: StartRule,
    sweeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared<T> {
    table: T,
    clock: Arc<dyn Clock>,
    /// Milliseconds since the Unix epoch, or [`UNKNOWN`].
    since: AtomicI64,
    /// When that was read last, in milliseconds of the monotonic clock.
    looked_at: AtomicU64,
    /// Whether there is a task that removes expired rows.
    is_swept: AtomicBool,
}

impl<T: NonceTable> Nonces<T> {
    /// Panics outside of a tokio runtime with its timer enabled.
    pub(crate) fn new(table: T, clock: Arc<dyn Clock>) -> Self {
        let shared = Arc::new(Shared::new(table, clock));
        let nonces = Self { shared, start_rule: StartRule::default(), sweeper: Mutex::default() };
        nonces.start();
        nonces
    }

    pub(crate) fn with_start_rule(mut self, start_rule: StartRule) -> Self {
        self.start_rule = start_rule;
        self
    }

    pub(crate) async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        if !self.shared.is_swept.load(Ordering::Relaxed) {
            self.start();
        }
        self.shared.consume(nonce, self.start_rule).await
    }

    /// Begins the background task, if there is none: one authenticator of several that share the backend may have been
    /// closed, or the runtime that the task was on has ended, and rows would pile up from then on.
    fn start(&self) {
        let mut sweeper = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.shared.is_swept.swap(true, Ordering::Relaxed) {
            let sweeping = Sweeping(Arc::clone(&self.shared));
            *sweeper = Some(tokio::spawn(sweeping.run()));
        }
    }

    /// Marks a table without a mark as whole since ever; whether it is so marked now.
    pub(crate) async fn initialise(&self) -> Result<bool, RepositoryError> {
        let failed = failed("marking the nonce table as new");
        self.shared.table.begin(0).await.map_err(&failed)?;
        let since = self.shared.read_since().await?;
        Ok(since == Timestamp::from_millis(0))
    }

    /// Looks whether the table can be read; sets no mark.
    pub(crate) async fn check(&self) -> Result<(), RepositoryError> {
        self.shared.table.since().await.map(drop).map_err(failed("reading the nonce table"))
    }

    pub(crate) async fn sweep(&self) {
        self.shared.sweep(BEGINNING).await;
    }
}

impl<T> Nonces<T> {
    /// Ends the background task, until a nonce is used again.
    pub(crate) fn stop(&self) {
        let sweeper = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sweeper) = sweeper {
            sweeper.abort();
        }
    }
}

impl<T> Drop for Nonces<T> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The nonce backend of one database, over the table that the last argument makes of a pool. A macro and no generic
/// type: that would have the tables in the public API.
macro_rules! nonce_backend {
    ($(#[$documentation:meta])* $Backend:ident, $Pool:ty, $Table:ty, $table:path) => {
        $(#[$documentation])*
        #[derive(Debug)]
        pub struct $Backend($crate::nonce_table::Nonces<$Table>);

        impl $Backend {
            /// Over a pool whose database is migrated. Starts the background task that removes expired
            /// rows.
            ///
            /// # Panics
            /// Outside of a tokio runtime with its timer enabled.
            #[must_use]
            pub fn new(pool: $Pool) -> Self {
                Self::with_clock(pool, std::sync::Arc::new(ajwt_server::SystemClock::new()))
            }

            /// As [`new`](Self::new), on this clock, which should be the engine's.
            ///
            /// # Panics
            /// Outside of a tokio runtime with its timer enabled.
            #[must_use]
            pub fn with_clock(pool: $Pool, clock: std::sync::Arc<dyn ajwt_server::Clock>) -> Self {
                Self($crate::nonce_table::Nonces::new($table(pool), clock))
            }

            /// Refuses by this rule what may have been used before the table was whole. Default: strict, with
            /// a server skew of 5 s.
            #[must_use]
            pub fn with_start_rule(self, start_rule: ajwt_server::StartRule) -> Self {
                Self(self.0.with_start_rule(start_rule))
            }

            /// Marks a table that was just made as new, on your word that no token was used before: else the
            /// first tokens are answered with 503, for the tolerance and the server skew (25 s by default).
            /// A table that is in use stays as it is. `true`: it is so marked now.
            ///
            /// Do this once, when a service is set up. A service that did it at every start would make used
            /// tokens good again whenever its database is lost.
            ///
            /// # Errors
            /// [`RepositoryError`](ajwt_server::RepositoryError) if the database failed.
            pub async fn initialise(&self) -> Result<bool, ajwt_server::RepositoryError> {
                self.0.initialise().await
            }

            /// Looks whether the table of nonces is there, and changes nothing: for a service that would rather not
            /// start than answer each request with 503.
            ///
            /// # Errors
            /// [`RepositoryError`](ajwt_server::RepositoryError) if it cannot be read, with
            /// [`MissingTables`](crate::MissingTables) for its source where the migrations were not run.
            pub async fn check(&self) -> Result<(), ajwt_server::RepositoryError> {
                self.0.check().await
            }

            /// Removes the rows that have expired now, as the background task does every 10 s.
            pub async fn sweep(&self) {
                self.0.sweep().await;
            }
        }

        #[async_trait::async_trait]
        impl ajwt_server::NonceBackend for $Backend {
            async fn consume(
                &self,
                nonce: &ajwt_server::NonceUse,
            ) -> Result<ajwt_server::NonceOutcome, ajwt_server::NonceError> {
                self.0.consume(nonce).await
            }

            async fn close(&self) {
                self.0.stop();
            }
        }
    };
}

pub(crate) use nonce_backend;

/// The background task. However it ends, the table is not swept any more.
struct Sweeping<T>(Arc<Shared<T>>);

impl<T: NonceTable> Sweeping<T> {
    /// Each removal goes on from the last one. While anybody has a long transaction, a dump say, the rows that were
    /// removed stay in PostgreSQL's and InnoDB's indexes, and whatever begins before them reads them all.
    async fn run(self) {
        let mut from = BEGINNING;
        loop {
            for _ in 0..SWEEPS_BETWEEN_WHOLE_ONES {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                from = self.0.sweep(from).await.unwrap_or(from);
            }
            // Right after the last, when one statement will do.
            self.0.sweep(BEGINNING).await;
        }
    }
}

impl<T> Drop for Sweeping<T> {
    fn drop(&mut self) {
        self.0.is_swept.store(false, Ordering::Relaxed);
    }
}

impl<T: NonceTable> Shared<T> {
    fn new(table: T, clock: Arc<dyn Clock>) -> Self {
        let (since, looked_at) = (AtomicI64::new(UNKNOWN), AtomicU64::new(0));
        let is_swept = AtomicBool::new(false);
        Self { table, clock, since, looked_at, is_swept }
    }

    async fn consume(&self, nonce: &NonceUse, start_rule: StartRule) -> Result<NonceOutcome, NonceError> {
        let mut since = self.since().await?;
        if let Err(refused) = start_rule.check(nonce, since) {
            // It may have been put right since it was read. What is refused never gets to the statement that would
            // tell: a mark that lies ahead would be believed until then, whatever stands in the table.
            if !self.may_look_anew() {
                return Err(refused);
            }
            since = self.read_since().await?;
            start_rule.check(nonce, since)?;
        }
        let expires_at = nonce.now().saturating_add(nonce.lifetime()).as_millis();
        let added = self.table.add(nonce.key().as_bytes(), expires_at, since.as_millis()).await;
        match added.map_err(failed("consuming a nonce"))? {
            Added::Yes => return Ok(NonceOutcome::Fresh),
            #[cfg(feature = "mysql")]
            Added::WasThere => return Ok(NonceOutcome::Replayed),
            Added::WasThereOrEmptied => {}
        }
        let now_since = self.read_since().await?;
        if now_since == since {
            return Ok(NonceOutcome::Replayed);
        }
        // The table was emptied under us. Whether this token was in it is not known.
        Err(NonceError::MayHaveBeenUsed { since: now_since })
    }

    /// Since when the table is whole.
    async fn since(&self) -> Result<Timestamp, RepositoryError> {
        match self.since.load(Ordering::Relaxed) {
            UNKNOWN => self.read_since().await,
            known => Ok(Timestamp::from_millis(known)),
        }
    }

    /// One of those who ask at once is told that it may, and each a while after the last.
    fn may_look_anew(&self) -> bool {
        let (now, last) = (self.monotonic_ms(), self.looked_at.load(Ordering::Relaxed));
        now.saturating_sub(last) >= LOOK_ANEW_MS
            && self.looked_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads it anew. A table that lost the mark is whole from now on.
    async fn read_since(&self) -> Result<Timestamp, RepositoryError> {
        let failed = failed("reading since when the nonce table is whole");
        self.looked_at.store(self.monotonic_ms(), Ordering::Relaxed);
        let mut since = self.table.since().await.map_err(&failed)?;
        if since.is_none() {
            self.table.begin(self.clock.now().as_millis()).await.map_err(&failed)?;
            since = self.table.since().await.map_err(&failed)?;
            // Not before: where it may not begin, the error says why.
            if since.is_some() {
                tracing::warn!(
                    "the table of used nonces is new or was emptied; tokens from before are refused until they expire"
                );
            }
        }
        let since = since.ok_or_else(|| failed(sqlx::Error::Configuration(NOT_BEGUN.into())))?;
        self.since.store(since, Ordering::Relaxed);
        Ok(Timestamp::from_millis(since))
    }

    /// Removes what has expired from then on. Says where the next removal may begin, if none is left of it.
    async fn sweep(&self, from: i64) -> Option<i64> {
        loop {
            let now = self.clock.now().as_millis();
            let removing = self.table.remove_expired(from, now);
            let removed = match tokio::time::timeout(SWEEP_TIMEOUT, removing).await {
                Ok(removed) => removed.map_err(failed(REMOVING)),
                Err(_) => Err(RepositoryError::timeout(REMOVING)),
            };
            match removed {
                Ok(removed) if removed >= u64::from(SWEEP_BATCH) => tokio::time::sleep(SWEEP_PAUSE).await,
                Ok(_) => return Some(now.saturating_sub(SWEEP_OVERLAP_MS)),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "expired nonces are removed later"
                    );
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use ajwt_server::{MockClock, testing};

    use super::*;

    /// Whole since a time ahead, until it is told otherwise.
    #[derive(Debug, Default)]
    struct Table {
        since: AtomicI64,
        reads: AtomicUsize,
        /// From when and until when those had expired that were to be removed.
        removals: Mutex<Vec<(i64, i64)>>,
        /// Rows that have expired.
        expired: AtomicU64,
        is_down: AtomicBool,
    }

    impl Table {
        fn new(since: i64) -> Self {
            Self { since: AtomicI64::new(since), ..Self::default() }
        }

        /// Since the last call.
        fn removals(&self) -> Vec<(i64, i64)> {
            std::mem::take(&mut *self.removals.lock().expect("lock"))
        }
    }

    #[async_trait]
    impl NonceTable for Table {
        async fn add(&self, _: &[u8; 32], _: i64, since: i64) -> Result<Added, sqlx::Error> {
            let is_whole = since == self.since.load(Ordering::Relaxed);
            Ok(if is_whole { Added::Yes } else { Added::WasThereOrEmptied })
        }

        async fn since(&self) -> Result<Option<i64>, sqlx::Error> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            Ok(Some(self.since.load(Ordering::Relaxed)))
        }

        async fn begin(&self, _: i64) -> Result<(), sqlx::Error> {
            Ok(())
        }

        async fn remove_expired(&self, from: i64, now: i64) -> Result<u64, sqlx::Error> {
            self.removals.lock().expect("lock").push((from, now));
            if self.is_down.load(Ordering::Relaxed) {
                return Err(sqlx::Error::PoolClosed);
            }
            let expired = self.expired.load(Ordering::Relaxed);
            let removed = expired.min(u64::from(SWEEP_BATCH));
            self.expired.store(expired - removed, Ordering::Relaxed);
            Ok(removed)
        }
    }

    fn a_use(now: Timestamp) -> NonceUse {
        let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
        testing::nonce_use("guido", now.as_secs(), "a nonce", now, tolerance, margin)
    }

    /// As where two authenticators share a backend, and one of them is closed.
    #[tokio::test(start_paused = true)]
    async fn a_use_after_the_end_has_expired_rows_removed_again() {
        let now = Timestamp::from_secs(1_800_000_000);
        let nonces = Nonces::new(Table::new(0), Arc::new(MockClock::new(now)));
        let removals = || nonces.shared.table.removals().len();
        let a_while = async || tokio::time::sleep(SWEEP_INTERVAL * 3 / 2).await;
        a_while().await;
        assert_eq!(removals(), 1);
        for _ in 0..2 {
            nonces.stop();
            nonces.stop();
            a_while().await;
            a_while().await;
            assert_eq!(removals(), 0, "it has ended");
            for _ in 0..3 {
                let answer = nonces.consume(&a_use(now)).await;
                assert_eq!(answer.expect("an answer"), NonceOutcome::Fresh);
            }
            a_while().await;
            assert_eq!(removals(), 1, "by one task");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_goes_on_from_the_last_and_every_ten_minutes_from_the_beginning() {
        let clock = MockClock::new(Timestamp::from_secs(1_800_000_000));
        let nonces = Nonces::new(Table::new(0), Arc::new(clock.clone()));
        let table = &nonces.shared.table;
        let from = |now: i64| now - SWEEP_OVERLAP_MS;
        // In the midst between two of them.
        tokio::time::sleep(SWEEP_INTERVAL / 2).await;
        let next = async || {
            clock.advance(SWEEP_INTERVAL);
            tokio::time::sleep(SWEEP_INTERVAL).await;
            (table.removals(), clock.now().as_millis())
        };

        // Until one is complete they begin where the table does.
        table.is_down.store(true, Ordering::Relaxed);
        let (removals, now) = next().await;
        assert_eq!(removals, [(BEGINNING, now)]);
        table.is_down.store(false, Ordering::Relaxed);
        table.expired.store(u64::from(SWEEP_BATCH) * 2, Ordering::Relaxed);
        let (removals, now) = next().await;
        assert_eq!(removals, [(BEGINNING, now); 3]);

        let mut last = now;
        for _ in 3..60 {
            let (removals, now) = next().await;
            assert_eq!(removals, [(from(last), now)]);
            last = now;
        }
        // Ten minutes after the start.
        let (removals, now) = next().await;
        assert_eq!(removals, [(from(last), now), (BEGINNING, now)]);
        last = now;

        // One that is not complete leaves the next to begin where it did.
        table.is_down.store(true, Ordering::Relaxed);
        let (removals, now) = next().await;
        assert_eq!(removals, [(from(last), now)]);
        table.is_down.store(false, Ordering::Relaxed);
        let (removals, now) = next().await;
        assert_eq!(removals, [(from(last), now)]);
        let (removals, then) = next().await;
        assert_eq!(removals, [(from(now), then)]);
    }

    #[test]
    fn a_use_after_the_end_of_its_runtime_has_expired_rows_removed_again() {
        let runtime = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_time().start_paused(true).build().expect("a runtime")
        };
        let now = Timestamp::from_secs(1_800_000_000);
        let nonces = runtime().block_on(async { Nonces::new(Table::new(0), Arc::new(MockClock::new(now))) });
        runtime().block_on(async {
            let answer = nonces.consume(&a_use(now)).await;
            assert_eq!(answer.expect("an answer"), NonceOutcome::Fresh);
            tokio::time::sleep(SWEEP_INTERVAL * 3 / 2).await;
        });
        assert_eq!(nonces.shared.table.removals().len(), 1);
    }

    #[tokio::test]
    async fn what_is_refused_has_the_mark_read_once_a_second() {
        let now = Timestamp::from_secs(1_800_000_000);
        let clock = MockClock::new(now);
        let ahead = now.saturating_add(Duration::from_secs(86_400)).as_millis();
        let shared = Shared::new(Table::new(ahead), Arc::new(clock.clone()));
        let consume = async || shared.consume(&a_use(clock.now()), StartRule::default()).await;
        for second in 1..=3 {
            for _ in 0..100 {
                let answer = consume().await;
                assert!(matches!(answer, Err(NonceError::MayHaveBeenUsed { .. })), "{answer:?}");
            }
            assert_eq!(shared.table.reads.load(Ordering::Relaxed), second);
            clock.advance(Duration::from_millis(999));
            assert!(consume().await.is_err());
            assert_eq!(shared.table.reads.load(Ordering::Relaxed), second);
            clock.advance(Duration::from_millis(1));
        }
        shared.table.since.store(0, Ordering::Relaxed);
        assert_eq!(consume().await.expect("an answer"), NonceOutcome::Fresh);
    }
}
