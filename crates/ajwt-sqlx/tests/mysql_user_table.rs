//! Keys in MariaDB beside a users table of the application's own.
#![cfg(feature = "mysql")]

#[path = "support/mysql_store.rs"]
mod mysql_store;
#[path = "support/store.rs"]
mod store;
#[path = "support/user_table.rs"]
mod user_table;

use ajwt_sqlx::MySqlRepository;
use sqlx::AssertSqlSafe;

user_table_tests!(MySqlRepository);

impl user_table::Application for MySqlRepository {
    const KEYS_AND_TRUSTS: &'static str = include_str!("../migrations/mysql/beside/keys_and_trusts.sql");
    const USER_ID: &'static str = "user_id BIGINT NOT NULL";
    const IDS: [(&'static str, &'static str); 3] = [
        ("BIGINT", "AUTO_INCREMENT"),
        ("UUID", "DEFAULT UUID()"),
        ("VARCHAR(36) CHARACTER SET latin1", "DEFAULT UUID()"),
    ];
    const EMAIL: &'static str = "VARCHAR(150) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci";
    const NAMESPACE: &'static str = "SELECT database()";

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(self.pool()).await.expect("run");
    }
}
