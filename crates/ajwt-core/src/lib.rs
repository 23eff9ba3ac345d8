//! Keys and single-use tokens of ajwt: everything that needs no I/O.
//!
//! A caller proves who it is with a short JWT (RFC 7519) that only its private key could sign.
//! This crate makes and checks those tokens and reads and writes the keys behind them. It has no
//! I/O, no async, no clock and no global state: the time and the nonce's random source are
//! arguments. Only key generation, key encryption and RSA blinding draw on aws-lc's own generator.
//!
//! Whether a nonce was seen before and which keys belong to a user is the business of
//! `ajwt-server`; sending a token is that of `ajwt-client`.
//!
//! ```
//! use ajwt_core::{Claims, Nonce, PrivateKey, Timestamp, Token, UntrustedToken, Username, Validation};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Timestamp::from_secs(1_790_000_000);
//!
//! // The caller signs.
//! let key = PrivateKey::generate_ed25519()?;
//! let claims = Claims::new(Username::new("guido")?, now, Nonce::generate(getrandom::fill)?);
//! let signed = Token::sign(&claims, &key)?;
//!
//! // The server looks the claimed user's keys up, then verifies.
//! let untrusted = UntrustedToken::parse(signed.as_str())?;
//! assert_eq!(untrusted.claimed_username().as_str(), "guido");
//! let token = untrusted.verify(key.public_key(), &Validation::default(), now)?;
//! assert_eq!(token.username().as_str(), "guido");
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

mod algorithm;
mod claims;
mod error;
mod header;
mod json;
mod jwk;
mod jws;
mod key;
mod timestamp;
mod token;
mod validation;

pub use algorithm::Algorithm;
pub use claims::{Claims, MAX_NONCE_LEN, MAX_USERNAME_CHARS, Nonce, Username};
pub use error::{
    ClaimError, ExportError, GenerateError, JwkError, JwkSetError, KeyError, NonceGenerationError, SignError,
    TokenError, ValidationError,
};
pub use jwk::{Jwk, JwkSet, MAX_JWK_SET_LEN, MAX_JWKS, SkippedJwk};
pub use key::{
    Fingerprint, KeyType, MAX_PRIVATE_KEY_LEN, MAX_PUBLIC_KEY_LEN, MAX_RSA_BITS, MIN_RSA_BITS, PrivateKey,
    PublicKey, RsaKeySize,
};
pub use timestamp::Timestamp;
pub use token::{MAX_TOKEN_LEN, SignedToken, Token, UnsignedToken, UntrustedToken};
pub use validation::Validation;
