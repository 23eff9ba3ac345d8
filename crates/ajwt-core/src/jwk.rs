//! JWK and JWK Set (RFC 7517), RSA (RFC 7518 section 6.3) and Ed25519 (RFC 8037) only.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use base64::Engine as _;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess},
};

use crate::{
    Algorithm, JwkError, JwkSetError, PublicKey,
    json::{self, FromAny, Text, Walked},
    jws,
};

/// Bytes that a key set may have: 1 MiB.
pub const MAX_JWK_SET_LEN: usize = 1024 * 1024;

/// Entries that a key set may have, usable or not.
pub const MAX_JWKS: usize = 100;

/// Members that an entry may have, read or not: which names there were is remembered, to find one that occurs twice.
const MAX_MEMBERS: usize = 256;

/// A usable public key of a set, with the id it is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    key_id: Box<str>,
    algorithm: Option<Algorithm>,
    key: PublicKey,
}

impl Jwk {
    /// With the fingerprint as `kid` and the most preferred algorithm.
    pub(crate) fn of_key(key: PublicKey) -> Self {
        Self { key_id: key.fingerprint().as_str().into(), algorithm: Some(key.preferred_algorithm()), key }
    }

    /// `kid`, never empty.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// `alg`: the only algorithm to use this key with, if there.
    #[must_use]
    pub const fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    /// The key itself.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The JSON text: public members only.
    #[must_use]
    pub fn to_json(&self) -> String {
        to_json(&JwkOut::from(self))
    }
}

/// An entry of a set that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedJwk {
    /// Which entry, counted from 0.
    pub index: usize,
    /// Its `kid`, cut to 128 characters, where it has one, and that among its first 257 members.
    pub key_id: Option<Box<str>>,
    /// Why it is not used.
    pub reason: JwkError,
}

/// A JWK Set: the keys of it that may verify, and what became of the others.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ajwt_core::{JwkSet, PrivateKey};
///
/// let key = PrivateKey::generate_ed25519()?;
/// let published = JwkSet::of_keys([key.public_key().clone()]).to_json();
///
/// let read = JwkSet::from_json(published)?;
/// let kid = key.public_key().fingerprint().as_str();
/// assert!(read.find(kid).any(|jwk| jwk.key() == key.public_key()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwkSet {
    keys: Vec<Jwk>,
    skipped: Vec<SkippedJwk>,
}

impl JwkSet {
    /// A set to publish.
    pub fn of_keys(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { keys: keys.into_iter().map(Jwk::of_key).collect(), skipped: Vec::new() }
    }

    /// Reads a document as strictly as a token: UTF-8, RFC 8259, no duplicate names at top level,
    /// at most 127 open brackets, 1 MiB and 100 entries. Entries that cannot be used, such as those of
    /// more than 256 members, are skipped one by one, each with its reason; two different usable keys
    /// under one `kid` are both skipped.
    ///
    /// # Errors
    /// [`JwkSetError`] if the document as a whole is no such set. `{"keys":[]}` is one.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, JwkSetError> {
        let json = json.as_ref();
        if json.len() > MAX_JWK_SET_LEN {
            return Err(JwkSetError::TooLong { len: json.len(), max: MAX_JWK_SET_LEN });
        }
        let [keys] = json::read_members(json, ["keys"]).map_err(|json::Invalid| JwkSetError::Json)?;
        let Some(Entries(Some(entries))) = keys else { return Err(JwkSetError::NoKeys) };
        if entries.len() > MAX_JWKS {
            return Err(JwkSetError::TooManyKeys { max: MAX_JWKS });
        }

        let mut set = Self::default();
        let mut usable = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            match entry.to_jwk() {
                Ok(jwk) => usable.push((index, jwk)),
                Err(reason) => {
                    let key_id = entry.optional("kid").ok().flatten().map(reported_id);
                    set.skipped.push(SkippedJwk { index, key_id, reason });
                }
            }
        }
        let ambiguous = ambiguous_ids(usable.iter().map(|(_, jwk)| jwk));
        for (index, jwk) in usable {
            if ambiguous.contains(&jwk.key_id) {
                let reason = JwkError::AmbiguousKid;
                set.skipped.push(SkippedJwk { index, key_id: Some(reported_id(&jwk.key_id)), reason });
            } else {
                set.keys.push(jwk);
            }
        }
        set.skipped.sort_by_key(|skipped| skipped.index);
        Ok(set)
    }

    /// The usable keys, in the order of the document.
    #[must_use]
    pub fn keys(&self) -> &[Jwk] {
        &self.keys
    }

    /// The entries that are not used.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedJwk] {
        &self.skipped
    }

    /// The keys of this id, compared byte for byte. There are several only where one key is listed
    /// more than once, say for two algorithms.
    pub fn find<'a>(&'a self, key_id: &'a str) -> impl Iterator<Item = &'a Jwk> {
        self.keys.iter().filter(move |jwk| jwk.key_id() == key_id)
    }

    /// The JSON text to publish.
    #[must_use]
    pub fn to_json(&self) -> String {
        to_json(&JwkSetOut { keys: self.keys.iter().map(JwkOut::from).collect() })
    }
}

/// Reads one JWK; `kid` may be missing.
pub(crate) fn public_from_json(json: &[u8]) -> Result<PublicKey, JwkError> {
    let entry: Entry<'_> = json::read_any(json).map_err(|json::Invalid| JwkError::Json)?;
    entry.to_key().map(|(key, _)| key)
}

/// Ids are the peer's text: what is reported of them is bounded.
fn reported_id(key_id: &str) -> Box<str> {
    key_id.chars().take(128).collect()
}

/// The ids that stand for different keys.
fn ambiguous_ids<'a>(jwks: impl Iterator<Item = &'a Jwk>) -> HashSet<Box<str>> {
    let mut first: HashMap<&str, &PublicKey> = HashMap::new();
    let mut ambiguous = HashSet::new();
    for jwk in jwks {
        if *first.entry(jwk.key_id()).or_insert(&jwk.key) != &jwk.key {
            ambiguous.insert(jwk.key_id.clone());
        }
    }
    ambiguous
}

/// What may be a set. `None`: it is no array.
struct Entries<'a>(Option<Vec<Entry<'a>>>);

impl<'a> FromAny<'a> for Entries<'a> {
    const OTHER: Self = Self(None);

    fn of_array<A: SeqAccess<'a>>(mut items: A) -> Result<Self, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = items.next_element()? {
            // One too many tells that there are too many.
            if entries.len() <= MAX_JWKS {
                entries.push(entry);
            }
        }
        Ok(Self(Some(entries)))
    }
}

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::deserialize(deserializer)
    }
}

/// Members of private and symmetric keys (RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// What may be a JWK, its members not looked at yet; names may occur twice. `None`: it is no object.
struct Entry<'a>(Option<Vec<(Cow<'a, str>, Member<'a>)>>);

impl<'a> FromAny<'a> for Entry<'a> {
    const OTHER: Self = Self(None);

    fn of_object<A: MapAccess<'a>>(mut map: A) -> Result<Self, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(name), value)) = map.next_entry()? {
            // One too many tells that there are too many.
            if members.len() <= MAX_MEMBERS {
                members.push((name, value));
            }
        }
        Ok(Self(Some(members)))
    }
}

impl<'de> Deserialize<'de> for Entry<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::deserialize(deserializer)
    }
}

impl<'a> Entry<'a> {
    /// A key for a set: it must have an id.
    fn to_jwk(&self) -> Result<Jwk, JwkError> {
        let (key, algorithm) = self.to_key()?;
        match self.required("kid")? {
            "" => Err(JwkError::EmptyKid),
            key_id => Ok(Jwk { key_id: key_id.into(), algorithm, key }),
        }
    }

    fn to_key(&self) -> Result<(PublicKey, Option<Algorithm>), JwkError> {
        let members = self.0.as_ref().ok_or(JwkError::Json)?;
        if members.len() > MAX_MEMBERS {
            return Err(JwkError::TooManyMembers { max: MAX_MEMBERS });
        }
        let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
        if json::has_duplicates(&mut names) {
            return Err(JwkError::DuplicateMember);
        }
        if let Some(private) = PRIVATE_MEMBERS.into_iter().find(|name| self.member(name).is_some()) {
            return Err(JwkError::PrivateMember(private));
        }
        self.check_usage()?;
        let key = match self.required("kty")? {
            "RSA" => PublicKey::from_rsa_components(&self.base64("n")?, &self.base64("e")?)?,
            "OKP" => match self.required("crv")? {
                "Ed25519" => PublicKey::from_ed25519_bytes(&self.base64("x")?)?,
                other => return Err(JwkError::UnsupportedType { member: "crv", found: shortened(other) }),
            },
            other => return Err(JwkError::UnsupportedType { member: "kty", found: shortened(other) }),
        };
        let algorithm = match self.optional("alg")? {
            None => None,
            Some(name) => Some(
                Algorithm::from_name(name)
                    .filter(|algorithm| key.algorithms().contains(algorithm))
                    .ok_or_else(|| JwkError::Algorithm { found: shortened(name) })?,
            ),
        };
        Ok((key, algorithm))
    }

    fn check_usage(&self) -> Result<(), JwkError> {
        match self.optional("use")? {
            None | Some("sig") => {}
            Some(other) => return Err(JwkError::Use { found: shortened(other) }),
        }
        match self.member("key_ops") {
            None | Some(Member::Strings { verify: true }) => Ok(()),
            Some(Member::Strings { verify: false }) => Err(JwkError::KeyOps),
            Some(_) => Err(JwkError::WrongType("key_ops")),
        }
    }

    fn member(&self, name: &str) -> Option<&Member<'a>> {
        self.0.iter().flatten().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    fn optional(&self, name: &'static str) -> Result<Option<&str>, JwkError> {
        match self.member(name) {
            None => Ok(None),
            Some(Member::String(text)) => Ok(Some(text)),
            Some(_) => Err(JwkError::WrongType(name)),
        }
    }

    fn required(&self, name: &'static str) -> Result<&str, JwkError> {
        self.optional(name)?.ok_or(JwkError::Missing(name))
    }

    fn base64(&self, name: &'static str) -> Result<Vec<u8>, JwkError> {
        jws::decode(self.required(name)?).ok_or(JwkError::Base64(name))
    }
}

/// The value of a member, as far as keys are read. Whoever answers under a URL chooses it, so what has values in it is
/// not kept: they would take many times the memory of their text.
enum Member<'a> {
    String(Cow<'a, str>),
    /// An array of strings and nothing else.
    Strings {
        /// Whether `verify` is among them.
        verify: bool,
    },
    /// All else.
    Other,
}

impl<'a> FromAny<'a> for Member<'a> {
    const OTHER: Self = Self::Other;

    fn of_borrowed_str(text: &'a str) -> Self {
        Self::String(Cow::Borrowed(text))
    }

    fn of_str(text: &str) -> Self {
        Self::String(Cow::Owned(text.to_owned()))
    }

    fn of_array<A: SeqAccess<'a>>(mut items: A) -> Result<Self, A::Error> {
        let mut verify = false;
        while let Some(item) = items.next_element::<Self>()? {
            match item {
                Self::String(text) => verify |= text == "verify",
                _ => return Walked::of_array(items).map(|Walked| Self::Other),
            }
        }
        Ok(Self::Strings { verify })
    }
}

impl<'de> Deserialize<'de> for Member<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::deserialize(deserializer)
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[derive(Serialize)]
struct JwkSetOut<'a> {
    keys: Vec<JwkOut<'a>>,
}

#[derive(Serialize)]
struct JwkOut<'a> {
    kty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    kid: &'a str,
    #[serde(rename = "use")]
    usage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
}

impl<'a> From<&'a Jwk> for JwkOut<'a> {
    fn from(jwk: &'a Jwk) -> Self {
        let rsa = jwk.key.rsa_components();
        let ed25519 = jwk.key.ed25519_bytes();
        Self {
            kty: if rsa.is_some() { "RSA" } else { "OKP" },
            crv: ed25519.map(|_| "Ed25519"),
            kid: &jwk.key_id,
            usage: "sig",
            alg: jwk.algorithm.map(Algorithm::name),
            n: rsa.map(|(n, _)| jws::BASE64URL.encode(n)),
            e: rsa.map(|(_, e)| jws::BASE64URL.encode(e)),
            x: ed25519.map(|x| jws::BASE64URL.encode(x)),
        }
    }
}

/// Structs of strings always serialise.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
