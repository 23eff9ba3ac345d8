//! The SQLite stores as a [`Store`].

use std::path::Path;

use ajwt_sqlx::{SqliteNonceBackend, SqliteRepository};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use crate::store::{Store, methods_of_any_repository};

pub(crate) fn url(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("ajwt.db").display())
}

impl Store for SqliteRepository {
    type Nonces = SqliteNonceBackend;
    type Database = TempDir;

    const HASH_OF_N: &'static str = "randomblob(32)";
    const TABLES: &'static str =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    const COUNT_WRITES: &'static [&'static str] = &["
        CREATE TRIGGER counted AFTER UPDATE ON ajwt_public_key BEGIN INSERT INTO writes VALUES (1); END"];

    methods_of_any_repository!();

    async fn create_empty() -> TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn url(folder: &TempDir) -> String {
        url(folder.path())
    }

    async fn open(url: &str) -> Self {
        Self::connect(url).await.expect("opened")
    }

    async fn number(&self, sql: &str) -> i64 {
        let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(self.pool()).await;
        number.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        let texts = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(self.pool()).await;
        texts.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}
