//! A service on axum with a user type of its own, that keeps used nonces in Redis.
#![allow(clippy::missing_errors_doc, reason = "example code, kept as short as a reader's own")]

mod accounts;
mod service;

pub use accounts::{Account, Accounts};
pub use service::{authenticator, router};
