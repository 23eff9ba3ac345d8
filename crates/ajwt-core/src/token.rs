use std::{fmt, sync::Arc};

use base64::Engine as _;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    Algorithm, Claims, Nonce, PrivateKey, PublicKey, SignError, Timestamp, TokenError, Username, Validation,
    claims::ReceivedClaims, header::Header, jws,
};

/// Bytes that a compact token may have: the 8 KiB of a header value.
pub const MAX_TOKEN_LEN: usize = 8192;

/// A token as it came in: nothing in it is to be believed.
///
/// It shows only what must be read to find the keys. Its claims come out of [`verify`](Self::verify).
pub struct UntrustedToken<'a> {
    algorithm: Algorithm,
    key_id: Option<Box<str>>,
    claims: Arc<ReceivedClaims>,
    signing_input: &'a [u8],
    /// Of all three segments, one after the other.
    decoded: Vec<u8>,
    signature_at: usize,
}

impl<'a> UntrustedToken<'a> {
    /// Reads a compact JWS, as text or as the bytes of a header: three segments of strict base64url, header and
    /// payload strict JSON objects (RFC 8259, no duplicate names), a known algorithm, a signature of a length that
    /// its keys can make, and claims within their bounds. Time and signature are not looked at.
    ///
    /// # Errors
    /// The [`TokenError`] that names the first fault.
    pub fn parse(token: &'a (impl AsRef<[u8]> + ?Sized)) -> Result<Self, TokenError> {
        Self::of_bytes(token.as_ref())
    }

    fn of_bytes(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(TokenError::TooLong { len: token.len(), max: MAX_TOKEN_LEN });
        }
        let segments = jws::split(token).ok_or(TokenError::Encoding)?;
        // What is decoded is shorter than its text.
        let mut decoded = Vec::with_capacity(token.len());
        jws::decode_to(segments.header, &mut decoded).ok_or(TokenError::Encoding)?;
        let payload_at = decoded.len();
        jws::decode_to(segments.payload, &mut decoded).ok_or(TokenError::Encoding)?;
        let signature_at = decoded.len();
        jws::decode_to(segments.signature, &mut decoded).ok_or(TokenError::Encoding)?;

        let (json, signature) = decoded.split_at(signature_at);
        let (header, payload) = json.split_at(payload_at);
        let header = Header::parse(header)?;
        let claims = ReceivedClaims::parse(payload)?;
        let algorithm = header.algorithm;
        if !PublicKey::is_signature_len(algorithm, signature.len()) {
            return Err(TokenError::SignatureLength { algorithm, len: signature.len() });
        }
        Ok(Self {
            algorithm,
            key_id: header.key_id.map(Into::into),
            claims: Arc::new(claims),
            signing_input: segments.signing_input,
            signature_at,
            decoded,
        })
    }

    /// Who the token claims to be from.
    #[must_use]
    pub fn claimed_username(&self) -> &Username {
        &self.claims.username
    }

    /// The header's `kid`: which key to try first, and nothing more.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The header's `alg`.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Bytes of the signature. Only keys that make signatures of this length can have made it.
    #[must_use]
    pub fn signature_len(&self) -> usize {
        self.signature().len()
    }

    fn signature(&self) -> &[u8] {
        self.decoded.get(self.signature_at..).unwrap_or_default()
    }

    /// Checks the time window, `exp`, `nbf`, `iat` and `aud`. [`verify`](Self::verify) does so too;
    /// this is for refusing a token before the cost of looking its user up.
    ///
    /// # Errors
    /// [`TokenError::Window`], [`TokenError::Expired`], [`TokenError::NotYetValid`] or
    /// [`TokenError::Audience`].
    pub fn check_claims(&self, validation: &Validation, now: Timestamp) -> Result<(), TokenError> {
        validation.check(&self.claims, now)
    }

    /// Checks the claims and the signature. Whether the token was used before is not known here:
    /// consume its nonce before you act on it.
    ///
    /// # Errors
    /// As [`check_claims`](Self::check_claims); [`TokenError::KeyAlgorithm`] where the key is of
    /// another type than the token's algorithm; [`TokenError::Signature`].
    pub fn verify(
        &self,
        key: &PublicKey,
        validation: &Validation,
        now: Timestamp,
    ) -> Result<Token, TokenError> {
        self.check_claims(validation, now)?;
        if !key.algorithms().contains(&self.algorithm) {
            return Err(TokenError::KeyAlgorithm(self.algorithm));
        }
        if !key.verify(self.algorithm, self.signing_input, self.signature()) {
            return Err(TokenError::Signature);
        }
        Ok(Token { claims: Arc::clone(&self.claims), algorithm: self.algorithm })
    }
}

impl fmt::Debug for UntrustedToken<'_> {
    /// What may be read of it: whoever has the rest has the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntrustedToken")
            .field("claimed_username", self.claimed_username())
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// A token whose signature and claims were checked. Only [`UntrustedToken::verify`] makes one.
#[derive(Clone, Debug)]
pub struct Token {
    claims: Arc<ReceivedClaims>,
    algorithm: Algorithm,
}

impl Token {
    /// Signs claims with the key's most preferred algorithm.
    ///
    /// # Errors
    /// [`SignError`] if the cryptographic library fails.
    pub fn sign(claims: &Claims, key: &PrivateKey) -> Result<SignedToken, SignError> {
        let unsigned = UnsignedToken::new(claims, key.public_key())?;
        let signature = key.sign(unsigned.algorithm, unsigned.signing_input())?;
        Ok(unsigned.with_signature(&signature))
    }

    /// Who signed it.
    #[must_use]
    pub fn username(&self) -> &Username {
        &self.claims.username
    }

    /// The claim `time`: seconds since the Unix epoch.
    #[must_use]
    pub fn time(&self) -> i64 {
        self.claims.time
    }

    /// The claim `nonce`.
    #[must_use]
    pub fn nonce(&self) -> &Nonce {
        &self.claims.nonce
    }

    /// The audiences of the claim `aud`; empty if it has none.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        self.claims.registered.audience.iter().flatten().map(AsRef::as_ref)
    }

    /// The algorithm of the signature.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// A token that is to be signed where the private key is: in an agent, or in hardware.
///
/// ```
/// use ajwt_core::{Claims, Nonce, PrivateKey, Timestamp, UnsignedToken, Username};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let key = PrivateKey::generate_ed25519()?;
/// # let ask_the_agent = |algorithm, message: &[u8]| key.sign(algorithm, message);
/// # let public_key = key.public_key();
/// # let now = Timestamp::from_secs(1_790_000_000);
/// let claims = Claims::new(Username::new("guido")?, now, Nonce::generate(getrandom::fill)?);
/// let unsigned = UnsignedToken::new(&claims, public_key)?;
/// let signature = ask_the_agent(unsigned.algorithm(), unsigned.signing_input())?;
/// let token = unsigned.verified_with(&signature)?;
/// # Ok(())
/// # }
/// ```
pub struct UnsignedToken {
    key: PublicKey,
    algorithm: Algorithm,
    text: Zeroizing<String>,
}

impl UnsignedToken {
    /// Of claims, to be signed with the most preferred algorithm of the key's private half.
    ///
    /// # Errors
    /// [`SignError::Claims`] if the claims cannot be written.
    pub fn new(claims: &Claims, key: &PublicKey) -> Result<Self, SignError> {
        let algorithm = key.preferred_algorithm();
        let header = HeaderOut { typ: "JWT", alg: algorithm.name(), kid: key.fingerprint().as_str() };
        let payload = ClaimsOut {
            username: claims.username().as_str(),
            time: claims.time(),
            nonce: claims.nonce().as_str(),
            aud: claims.audience(),
        };
        let mut text = Zeroizing::new(String::with_capacity(512));
        encode_segment(&header, &mut text)?;
        text.push('.');
        encode_segment(&payload, &mut text)?;
        Ok(Self { key: key.clone(), algorithm, text })
    }

    /// What to sign with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What to sign: the JWS Signing Input (RFC 7515 section 2). Keep it out of logs.
    #[must_use]
    pub fn signing_input(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The token with a signature that was made elsewhere, once it verifies with the key.
    ///
    /// # Errors
    /// [`SignError::Signature`] if it does not.
    pub fn verified_with(self, signature: &[u8]) -> Result<SignedToken, SignError> {
        if self.key.verify(self.algorithm, self.signing_input(), signature) {
            Ok(self.with_signature(signature))
        } else {
            Err(SignError::Signature)
        }
    }

    fn with_signature(mut self, signature: &[u8]) -> SignedToken {
        self.text.push('.');
        jws::BASE64URL.encode_string(signature, &mut self.text);
        SignedToken(self.text)
    }
}

impl fmt::Debug for UnsignedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsignedToken").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// A compact JWS ready to be sent, once. Not printed by `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct SignedToken(Zeroizing<String>);

impl SignedToken {
    /// The compact serialisation: ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SignedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedToken(..)")
    }
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    typ: &'static str,
    alg: &'static str,
    kid: &'a str,
}

#[derive(Serialize)]
struct ClaimsOut<'a> {
    username: &'a str,
    time: i64,
    nonce: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

fn encode_segment(value: &impl Serialize, into: &mut String) -> Result<(), SignError> {
    let json = Zeroizing::new(serde_json::to_vec(value).map_err(|_| SignError::Claims)?);
    jws::BASE64URL.encode_string(json.as_slice(), into);
    Ok(())
}
