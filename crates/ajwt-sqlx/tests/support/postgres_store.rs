//! The PostgreSQL stores as a [`Store`].

use ajwt_sqlx::{PostgresNonceBackend, PostgresRepository};
use ajwt_test_servers::sql::Database;
use sqlx::AssertSqlSafe;

use crate::store::{PATIENCE, Store, connected, methods_of_any_repository};

pub(crate) const SERVER: &str = "AJWT_TEST_POSTGRES";

impl Store for PostgresRepository {
    type Nonces = PostgresNonceBackend;
    type Database = Database;

    const ZERO: &'static str = "'\\x00'";
    const TRUE: &'static str = "TRUE";
    const HASH_OF_N: &'static str = "sha256(concat(n)::BYTEA)";
    const TABLES: &'static str = "
        SELECT tablename::TEXT FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    const COUNT_WRITES: &'static [&'static str] = &[
        "CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN INSERT INTO writes VALUES (1); RETURN NEW; END'",
        "CREATE TRIGGER counted AFTER UPDATE ON ajwt_public_key FOR EACH ROW EXECUTE FUNCTION counted()",
    ];

    methods_of_any_repository!();

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

    async fn number(&self, sql: &str) -> i64 {
        let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(self.pool()).await;
        number.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        let texts = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(self.pool()).await;
        texts.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}
