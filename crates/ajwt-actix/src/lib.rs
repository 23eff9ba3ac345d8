//! ajwt for actix-web.
//!
//! [`AuthMiddleware`] authenticates requests before they reach a service; [`Authenticated`] hands the
//! handler what is known of the caller. [`JwksService`] publishes the service's own public keys.
//!
//! ```
//! use std::sync::Arc;
//! use actix_web::{App, Responder, web};
//! use ajwt_actix::{AuthMiddleware, Authenticated};
//! use ajwt_core::PrivateKey;
//! use ajwt_server::{Authenticator, MemoryNonceBackend, MemoryRepository, User};
//!
//! async fn hello(caller: Authenticated) -> impl Responder {
//!     format!("hello, {}", caller.user().username())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let public_key = PrivateKey::generate_ed25519()?.public_key().clone();
//! let users = MemoryRepository::new([User::new("guido").with_keys([public_key])]);
//! // Made once, outside of the factory: all workers share it.
//! let authenticator =
//!     Authenticator::builder(Arc::new(users), Arc::new(MemoryNonceBackend::default())).build()?;
//! let factory = move || {
//!     App::new().wrap(AuthMiddleware::new(authenticator.clone())).route("/", web::get().to(hello))
//! };
//! # let _ = factory();
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

mod extract;
mod jwks;
mod middleware;
mod response;

pub use extract::{Authenticated, AuthenticatedRejection};
pub use jwks::JwksService;
pub use middleware::{AppDataAuthMiddleware, AuthMiddleware, AuthMiddlewareService};
