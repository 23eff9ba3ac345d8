use std::{borrow::Cow, fmt::Debug, sync::Arc};

use ajwt_core::{Algorithm, Jwk, PublicKey, Timestamp, UntrustedToken};
use async_trait::async_trait;

use crate::{KeyedUser, RepositoryError};

/// Finds the keys that may have signed a user's token. It returns data; the engine verifies. The suite
/// `testing::public_key_repository` tests one.
///
/// ```
/// use std::borrow::Cow;
/// use ajwt_server::{KeyedUser, PublicKeyRepository, RepositoryError, StoredKey, User};
/// use async_trait::async_trait;
///
/// /// Keys that every user has, for a test system.
/// #[derive(Debug)]
/// struct Shared(Vec<StoredKey>);
///
/// #[async_trait]
/// impl PublicKeyRepository<User> for Shared {
///     async fn candidates<'a>(
///         &'a self,
///         user: Option<&'a User>,
///         _key_id: Option<&str>,
///     ) -> Result<Cow<'a, [StoredKey]>, RepositoryError> {
///         Ok(Cow::Borrowed(if user.is_some() { &self.0 } else { &[] }))
///     }
/// }
/// ```
#[async_trait]
pub trait PublicKeyRepository<U>: Debug + Send + Sync + 'static {
    /// The user's keys, newest first. `None` is the unknown or inactive user: do the same work and
    /// return nothing. `key_id` is the token's unverified `kid`; it may narrow what is returned,
    /// never widen it.
    ///
    /// Of a token that is refused a user who was cached is asked for twice, and others once. So answer from memory:
    /// what reads a store here tells strangers by its time which names are cached, and which are known.
    ///
    /// # Errors
    /// [`RepositoryError`] if the store failed.
    async fn candidates<'a>(
        &'a self,
        user: Option<&'a U>,
        key_id: Option<&str>,
    ) -> Result<Cow<'a, [StoredKey]>, RepositoryError>;

    /// Ends background work. Called when an authenticator that has it is closed: by each of them, where several share
    /// one.
    async fn close(&self) {}
}

/// The keys that came with the user: [`KeyedUser::keys`].
#[derive(Clone, Copy, Debug, Default)]
pub struct UserKeys;

#[async_trait]
impl<U: KeyedUser> PublicKeyRepository<U> for UserKeys {
    async fn candidates<'a>(
        &'a self,
        user: Option<&'a U>,
        _key_id: Option<&str>,
    ) -> Result<Cow<'a, [StoredKey]>, RepositoryError> {
        Ok(Cow::Borrowed(user.map(KeyedUser::keys).unwrap_or_default()))
    }
}

/// Where a key came from: the row whose use is recorded.
///
/// An id is that of a row which the authenticator's [`UsageRecorder`](crate::UsageRecorder) writes to. Keys from
/// elsewhere (files, a vault, a table with ids of another type) are [`Unrecorded`](Self::Unrecorded): numbered by
/// oneself, each use would be noted at whatever row has that number, which may be another user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KeySource {
    /// A key row of this id.
    Key(i64),
    /// The JWKS trust row of this id.
    Trust(i64),
    /// No row: its use is not recorded.
    Unrecorded,
}

/// A public key of a user as a store returned it.
#[derive(Clone, Debug)]
pub struct StoredKey {
    key: PublicKey,
    source: KeySource,
    jwk: Option<JwkMembers>,
    not_before: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct JwkMembers {
    /// Unless it is the fingerprint, which lies beside the key in memory.
    key_id: Option<Arc<str>>,
    algorithm: Option<Algorithm>,
}

impl StoredKey {
    /// A static key: tried whatever `kid` says.
    #[must_use]
    pub const fn new(key: PublicKey, source: KeySource) -> Self {
        Self { key, source, jwk: None, not_before: None, expires_at: None }
    }

    /// A key of a trusted JWK Set: tried only for tokens whose `kid` and algorithm it has.
    #[must_use]
    pub fn of_jwk(jwk: &Jwk, source: KeySource) -> Self {
        let key = jwk.key().clone();
        let key_id = (jwk.key_id() != key.fingerprint().as_str()).then(|| jwk.key_id().into());
        let members = JwkMembers { key_id, algorithm: jwk.algorithm() };
        Self { key, source, jwk: Some(members), not_before: None, expires_at: None }
    }

    /// From this row.
    #[must_use]
    pub const fn with_source(mut self, source: KeySource) -> Self {
        self.source = source;
        self
    }

    /// Used only from `not_before` (inclusive) until `expires_at` (exclusive), by the engine's clock.
    #[must_use]
    pub const fn with_validity(
        mut self,
        not_before: Option<Timestamp>,
        expires_at: Option<Timestamp>,
    ) -> Self {
        self.not_before = not_before;
        self.expires_at = expires_at;
        self
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Where it came from.
    #[must_use]
    pub const fn source(&self) -> KeySource {
        self.source
    }

    /// From when it is used, if not since ever.
    #[must_use]
    pub const fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// Until when it is used, if not for ever.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// The `kid` of its tokens: the JWK's, else the fingerprint.
    #[must_use]
    pub fn key_id(&self) -> &str {
        match self.jwk.as_ref().and_then(|jwk| jwk.key_id.as_deref()) {
            Some(key_id) => key_id,
            None => self.key.fingerprint().as_str(),
        }
    }

    /// Whether it may be tried for this token, and how eagerly.
    pub(crate) fn rank(&self, token: &UntrustedToken<'_>, now: Timestamp) -> Option<Rank> {
        let algorithm = token.algorithm();
        let fits = self.key.algorithms().contains(&algorithm)
            && self.key.signature_len() == token.signature_len()
            && self.not_before.is_none_or(|not_before| now >= not_before)
            && self.expires_at.is_none_or(|expires_at| now < expires_at);
        let named = token.key_id() == Some(self.key_id());
        match &self.jwk {
            _ if !fits => None,
            Some(jwk) => {
                let allowed = jwk.algorithm.is_none_or(|only| only == algorithm);
                (named && allowed).then_some(Rank::Named)
            }
            None if named => Some(Rank::Named),
            None => Some(Rank::Static),
        }
    }
}

/// In which order candidates are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// The token's `kid` names it.
    Named,
    /// A static key that `kid` does not name.
    Static,
}

#[cfg(test)]
mod tests {
    use ajwt_core::{JwkSet, PrivateKey};

    use super::*;

    #[test]
    fn a_key_of_a_set_has_the_id_that_it_has_there() {
        let key = PrivateKey::generate_ed25519().expect("a key").public_key().clone();
        let fingerprint = key.fingerprint().as_str();
        for key_id in [fingerprint, "another", &fingerprint.to_uppercase()] {
            let jwk = key.to_jwk().to_json().replace(fingerprint, key_id);
            let set = JwkSet::from_json(format!(r#"{{"keys":[{jwk}]}}"#)).expect("a set");
            let [jwk] = set.keys() else { panic!("{set:?}") };
            assert_eq!(StoredKey::of_jwk(jwk, KeySource::Trust(1)).key_id(), key_id);
        }
    }
}
