//! How many statements a request costs. A file, and so a process, of its own.
#![cfg(feature = "mysql")]

#[path = "support/mysql_store.rs"]
mod mysql_store;
#[path = "support/statements.rs"]
mod statements;
#[path = "support/store.rs"]
mod store;

use ajwt_sqlx::MySqlRepository;

#[tokio::test]
async fn a_request_is_one_query_and_one_insert() {
    statements::a_request_is_one_query_and_one_insert::<MySqlRepository>().await;
}
