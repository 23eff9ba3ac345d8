//! Tables for the few keys that verify most: callers are few and steady.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, RwLock, TryLockError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ajwt_core::{Fingerprint, GenerateError, PrivateKey, PublicKey, Timestamp};

use crate::sync::{lock, read, write};

/// Uses within a period that make a key hot, and keep it so.
const HOT_USES: u32 = 64;

const PERIOD: Duration = Duration::from_secs(10);

/// Keys that are counted within a period. Those that come after them wait for the next.
const MAX_COUNTED: usize = 1024;

/// Of a hot key's uses one in as many looks whether the period is over.
const LOOK_EVERY: u32 = 16;

/// Which keys have a table. It only makes checks faster: whose keys count, and what they accept, is decided
/// as without it.
pub(crate) struct HotKeys {
    capacity: usize,
    hot: RwLock<Vec<Hot>>,
    counts: Mutex<Counts>,
    /// A refusal makes one check with a table, whether a key of the user has one or not.
    decoy: PublicKey,
}

struct Hot {
    key: PublicKey,
    uses: AtomicU32,
}

#[derive(Default)]
struct Counts {
    began: Option<Timestamp>,
    uses: HashMap<Fingerprint, u32>,
    building: bool,
}

/// Clears `building` when the table is made, or when its task is dropped with the runtime.
struct Building(Arc<HotKeys>);

impl Drop for Building {
    fn drop(&mut self) {
        lock(&self.0.counts).building = false;
    }
}

impl HotKeys {
    pub(crate) fn new(capacity: usize) -> Result<Self, GenerateError> {
        let decoy = PrivateKey::generate_ed25519()?.public_key().clone();
        let decoy = decoy.precomputed().unwrap_or(decoy);
        Ok(Self { capacity, hot: RwLock::default(), counts: Mutex::default(), decoy })
    }

    pub(crate) const fn decoy(&self) -> &PublicKey {
        &self.decoy
    }

    /// The key with its table, if it has one.
    pub(crate) fn table_of(&self, key: &PublicKey) -> Option<PublicKey> {
        let hot = read(&self.hot);
        hot.iter().find(|hot| hot.key == *key).map(|hot| hot.key.clone())
    }

    /// Notes that a key verified. Never waits: what cannot be noted at once is not.
    pub(crate) fn used(self: &Arc<Self>, key: &PublicKey, now: Timestamp) {
        let uses = {
            let hot = read(&self.hot);
            let hot = hot.iter().find(|hot| hot.key == *key);
            hot.map(|hot| hot.uses.fetch_add(1, Ordering::Relaxed))
        };
        if uses.is_some_and(|uses| uses % LOOK_EVERY != 0) {
            return;
        }
        let mut counts = match self.counts.try_lock() {
            Ok(counts) => counts,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // A request that came before the period's first may end after it; further back the clock was set.
        let is_over = counts
            .began
            .is_none_or(|began| now >= began.saturating_add(PERIOD) || now.saturating_add(PERIOD) < began);
        if is_over {
            self.end_period(&counts);
            counts.began = Some(now);
            counts.uses.clear();
        }
        if uses.is_none() && self.count(&mut counts, key) {
            // It takes the lock when it is dropped, which may be at once.
            drop(counts);
            let (building, key) = (Building(Arc::clone(self)), key.clone());
            tokio::task::spawn_blocking(move || building.0.build(&key));
        }
    }

    /// Whether a table is to be made for it.
    fn count(&self, counts: &mut Counts, key: &PublicKey) -> bool {
        let counted = counts.uses.len();
        let uses = match counts.uses.get_mut(key.fingerprint()) {
            Some(uses) => {
                *uses = uses.saturating_add(1);
                *uses
            }
            None if counted < MAX_COUNTED => {
                counts.uses.insert(key.fingerprint().clone(), 1);
                1
            }
            None => return false,
        };
        if uses < HOT_USES || counts.building {
            return false;
        }
        // Its table may have come since its use was noted.
        let hot = read(&self.hot);
        counts.building = hot.len() < self.capacity && hot.iter().all(|hot| hot.key != *key);
        counts.building
    }

    fn build(&self, key: &PublicKey) {
        if let Some(key) = key.precomputed() {
            // It has been used as often, or it would have no table.
            let hot = Hot { key, uses: AtomicU32::new(HOT_USES) };
            write(&self.hot).push(hot);
        }
    }

    /// Drops the tables of keys that are not hot any more, and one of the coolest if a key without is twice as hot.
    fn end_period(&self, counts: &Counts) {
        let mut hot = write(&self.hot);
        hot.retain(|hot| hot.uses.load(Ordering::Relaxed) >= HOT_USES);
        let hottest = counts.uses.values().copied().max().unwrap_or_default();
        let by_uses = hot.iter().enumerate().map(|(at, hot)| (hot.uses.load(Ordering::Relaxed), at));
        if let Some((uses, coolest)) = by_uses.min()
            && hot.len() == self.capacity
            && uses <= hottest / 2
        {
            hot.swap_remove(coolest);
        }
        for hot in hot.iter() {
            hot.uses.store(0, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for HotKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotKeys").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<PublicKey> {
        let key = || PrivateKey::generate_ed25519().expect("a key").public_key().clone();
        (0..count).map(|_| key()).collect()
    }

    /// Uses a key, and waits for the table that it may be given.
    async fn use_often(hot_keys: &Arc<HotKeys>, key: &PublicKey, uses: u32, now: i64) {
        for _ in 0..uses {
            hot_keys.used(key, Timestamp::from_secs(now));
            let built = async {
                while hot_keys.counts.lock().expect("lock").building {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), built).await.expect("a table is built in time");
        }
    }

    #[tokio::test]
    async fn a_key_gets_a_table_when_it_is_hot_and_loses_it_when_it_is_not() {
        let hot_keys = Arc::new(HotKeys::new(1).expect("a decoy"));
        let keys = keys(2);
        use_often(&hot_keys, &keys[0], HOT_USES - 1, 0).await;
        assert!(hot_keys.table_of(&keys[0]).is_none(), "not hot yet");
        use_often(&hot_keys, &keys[0], 1, 1).await;
        assert_eq!(hot_keys.table_of(&keys[0]).as_ref(), Some(&keys[0]));

        // There is room for one.
        use_often(&hot_keys, &keys[1], HOT_USES, 2).await;
        assert!(hot_keys.table_of(&keys[1]).is_none(), "no room");

        // The next period: the first one is used too little in it.
        use_often(&hot_keys, &keys[0], HOT_USES, 5).await;
        use_often(&hot_keys, &keys[0], 1, 10).await;
        assert!(hot_keys.table_of(&keys[0]).is_some(), "it was hot");
        use_often(&hot_keys, &keys[1], 1, 20).await;
        assert!(hot_keys.table_of(&keys[0]).is_none(), "it is not hot any more");
        use_often(&hot_keys, &keys[1], HOT_USES, 21).await;
        assert!(hot_keys.table_of(&keys[1]).is_some(), "room again");
    }

    /// It came before the period, and its store took a while.
    #[tokio::test]
    async fn a_request_from_before_a_period_does_not_end_it() {
        let hot_keys = Arc::new(HotKeys::new(1).expect("a decoy"));
        let keys = keys(1);
        use_often(&hot_keys, &keys[0], HOT_USES, 0).await;
        use_often(&hot_keys, &keys[0], 1, 10).await;
        hot_keys.used(&keys[0], Timestamp::from_millis(9_999));
        assert!(hot_keys.table_of(&keys[0]).is_some());
        // A clock that was set back by more than a period is another thing.
        for _ in 0..LOOK_EVERY {
            hot_keys.used(&keys[0], Timestamp::from_secs(-1));
        }
        assert!(hot_keys.table_of(&keys[0]).is_none());
    }

    #[tokio::test]
    async fn a_key_that_is_used_ten_times_a_second_keeps_its_table() {
        let hot_keys = Arc::new(HotKeys::new(1).expect("a decoy"));
        let keys = keys(1);
        for second in 0..40 {
            use_often(&hot_keys, &keys[0], 10, second).await;
            assert_eq!(hot_keys.table_of(&keys[0]).is_some(), second >= 6, "after {second} s");
        }
    }

    #[tokio::test]
    async fn a_key_that_is_twice_as_hot_takes_the_place_of_the_coolest() {
        for (uses, has_table) in [(2 * HOT_USES - 1, false), (2 * HOT_USES, true)] {
            let hot_keys = Arc::new(HotKeys::new(2).expect("a decoy"));
            let keys = keys(3);
            for (key, uses) in keys.iter().zip([HOT_USES, 3 * HOT_USES, uses]) {
                use_often(&hot_keys, key, uses, 0).await;
            }
            assert!(hot_keys.table_of(&keys[2]).is_none(), "no room");
            use_often(&hot_keys, &keys[2], HOT_USES, 10).await;
            let have_tables = [0, 1, 2].map(|key: usize| hot_keys.table_of(&keys[key]).is_some());
            assert_eq!(have_tables, [!has_table, true, has_table], "{uses}");
        }
    }

    #[tokio::test]
    async fn of_keys_that_are_equally_hot_one_makes_room() {
        let hot_keys = Arc::new(HotKeys::new(2).expect("a decoy"));
        let keys = keys(3);
        for (key, uses) in keys.iter().zip([HOT_USES, HOT_USES, 2 * HOT_USES]) {
            use_often(&hot_keys, key, uses, 0).await;
        }
        use_often(&hot_keys, &keys[2], HOT_USES, 10).await;
        let have_tables = keys.iter().filter(|key| hot_keys.table_of(key).is_some());
        assert_eq!(have_tables.count(), 2);
        assert!(hot_keys.table_of(&keys[2]).is_some());
    }

    #[test]
    fn a_runtime_that_has_ended_makes_no_table_and_keeps_no_other_from_it() {
        let hot_keys = Arc::new(HotKeys::new(1).expect("a decoy"));
        let keys = keys(1);
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let first = runtime();
        let handle = first.handle().clone();
        drop(first);
        {
            let _within = handle.enter();
            (0..HOT_USES).for_each(|_| hot_keys.used(&keys[0], Timestamp::from_secs(0)));
        }
        assert!(hot_keys.table_of(&keys[0]).is_none());
        runtime().block_on(use_often(&hot_keys, &keys[0], 1, 1));
        assert!(hot_keys.table_of(&keys[0]).is_some());
    }

    #[tokio::test]
    async fn many_keys_that_are_used_little_cost_a_bounded_memory_and_get_no_table() {
        let hot_keys = Arc::new(HotKeys::new(8).expect("a decoy"));
        for key in keys(MAX_COUNTED + 10) {
            use_often(&hot_keys, &key, 3, 0).await;
        }
        assert_eq!(hot_keys.counts.lock().expect("lock").uses.len(), MAX_COUNTED);
        assert!(hot_keys.hot.read().expect("lock").is_empty());
    }
}
