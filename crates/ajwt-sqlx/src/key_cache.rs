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

/// SHA-256 of a row's id and text. The id is in it so that each bad row is named once.
type Digest = [u8; 32];

impl KeyCache {
    /// The key of a row's text; `None`, with one warning that names the row, if it is none.
    pub(crate) fn parse(&self, row: i64, text: &[u8]) -> Option<PublicKey> {
        let digest = digest(row, text);
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

fn digest(row: i64, text: &[u8]) -> Digest {
    let mut hash = digest::Context::new(&digest::SHA256);
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
        assert!(generations.find(&digest(0, hot)).is_some());
        assert!(generations.find(&digest(0, b"no key 0")).is_none());
    }
}
