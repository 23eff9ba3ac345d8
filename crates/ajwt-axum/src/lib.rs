//! ajwt for axum, and for any tower service over HTTP.
//!
//! [`AuthLayer`] authenticates requests before they reach a service; [`Authenticated`] hands the
//! handler what is known of the caller. [`JwksService`] publishes the service's own public keys.
//!
//! ```
//! use std::sync::Arc;
//! use ajwt_axum::{AuthLayer, Authenticated};
//! use ajwt_core::PrivateKey;
//! use ajwt_server::{Authenticator, MemoryNonceBackend, MemoryRepository, User};
//! use axum::{Router, routing::get};
//!
//! async fn hello(caller: Authenticated) -> String {
//!     format!("hello, {}", caller.user().username())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let public_key = PrivateKey::generate_ed25519()?.public_key().clone();
//! let users = MemoryRepository::new([User::new("guido").with_keys([public_key])]);
//! let authenticator =
//!     Authenticator::builder(Arc::new(users), Arc::new(MemoryNonceBackend::default())).build()?;
//! let app: Router = Router::new().route("/", get(hello)).layer(AuthLayer::new(authenticator));
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

mod extract;
mod jwks;
mod layer;
mod response;

pub use extract::{Authenticated, AuthenticatedRejection};
pub use jwks::JwksService;
pub use layer::{AuthLayer, AuthService};
