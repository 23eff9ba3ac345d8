//! Keys in PostgreSQL beside a users table of the application's own.
#![cfg(feature = "postgres")]

#[path = "support/plans.rs"]
mod plans;
#[path = "support/postgres_plan.rs"]
mod postgres_plan;
#[path = "support/postgres_store.rs"]
mod postgres_store;
#[path = "support/store.rs"]
mod store;
#[path = "support/user_table.rs"]
mod user_table;

use ajwt_sqlx::PostgresRepository;
use sqlx::AssertSqlSafe;

user_table_tests!(PostgresRepository);

impl user_table::Application for PostgresRepository {
    const KEYS_AND_TRUSTS: &'static str = include_str!("../migrations/postgres/beside/keys_and_trusts.sql");
    const USER_ID: &'static str = "user_id BIGINT NOT NULL";
    const IDS: [(&'static str, &'static str); 3] = [
        ("BIGINT", "GENERATED ALWAYS AS IDENTITY"),
        ("UUID", "DEFAULT gen_random_uuid()"),
        ("TEXT COLLATE \"C\"", "DEFAULT gen_random_uuid()::TEXT"),
    ];
    const EMAIL: &'static str = "VARCHAR(150) COLLATE blind";
    const NAMESPACE: &'static str = "SELECT current_schema()::TEXT";
    const STATEMENTS: &'static str = include_str!("../src/postgres/tables.rs");
    const ANALYZE: &'static str = "ANALYZE \"Accounts\", ajwt_public_key, ajwt_jwks_endpoint_trust";

    async fn run(&self, sql: &str) {
        let collation = "CREATE COLLATION IF NOT EXISTS blind
            (provider = icu, locale = 'und-u-ks-level1', deterministic = false)";
        for sql in [collation, sql] {
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(self.pool()).await.expect("run");
        }
    }

    async fn plan(&self, find_user: &str) -> Vec<String> {
        postgres_plan::plan(self.pool(), find_user, |explain| explain.bind("user777")).await
    }
}
