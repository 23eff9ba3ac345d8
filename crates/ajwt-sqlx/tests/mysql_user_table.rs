//! Keys in MariaDB beside a users table of the application's own.
#![cfg(feature = "mysql")]

#[path = "support/mysql_plan.rs"]
mod mysql_plan;
#[path = "support/mysql_store.rs"]
mod mysql_store;
#[path = "support/plans.rs"]
mod plans;
#[path = "support/store.rs"]
mod store;
#[path = "support/user_table.rs"]
mod user_table;

use ajwt_server::{Freshness, KeyAdmin as _, KeyedUser as _, UserRepository as _};
use ajwt_sqlx::MySqlRepository;
use sqlx::AssertSqlSafe;
use store::Store as _;
use user_table::Application as _;

user_table_tests!(MySqlRepository);

#[tokio::test]
async fn who_is_active_is_told_by_any_number_and_by_no_text() {
    for (column, values) in [
        ("BIT(1)", [("1", true), ("0", false), ("NULL", false)]),
        ("BIT(64)", [("1", true), ("0", false), ("NULL", false)]),
        ("TINYINT UNSIGNED", [("1", true), ("0", false), ("NULL", false)]),
        ("BIGINT UNSIGNED", [("18446744073709551615", true), ("0", false), ("NULL", false)]),
        ("SMALLINT", [("-1", true), ("0", false), ("NULL", false)]),
        // Kept as 1, 2, 3.
        ("ENUM('0', '1', 'no')", [("'1'", false), ("'0'", false), ("'no'", false)]),
        ("VARCHAR(5)", [("'1'", false), ("'0'", false), ("'false'", false)]),
    ] {
        let (_database, store) = user_table::database::<MySqlRepository>(MySqlRepository::IDS[0]).await;
        store.execute(&format!("ALTER TABLE Accounts MODIFY enabled {column}")).await;
        user_table::add_account(&store, "guido").await;
        for (value, is_active) in values {
            store.execute(&format!("UPDATE Accounts SET enabled = {value}")).await;
            let found = store.find_by_username("guido", Freshness::Current).await;
            let found = found.expect("read").expect("a user");
            assert_eq!(found.user().is_active(), is_active, "{column}: {value}");
            let users = store.users().await.expect("listed");
            assert_eq!(users[0].active, is_active, "{column}: {value}");
        }
    }
}

#[tokio::test]
async fn without_triggers_nothing_else_is_left_out() {
    let (_database, store) = user_table::database::<MySqlRepository>(MySqlRepository::IDS[0]).await;
    store.execute("DROP TABLE ajwt_nonce, ajwt_audit, ajwt_beside_migrations").await;
    store.migrate_without_triggers().await.expect("migrated");
    let tables = store.texts(MySqlRepository::TABLES).await;
    for table in ["ajwt_nonce", "ajwt_audit"] {
        assert!(tables.iter().any(|made| made == table), "{tables:?}");
    }
}

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
    const STATEMENTS: &'static str = include_str!("../src/mysql/tables.rs");
    const ANALYZE: &'static str = "ANALYZE TABLE Accounts, ajwt_public_key, ajwt_jwks_endpoint_trust";

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(self.pool()).await.expect("run");
    }

    async fn plan(&self, find_user: &str) -> Vec<String> {
        mysql_plan::plan_of_finding(self.pool(), find_user).await
    }
}
