//! The PostgreSQL stores as a [`Store`].

use std::sync::Arc;

use ajwt_server::{BatchedUsage, Clock, RepositoryError};
use ajwt_sqlx::{AuditRecord, MigrationError, PostgresNonceBackend, PostgresRepository, Schema};
use ajwt_test_servers::sql::Database;
use sqlx::AssertSqlSafe;

use crate::store::{PATIENCE, Store, connected};

pub(crate) const SERVER: &str = "AJWT_TEST_POSTGRES";

impl Store for PostgresRepository {
    type Nonces = PostgresNonceBackend;
    type Database = Database;

    const ZERO: &'static str = "'\\x00'";
    const TRUE: &'static str = "TRUE";
    const HASH_OF_N: &'static str = "sha256(concat(n)::BYTEA)";
    const TABLES: &'static str = "
        SELECT tablename::TEXT FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";

    async fn create_empty() -> Database {
        Database::create(SERVER)
    }

    fn url(database: &Database) -> String {
        database.url()
    }

    async fn open(url: &str) -> Self {
        connected(|| Self::connect(url)).await
    }

    async fn patient(&self) -> Self {
        let options = self.pool().options().clone().acquire_timeout(PATIENCE);
        let connect = self.pool().connect_options();
        Self::new(options.connect_with((*connect).clone()).await.expect("connected"))
    }

    async fn migrate(&self) -> Result<(), MigrationError> {
        Self::migrate(self).await
    }

    async fn close(&self) {
        self.pool().close().await;
    }

    fn nonces(&self, clock: Arc<dyn Clock>) -> PostgresNonceBackend {
        PostgresNonceBackend::with_clock(self.pool().clone(), clock)
    }

    async fn initialise(nonces: &Self::Nonces) -> bool {
        nonces.initialise().await.expect("marked")
    }

    async fn check(nonces: &Self::Nonces) -> Result<(), RepositoryError> {
        nonces.check().await
    }

    async fn sweep(nonces: &PostgresNonceBackend) {
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
