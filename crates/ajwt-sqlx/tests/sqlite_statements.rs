//! How many statements a request and a sweep cost. A file, and so a process, of its own.
#![cfg(feature = "sqlite")]

#[path = "support/plans.rs"]
mod plans;
#[path = "support/sqlite_store.rs"]
mod sqlite_store;
#[path = "support/statements.rs"]
mod statements;
#[path = "support/store.rs"]
mod store;

use ajwt_sqlx::SqliteRepository;

#[tokio::test]
async fn requests_and_sweeps_take_so_many_statements() {
    statements::requests_and_sweeps_take_so_many_statements::<SqliteRepository>().await;
}
