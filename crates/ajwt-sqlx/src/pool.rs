//! What databases behind a network need beside SQL: connections break, and stop answering.

use std::{
    error::Error,
    fmt,
    pin::pin,
    sync::{self, Arc, PoisonError},
    time::Duration,
};

use ajwt_server::RepositoryError;
use sqlx::{
    ConnectOptions as _, Connection, Database, Pool, Transaction,
    error::DatabaseError,
    pool::{PoolConnection, PoolOptions},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    error::ConnectError,
    failure::failed,
    unanswered::{Source, Unanswered},
};

/// How long a request waits for a connection of a pool that we open: less than the engine waits
/// for a store by default.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long a read waits for a connection before the log says why: less than the cache of users waits for a read by
/// default.
const TOLD_AFTER: Duration = Duration::from_millis(600);

/// How long the attempt may take that shows why there was none.
const TRIED_FOR: Duration = Duration::from_secs(5);

/// Between two of them, for one pool.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The same where a connection could be made.
const TRIED_AGAIN_AFTER_SUCCESS: Duration = Duration::from_secs(5);

/// The pools for which it was made, and until when there is no other.
static TRIED: sync::Mutex<Vec<(usize, Instant)>> = sync::Mutex::new(Vec::new());

/// How long a connection may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// The same where a request waits, which has another connection to make then.
const IDLE_PING_TIMEOUT: Duration = Duration::from_millis(250);

/// After so long without use a connection is asked whether it is there before it is handed out: a firewall may have
/// forgotten it. Under load none is idle for so long.
const ASKED_AFTER: Duration = Duration::from_secs(30);

/// How long a connection is kept out of the pool before another one of the pool takes its place, so that it leads nowhere
/// where those of requests do not: after a switch by DNS the old server may go on answering over it.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How long a look waits for that other one, before it goes on with the one it has.
const REPLACED_WITHIN: Duration = Duration::from_millis(500);

/// After so long without success it is tried again: each attempt may be a login that is given up.
const REPLACED_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Opens a pool with its first connection. What a server has to say that refuses it, or has none left, a pool keeps to
/// itself: it tries again, and says then that time was up. So one more attempt is made without it.
pub(crate) async fn open<DB: Database>(
    pool: PoolOptions<DB>,
    options: <DB::Connection as Connection>::Options,
) -> Result<Pool<DB>, ConnectError> {
    let mut opened = pool.connect_with(options.clone()).await;
    if matches!(opened, Err(sqlx::Error::PoolTimedOut)) {
        match timeout(ACQUIRE_TIMEOUT, DB::Connection::connect_with(&options)).await {
            Ok(Err(error)) => opened = Err(error),
            Ok(Ok(connection)) => {
                let _ = timeout(PING_TIMEOUT, connection.close()).await;
            }
            Err(_) => {}
        }
    }
    opened.map_err(|error| ConnectError::Open { source: error.into() })
}

/// A connection that goes back to the pool only when its statement came to an end.
///
/// One that is dropped before is closed. sqlx would wait for it to answer before another takes its place,
/// and a server that hung would leave a pool of hanging connections behind; for how long an answer is worth waiting
/// for is [`Unanswered`]'s to say. Nor does one go back that is within a transaction that nobody ends: sqlx gives a
/// connection back that is dropped while it waits for the answer to BEGIN, and does not roll back.
pub(crate) struct Lease<DB: Database>(Option<PoolConnection<DB>>);

impl<DB: Database> Lease<DB> {
    /// Waits for a connection as long as the pool says.
    pub(crate) async fn of(pool: &Pool<DB>) -> Result<Self, sqlx::Error> {
        let acquired = pool.acquire().await;
        if matches!(acquired, Err(sqlx::Error::PoolTimedOut)) {
            tell_why(pool);
        }
        Ok(Self(Some(acquired?)))
    }

    /// For a read, which the cache of users may give up before the pool says that there is no connection.
    async fn to_read(pool: &Pool<DB>) -> Result<Self, sqlx::Error> {
        let mut acquiring = pin!(Self::of(pool));
        if let Ok(lease) = timeout(TOLD_AFTER, acquiring.as_mut()).await {
            return lease;
        }
        tell_why(pool);
        acquiring.await
    }

    /// Runs a statement to its end.
    pub(crate) async fn run<T>(
        mut self,
        statement: impl AsyncFnOnce(&mut DB::Connection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let Some(connection) = &mut self.0 else { return Err(sqlx::Error::PoolClosed) };
        let result = statement(connection).await;
        if !is_unusable(&result) {
            self.end();
        }
        result
    }

    /// Works in a transaction, and commits it.
    pub(crate) async fn commit<T>(
        mut self,
        work: impl AsyncFnOnce(&mut DB::Connection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let mut transaction = self.begin().await?;
        let worked = work(&mut transaction).await?;
        transaction.commit().await?;
        self.end();
        Ok(worked)
    }

    /// Begins a transaction. After its commit, [`end`](Self::end); without, the connection is closed.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_, DB>, sqlx::Error> {
        match &mut self.0 {
            Some(connection) => connection.begin().await,
            None => Err(sqlx::Error::PoolClosed),
        }
    }

    /// Gives the connection back.
    pub(crate) fn end(mut self) {
        if let Some(connection) = self.0.take() {
            give_back(connection);
        }
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// Tells the log why there is no connection. A pool keeps that to itself: it tries again while a server refuses them,
/// or has none left, and says then that time was up.
fn tell_why<DB: Database>(pool: &Pool<DB>) {
    const WHAT: &str = "connecting to the database";

    let options = pool.connect_options();
    // Nobody else's as long as the pool is there.
    let id = Arc::as_ptr(&options).addr();
    if pool.is_closed() || !may_try(id) {
        return;
    }
    tokio::spawn(async move {
        let error = match timeout(TRIED_FOR, options.connect()).await {
            Ok(Ok(connection)) => {
                tracing::warn!(
                    "a request waits for a connection to the database, and one could be made now: look whether all of \
                     the pool are in use"
                );
                // It may be gone soon, and that is to be told.
                try_again_after(id, TRIED_AGAIN_AFTER_SUCCESS);
                let _ = timeout(PING_TIMEOUT, connection.close()).await;
                return;
            }
            Ok(Err(error)) => failed(WHAT)(error),
            Err(_) => RepositoryError::timeout(WHAT),
        };
        tracing::warn!(
            error = &error as &dyn Error,
            "a request has no connection to the database in time, and none can be made"
        );
    });
}

/// Whether it is time for another attempt for the pool; if so, it is made.
fn may_try(pool: usize) -> bool {
    let now = Instant::now();
    let may = tried().iter().all(|(of, until)| *of != pool || *until <= now);
    if may {
        try_again_after(pool, TRIED_AGAIN_AFTER);
    }
    may
}

fn try_again_after(pool: usize, pause: Duration) {
    let (mut tried, now) = (tried(), Instant::now());
    tried.retain(|(of, until)| *of != pool && *until > now);
    tried.push((pool, now + pause));
}

fn tried() -> sync::MutexGuard<'static, Vec<(usize, Instant)>> {
    TRIED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that is kept out of the pool for one purpose, which then never waits behind requests.
/// It is taken from the pool, so that whatever an application does to its connections was done to it.
pub(crate) struct Reserved<DB: Database>(Mutex<Option<Kept<DB>>>);

struct Kept<DB: Database> {
    connection: DB::Connection,
    /// By the monotonic clock.
    since: Duration,
}

impl<DB: Database> Reserved<DB> {
    /// Runs a read at `now` of a monotonic clock, and again on a new connection if the kept one has broken. A
    /// connection that is taken from the pool may be within a transaction of others, in which nothing would change
    /// any more: `leave` ends it.
    pub(crate) async fn run<T>(
        &self,
        pool: &Pool<DB>,
        now: Duration,
        leave: impl AsyncFn(&mut DB::Connection) -> Result<(), sqlx::Error>,
        read: impl AsyncFn(&mut DB::Connection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let mut slot = self.0.lock().await;
        let anew = async || {
            let mut connection = pool.acquire().await?.detach();
            leave(&mut connection).await?;
            Ok::<_, sqlx::Error>(Kept { connection, since: now })
        };
        // Taken out: a read that is given up leaves no connection behind that has not answered.
        if let Some(mut kept) = slot.take() {
            // Not given up for a place in a line, nor before there is another.
            if now.saturating_sub(kept.since) >= KEPT_FOR && !has_none_to_give(pool) {
                match timeout(REPLACED_WITHIN, anew()).await {
                    Ok(Ok(other)) => {
                        let old = std::mem::replace(&mut kept, other);
                        // Servers complain of those that end without a word.
                        tokio::spawn(timeout(PING_TIMEOUT, old.connection.close()));
                    }
                    _ => kept.since = now.saturating_add(REPLACED_AGAIN_AFTER).saturating_sub(KEPT_FOR),
                }
            }
            let result = read(&mut kept.connection).await;
            if !is_unusable(&result) {
                *slot = Some(kept);
                return result;
            }
            drop_broken(pool).await;
        }
        let mut kept = anew().await?;
        let result = read(&mut kept.connection).await;
        if !is_unusable(&result) {
            *slot = Some(kept);
        }
        result
    }
}

/// Whether all connections are in use, and there may be no more.
fn has_none_to_give<DB: Database>(pool: &Pool<DB>) -> bool {
    pool.num_idle() == 0 && pool.size() >= pool.options().get_max_connections()
}

impl<DB: Database> Default for Reserved<DB> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<DB: Database> fmt::Debug for Reserved<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserved").finish_non_exhaustive()
    }
}

/// A pool, and what was left unanswered of its reads and of what it was to commit.
#[derive(Debug)]
pub(crate) struct Connections<DB: Database> {
    pub(crate) pool: Pool<DB>,
    pub(crate) reads: Arc<Unanswered>,
    pub(crate) commits: Arc<Unanswered>,
}

impl<DB: Database> Connections<DB> {
    pub(crate) fn new(pool: Pool<DB>) -> Self {
        Self { pool, reads: Arc::default(), commits: Arc::default() }
    }
}

/// Rounds of uses, of which one is written at a time. Where a server commits nothing, each would leave it one more
/// connection, or take one more place of the pool.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    turn: Arc<Mutex<()>>,
    unanswered: Arc<Unanswered>,
}

impl Rounds {
    /// Writes one when no other is being written. It tells how many rows it changed: if none, nothing was committed.
    pub(crate) async fn write<DB: Database, F>(
        &self,
        pool: &Pool<DB>,
        write: impl FnOnce(Lease<DB>) -> F,
    ) -> Result<(), sqlx::Error>
    where
        F: Future<Output = Result<u64, sqlx::Error>> + Send + 'static,
    {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let writing = write(Lease::of(pool).await?);
        let writing = async move {
            let _turn = turn;
            writing.await
        };
        // The first is closed, for it is more often its connection that went silent than the server.
        let source = Source { places: 1, ..source(pool) };
        self.unanswered.run(source, |changed| *changed > 0, writing).await.map(drop)
    }
}

/// For statements that go on when nobody waits for them.
pub(crate) fn source<DB: Database>(pool: &Pool<DB>) -> Source<impl Future<Output = ()> + Send + 'static> {
    let (places, pool) = (pool.options().get_max_connections(), pool.clone());
    Source { places, closing: async move { pool.close_event().await } }
}

/// Runs a read, and once more if its connection turned out to be unusable. A nonce is never consumed so: the second
/// time it would meet its own row.
// Not `AsyncFn`: of a closure that captures something, the compiler could not tell that its futures are `Send`
// (rust-lang/rust#138207).
pub(crate) async fn read<DB: Database, T>(
    pool: &Pool<DB>,
    read: impl AsyncFnOnce(Lease<DB>) -> Result<T, sqlx::Error> + Clone,
) -> Result<T, sqlx::Error> {
    let result = read.clone()(Lease::to_read(pool).await?).await;
    if !is_unusable(&result) {
        return result;
    }
    drop_broken(pool).await;
    read(Lease::to_read(pool).await?).await
}

/// Works in a transaction, and commits it. What ends it before, be it an error or that whoever asked is gone, closes
/// the connection.
pub(crate) async fn transaction<DB: Database, T, E: From<RepositoryError>>(
    pool: &Pool<DB>,
    failed: impl Fn(sqlx::Error) -> RepositoryError,
    work: impl AsyncFnOnce(&mut DB::Connection) -> Result<T, E>,
) -> Result<T, E> {
    let mut lease = Lease::of(pool).await.map_err(&failed)?;
    let mut transaction = lease.begin().await.map_err(&failed)?;
    let worked = work(&mut transaction).await?;
    transaction.commit().await.map_err(&failed)?;
    lease.end();
    Ok(worked)
}

/// Whether a statement failed because its connection had broken: others may have, too.
pub(crate) fn is_broken<T>(result: &Result<T, sqlx::Error>) -> bool {
    match result {
        Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => true,
        Err(sqlx::Error::Database(error)) => {
            let code = error.code();
            let code = code.as_deref().unwrap_or_default();
            // Connection exceptions, and PostgreSQL's shutdown, crash, start and timeouts (its appendix A);
            // MySQL's 1927 "connection was killed" and 4031 "disconnected because of inactivity".
            code.starts_with("08")
                || ["25P03", "25P04", "57P01", "57P02", "57P03", "57P05", "70100"].contains(&code)
                || error.message().contains("inactivity")
        }
        _ => false,
    }
}

/// Whether a statement failed because of its connection, and may do better on another one: a read may be
/// tried again then.
fn is_unusable<T>(result: &Result<T, sqlx::Error>) -> bool {
    let is_left_over = |error: &dyn DatabaseError| {
        // A transaction that another user of the pool has left open: in PostgreSQL one that has failed
        // (25P02), in MySQL any (its 1568). A server that became a standby under its connections (MySQL's
        // 1290 and 1836 have no code of their own).
        let code = error.code();
        ["25P02", "25001", "25006"].contains(&code.as_deref().unwrap_or_default())
            || error.message().contains("read-only")
    };
    is_broken(result) || matches!(result, Err(sqlx::Error::Database(error)) if is_left_over(&**error))
}

/// Closes the idle connections that have broken, before they meet a request. One that broke is
/// seldom alone: the server was restarted, or went away.
pub(crate) async fn drop_broken<DB: Database>(pool: &Pool<DB>) {
    for _ in 0..pool.num_idle() {
        let Some(connection) = pool.try_acquire() else { return };
        // If whoever asked for this is given up meanwhile, it is closed like one that does not answer.
        let mut lease = Lease(Some(connection));
        let Some(connection) = &mut lease.0 else { return };
        if answers(&mut **connection, PING_TIMEOUT).await {
            lease.end();
        }
    }
}

/// Whether a connection that was idle for so long may be handed out. If not, the pool closes it and makes another.
pub(crate) async fn may_be_used<C: Connection>(
    connection: &mut C,
    idle_for: Duration,
) -> Result<bool, sqlx::Error> {
    Ok(idle_for < ASKED_AFTER || answers(connection, IDLE_PING_TIMEOUT).await)
}

async fn answers<C: Connection>(connection: &mut C, within: Duration) -> bool {
    matches!(timeout(within, connection.ping()).await, Ok(Ok(())))
}

/// Back to the pool, which takes no broken one: it waits for an answer first, and by itself does so without
/// a limit, in which the connection's place is taken. So this is what dropping it does, with one.
fn give_back<DB: Database>(mut connection: PoolConnection<DB>) {
    tokio::spawn(timeout(PING_TIMEOUT, connection.return_to_pool()));
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use ajwt_test_servers::sql;
    use sqlx::PgConnection;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_was_cut_while_it_was_idle_is_handed_out_only_unasked() {
        let url = format!("{}/postgres", sql::shared("AJWT_TEST_POSTGRES"));
        let mut connection = PgConnection::connect(&url).await.expect("connected");
        let mut other = PgConnection::connect(&url).await.expect("connected");
        // It waits for an answer a quarter of a second: a machine that stalls gets more attempts.
        let mut answered = false;
        for _ in 0..20 {
            answered |= may_be_used(&mut other, ASKED_AFTER).await.expect("told");
        }
        assert!(answered, "it is there");

        let ask = sqlx::query_scalar("SELECT pg_backend_pid()");
        let pid: i32 = ask.fetch_one(&mut connection).await.expect("read");
        let mut ending = PgConnection::connect(&url).await.expect("connected");
        let end = sqlx::query_scalar("SELECT pg_terminate_backend($1, 10000)").bind(pid);
        let ended: bool = end.fetch_one(&mut ending).await.expect("run");
        assert!(ended);
        let just_under = ASKED_AFTER.saturating_sub(Duration::from_millis(1));
        assert!(may_be_used(&mut connection, just_under).await.expect("told"), "under load none is asked");
        assert!(!may_be_used(&mut connection, ASKED_AFTER).await.expect("told"));
    }
}
