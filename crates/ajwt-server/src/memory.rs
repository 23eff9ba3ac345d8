//! Implementations of the traits for one process.

mod digest_set;
mod nonces;
mod users;

pub use self::{nonces::MemoryNonceBackend, users::MemoryRepository};
