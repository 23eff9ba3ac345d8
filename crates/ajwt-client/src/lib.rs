//! Calling another service: signs each request with a fresh token.
//!
//! - [`RequestSigner`] makes the value of one `Authorization` header, as one user, with one key or
//!   the newest of a [`KeyRing`]. Keys come from a [`KeyFile`], from files that change
//!   ([`KeyWatch`]), or stay where they are: in an ssh-agent (`SshAgent`, feature `ssh-agent`, on Unix), or in
//!   whatever a function of yours asks for signatures ([`SigningKey::remote`]).
//! - `OriginSigner` (feature `middleware` or `tower`) signs for named origins only, and notices clocks that are apart.
//! - `ClientBuilder` (feature `middleware`) builds a client on `reqwest_middleware` with defaults
//!   that are right between services; `build_blocking` (feature `blocking`) one without async.
//!   `SigningMiddleware` and `SigningLayer` (feature `tower`, for the clients of hyper and tonic) are
//!   for clients that you put together yourself.
//!
//! ```
//! # #[cfg(feature = "middleware")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ajwt_client::{ClientBuilder, OriginSigner, RequestSigner};
//! # use ajwt_core::PrivateKey;
//!
//! # let key = PrivateKey::generate_ed25519()?;
//! let signer = OriginSigner::new(RequestSigner::new("billing", key)?, ["https://orders.example"])?;
//! let client = ClientBuilder::new(signer).build()?;
//! let response = client.get("https://orders.example/hello").send().await?;
//! # Ok(())
//! # }
//! ```
//!
//! With reqwest alone, `RequestBuilderExt` signs one request:
//!
//! ```
//! # #[cfg(feature = "reqwest")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ajwt_client::{RequestBuilderExt as _, RequestSigner};
//! # use ajwt_core::PrivateKey;
//!
//! # let key = PrivateKey::generate_ed25519()?;
//! let signer = RequestSigner::new("billing", key)?;
//! let client = reqwest::Client::builder().no_proxy();
//! let client = client.redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never()).build()?;
//! let response = client.get("https://orders.example/hello").sign_with(&signer)?.send().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A token works once. Sign each attempt anew, never a request that is cloned to be retried; and
//! switch off redirects, for reqwest sends the same token again where a redirect stays on the host, and
//! reqwest's own retries, for they send it again too. Switch off the proxies that the environment names as
//! well (`no_proxy`): where `HTTP_PROXY` is set, a token for `http://127.0.0.1` would leave the host, in the clear.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

#[cfg(feature = "blocking")]
mod blocking;
#[cfg(feature = "middleware")]
mod client;
mod clock;
mod key_file;
mod key_ring;
mod key_watch;
#[cfg(feature = "tower")]
mod layer;
#[cfg(feature = "middleware")]
mod middleware;
#[cfg(any(feature = "middleware", feature = "tower"))]
mod origin;
#[cfg(any(feature = "middleware", feature = "tower"))]
mod origin_signer;
mod remote_key;
#[cfg(feature = "reqwest")]
mod request_builder;
mod signer;
mod signing_key;
#[cfg(all(unix, feature = "ssh-agent"))]
mod ssh_agent;

#[cfg(feature = "blocking")]
pub use blocking::{BlockingClient, BlockingError};
#[cfg(feature = "middleware")]
pub use client::{BuildError, ClientBuilder};
pub use key_file::{KeyFile, KeyFileError};
pub use key_ring::{KeyRing, KeyRingError};
pub use key_watch::KeyWatch;
#[cfg(feature = "tower")]
pub use layer::{SigningLayer, SigningService};
#[cfg(feature = "middleware")]
pub use middleware::SigningMiddleware;
#[cfg(any(feature = "middleware", feature = "tower"))]
pub use origin::OriginError;
#[cfg(any(feature = "middleware", feature = "tower"))]
pub use origin_signer::{ClockSkewError, OriginSigner};
pub use remote_key::RemoteKeyError;
#[cfg(feature = "reqwest")]
pub use request_builder::RequestBuilderExt;
pub use signer::{RequestSigner, SignerError, SigningError};
pub use signing_key::SigningKey;
#[cfg(all(unix, feature = "ssh-agent"))]
pub use ssh_agent::{AgentError, AgentKey, SshAgent};
