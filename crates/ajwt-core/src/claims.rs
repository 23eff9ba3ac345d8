use std::{borrow::Cow, fmt, str::FromStr};

use base64::Engine as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use smallvec::{SmallVec, smallvec};
use smol_str::SmolStr;

use crate::{
    ClaimError, NonceGenerationError, Timestamp, TokenError,
    json::{self, Value},
    jws::BASE64URL,
};

/// Unicode scalar values that a username may have.
pub const MAX_USERNAME_CHARS: usize = 150;

/// Bytes that a nonce may have.
pub const MAX_NONCE_LEN: usize = 256;

/// What a percent-encoded name escapes: all but `A-Z a-z 0-9 . _ ~ @ -`. A plus too, of which decoders of
/// forms would make a space.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'~').remove(b'@').remove(b'-');

/// Random bytes in a nonce made here: 128 bits.
const NONCE_RANDOM_LEN: usize = 16;

/// A user's name: 1 to 150 Unicode scalar values without control characters (Cc).
///
/// Names are compared byte for byte; nothing trims, folds or normalises them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(SmolStr);

impl Username {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ClaimError::UsernameLength`] or [`ClaimError::UsernameControl`].
    pub fn new(name: impl AsRef<str>) -> Result<Self, ClaimError> {
        let name = name.as_ref();
        let chars = name.chars().count();
        if chars == 0 || chars > MAX_USERNAME_CHARS {
            return Err(ClaimError::UsernameLength { chars, max: MAX_USERNAME_CHARS });
        }
        match name.chars().find(|c| c.is_control()) {
            Some(found) => Err(ClaimError::UsernameControl { found: u32::from(found) }),
            None => Ok(Self(name.into())),
        }
    }

    /// Reads what [`to_percent_encoded`](Self::to_percent_encoded) writes, and no other spelling.
    ///
    /// # Errors
    /// [`ClaimError::UsernameEncoding`] that names the right spelling where there is one; as
    /// [`new`](Self::new).
    pub fn from_percent_encoded(text: &str) -> Result<Self, ClaimError> {
        let Ok(name) = percent_decode_str(text).decode_utf8() else {
            return Err(ClaimError::UsernameEncoding { expected: None });
        };
        let name = Self::new(name)?;
        let expected = name.to_percent_encoded();
        if expected == text {
            Ok(name)
        } else {
            Err(ClaimError::UsernameEncoding { expected: Some(expected) })
        }
    }

    /// The name in ASCII, for headers and for names of files: percent-encoded (RFC 3986 section 2.1,
    /// in upper case) but for `A-Z a-z 0-9 . _ ~ @ -`. No two names have the same, and what decodes forms,
    /// where a plus is a space, reads the name too.
    ///
    /// ```
    /// # fn main() -> Result<(), ajwt_core::ClaimError> {
    /// use ajwt_core::Username;
    ///
    /// assert_eq!(Username::new("caf\u{e9} / 1")?.to_percent_encoded(), "caf%C3%A9%20%2F%201");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn to_percent_encoded(&self) -> String {
        utf8_percent_encode(&self.0, ESCAPED).to_string()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    /// The name as it is. Names may hold anything but control characters: quote them (`{:?}`)
    /// where a reader must not be misled.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Username {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Username {
    type Err = ClaimError;

    fn from_str(name: &str) -> Result<Self, ClaimError> {
        Self::new(name)
    }
}

/// What makes a token usable once: a string of 1 to 256 bytes, not printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(SmolStr);

impl Nonce {
    /// Checks a nonce that was made elsewhere.
    ///
    /// # Errors
    /// [`ClaimError::NonceLength`].
    pub fn new(nonce: impl AsRef<str>) -> Result<Self, ClaimError> {
        let nonce = nonce.as_ref();
        let len = nonce.len();
        if len == 0 || len > MAX_NONCE_LEN {
            return Err(ClaimError::NonceLength { len, max: MAX_NONCE_LEN });
        }
        Ok(Self(nonce.into()))
    }

    /// Makes a nonce of 128 random bits as 22 characters of base64url. `fill` fills a buffer with
    /// random bytes of the operating system, as `getrandom::fill` does.
    ///
    /// # Errors
    /// [`NonceGenerationError`] with the random source's own message.
    pub fn generate<E: fmt::Display>(
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, NonceGenerationError> {
        let mut random = [0; NONCE_RANDOM_LEN];
        fill(&mut random).map_err(|error| NonceGenerationError(error.to_string()))?;
        Ok(Self(BASE64URL.encode(random).into()))
    }

    /// The nonce. Keep it out of logs: it is half of a token's single use.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

/// What a caller signs: who it is, when, and a nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    username: Username,
    time: i64,
    nonce: Nonce,
    audience: Option<Box<str>>,
}

impl Claims {
    /// Claims to be signed, dated `now` in whole seconds, without an audience.
    #[must_use]
    pub fn new(username: Username, now: Timestamp, nonce: Nonce) -> Self {
        Self { username, time: now.as_secs(), nonce, audience: None }
    }

    /// Adds the claim `aud`, so that no other service accepts the token. The Python library's
    /// server refuses tokens that have it.
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<Box<str>>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// The claim `username`.
    #[must_use]
    pub const fn username(&self) -> &Username {
        &self.username
    }

    /// The claim `time`: seconds since the Unix epoch.
    #[must_use]
    pub const fn time(&self) -> i64 {
        self.time
    }

    /// The claim `nonce`.
    #[must_use]
    pub const fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// The claim `aud` that is to be signed.
    #[must_use]
    pub fn audience(&self) -> Option<&str> {
        self.audience.as_deref()
    }
}

/// The claims of a token somebody sent, checked for form only.
#[derive(Debug)]
pub(crate) struct ReceivedClaims {
    pub(crate) username: Username,
    pub(crate) time: i64,
    pub(crate) nonce: Nonce,
    pub(crate) registered: RegisteredClaims,
}

/// One, as tokens usually have, takes no allocation if it has up to 23 bytes.
pub(crate) type Audiences = SmallVec<[SmolStr; 1]>;

/// Registered claims that are honoured when present (RFC 7519 section 4.1).
#[derive(Debug, Default)]
pub(crate) struct RegisteredClaims {
    pub(crate) expires: Option<i64>,
    pub(crate) not_before: Option<i64>,
    pub(crate) issued_at: Option<i64>,
    pub(crate) audience: Option<Audiences>,
}

impl ReceivedClaims {
    /// Reads the decoded payload. `sub`, `iss` and `jti` are ignored.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, TokenError> {
        let (username, time, nonce, registered) =
            read_payload(json).map_err(|json::Invalid| TokenError::Payload)?;
        Ok(Self { username: Username::new(username)?, time, nonce: Nonce::new(nonce)?, registered })
    }
}

type Payload<'a> = (Cow<'a, str>, i64, Cow<'a, str>, RegisteredClaims);

fn read_payload(json: &[u8]) -> Result<Payload<'_>, json::Invalid> {
    let [username, time, nonce, expires, not_before, issued_at, audience] =
        json::read_members(json, ["username", "time", "nonce", "exp", "nbf", "iat", "aud"])?;
    let registered = RegisteredClaims {
        expires: Value::integer(expires)?,
        not_before: Value::integer(not_before)?,
        issued_at: Value::integer(issued_at)?,
        audience: audience.map(audiences).transpose()?,
    };
    let username = Value::string(username)?.ok_or(json::Invalid)?;
    let time = Value::integer(time)?.ok_or(json::Invalid)?;
    let nonce = Value::string(nonce)?.ok_or(json::Invalid)?;
    Ok((username, time, nonce, registered))
}

/// A string or a non-empty array of strings (RFC 7519 section 4.1.3).
fn audiences(value: Value<'_>) -> Result<Audiences, json::Invalid> {
    match value {
        Value::String(one) => Ok(smallvec![one.into()]),
        Value::Strings(several) if !several.is_empty() => Ok(several.into_iter().map(Into::into).collect()),
        _ => Err(json::Invalid),
    }
}
