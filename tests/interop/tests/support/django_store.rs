//! The databases that Django and ajwt share in these tests.

use std::sync::Arc;

use ajwt_server::{
    BatchedUsage, KeyAdmin, NonceBackend, RepositoryError, RevisionSource, TrustedUrls, User, UserRepository,
};
use ajwt_sqlx::{
    AuditRecord, MigrationError, MySqlNonceBackend, MySqlRepository, PostgresNonceBackend,
    PostgresRepository, Schema, SqliteNonceBackend, SqliteRepository,
};
use ajwt_test_servers::sql::Database;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use crate::{mysql_plan, postgres_plan, sqlite_plan};

/// A database's stores, under one name for what each of them has.
pub(crate) trait Store:
    UserRepository<User = User> + KeyAdmin + RevisionSource + TrustedUrls + Clone
{
    /// Keeps the database, and removes it when dropped.
    type Database;

    const TABLES: &'static str;
    /// The column of the key, whose name is a reserved word on MySQL.
    const KEY: &'static str = "key";
    /// The sources of the library's statements.
    const STATEMENTS: &'static str;
    /// SQL that counts what the tables hold, for plans.
    const ANALYZE: &'static str;
    /// Names of users that Django can have side by side.
    const NAMES: &'static [&'static str] = &["guido", "Guido", "guid\u{f3}", "guido\u{301}", "guido "];

    /// A new database: what keeps it, its URL, and Django's settings for it.
    async fn create() -> (Self::Database, String, Value);
    async fn open(url: &str) -> Self;
    fn with_schema(self, schema: Schema) -> Self;
    async fn migrate(&self) -> Result<(), MigrationError>;
    async fn check(&self) -> Result<(), RepositoryError>;
    /// The nonce backend, in a table that is marked as new.
    async fn nonces(&self) -> Arc<dyn NonceBackend>;
    fn batched_usage(&self) -> BatchedUsage;
    async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, RepositoryError>;
    async fn execute(&self, sql: &str);
    async fn texts(&self, sql: &str) -> Vec<String>;
    /// The steps by which a statement finds the user `user777`.
    async fn plan(&self, find_user: &str) -> Vec<String>;
    /// Each way of making Django's column of names blind to case.
    fn case_blind() -> Vec<Vec<&'static str>>;
}

/// What each store does by methods of its own.
macro_rules! stores_own {
    ($nonces:ident) => {
        async fn open(url: &str) -> Self {
            Self::connect(url).await.expect("connected")
        }

        fn with_schema(self, schema: Schema) -> Self {
            Self::with_schema(self, schema)
        }

        async fn migrate(&self) -> Result<(), MigrationError> {
            Self::migrate(self).await
        }

        async fn check(&self) -> Result<(), RepositoryError> {
            Self::check(self).await
        }

        async fn nonces(&self) -> Arc<dyn NonceBackend> {
            let nonces = $nonces::new(self.pool().clone());
            nonces.initialise().await.expect("marked");
            Arc::new(nonces)
        }

        fn batched_usage(&self) -> BatchedUsage {
            Self::batched_usage(self)
        }

        async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, RepositoryError> {
            Self::audit(self, limit).await
        }

        async fn execute(&self, sql: &str) {
            let result = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(self.pool()).await;
            result.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }

        async fn texts(&self, sql: &str) -> Vec<String> {
            let texts = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(self.pool()).await;
            texts.unwrap_or_else(|error| panic!("{sql}: {error}"))
        }
    };
}

impl Store for SqliteRepository {
    type Database = TempDir;

    const TABLES: &'static str = "
        SELECT name || ' ' || sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1";
    const STATEMENTS: &'static str = concat!(
        include_str!("../../../../crates/ajwt-sqlx/src/sqlite/django.rs"),
        include_str!("../../../../crates/ajwt-sqlx/src/sqlite/tables.rs"),
    );
    const ANALYZE: &'static str = "ANALYZE";

    async fn create() -> (TempDir, String, Value) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("django.db");
        let settings = json!({"ENGINE": "django.db.backends.sqlite3", "NAME": path});
        let url = format!("sqlite://{}", path.display());
        (folder, url, settings)
    }

    stores_own!(SqliteNonceBackend);

    async fn plan(&self, find_user: &str) -> Vec<String> {
        sqlite_plan::plan(self.pool(), find_user, &["user777"]).await
    }

    fn case_blind() -> Vec<Vec<&'static str>> {
        // SQLite changes no column's collation: the table is made again, as Django itself would do it.
        vec![vec![
            "CREATE TABLE blind (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, password varchar(128) NOT NULL,
                last_login datetime, is_superuser bool NOT NULL, username varchar(150) COLLATE NOCASE NOT NULL UNIQUE,
                last_name varchar(150) NOT NULL, email varchar(254) NOT NULL, is_staff bool NOT NULL,
                is_active bool NOT NULL, date_joined datetime NOT NULL, first_name varchar(150) NOT NULL);
            INSERT INTO blind SELECT id, password, last_login, is_superuser, username, last_name, email, is_staff,
                is_active, date_joined, first_name FROM auth_user;
            PRAGMA foreign_keys = OFF; DROP TABLE auth_user;
            PRAGMA legacy_alter_table = ON; ALTER TABLE blind RENAME TO auth_user; PRAGMA legacy_alter_table = OFF;
            PRAGMA foreign_keys = ON",
        ]]
    }
}

impl Store for PostgresRepository {
    type Database = Database;

    const TABLES: &'static str = "
        SELECT concat(table_name, ' ', string_agg(concat(column_name, ' ', data_type), ', ' ORDER BY column_name))
        FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name ORDER BY table_name";
    const STATEMENTS: &'static str = concat!(
        include_str!("../../../../crates/ajwt-sqlx/src/postgres/django.rs"),
        include_str!("../../../../crates/ajwt-sqlx/src/postgres/tables.rs"),
    );
    const ANALYZE: &'static str =
        "ANALYZE auth_user, asymmetric_jwt_auth_publickey, asymmetric_jwt_auth_jwksendpointtrust";

    async fn create() -> (Database, String, Value) {
        let database = Database::create("AJWT_TEST_POSTGRES");
        let url = database.url();
        let settings = settings("postgresql", &url);
        (database, url, settings)
    }

    stores_own!(PostgresNonceBackend);

    async fn plan(&self, find_user: &str) -> Vec<String> {
        postgres_plan::plan(self.pool(), find_user, |explain| explain.bind("user777")).await
    }

    fn case_blind() -> Vec<Vec<&'static str>> {
        // Django's second index, for LIKE, is not one of a column that is blind to case.
        const DROP_LIKE: &str = "
            DO $$ BEGIN EXECUTE (SELECT 'DROP INDEX ' || indexname FROM pg_indexes
                WHERE tablename = 'auth_user' AND indexname LIKE '%username%like'); END $$";
        vec![
            vec![
                DROP_LIKE,
                "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = FALSE)",
                "ALTER TABLE auth_user ALTER username TYPE VARCHAR(150) COLLATE blind",
            ],
            vec![DROP_LIKE, "CREATE EXTENSION citext", "ALTER TABLE auth_user ALTER username TYPE CITEXT"],
        ]
    }
}

impl Store for MySqlRepository {
    type Database = Database;

    const TABLES: &'static str = "
        SELECT CAST(concat(table_name, ' ',
            group_concat(concat(column_name, ' ', column_type) ORDER BY column_name SEPARATOR ', ')) AS CHAR)
        FROM information_schema.columns WHERE table_schema = database() GROUP BY table_name ORDER BY table_name";
    const KEY: &'static str = "`key`";
    const STATEMENTS: &'static str = concat!(
        include_str!("../../../../crates/ajwt-sqlx/src/mysql/django.rs"),
        include_str!("../../../../crates/ajwt-sqlx/src/mysql/tables.rs"),
    );
    const ANALYZE: &'static str =
        "ANALYZE TABLE auth_user, asymmetric_jwt_auth_publickey, asymmetric_jwt_auth_jwksendpointtrust";
    /// Its usual collation takes the others for the same.
    const NAMES: &'static [&'static str] = &["guido", "barry"];

    async fn create() -> (Database, String, Value) {
        let database = Database::create_with("AJWT_TEST_MYSQL", "CHARACTER SET utf8mb4");
        let url = database.url();
        let settings = settings("mysql", &url);
        (database, url, settings)
    }

    stores_own!(MySqlNonceBackend);

    async fn plan(&self, find_user: &str) -> Vec<String> {
        mysql_plan::plan_of_finding(self.pool(), find_user).await
    }

    fn case_blind() -> Vec<Vec<&'static str>> {
        // By default; in narrower character sets, which cannot hold every name; and where a table has another collation
        // than the rest, as one that was made under another default of the database.
        vec![
            vec![],
            vec!["ALTER TABLE auth_user CONVERT TO CHARACTER SET utf8mb3"],
            vec!["ALTER TABLE auth_user CONVERT TO CHARACTER SET latin1"],
            vec!["ALTER TABLE auth_user CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci"],
            vec![
                "ALTER TABLE asymmetric_jwt_auth_jwksendpointtrust
                CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci",
            ],
        ]
    }
}

/// Django's settings for a database of a server.
fn settings(engine: &str, url: &str) -> Value {
    let url: reqwest::Url = url.parse().expect("a URL");
    json!({
        "ENGINE": format!("django.db.backends.{engine}"),
        "NAME": url.path().trim_start_matches('/'),
        "USER": url.username(),
        "PASSWORD": url.password().unwrap_or_default(),
        "HOST": url.host_str(),
        "PORT": url.port(),
    })
}
