//! Users, keys, trusts and used nonces in SQL.
//!
//! | feature | repository | nonce backend |
//! |---|---|---|
//! | `postgres` | [`PostgresRepository`] | [`PostgresNonceBackend`] |
//! | `mysql` (MariaDB too) | [`MySqlRepository`] | [`MySqlNonceBackend`] |
//! | `sqlite` | [`SqliteRepository`] | [`SqliteNonceBackend`] |
//!
//! The tables are named `ajwt_*`; the migrations that make them are embedded
//! ([`SqliteRepository::migrate`]) and keep their own table, so that they stand beside those of the
//! application. No runtime or TLS feature of sqlx is chosen for you. Users may be in a table of the
//! application's own ([`Schema::with_users`]), and Django's tables will do as well ([`Schema::django`]).
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use ajwt_server::Authenticator;
//! use ajwt_sqlx::{SqliteNonceBackend, SqliteRepository};
//!
//! let repository = SqliteRepository::connect("sqlite://ajwt.db").await?;
//! repository.migrate().await?;
//! let nonces = SqliteNonceBackend::new(repository.pool().clone());
//! let usage = repository.batched_usage();
//! let authenticator =
//!     Authenticator::builder(Arc::new(repository), Arc::new(nonces)).usage(Arc::new(usage)).build()?;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]
#![cfg_attr(
    not(any(feature = "mysql", feature = "postgres", feature = "sqlite")),
    allow(
        dead_code,
        unused_imports,
        unused_macros,
        reason = "without a database nobody uses what all of them share"
    )
)]

mod audit;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod connect_url;
mod error;
mod failure;
mod key_cache;
mod migrations;
#[cfg(feature = "mysql")]
mod mysql;
mod nonce_table;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod repository;
mod rows;
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod unanswered;
mod user_rows;
mod user_table;

pub use audit::AuditRecord;
pub use error::{ConnectError, MigrationError};
pub use failure::{CustomUserModel, MissingTables};
#[cfg(feature = "mysql")]
pub use mysql::{MySqlNonceBackend, MySqlRepository};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresNonceBackend, PostgresRepository};
pub use schema::Schema;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteNonceBackend, SqliteRepository};
pub use user_table::UserTable;
