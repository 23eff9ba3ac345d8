//! The server's engine: decides whether a request's token is genuine, timely, and used for the
//! first time.
//!
//! [`Authenticator`] holds the one ordered decision path. What it needs from outside are traits:
//! [`UserRepository`] and [`PublicKeyRepository`] return data, [`NonceBackend`] remembers what was
//! used, [`UsageRecorder`] notes which key was used when. Only the engine verifies. Adapters for
//! web frameworks (`ajwt-axum`, `ajwt-actix`) hand a [`Guard`] header values as bytes; drivers
//! (`ajwt-sqlx`) implement the traits; [`MemoryRepository`] and [`MemoryNonceBackend`] do so for one
//! process. The feature `testing` brings the suites that every implementation of a trait runs.
//!
//! ```
//! use std::sync::Arc;
//! use ajwt_core::{Claims, Nonce, PrivateKey, Token, Username};
//! use ajwt_server::{
//!     Authenticator, Clock, KeyedUser, MemoryNonceBackend, MemoryRepository, SystemClock, User,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = PrivateKey::generate_ed25519()?;
//! let users = MemoryRepository::new([User::new("guido").with_keys([key.public_key().clone()])]);
//! let authenticator =
//!     Authenticator::builder(Arc::new(users), Arc::new(MemoryNonceBackend::default())).build()?;
//!
//! let claims =
//!     Claims::new(Username::new("guido")?, SystemClock::new().now(), Nonce::generate(getrandom::fill)?);
//! let header = format!("JWT {}", Token::sign(&claims, &key)?.as_str());
//!
//! let accepted = authenticator.authenticate([header.as_bytes()]).await?;
//! assert_eq!(accepted.user().username(), "guido");
//!
//! let replayed = authenticator.authenticate([header.as_bytes()]).await;
//! assert!(replayed.is_err());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

mod admin;
mod answer;
mod authenticator;
mod authorization;
mod authorized_keys;
mod clock;
mod decoy;
mod error;
mod goes_on;
mod guard;
mod hot_keys;
mod jwks_document;
mod key_directory;
mod memory;
mod nonce;
mod public_key;
mod readiness;
mod refusal_timer;
mod rejection;
mod rejection_body;
mod report;
mod shown_url;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod turn;
mod usage;
mod user;
mod user_cache;

pub use admin::{AdminError, KeyAdmin, KeyRecord, MAX_COMMENT_CHARS, NewKey, TrustRecord, UserRecord};
pub use answer::{Answer, AnswerFormat};
pub use authenticator::{Authentication, Authenticator, AuthenticatorBuilder, BuildError};
pub use authorized_keys::AuthorizedKeysError;
pub use clock::{Clock, MockClock, SystemClock};
pub use error::RepositoryError;
pub use goes_on::GoesOn;
pub use guard::{Checked, Guard};
pub use jwks_document::{JwksDocument, PublishedKeys};
pub use key_directory::{KeyDirectory, KeyDirectoryError};
pub use memory::{MemoryNonceBackend, MemoryRepository};
pub use nonce::{
    InsecureNoReplayProtection, NonceBackend, NonceError, NonceKey, NonceOutcome, NonceUse, StartRule,
};
pub use public_key::{KeySource, PublicKeyRepository, StoredKey, UserKeys};
pub use readiness::{Readiness, ReadinessState};
pub use rejection::{Reason, Rejection, RejectionKind};
pub use rejection_body::{ContentTypeError, RejectionBody, RejectionSummary, problem_details};
pub use usage::{BatchedUsage, NoUsage, UsageRecorder, UsageStore};
pub use user::{
    Found, Freshness, KeyedUser, MAX_KEYS, MAX_TRUSTS, NoRevision, RevisionSource, TrustedUrl, TrustedUrls,
    User, UserRepository,
};
pub use user_cache::{CachedUserRepository, UserCacheOptions};
