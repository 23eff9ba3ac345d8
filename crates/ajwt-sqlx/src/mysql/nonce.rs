use std::{pin::pin, sync::Arc};

use async_trait::async_trait;
use sqlx::{Executor as _, MySql, MySqlConnection, MySqlPool, QueryBuilder, mysql::MySqlQueryResult};

use crate::{
    mysql::mysql_number,
    nonce_table::{Added, NonceTable, SWEEP_BATCH, nonce_backend},
    pool::{self, Connections, Lease, drop_broken, is_broken},
};

/// Adds a nonce while the row that says since when the table is whole stands as it was read. That
/// row is locked against one that empties the table meanwhile.
///
/// Not `INSERT IGNORE`, which makes warnings of errors. An error is none but an error, except for
/// that of a row which is there.
const CONSUME: &str = "
INSERT INTO ajwt_nonce (`key`, expires_at)
SELECT ?, ? FROM ajwt_nonce
WHERE `key` = REPEAT(x'00', 32) AND expires_at = ? AND @@autocommit = 1 LOCK IN SHARE MODE";
/// Goes before it: an error where the connection is within a transaction, which others may yet roll back. Else it
/// changes nothing. A message of its own: proxies refuse several statements in one.
const NOT_IN_TRANSACTION: &str = "SET TRANSACTION READ WRITE";
/// Without it nothing is committed, and a nonce would end with its connection.
const AUTOCOMMIT: &str = "SELECT CAST(@@autocommit AS SIGNED)";
const NO_AUTOCOMMIT: &str = "nonces need autocommit: SET autocommit = 1 in the connections of the pool";
const GIVEN_UP: &str = "the nonce was given up before it was sent";
const SINCE: &str = "SELECT expires_at FROM ajwt_nonce WHERE `key` = REPEAT(x'00', 32)";
/// The clocks are a minute apart at most: see [`NonceTable::begin`].
const BEGIN_MEMORY: &str = "
INSERT INTO ajwt_nonce (`key`, expires_at)
SELECT REPEAT(x'00', 32), IF(ours = 0, 0, GREATEST(ours, LEAST(theirs, ours + 60000)))
FROM (SELECT CAST(? AS SIGNED) AS ours,
    TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 AS theirs) AS clocks
WHERE ours <= theirs + 60000
ON DUPLICATE KEY UPDATE expires_at = ajwt_nonce.expires_at";
/// Read without locks and then removed one by one of the primary key: a removal by range would lock
/// the gaps that requests insert into.
const EXPIRED: &str = "
SELECT `key` FROM ajwt_nonce
WHERE expires_at >= ? AND expires_at < ? AND `key` <> REPEAT(x'00', 32) ORDER BY expires_at LIMIT ?";

/// What MySQL says of a row that is there: `ER_DUP_ENTRY`. The primary key is the only unique one.
const DUPLICATE: u16 = 1062;

nonce_backend! {
    /// Used nonces in MySQL or MariaDB: for any number of processes, and it survives restarts.
    ///
    /// One statement decides. Expired rows are removed in the background, a thousand at a time, never
    /// by a request. A table that was emptied is noticed by the loss of one row: from then on the
    /// strict [`StartRule`](ajwt_server::StartRule) applies, so that what was used before is not good
    /// again. A database that is put back from a backup, or a replica that was behind when it took
    /// over, cannot be told from one that was never away: empty `ajwt_nonce`
    /// (`DELETE FROM ajwt_nonce`) before any process reaches it, and the same rule applies.
    MySqlNonceBackend, MySqlPool, Connections<MySql>, Connections::new
}

#[async_trait]
impl NonceTable for Connections<MySql> {
    async fn add(&self, key: &[u8; 32], expires_at: i64, since: i64) -> Result<Added, sqlx::Error> {
        let key = *key;
        let caller = Arc::new(());
        let waits = Arc::downgrade(&caller);
        let add = async move |connection: &mut MySqlConnection| {
            connection.execute(NOT_IN_TRANSACTION).await?;
            if waits.strong_count() == 0 {
                // A nonce would be used up for a request that nobody waits for any more.
                return Err(sqlx::Error::Configuration(GIVEN_UP.into()));
            }
            let add = sqlx::query(CONSUME).bind(key.as_slice()).bind(expires_at).bind(since);
            let added = add.execute(&mut *connection).await?;
            if added.rows_affected() == 0 {
                let commits: i64 = sqlx::query_scalar(AUTOCOMMIT).fetch_one(connection).await?;
                if commits == 0 {
                    return Err(sqlx::Error::Configuration(NO_AUTOCOMMIT.into()));
                }
            }
            Ok(added)
        };
        let added = Lease::of(&self.pool).await?.run(add);
        let is_answer = |result: &MySqlQueryResult| result.rows_affected() > 0;
        let adding = pin!(self.commits.run(pool::source(&self.pool), is_answer, added));
        // After `adding`, so that it goes first where this is dropped: what goes on then begins in a task of its own,
        // perhaps at once on another thread, and would else find that somebody waits. No test can hold it up between
        // the two.
        let _waiting = caller;
        let added = adding.await;
        if is_broken(&added) {
            // Not tried again: it would meet its own row.
            drop_broken(&self.pool).await;
        }
        match added {
            Ok(result) if result.rows_affected() == 1 => Ok(Added::Yes),
            Ok(_) => Ok(Added::WasThereOrEmptied),
            Err(error) if mysql_number(&error) == Some(DUPLICATE) => Ok(Added::WasThere),
            Err(error) => Err(error),
        }
    }

    async fn since(&self) -> Result<Option<i64>, sqlx::Error> {
        let read = async |lease: Lease<MySql>| {
            let read = lease.run(async |connection: &mut MySqlConnection| {
                sqlx::query_scalar(SINCE).fetch_optional(connection).await
            });
            self.reads.run(pool::source(&self.pool), |_| true, read).await
        };
        pool::read(&self.pool, read).await
    }

    async fn begin(&self, since: i64) -> Result<(), sqlx::Error> {
        let begin = async move |connection: &mut MySqlConnection| {
            sqlx::query(BEGIN_MEMORY).bind(since).execute(connection).await.map(drop)
        };
        let begun = Lease::of(&self.pool).await?.run(begin);
        // One that was there is told without a commit.
        self.commits.run(pool::source(&self.pool), |()| false, begun).await
    }

    async fn remove_expired(&self, from: i64, now: i64) -> Result<u64, sqlx::Error> {
        let read = async |connection: &mut MySqlConnection| {
            sqlx::query_scalar(EXPIRED).bind(from).bind(now).bind(SWEEP_BATCH).fetch_all(connection).await
        };
        let mut expired: Vec<Vec<u8>> = Lease::of(&self.pool).await?.run(read).await?;
        if expired.is_empty() {
            return Ok(0);
        }
        // In one order in every process, or two of them may wait for each other.
        expired.sort_unstable();
        let mut removal = QueryBuilder::new("DELETE FROM ajwt_nonce WHERE `key` IN (");
        let mut keys = removal.separated(", ");
        for key in expired {
            keys.push_bind(key);
        }
        removal.push(") AND expires_at < ").push_bind(now);
        let remove = async move |connection: &mut MySqlConnection| {
            // Of changing length: not worth a place among the prepared ones.
            Ok(removal.build().persistent(false).execute(connection).await?.rows_affected())
        };
        let removed = Lease::of(&self.pool).await?.run(remove);
        self.commits.run(pool::source(&self.pool), |removed| *removed > 0, removed).await
    }
}
