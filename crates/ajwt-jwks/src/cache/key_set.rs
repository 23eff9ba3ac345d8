use std::time::Duration;

use ajwt_core::{JwkSet, SkippedJwk};
use ajwt_server::{KeySource, StoredKey};

use crate::{Validators, sync::Arc};

/// How long after its last success a set is used.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// A set as it was fetched. Among many sets a look-up is as slow as the places in memory that it reads
/// one after the other are many: so the keys are a slice and not a map, and one step away.
#[derive(Clone, Debug)]
pub(crate) struct KeySet {
    /// By their ids, those of one id as they came.
    pub(crate) keys: Arc<[StoredKey]>,
    pub(crate) skipped: Arc<[SkippedJwk]>,
    pub(super) validators: Arc<Validators>,
}

impl KeySet {
    pub(super) fn new(set: &JwkSet, validators: Validators) -> Self {
        // Which trust it counts for depends on the user that asks.
        let key = |jwk| StoredKey::of_jwk(jwk, KeySource::Trust(0));
        let mut keys: Vec<_> = set.keys().iter().map(key).collect();
        keys.sort_by(|a, b| a.key_id().cmp(b.key_id()));
        Self { keys: keys.into(), skipped: set.skipped().into(), validators: Arc::new(validators) }
    }

    pub(super) fn find<'a>(&'a self, key_id: &'a str) -> impl Iterator<Item = &'a StoredKey> {
        let first = self.keys.partition_point(|key| key.key_id() < key_id);
        self.keys.iter().skip(first).take_while(move |key| key.key_id() == key_id)
    }
}

/// Whether a set may be used whose last successful fetch began at `succeeded_at`.
pub(super) fn is_trusted(succeeded_at: Duration, now: Duration) -> bool {
    now.saturating_sub(succeeded_at) < MAX_AGE
}
