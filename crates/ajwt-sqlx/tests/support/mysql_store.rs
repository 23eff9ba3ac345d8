//! The MySQL stores as a [`Store`].

use ajwt_sqlx::{MigrationError, MySqlNonceBackend, MySqlRepository};
use ajwt_test_servers::sql::Database;
use sqlx::{AssertSqlSafe, Row as _};

use crate::store::{PATIENCE, Store, connected, methods_of_any_repository};

pub(crate) const SERVER: &str = "AJWT_TEST_MYSQL";

impl Store for MySqlRepository {
    type Nonces = MySqlNonceBackend;
    type Database = Database;

    const KEY: &'static str = "`key`";
    const NONCE_STATEMENTS: usize = 2;
    const HASH_OF_N: &'static str = "unhex(sha2(n, 256))";
    const TABLES: &'static str =
        "SELECT table_name FROM information_schema.tables WHERE table_schema = database()";
    const COUNT_WRITES: &'static [&'static str] = &["
        CREATE TRIGGER counted AFTER UPDATE ON ajwt_public_key FOR EACH ROW INSERT INTO writes VALUES (1)"];

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
        // Without the limit of a service, which its connections set: 1 s for a lock.
        let options = options.after_connect(|connection, _| {
            let set = sqlx::query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
            Box::pin(async move { set.execute(connection).await.map(drop) })
        });
        let connect = self.pool().connect_options();
        Self::new(options.connect_with((*connect).clone()).await.expect("connected"))
    }

    async fn migrate_to_be_filled(&self) -> Result<(), MigrationError> {
        self.migrate_without_triggers().await
    }

    async fn number(&self, sql: &str) -> i64 {
        // Not prepared: MariaDB 10.11 has crashed on its own tables as a prepared statement.
        let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(self.pool()).await;
        row.unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        // As above.
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(self.pool()).await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error}")).iter().map(|row| row.get(0)).collect()
    }
}
