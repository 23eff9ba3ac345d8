//! How many statements a request costs. A file, and so a process, of its own.
#![cfg(feature = "postgres")]

#[path = "support/postgres_store.rs"]
mod postgres_store;
#[path = "support/statements.rs"]
mod statements;
#[path = "support/store.rs"]
mod store;

use ajwt_sqlx::PostgresRepository;

#[tokio::test]
async fn a_request_is_one_query_and_one_insert() {
    statements::a_request_is_one_query_and_one_insert::<PostgresRepository>().await;
}
