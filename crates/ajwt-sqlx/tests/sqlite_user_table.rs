//! Keys in SQLite beside a users table of the application's own.
#![cfg(feature = "sqlite")]

#[path = "support/plans.rs"]
mod plans;
#[path = "support/sqlite_plan.rs"]
mod sqlite_plan;
#[path = "support/sqlite_store.rs"]
mod sqlite_store;
#[path = "support/store.rs"]
mod store;
#[path = "support/user_table.rs"]
mod user_table;

use ajwt_sqlx::SqliteRepository;
use sqlx::AssertSqlSafe;

user_table_tests!(SqliteRepository);

impl user_table::Application for SqliteRepository {
    const KEYS_AND_TRUSTS: &'static str = include_str!("../migrations/sqlite/beside/keys_and_trusts.sql");
    const USER_ID: &'static str = "user_id INTEGER NOT NULL";
    const IDS: [(&'static str, &'static str); 3] =
        [("INTEGER", ""), ("BLOB", "DEFAULT (randomblob(16))"), ("TEXT", "DEFAULT (hex(randomblob(16)))")];
    const EMAIL: &'static str = "VARCHAR(150) COLLATE NOCASE";
    const NAMESPACE: &'static str = "SELECT 'main'";
    const STATEMENTS: &'static str = include_str!("../src/sqlite/tables.rs");
    const ANALYZE: &'static str = "ANALYZE";

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(self.pool()).await.expect("run");
    }

    async fn plan(&self, find_user: &str) -> Vec<String> {
        sqlite_plan::plan(self.pool(), find_user, &["user777"]).await
    }
}
