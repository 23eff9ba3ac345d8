//! The SQLite stores as a [`Store`].

use std::{path::Path, sync::Arc};

use ajwt_server::{BatchedUsage, Clock, RepositoryError};
use ajwt_sqlx::{AuditRecord, MigrationError, Schema, SqliteNonceBackend, SqliteRepository};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use crate::store::Store;

pub(crate) fn url(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("ajwt.db").display())
}

impl Store for SqliteRepository {
    type Nonces = SqliteNonceBackend;
    type Database = TempDir;

    const HASH_OF_N: &'static str = "randomblob(32)";
    const TABLES: &'static str =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";

    async fn create_empty() -> TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn url(folder: &TempDir) -> String {
        url(folder.path())
    }

    async fn open(url: &str) -> Self {
        Self::connect(url).await.expect("opened")
    }

    async fn migrate(&self) -> Result<(), MigrationError> {
        Self::migrate(self).await
    }

    async fn close(&self) {
        self.pool().close().await;
    }

    fn nonces(&self, clock: Arc<dyn Clock>) -> SqliteNonceBackend {
        SqliteNonceBackend::with_clock(self.pool().clone(), clock)
    }

    async fn initialise(nonces: &Self::Nonces) -> bool {
        nonces.initialise().await.expect("marked")
    }

    async fn check(nonces: &Self::Nonces) -> Result<(), RepositoryError> {
        nonces.check().await
    }

    async fn sweep(nonces: &SqliteNonceBackend) {
        nonces.sweep().await;
    }

    fn batched_usage(&self) -> BatchedUsage {
        Self::batched_usage(self)
    }

    fn with_schema(self, schema: Schema) -> Self {
        Self::with_schema(self, schema)
    }

    fn with_actor(self, actor: &str) -> Self {
        Self::with_actor(self, actor)
    }

    async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, RepositoryError> {
        Self::audit(self, limit).await
    }

    async fn execute(&self, sql: &str) -> u64 {
        let result = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(self.pool()).await;
        result.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
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
