//! Changes of tables are not transactional in MySQL and MariaDB: one process at a time makes them, each
//! step can be repeated, and one that was cut short is run again.

use sqlx::{AssertSqlSafe, Executor as _, MySqlConnection, MySqlPool, migrate::MigrateError};

use crate::{
    error::MigrationError,
    migrations::{self, Present, TRIGGERS},
    mysql::{django, mysql_number},
    schema::{Owner, Schema},
};

const WAIT_TO_MIGRATE: &str = "SET innodb_lock_wait_timeout = 60, lock_wait_timeout = 600";

/// Without one the lock would have no name, and the tables no place.
const HAS_NO_DATABASE: &str = "SELECT database() IS NULL";

/// Held by the one process that migrates a database; locks are the server's. Waits for ten minutes:
/// that a negative time is for ever is not so on MariaDB.
const LOCK_MIGRATIONS: &str = "SELECT GET_LOCK(concat('ajwt_migrations ', sha1(database())), 600)";

/// Where memory is short, or the wait was ended with `KILL`.
const NOT_LOCKED: &str = "the server could not take the lock of the migrations";

const HAS_TABLES: &str = "
SELECT
    EXISTS (SELECT 1 FROM information_schema.tables
        WHERE table_schema = database() AND table_name = 'ajwt_user'),
    EXISTS (SELECT 1 FROM information_schema.tables
        WHERE table_schema = database() AND table_name IN ('ajwt_public_key', 'ajwt_jwks_endpoint_trust')),
    EXISTS (SELECT 1 FROM information_schema.key_column_usage
        WHERE table_schema = database() AND table_name IN ('ajwt_public_key', 'ajwt_jwks_endpoint_trust')
            AND column_name = 'user_id' AND referenced_table_name = 'ajwt_user'),
    EXISTS (SELECT 1 FROM information_schema.key_column_usage
        WHERE table_schema = database() AND table_name IN ('ajwt_public_key', 'ajwt_jwks_endpoint_trust')
            AND column_name = 'user_id' AND referenced_table_name <> 'ajwt_user')";

const MIGRATIONS: migrations::Files = migrations::files!("mysql");

/// What a server says that forbids triggers: `ER_BINLOG_CREATE_ROUTINE_NEED_SUPER`.
const TRIGGERS_FORBIDDEN: u16 = 1419;

/// `ER_TRG_DOES_NOT_EXIST`.
const NO_SUCH_TRIGGER: u16 = 1360;

/// `ER_LOCK_WAIT_TIMEOUT`.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// While a trigger waits for its table, which is in use, all requests wait behind it.
const WAIT_FOR_TRIGGERS: &str = "SET lock_wait_timeout = 2";

const FORGET_TRIGGERS: &str = "DELETE FROM ajwt_migrations WHERE version = 2";

const FORGET_REVISION: &str = "DELETE FROM ajwt_revision";

/// All of them, or those before the triggers.
pub(super) async fn run(
    pool: &MySqlPool,
    schema: &Schema,
    without_triggers: bool,
) -> Result<(), MigrationError> {
    let migrator = migrations::migrator(schema, &MIGRATIONS);
    let failed = MigrationError::failed;
    let mut connection = pool.acquire().await.map_err(failed)?;
    // The lock is the session's, and ends with it whatever happens here.
    connection.close_on_drop();
    let has_no_database: bool =
        sqlx::query_scalar(HAS_NO_DATABASE).fetch_one(&mut *connection).await.map_err(failed)?;
    if has_no_database {
        return Err(MigrationError::NoDatabase);
    }
    sqlx::query(WAIT_TO_MIGRATE).execute(&mut *connection).await.map_err(failed)?;
    let locked: Option<i64> =
        sqlx::query_scalar(LOCK_MIGRATIONS).fetch_one(&mut *connection).await.map_err(failed)?;
    check_lock(locked)?;
    let tables = sqlx::query_as(HAS_TABLES).fetch_one(&mut *connection).await;
    let (users, keys, of_users, of_others): (bool, bool, bool, bool) = tables.map_err(failed)?;
    let present = Present { users, keys, of_users, of_others };
    migrations::check_owner(schema, present)?;
    let others: bool =
        sqlx::query_scalar(django::HAS_OTHER_USERS).fetch_one(&mut *connection).await.map_err(failed)?;
    schema.check_user_model(others).map_err(MigrationError::CustomUserModel)?;
    // One that was cut short is marked as failed. Each of its steps can be repeated.
    let forget = format!("DELETE FROM {} WHERE NOT success", migrations::table(schema));
    match sqlx::query(AssertSqlSafe(forget)).execute(&mut *connection).await {
        Err(error) if !is_missing_table(&error) => return Err(failed(error)),
        // No table: nothing has run yet.
        _ => {}
    }
    // Where there are no tables yet, nobody waits behind this.
    if present.users {
        sqlx::query(WAIT_FOR_TRIGGERS).execute(&mut *connection).await.map_err(failed)?;
    }
    // Beside the tables of others there are none.
    let has_triggers = matches!(schema.owner(), Owner::Ajwt);
    let target = (without_triggers && has_triggers).then_some(TRIGGERS - 1);
    migrations::run(&migrator, target, &mut *connection).await.map_err(failed_migration)?;
    // A copy of the tables may have been made without them, and nothing raises its revision.
    if has_triggers && lacks_triggers(&mut connection).await.map_err(failed)? {
        let forget = if without_triggers { FORGET_REVISION } else { FORGET_TRIGGERS };
        sqlx::query(forget).execute(&mut *connection).await.map_err(failed)?;
        migrations::run(&migrator, target, &mut *connection).await.map_err(failed_migration)?;
    }
    Ok(())
}

fn failed_migration(error: MigrateError) -> MigrationError {
    match error {
        MigrateError::ExecuteMigration(error, TRIGGERS) if forbids_triggers(&error) => {
            MigrationError::NoTriggers { source: error.into() }
        }
        error => MigrationError::of(error),
    }
}

async fn lacks_triggers(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    for trigger in triggers() {
        let shown = connection.execute(AssertSqlSafe(format!("SHOW CREATE TRIGGER {trigger}"))).await;
        let Err(error) = shown else { continue };
        match mysql_number(&error) {
            Some(NO_SUCH_TRIGGER) => return Ok(true),
            // That the account may not see it; the information schema tells nothing of such a one.
            Some(number) if number != LOCK_WAIT_TIMEOUT => {}
            _ => return Err(error),
        }
    }
    Ok(false)
}

/// Their names.
fn triggers() -> impl Iterator<Item = &'static str> {
    MIGRATIONS.revision.lines().filter_map(|line| line.strip_prefix("CREATE TRIGGER ")?.split(' ').next())
}

/// By what `GET_LOCK` returns.
fn check_lock(locked: Option<i64>) -> Result<(), MigrationError> {
    match locked {
        Some(1) => Ok(()),
        Some(_) => Err(MigrationError::Locked),
        None => Err(MigrationError::Failed { source: NOT_LOCKED.into() }),
    }
}

fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("42S02")
}

fn forbids_triggers(error: &sqlx::Error) -> bool {
    mysql_number(error) == Some(TRIGGERS_FORBIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_no_lock_is_told() {
        assert!(check_lock(Some(1)).is_ok());
        assert!(matches!(check_lock(Some(0)), Err(MigrationError::Locked)));
        assert!(matches!(check_lock(None), Err(MigrationError::Failed { .. })));
    }
}
