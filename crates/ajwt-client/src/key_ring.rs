use std::{
    fmt, iter,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use ajwt_core::{Fingerprint, JwkSet, PublicKey, Timestamp};
use thiserror::Error;

use crate::{
    KeyFileError, SigningKey, clock,
    key_watch::{Occasion, Watched},
};

/// The keys of one caller: the newest signs, all are published. Clones share the keys.
///
/// To replace a key without a moment in which servers refuse, they must know the new one before it
/// signs:
///
/// ```
/// use ajwt_client::{KeyRing, RequestSigner};
/// # use ajwt_core::PrivateKey;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (old, new) = (PrivateKey::generate_ed25519()?, PrivateKey::generate_ed25519()?);
/// let keys = KeyRing::new(old);
/// let signer = RequestSigner::new("billing", keys.clone())?;
/// let old = signer.public_key();
///
/// // 1. Published beside the old one: serve `keys.jwk_set()`, or register it with the servers.
/// keys.announce(new.public_key().clone());
/// assert_eq!(keys.jwk_set().keys().len(), 2);
/// // 2. Once the servers have read it (after 10 minutes, or 40 where ajwt does not publish it), it signs.
/// keys.add(new);
/// // 3. Once no token of the old one is under way.
/// keys.remove(old.fingerprint())?;
/// # Ok(())
/// # }
/// ```
///
/// [`KeyWatch`](crate::KeyWatch) makes one of files, which does this by itself.
#[derive(Clone)]
pub struct KeyRing(Arc<Inner>);

pub(crate) struct Inner {
    held: RwLock<Held>,
    watched: Option<Watched>,
}

/// What a ring holds.
struct Held {
    oldest: DatedKey,
    /// Oldest first.
    newer: Vec<DatedKey>,
    announced: Vec<PublicKey>,
}

/// A key, and since when it may sign.
#[derive(Clone)]
pub(crate) struct DatedKey {
    pub(crate) key: Arc<SigningKey>,
    pub(crate) from: Timestamp,
}

impl KeyRing {
    /// Of one key, which signs.
    #[must_use]
    pub fn new(key: impl Into<SigningKey>) -> Self {
        Self::with(DatedKey::at_once(key.into()), Vec::new(), None)
    }

    pub(crate) fn with(oldest: DatedKey, newer: Vec<DatedKey>, watched: Option<Watched>) -> Self {
        let held = Held { oldest, newer, announced: Vec::new() };
        Self(Arc::new(Inner { held: RwLock::new(held), watched }))
    }

    /// Adds a key, which signs from now on; in a ring that watches files, until these change.
    pub fn add(&self, key: impl Into<SigningKey>) {
        let key = DatedKey::at_once(key.into());
        let mut held = self.0.write();
        held.announced.retain(|announced| announced != key.key.public_key());
        held.newer.push(key);
    }

    /// Publishes a key that does not sign: one that is going to, or no longer does.
    pub fn announce(&self, key: PublicKey) {
        let mut held = self.0.write();
        if !held.announced.contains(&key) {
            held.announced.push(key);
        }
    }

    /// Takes a key out, whether it signs or is only published; in a ring that watches files, until
    /// these change. If it is not there, nothing happens.
    ///
    /// # Errors
    /// [`KeyRingError::LastKey`] if no other key could sign.
    pub fn remove(&self, fingerprint: &Fingerprint) -> Result<(), KeyRingError> {
        let stays = |key: &PublicKey| key.fingerprint() != fingerprint;
        let mut held = self.0.write();
        let signing = held.signing().filter(|dated| stays(dated.key.public_key()));
        let mut signing = signing.cloned().collect::<Vec<_>>().into_iter();
        held.oldest = signing.next().ok_or(KeyRingError::LastKey)?;
        held.newer = signing.collect();
        held.announced.retain(stays);
        Ok(())
    }

    /// The public halves of all keys, to be published.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        let held = self.0.read();
        let mut keys: Vec<PublicKey> = Vec::new();
        for key in held.signing().map(|dated| dated.key.public_key()).chain(&held.announced) {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    }

    /// All keys as a JWK Set (RFC 7517 section 5), to be served at `/.well-known/jwks.json`: its
    /// `to_json` is the body. `JwksService::from_fn` of `ajwt-axum` serves
    /// [`public_keys`](Self::public_keys) as they change.
    #[must_use]
    pub fn jwk_set(&self) -> JwkSet {
        JwkSet::of_keys(self.public_keys())
    }

    /// Looks at the watched files now, as on a SIGHUP, instead of when the time comes; also at one that failed and
    /// has not changed, whose password may be another by now. A ring that watches no files is left as it is.
    ///
    /// # Errors
    /// The first [`KeyFileError`] there was. Where a file cannot be used, its key stays.
    pub fn reload(&self) -> Result<(), KeyFileError> {
        self.0.reload(clock::now(), Occasion::Asked)
    }

    /// The newest of the keys that may sign now. Where none may, all are so new that servers may not
    /// have read them yet, and the oldest is the likeliest to be known.
    pub(crate) fn signing_key(&self, now: Timestamp) -> Arc<SigningKey> {
        let held = self.0.read();
        let newest = held.newer.iter().rev().find(|dated| dated.from <= now);
        Arc::clone(&newest.unwrap_or(&held.oldest).key)
    }

    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }
}

impl<K: Into<SigningKey>> From<K> for KeyRing {
    fn from(key: K) -> Self {
        Self::new(key)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&self.public_keys()).finish()
    }
}

impl Inner {
    pub(crate) fn reload(&self, now: Timestamp, occasion: Occasion) -> Result<(), KeyFileError> {
        let Some(watched) = &self.watched else { return Ok(()) };
        watched.look(now, occasion, |mut keys| {
            if !keys.is_empty() {
                let oldest = keys.remove(0);
                let mut held = self.write();
                (held.oldest, held.newer) = (oldest, keys);
            }
        })
    }

    // A panic elsewhere leaves the keys whole: no change can panic half-way.
    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Oldest first.
    fn signing(&self) -> impl Iterator<Item = &DatedKey> {
        iter::once(&self.oldest).chain(&self.newer)
    }
}

impl DatedKey {
    /// One that may sign at once.
    fn at_once(key: SigningKey) -> Self {
        Self { key: Arc::new(key), from: Timestamp::from_millis(i64::MIN) }
    }
}

/// Why keys cannot be as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// No key would be left to sign with.
    #[error("this is the only key that can sign; add another before it is removed")]
    LastKey,
}
