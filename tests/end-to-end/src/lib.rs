//! Tests through all crates: a real server, real stores, real requests. See `tests/`.

/// The code of the documentation, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/web-frameworks.md")]
pub struct WebFrameworks;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/database.md")]
pub struct Database;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/jwks.md")]
pub struct Jwks;
