use std::{sync::Arc, time::Duration};

use ajwt_server::GoesOn;
use async_trait::async_trait;
use sqlx::{Sqlite, SqlitePool, pool::PoolConnection, query::Query, sqlite::SqliteArguments};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    nonce_table::{Added, NonceTable, SWEEP_BATCH, nonce_backend},
    sqlite::writing,
};

/// Adds a nonce while the row that says since when the table is whole stands as it was read. No
/// row added: the nonce is there, or that row has changed.
///
/// In a transaction of its own, which cannot begin within one that another user of the pool has left open and may yet
/// roll back; so are the other statements that write.
const CONSUME: &str = "
BEGIN IMMEDIATE;
INSERT INTO ajwt_nonce (key, expires_at)
SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM ajwt_nonce WHERE key = x'00' AND expires_at = ?3)
ON CONFLICT DO NOTHING
RETURNING 1;
COMMIT";
const SINCE: &str = "SELECT expires_at FROM ajwt_nonce WHERE key = x'00'";
const BEGIN_MEMORY: &str = "
BEGIN IMMEDIATE;
INSERT INTO ajwt_nonce (key, expires_at) VALUES (x'00', ?1) ON CONFLICT DO NOTHING;
COMMIT";
const REMOVE_EXPIRED: &str = "
BEGIN IMMEDIATE;
DELETE FROM ajwt_nonce WHERE key IN (
    SELECT key FROM ajwt_nonce WHERE expires_at >= ?1 AND expires_at < ?2 AND key <> x'00'
    ORDER BY expires_at LIMIT ?3)
RETURNING 1;
COMMIT";

/// How long a turn is waited for. Whoever has it may stand still, as a task does whose thread is busy; then SQLite's own
/// waiting decides.
const TURN: Duration = Duration::from_millis(500);

nonce_backend! {
    /// Used nonces in SQLite: for the processes of one host, and it survives restarts.
    ///
    /// One statement decides. Expired rows are removed in the background, a thousand at a time, never
    /// by a request. A table that was emptied is noticed by the loss of one row: from then on the
    /// strict [`StartRule`](ajwt_server::StartRule) applies, so that what was used before is not good
    /// again. A database that is put back from a backup cannot be told from one that was never away:
    /// empty `ajwt_nonce` (`DELETE FROM ajwt_nonce`) before any process opens it, and the same rule applies.
    SqliteNonceBackend, SqlitePool, Table, Table::new
}

/// The table of nonces, to which one writes after the other, in the order in which they came. SQLite has no order: who
/// waits for its write lock looks again after ever longer pauses, and where others take it at once may never meet it
/// free, while those who came later do.
#[derive(Debug)]
struct Table {
    pool: SqlitePool,
    turn: Arc<Mutex<()>>,
}

#[async_trait]
impl NonceTable for Table {
    async fn add(&self, key: &[u8; 32], expires_at: i64, since: i64) -> Result<Added, sqlx::Error> {
        let add = sqlx::query(CONSUME).bind(key.as_slice()).bind(expires_at).bind(since);
        Ok(if self.write(add).await? == 1 { Added::Yes } else { Added::WasThereOrEmptied })
    }

    async fn since(&self) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(SINCE).fetch_optional(&self.pool).await
    }

    async fn begin(&self, since: i64) -> Result<(), sqlx::Error> {
        self.write(sqlx::query(BEGIN_MEMORY).bind(since)).await.map(drop)
    }

    async fn remove_expired(&self, from: i64, now: i64) -> Result<u64, sqlx::Error> {
        let removal = sqlx::query(REMOVE_EXPIRED).bind(from).bind(now).bind(SWEEP_BATCH);
        let removed = self.write(removal).await?;
        Ok(u64::try_from(removed).unwrap_or(u64::MAX))
    }
}

impl Table {
    fn new(pool: SqlitePool) -> Self {
        Self { pool, turn: Arc::default() }
    }

    /// Runs a transaction; returns how many rows it returned. All its statements go to the connection's thread at once:
    /// whoever else writes waits no longer than they take.
    ///
    /// It goes on when nobody waits for it any more. Dropped half-way it would cost its connection, whose thread waits
    /// for the write lock all the same, and the pool would open one after another while somebody else has that.
    async fn write(
        &self,
        transaction: Query<'static, Sqlite, SqliteArguments>,
    ) -> Result<usize, sqlx::Error> {
        let turn = timeout(TURN, Arc::clone(&self.turn).lock_owned()).await.ok();
        let mut connection = InTransaction(Some(writing(&self.pool).await?));
        let written = GoesOn::new(async move {
            let Some(leased) = &mut connection.0 else { return Err(sqlx::Error::PoolClosed) };
            let returned = transaction.fetch_all(&mut **leased).await?;
            connection.has_ended();
            drop(turn);
            Ok(returned.len())
        });
        written.await
    }
}

/// A connection that is closed unless its transaction has come to an end, for sqlx knows nothing of it: whoever had
/// the connection next would be within it, or go on reading an old state.
struct InTransaction(Option<PoolConnection<Sqlite>>);

impl InTransaction {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for InTransaction {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqlitePoolOptions;

    use super::*;

    /// As where the thread of whoever writes has something else to do.
    #[tokio::test]
    async fn a_turn_that_does_not_end_keeps_nobody_from_writing() {
        let pool =
            SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.expect("a pool");
        sqlx::query("CREATE TABLE ajwt_nonce (key BLOB PRIMARY KEY, expires_at INTEGER)")
            .execute(&pool)
            .await
            .expect("made");
        let table = Table::new(pool);
        let turn = Arc::clone(&table.turn).lock_owned().await;
        let marked = timeout(Duration::from_secs(20), table.begin(0)).await;
        marked.expect("a turn is not waited for longer").expect("marked");
        assert_eq!(table.since().await.expect("read"), Some(0));
        assert_eq!(table.add(&[1; 32], 1, 0).await.expect("added"), Added::Yes);
        drop(turn);
        assert_eq!(table.add(&[1; 32], 1, 0).await.expect("asked"), Added::WasThereOrEmptied);
    }
}
