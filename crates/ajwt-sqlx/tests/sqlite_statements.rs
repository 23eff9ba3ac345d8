//! How many statements a request costs. A file, and so a process, of its own.
#![cfg(feature = "sqlite")]

#[path = "support/sqlite_store.rs"]
mod sqlite_store;
#[path = "support/statements.rs"]
mod statements;
#[path = "support/store.rs"]
mod store;

use ajwt_sqlx::SqliteRepository;

#[tokio::test]
async fn a_request_is_one_query_and_one_insert() {
    statements::a_request_is_one_query_and_one_insert::<SqliteRepository>().await;
}
