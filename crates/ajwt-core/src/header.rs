//! The JOSE header of a token (RFC 7515 section 4).

use std::borrow::Cow;

use serde::de::MapAccess;

use crate::{
    Algorithm, TokenError,
    json::{self, Members, Text, Walked},
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
        let mut parameters = Parameters::default();
        json::read_object(json, &mut parameters).map_err(|json::Invalid| TokenError::Header)?;
        if let Some(name) = parameters.unsupported {
            return Err(TokenError::Unsupported(name));
        }
        let Some(algorithm) = parameters.algorithm else { return Err(TokenError::Header) };
        let algorithm = Algorithm::from_name(&algorithm).ok_or(TokenError::Algorithm)?;
        Ok(Self { algorithm, key_id: parameters.key_id })
    }
}

#[derive(Default)]
struct Parameters<'a> {
    algorithm: Option<Cow<'a, str>>,
    key_id: Option<Cow<'a, str>>,
    unsupported: Option<&'static str>,
}

/// Parameters that change what the rest means; a verifier that does not know them must refuse
/// (RFC 7515 section 4.1.11, RFC 7797 section 3, RFC 7516 section 4.1).
const UNSUPPORTED: [&str; 4] = ["crit", "b64", "zip", "enc"];

impl<'a> Members<'a> for Parameters<'a> {
    fn member<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "alg" => self.algorithm = Some(map.next_value::<Text<'a>>()?.0),
            "kid" => self.key_id = Some(map.next_value::<Text<'a>>()?.0),
            "typ" => drop(map.next_value::<Text<'a>>()?),
            _ => {
                map.next_value::<Walked>()?;
                if let Some(found) = UNSUPPORTED.into_iter().find(|unsupported| *unsupported == name) {
                    self.unsupported = Some(found);
                }
            }
        }
        Ok(())
    }
}
