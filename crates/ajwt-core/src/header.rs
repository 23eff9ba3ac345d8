//! The JOSE header of a token (RFC 7515 section 4).

use std::borrow::Cow;

use crate::{
    Algorithm, TokenError,
    json::{self, Value},
};

/// What is used of a token's header.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<Cow<'a, str>>,
}

impl<'a> Header<'a> {
    /// Reads the decoded header. Parameters that would bring a key along (`jwk`, `jku`, `x5u`,
    /// `x5c`) are ignored: keys come from the server's own stores only.
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, TokenError> {
        let invalid = |json::Invalid| TokenError::Header;
        let [algorithm, key_id, typ, crit, b64, zip, enc] =
            json::read_members(json, ["alg", "kid", "typ", "crit", "b64", "zip", "enc"]).map_err(invalid)?;
        let algorithm = Value::string(algorithm).map_err(invalid)?;
        let key_id = Value::string(key_id).map_err(invalid)?;
        Value::string(typ).map_err(invalid)?;
        // They change what the rest means, so a verifier that does not know them must refuse (RFC 7515 section
        // 4.1.11, RFC 7797 section 3, RFC 7516 section 4.1).
        for (name, value) in [("crit", crit), ("b64", b64), ("zip", zip), ("enc", enc)] {
            if value.is_some() {
                return Err(TokenError::Unsupported(name));
            }
        }
        let algorithm = algorithm.ok_or(TokenError::Header)?;
        let algorithm = Algorithm::from_name(&algorithm).ok_or(TokenError::Algorithm)?;
        Ok(Self { algorithm, key_id })
    }
}
