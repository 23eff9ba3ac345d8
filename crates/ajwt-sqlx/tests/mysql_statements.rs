//! How many statements a request and a sweep cost. A file, and so a process, of its own.
#![cfg(feature = "mysql")]

#[path = "support/mysql_store.rs"]
mod mysql_store;
#[path = "support/plans.rs"]
mod plans;
#[path = "support/statements.rs"]
mod statements;
#[path = "support/store.rs"]
mod store;

use ajwt_sqlx::MySqlRepository;

#[tokio::test]
async fn requests_and_sweeps_take_so_many_statements() {
    statements::requests_and_sweeps_take_so_many_statements::<MySqlRepository>().await;
}
