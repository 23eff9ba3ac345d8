use std::{
    collections::HashMap,
    fmt, mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ajwt_core::PublicKey;
use aws_lc_rs::digest;

/// Texts that a generation holds; two are kept.
const GENERATION: usize = 10_000;

/// Keys by the hash of their text, so that each is parsed once. What a text means never changes, so
/// nothing here ever goes stale, and a hash takes the same room whatever stands in a row.
///
/// When a generation is full it becomes the old one and the one before is dropped: what is in use
/// moves on, and memory stays bounded without a list of uses.
#[derive(Default)]
pub(crate) struct KeyCache(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    current: HashMap<Digest, Option<PublicKey>>,
    previous: HashMap<Digest, Option<PublicKey>>,
}

/// SHA-256 of the kind of a row, its id and text. The id is in it so that each bad row is named once.
type Digest = [u8; 32];

/// Kinds of rows. None begins with another: a trust may have the id and the text of a key, and says nothing of it.
const KEY: &[u8] = b"key";
const TRUST: &[u8] = b"trust";

impl KeyCache {
    /// The key of a row's text; `None`, with one warning that names the row, if it is none.
    pub(crate) fn parse(&self, row: i64, text: &[u8]) -> Option<PublicKey> {
        let digest = digest(KEY, row, text);
        if let Some(known) = self.lock().find(&digest) {
            return known;
        }
        // Parsed without the lock: a long text holds nobody up.
        let key = match PublicKey::from_text(text) {
            Ok((key, _)) => Some(key),
            Err(error) => {
                tracing::warn!(row, %error, "a stored key is skipped; the user's other keys keep working");
                None
            }
        };
        self.lock().insert(digest, key.clone());
        key
    }

    /// Whether a trust of this text, which is none, is met for the first time. It is told then only, for anybody may
    /// claim its user's name.
    pub(crate) fn is_new_trust(&self, row: i64, text: &[u8]) -> bool {
        let digest = digest(TRUST, row, text);
        let mut generations = self.lock();
        let is_new = generations.find(&digest).is_none();
        if is_new {
            generations.insert(digest, None);
        }
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn find(&mut self, digest: &Digest) -> Option<Option<PublicKey>> {
        if let Some(known) = self.current.get(digest) {
            return Some(known.clone());
        }
        let known = self.previous.remove(digest)?;
        self.insert(*digest, known.clone());
        Some(known)
    }

    fn insert(&mut self, digest: Digest, key: Option<PublicKey>) {
        if self.current.len() >= GENERATION {
            self.previous = mem::take(&mut self.current);
        }
        self.current.insert(digest, key);
    }
}

fn digest(kind: &[u8], row: i64, text: &[u8]) -> Digest {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(kind);
    hash.update(&row.to_be_bytes());
    hash.update(text);
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_what_is_in_use_stays() {
        let cache = KeyCache::default();
        let hot = b"hot";
        for row in 0..3 * GENERATION {
            assert_eq!(cache.parse(0, format!("no key {row}").as_bytes()), None);
            assert_eq!(cache.parse(0, hot), None);
        }
        let mut generations = cache.lock();
        assert!(generations.current.len() + generations.previous.len() <= 2 * GENERATION);
        assert!(generations.find(&digest(KEY, 0, hot)).is_some());
        assert!(generations.find(&digest(KEY, 0, b"no key 0")).is_none());
    }

    #[test]
    fn a_trust_that_is_no_text_is_new_once_and_hides_no_key() {
        let cache = KeyCache::default();
        let key = ajwt_core::PrivateKey::generate_ed25519().expect("a key");
        let text = key.public_key().to_openssh("of a test");
        for is_new in [true, false] {
            assert_eq!(cache.is_new_trust(1, b"\xff"), is_new);
            assert_eq!(cache.is_new_trust(2, b"\xff"), is_new);
            assert_eq!(cache.is_new_trust(1, text.as_bytes()), is_new);
        }
        assert_eq!(cache.parse(1, text.as_bytes()).as_ref(), Some(key.public_key()));
    }
}
