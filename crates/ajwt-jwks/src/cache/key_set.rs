use std::time::Duration;

use ajwt_core::{JwkSet, SkippedJwk};
use ajwt_server::{KeySource, StoredKey};
use smallvec::SmallVec;

use crate::Validators;

/// How long after its last success a set is used.
pub(super) const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// A set as it was fetched.
#[derive(Debug)]
pub(crate) struct KeySet {
    pub(crate) keys: Box<[ListedKey]>,
    pub(crate) skipped: Vec<SkippedJwk>,
    pub(super) validators: Validators,
}

impl KeySet {
    pub(super) fn new(set: &JwkSet, validators: Validators) -> Self {
        // Which trust it counts for depends on the user that asks.
        let key = |jwk| StoredKey::of_jwk(jwk, KeySource::Unrecorded);
        let listed = |key: StoredKey| ListedKey { beginning: beginning(key.key_id()), key };
        let mut keys: Vec<_> = set.keys().iter().map(key).map(listed).collect();
        // Those of one id stay as they came.
        keys.sort_by_key(|listed| listed.beginning);
        Self { keys: keys.into(), skipped: set.skipped().to_vec(), validators }
    }
}

/// A key in a set, in the order of the beginnings of ids.
#[derive(Clone, Debug)]
pub(crate) struct ListedKey {
    /// Of its id, whose text lies elsewhere in memory.
    beginning: u64,
    key: StoredKey,
}

/// The first eight bytes of an id.
fn beginning(key_id: &str) -> u64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(key_id.bytes()).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(bytes)
}

/// What requests read of a set. With many sets, each separate allocation that a look-up follows costs a
/// cache miss. So this lies inside the cache's map, with room for the two keys that a set usually has (the
/// one that signs, and the one before or after it); more are in an allocation of their own.
#[derive(Debug)]
pub(super) struct TrustedKeys {
    keys: SmallVec<[ListedKey; 2]>,
    /// When the last fetch that succeeded began.
    succeeded_at: Duration,
}

impl TrustedKeys {
    pub(super) fn of(set: &KeySet, succeeded_at: Duration) -> Self {
        Self { keys: set.keys.iter().cloned().collect(), succeeded_at }
    }

    /// Adds the keys of this id, unless the set is too old.
    pub(super) fn find(&self, key_id: &str, trust: KeySource, now: Duration, found: &mut Vec<StoredKey>) {
        if !is_trusted(self.succeeded_at, now) {
            return;
        }
        let beginning = beginning(key_id);
        let first = self.keys.partition_point(|listed| listed.beginning < beginning);
        let alike = self.keys.iter().skip(first).take_while(|listed| listed.beginning == beginning);
        let of_id = alike.map(|listed| &listed.key).filter(|key| key.key_id() == key_id);
        found.extend(of_id.map(|key| key.clone().with_source(trust)));
    }
}

/// Whether a set may be used whose last successful fetch began at `succeeded_at`.
pub(super) fn is_trusted(succeeded_at: Duration, now: Duration) -> bool {
    now.saturating_sub(succeeded_at) < MAX_AGE
}

#[cfg(test)]
mod tests {
    use ajwt_core::{JwkSet, PrivateKey};
    use ajwt_server::KeySource;
    use serde_json::{Value, json};

    use super::*;

    fn jwk(key_id: &str) -> Value {
        let key = PrivateKey::generate_ed25519().unwrap().public_key().clone();
        let mut set: Value = serde_json::from_str(&JwkSet::of_keys([key]).to_json()).unwrap();
        let mut jwk = set["keys"][0].take();
        jwk["kid"] = key_id.into();
        jwk
    }

    #[test]
    fn ids_that_begin_alike_are_told_apart() {
        let ids = ["b", "a-long-id-2", "a-long-i", "a", "a-long-id-1"];
        let document = json!({ "keys": ids.map(jwk) }).to_string();
        let set = KeySet::new(&JwkSet::from_json(document).unwrap(), Validators::default());
        let keys = TrustedKeys::of(&set, Duration::ZERO);

        let absent = ["", "a-long-", "a-long-id", "a-long-id-3", "c"];
        for asked in ids.iter().chain(&absent) {
            let mut found = Vec::new();
            keys.find(asked, KeySource::Trust(7), Duration::ZERO, &mut found);
            let found_ids: Vec<_> = found.iter().map(StoredKey::key_id).collect();
            let due: Vec<_> = ids.into_iter().filter(|id| id == asked).collect();
            assert_eq!(found_ids, due);
            assert!(found.iter().all(|key| key.source() == KeySource::Trust(7)));
        }
    }
}
