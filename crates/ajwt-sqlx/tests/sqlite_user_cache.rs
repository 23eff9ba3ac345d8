//! The user cache over this store, while another process writes.
#![cfg(feature = "sqlite")]

#[path = "support/sqlite_store.rs"]
mod sqlite_store;
#[path = "support/store.rs"]
mod store;
#[path = "support/user_cache.rs"]
mod user_cache;

use ajwt_sqlx::SqliteRepository;

user_cache_tests!(SqliteRepository, false);
