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

use ajwt_server::{KeyAdmin as _, NewKey};
use ajwt_sqlx::{Schema, SqliteRepository, UserTable};
use sqlx::AssertSqlSafe;
use store::{Store as _, authenticate, name, sign};
use user_table::Application as _;

user_table_tests!(SqliteRepository);

/// As docs/database.md has it: compared with these ids themselves, no index of keys and trusts would serve.
#[tokio::test]
async fn ids_of_a_type_that_is_a_number_to_sqlite_are_referred_to_by_a_generated_column() {
    let (_database, store) = SqliteRepository::create().await;
    let application = "
        CREATE TABLE accounts (id UUID PRIMARY KEY, email TEXT UNIQUE, enabled BOOLEAN DEFAULT TRUE);
        INSERT INTO accounts (id, email) VALUES ('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'guido');
        ALTER TABLE accounts ADD COLUMN ajwt_id TEXT GENERATED ALWAYS AS (id);
        CREATE UNIQUE INDEX accounts_ajwt_id ON accounts (ajwt_id);";
    let migration = SqliteRepository::KEYS_AND_TRUSTS
        .replace(SqliteRepository::USER_ID, "user_id TEXT NOT NULL")
        .replace("REFERENCES accounts (id)", "REFERENCES accounts (ajwt_id)");
    for sql in [application, &*migration] {
        store.run(sql).await;
    }
    let accounts = UserTable::new("accounts").with_id("ajwt_id").with_name("email").with_active("enabled");
    let store = store.with_schema(Schema::with_users(accounts));
    store::set_up(&store).await;

    let key = store::key();
    store.add_key(&name("guido"), &NewKey::of_key(key.public_key().clone())).await.expect("added");
    let authenticator = store::authenticator(&store);
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
    let users =
        plans::Users { table: "accounts", id: "ajwt_id", name: "email", active: "enabled", revision: "NULL" };
    let plan = store.plan(&plans::statement(SqliteRepository::STATEMENTS, "FIND_USER", &users)).await;
    plans::assert_searched(&plan, ["accounts", "ajwt_public_key", "ajwt_jwks_endpoint_trust"]);
    store.execute("DELETE FROM accounts").await;
    assert_eq!(store.number("SELECT count(*) FROM ajwt_public_key").await, 0, "the cascade");
}

/// No token can claim bytes, and they would be listed as another user, whose name is the text of them.
#[tokio::test]
async fn a_name_that_is_bytes_is_no_user() {
    let (_database, store) = SqliteRepository::create().await;
    let application = "
        CREATE TABLE accounts (id INTEGER PRIMARY KEY, email VARCHAR UNIQUE, enabled BOOLEAN);
        INSERT INTO accounts (email, enabled) VALUES ('guido', TRUE), (x'677569646F', FALSE), (NULL, TRUE);";
    for sql in [application, SqliteRepository::KEYS_AND_TRUSTS] {
        store.run(sql).await;
    }
    let accounts = UserTable::new("accounts").with_id("id").with_name("email").with_active("enabled");
    let store = store.with_schema(Schema::with_users(accounts));
    store::set_up(&store).await;
    let users = store.users().await.expect("listed");
    assert_eq!(
        users.iter().map(|user| (&*user.username, user.active)).collect::<Vec<_>>(),
        [("guido", true)]
    );
}

impl user_table::Application for SqliteRepository {
    const KEYS_AND_TRUSTS: &'static str = include_str!("../migrations/sqlite/beside/keys_and_trusts.sql");
    const USER_ID: &'static str = "user_id INTEGER NOT NULL";
    const IDS: [(&'static str, &'static str); 3] = [
        ("INTEGER", ""),
        ("BLOB", "DEFAULT (randomblob(16))"),
        ("VARCHAR(36)", "DEFAULT (hex(randomblob(16)))"),
    ];
    const EMAIL: &'static str = "VARCHAR(150) COLLATE NOCASE";
    const NAMESPACE: &'static str = "SELECT 'main'";
    const STATEMENTS: &'static str = include_str!("../src/sqlite/tables.rs");
    const ANALYZE: &'static str = "ANALYZE";

    /// The tables of keys and trusts know no other types than SQLite's own.
    fn referring(id_type: &str) -> &str {
        if id_type == "VARCHAR(36)" { "TEXT" } else { id_type }
    }

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(self.pool()).await.expect("run");
    }

    async fn plan(&self, find_user: &str) -> Vec<String> {
        sqlite_plan::plan(self.pool(), find_user, &["user777"]).await
    }
}
