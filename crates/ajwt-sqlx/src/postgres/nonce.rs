use std::fmt::Write as _;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool, Postgres, Row as _};

use crate::{
    nonce_table::{Added, NonceTable, SWEEP_BATCH, nonce_backend},
    pool::{self, Connections, Lease, drop_broken, is_broken},
};

/// Adds a nonce. A row: it was not there, and now it is. The row says since when the table is whole, read after any wait
/// for another transaction: one that empties the table is not missed, if the isolation level lets the function see it.
///
/// It also says whether the statement commits it by itself: one that is a message of its own (the simple query protocol)
/// has the time of its transaction, unless that began with an earlier one, which others may yet roll back. No plan is
/// kept of such a message: each word of it is paid for by each nonce.
const CONSUME: &str = "
INSERT INTO ajwt_nonce (key, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING
RETURNING ajwt_nonce_since(), statement_timestamp() = transaction_timestamp(),
    current_setting('transaction_isolation') = 'read committed'";
/// The same of a nonce that was there, which has no row to say it.
const COMMITS: &str = "SELECT statement_timestamp() = transaction_timestamp()";
const IN_TRANSACTION: &str = "the connection came from the pool within a transaction, and is closed";
const NOT_READ_COMMITTED: &str =
    "nonces need the isolation level READ COMMITTED: set default_transaction_isolation in the pool";
const SINCE: &str = "SELECT expires_at FROM ajwt_nonce WHERE key = '\\x00'";
/// The clocks are a minute apart at most: see [`NonceTable::begin`].
const BEGIN_MEMORY: &str = "
INSERT INTO ajwt_nonce (key, expires_at)
SELECT '\\x00'::BYTEA, CASE ours WHEN 0 THEN 0 ELSE greatest(ours, least(theirs, ours + 60000)) END
FROM (SELECT $1::BIGINT AS ours, (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT AS theirs) AS clocks
WHERE ours <= theirs + 60000
ON CONFLICT DO NOTHING";
/// Rows that another process is removing are left to it.
const REMOVE_EXPIRED: &str = "
DELETE FROM ajwt_nonce WHERE key = ANY (ARRAY(
    SELECT key FROM ajwt_nonce WHERE expires_at >= $1 AND expires_at < $2 AND key <> '\\x00'
    ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED))";

nonce_backend! {
    /// Used nonces in PostgreSQL: for any number of processes, and it survives restarts.
    ///
    /// One statement decides. Expired rows are removed in the background, a thousand at a time, never
    /// by a request. A table that was emptied is noticed by the loss of one row: from then on the
    /// strict [`StartRule`](ajwt_server::StartRule) applies, so that what was used before is not good
    /// again. A database that is put back from a backup, or a standby that was behind when it took
    /// over, cannot be told from one that was never away: empty `ajwt_nonce`
    /// (`TRUNCATE ajwt_nonce`) before any process reaches it, and the same rule applies.
    PostgresNonceBackend, PgPool, Connections<Postgres>, Connections::new
}

#[async_trait]
impl NonceTable for Connections<Postgres> {
    async fn add(&self, key: &[u8; 32], expires_at: i64, since: i64) -> Result<Added, sqlx::Error> {
        let hex = key.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        // The simple query protocol has no parameters.
        let sql =
            CONSUME.replace("$1", &format!("decode('{hex}', 'hex')")).replace("$2", &expires_at.to_string());
        let add = async move |connection: &mut PgConnection| {
            let row = connection.fetch_optional(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            let Some(row) = row else {
                let row = connection.fetch_one(sqlx::raw_sql(COMMITS)).await?;
                return alone(row.try_get(0)?).map(|()| None);
            };
            let since: Option<i64> = row.try_get(0)?;
            let (commits, is_isolated): (bool, bool) = (row.try_get(1)?, row.try_get(2)?);
            alone(commits)?;
            if !is_isolated {
                return Err(sqlx::Error::Configuration(NOT_READ_COMMITTED.into()));
            }
            Ok(Some(since))
        };
        let added = Lease::of(&self.pool).await?.run(add);
        // That it was there is told without a commit.
        let added = self.commits.run(pool::source(&self.pool), Option::is_some, added).await;
        if is_broken(&added) {
            // Not tried again: it would meet its own row.
            drop_broken(&self.pool).await;
        }
        let is_whole = added? == Some(Some(since));
        Ok(if is_whole { Added::Yes } else { Added::WasThereOrEmptied })
    }

    async fn since(&self) -> Result<Option<i64>, sqlx::Error> {
        let read = async |lease: Lease<Postgres>| {
            let read = lease.run(async |connection: &mut PgConnection| {
                sqlx::query_scalar(SINCE).fetch_optional(connection).await
            });
            self.reads.run(pool::source(&self.pool), |_| true, read).await
        };
        pool::read(&self.pool, read).await
    }

    async fn begin(&self, since: i64) -> Result<(), sqlx::Error> {
        let begin = async move |connection: &mut PgConnection| {
            sqlx::query(BEGIN_MEMORY).bind(since).execute(connection).await.map(drop)
        };
        let begun = Lease::of(&self.pool).await?.run(begin);
        // One that was there is told without a commit.
        self.commits.run(pool::source(&self.pool), |()| false, begun).await
    }

    async fn remove_expired(&self, from: i64, now: i64) -> Result<u64, sqlx::Error> {
        let remove = async move |connection: &mut PgConnection| {
            let removal = sqlx::query(REMOVE_EXPIRED).bind(from).bind(now).bind(i64::from(SWEEP_BATCH));
            Ok(removal.execute(connection).await?.rows_affected())
        };
        let removed = Lease::of(&self.pool).await?.run(remove);
        self.commits.run(pool::source(&self.pool), |removed| *removed > 0, removed).await
    }
}

/// A connection that others left within a transaction is closed, whatever was asked: it would keep what it locks.
fn alone(commits: bool) -> Result<(), sqlx::Error> {
    if commits { Ok(()) } else { Err(sqlx::Error::Protocol(IN_TRANSACTION.to_owned())) }
}
