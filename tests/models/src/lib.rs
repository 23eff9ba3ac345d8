//! Model checking of what threads and tasks share: nonces in memory, the cache of users, the cache of
//! key sets.
//!
//! The sources are those of the crates themselves (the links beside this file), compiled once more on
//! what a [`shuttle`] scheduler drives: its locks and atomics in place of the standard library's
//! (`crate::sync`), and its tasks and a time that only a model lets pass in place of tokio's. So the
//! crates carry no configuration for it, and a model is an ordinary test. `./scripts/models` runs many
//! more schedules than a test run does.
//!
//! Shuttle runs one task at a time and takes every atomic for sequentially consistent: a fault that needs
//! a weaker order is not found here.

// The sources' own unit tests and examples run in their crates.
#![cfg(not(any(test, doctest)))]
#![allow(clippy::missing_panics_doc, reason = "tests panic")]

// What the sources know as these is here: what of it is not modelled is handed on.
extern crate quick_cache as real_quick_cache;
extern crate self as getrandom;
extern crate self as quick_cache;
extern crate self as tokio;
extern crate tokio as real_tokio;

#[allow(dead_code, unreachable_pub, reason = "a part of another crate")]
mod cache;
mod jwks;
#[allow(dead_code, unreachable_pub, reason = "a part of another crate")]
mod memory {
    mod digest_set;
    mod nonces;

    pub use nonces::MemoryNonceBackend;
}
mod repository;
pub mod runtime;
pub mod schedules;
pub mod sync;
pub mod task;
pub mod time;
mod turn;
#[allow(dead_code, unreachable_pub, reason = "a part of another crate")]
mod user_cache;

use std::convert::Infallible;

// Where the sources look for the rest of their crates.
pub(crate) use ajwt_server::{
    Clock, Found, Freshness, KeyedUser, NonceBackend, NonceError, NonceKey, NonceOutcome, NonceUse,
    RepositoryError, RevisionSource, StartRule, SystemClock, UserRepository,
};

pub(crate) use self::jwks::{report, shown_url};
pub use self::{
    cache::{JwksCache, JwksCacheBuilder, SetSnapshot, WarmUp},
    jwks::{FetchError, JwksClient, JwksResponse, Validators},
    memory::MemoryNonceBackend,
    repository::JwksKeyRepository,
    task::spawn,
    user_cache::{CachedUserRepository, UserCacheOptions},
};

/// No randomness but the scheduler's, so that a schedule that failed can be run again.
///
/// # Errors
/// None.
pub fn fill(bytes: &mut [u8]) -> Result<(), Infallible> {
    bytes.fill(7);
    Ok(())
}
