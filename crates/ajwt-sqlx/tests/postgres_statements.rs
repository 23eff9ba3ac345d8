//! How many statements a request and a sweep cost. A file, and so a process, of its own.
#![cfg(feature = "postgres")]

#[path = "support/plans.rs"]
mod plans;
#[path = "support/postgres_store.rs"]
mod postgres_store;
#[path = "support/statements.rs"]
mod statements;
#[path = "support/store.rs"]
mod store;

use ajwt_sqlx::PostgresRepository;

#[tokio::test]
async fn requests_and_sweeps_take_so_many_statements() {
    statements::requests_and_sweeps_take_so_many_statements::<PostgresRepository>().await;
}
