//! Keys from trusted URLs: JWK Sets (RFC 7517) are fetched, cached and handed to the engine.
//!
//! A user of the store may trust URLs that name its keys. [`JwksCache`] keeps their sets in memory
//! and refreshes them in the background; [`JwksKeyRepository`] hands the engine the keys of a user's
//! own URLs, and of no others; [`JwksClient`] fetches, from public addresses and over HTTPS only
//! unless it is told otherwise.
//!
//! ```no_run
//! use std::sync::Arc;
//! use ajwt_jwks::{JwksCache, JwksClient, JwksKeyRepository};
//! use ajwt_server::{Authenticator, KeyAdmin, MemoryNonceBackend, MemoryRepository};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let users = Arc::new(MemoryRepository::new([]));
//! # let guido = ajwt_core::Username::new("guido")?;
//! users.add_user(&guido).await?;
//! users.add_trust(&guido, "https://billing.example/.well-known/jwks.json").await?;
//!
//! let cache = Arc::new(JwksCache::builder(JwksClient::builder().build()?).build());
//! // Ready once each trusted URL was tried.
//! let warm = cache.warm_up(&*users).await?;
//! println!("{} of {} key sets are there", warm.fetched, warm.trusted);
//!
//! let authenticator = Authenticator::builder(users.clone(), Arc::new(MemoryNonceBackend::default()))
//!     .keys(Arc::new(JwksKeyRepository::new(cache)))
//!     // When keys and trusts were last used; a store in SQL has `batched_usage()` for it.
//!     .usage(users)
//!     .build()?;
//! // .. and when the service ends: background work ends with it.
//! authenticator.close().await;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

mod address;
mod cache;
mod client;
mod error;
mod freshness;
mod report;
mod repository;
mod resolver;
mod shown_url;
mod sync;

pub use address::AddressPolicy;
pub use cache::{JwksCache, JwksCacheBuilder, SetSnapshot, WarmUp};
pub use client::{JwksClient, JwksClientBuilder, JwksResponse};
pub use error::{ClientError, FetchError, NetworkError};
pub use freshness::Validators;
pub use repository::JwksKeyRepository;
pub use resolver::{HostResolver, SystemResolver};
