//! The user cache over this store, while another process writes.
#![cfg(feature = "sqlite")]

#[path = "support/sqlite_store.rs"]
mod sqlite_store;
#[path = "support/store.rs"]
mod store;
#[path = "support/user_cache.rs"]
mod user_cache;

use ajwt_sqlx::SqliteRepository;

#[tokio::test]
async fn changes_of_another_process_are_effective_in_time() {
    let test = "changes_of_another_process_are_effective_in_time";
    user_cache::changes_of_another_process_are_effective_in_time::<SqliteRepository>(test, false).await;
}

#[tokio::test]
async fn a_trust_removed_by_another_process_is_gone_in_time() {
    let test = "a_trust_removed_by_another_process_is_gone_in_time";
    user_cache::a_trust_removed_by_another_process_is_gone_in_time::<SqliteRepository>(test).await;
}

#[tokio::test]
async fn a_key_added_by_another_process_works_on_its_first_use() {
    let test = "a_key_added_by_another_process_works_on_its_first_use";
    user_cache::a_key_added_by_another_process_works_on_its_first_use::<SqliteRepository>(test).await;
}

#[tokio::test]
async fn notes_of_use_leave_entries_in_the_cache() {
    user_cache::notes_of_use_leave_entries_in_the_cache::<SqliteRepository>().await;
}

#[tokio::test]
async fn a_store_that_is_gone_is_503_once_the_staleness_is_over() {
    user_cache::a_store_that_is_gone_is_503_once_the_staleness_is_over::<SqliteRepository>().await;
}
