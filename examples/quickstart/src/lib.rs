//! The three parts of the quickstart, as the README shows them: an administrator registers keys, a
//! service demands tokens, a caller signs requests.
#![allow(clippy::missing_errors_doc, reason = "example code, kept as short as a reader's own")]

mod caller;
mod register;
mod service;

pub use caller::call;
pub use register::register;
pub use service::service;

/// The code of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

/// The code of the caller's page, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/client.md")]
pub struct ClientPage;
