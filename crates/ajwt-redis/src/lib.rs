//! Used nonces in Redis (or Valkey): the replay protection of a service that runs in many processes.
//!
//! [`RedisNonceBackend`] works with one server, with Sentinel and with a cluster; see there what it
//! promises when a server restarts, fails over or forgets. The feature `tls` adds `rediss://`.
//!
//! ```no_run
//! # async fn example() -> Result<(), ajwt_redis::ConnectError> {
//! use ajwt_redis::RedisNonceBackend;
//!
//! let nonces = RedisNonceBackend::builder("orders:production")
//!     .connect_cluster(&["redis://10.0.0.5", "redis://10.0.0.6", "redis://10.0.0.7"])
//!     .await?;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

mod backend;
mod claims;
mod cluster;
mod demands;
mod error;
mod keyspace;
mod link;
mod mark;
mod sentinel;
mod server;
mod sync;

pub use backend::{RedisNonceBackend, RedisNonceBackendBuilder};
pub use error::{ConnectError, RedisFault};
