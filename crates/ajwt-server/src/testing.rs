//! [`TestSigner`], for tests of protected routes, and conformance suites: what every implementation
//! of a trait must do, for its tests to run.
//!
//! Each suite panics with all its findings at once. Give it a store that is up; it makes the users
//! it needs (their names begin with `suite`, but for a few odd ones) and removes them.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() {
//! use ajwt_server::{MemoryRepository, testing};
//!
//! let repository = MemoryRepository::new([]);
//! testing::key_admin(&repository).await;
//! testing::user_repository(&repository, &repository).await;
//! testing::trusted_urls(&repository, &repository).await;
//! testing::usage(&repository, &repository).await;
//! # }
//! ```

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a suite panics with what it found"
)]

mod key_admin;
mod nonce_backend;
mod processes;
mod public_key_repository;
mod revision_source;
mod signer;
mod trusted_urls;
mod usage;
mod user_repository;

use ajwt_core::{PrivateKey, PublicKey, Timestamp, Username};

pub use self::{
    key_admin::key_admin,
    nonce_backend::{nonce_backend, nonce_use},
    processes::{is_worker, nonce_backend_across_processes},
    public_key_repository::public_key_repository,
    revision_source::revision_source,
    signer::{StoreIsDown, TestSigner},
    trusted_urls::trusted_urls,
    usage::{usage, usage_store},
    user_repository::user_repository,
};
use crate::{AdminError, KeyAdmin, error::with_sources};

/// What a suite found to be wrong: all of it is told at once.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn check(&mut self, holds: bool, finding: impl FnOnce() -> String) {
        if !holds {
            self.add(finding());
        }
    }

    fn add(&mut self, finding: String) {
        self.0.push(finding);
    }

    /// The value, or a finding.
    fn ok<T>(&mut self, what: &str, result: Result<T, AdminError>) -> Option<T> {
        result.map_err(|error| self.add(format!("{what}: {}", with_sources(&error)))).ok()
    }

    /// # Panics
    /// If there are findings.
    fn finish(self, suite: &str) {
        assert!(self.0.is_empty(), "{suite}: {} findings:\n  {}", self.0.len(), self.0.join("\n  "));
    }
}

fn username(name: &str) -> Username {
    Username::new(name).unwrap_or_else(|error| panic!("{name:?} is a username: {error}"))
}

fn new_key() -> PublicKey {
    let key = PrivateKey::generate_ed25519().unwrap_or_else(|error| panic!("a key: {error}"));
    key.public_key().clone()
}

/// An exact time with milliseconds, this many seconds into the suites' own era.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis((1_790_000_000 + seconds) * 1000 + 250)
}

/// Removes what an earlier run may have left, and adds the user anew.
async fn fresh_user(admin: &dyn KeyAdmin, name: &str) -> Username {
    let username = username(name);
    remove_if_there(admin, &username).await;
    let added = admin.add_user(&username).await;
    added.unwrap_or_else(|error| panic!("adding the user {name:?}: {}", with_sources(&error)));
    username
}

async fn remove_if_there(admin: &dyn KeyAdmin, username: &Username) {
    match admin.remove_user(username).await {
        Ok(()) | Err(AdminError::UnknownUser { .. }) => {}
        Err(error) => panic!("removing the user {username:?}: {}", with_sources(&error)),
    }
}
