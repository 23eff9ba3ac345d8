use std::{fmt, hash::Hasher as _, mem, num::NonZero, thread::available_parallelism, time::Duration};

use ajwt_core::Timestamp;
use async_trait::async_trait;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::digest_set::DigestSet;
use crate::{
    Clock, NonceBackend, NonceError, NonceKey, NonceOutcome, NonceUse, StartRule, SystemClock,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
        lock,
    },
};

/// Locks for each processor, so that threads seldom wait for one another. No more: what all of them need is
/// to stay in the processors' caches.
const SHARDS_PER_PROCESSOR: usize = 4;

/// Clocks are read in whole milliseconds, so a token is accepted until its last one is over.
const LAST_MILLISECOND: Duration = Duration::from_millis(1);

const DEFAULT_CAPACITY: u64 = 1_000_000;

/// Used nonces in the memory of one process.
///
/// **For one process only.** Two processes with a backend each accept a token once each, and so do
/// two services on different hosts: use a store that they share.
///
/// An entry takes about 20 bytes, and each second of the window that tokens are dated some 200 bytes besides
/// in each of four shards a processor; what a burst has taken serves the next ones for a while. With the
/// default tolerance and margin an entry lives for 100 to 140 s, so the default capacity of a million
/// carries 7,000 requests a second. A full backend refuses (503), replays too; it never drops a live entry.
/// Entries of one second are kept together and dropped together, by the monotonic clock, so neither their
/// number nor a clock that is set makes expiry slow or early.
///
/// After a start it follows [`StartRule::DatedBeforeStart`], which costs no outage; see there what
/// that leaves open, and [`with_start_rule`](Self::with_start_rule) to close it. The rule ends after an
/// entry's lifetime, the strict one after the server skew besides. Until then the start is dated anew if
/// the clock is set ahead, as when a host starts with a clock that is slow: what was used before it by the
/// right time stays refused.
pub struct MemoryNonceBackend {
    clock: Arc<dyn Clock>,
    since: Timestamp,
    /// The same by the monotonic clock.
    started: Duration,
    start_rule: StartRule,
    capacity: u64,
    live: Live,
    hash_key: [u8; 16],
    shards: Box<[Lane]>,
}

impl MemoryNonceBackend {
    /// With room for `capacity` live nonces, on the operating system's clocks.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self::with_clock(capacity, Arc::new(SystemClock::new()))
    }

    /// With room for `capacity` live nonces, on this clock, which should be the engine's. Its
    /// memory begins now.
    #[must_use]
    pub fn with_clock(capacity: u64, clock: Arc<dyn Clock>) -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self::with_shards(SHARDS_PER_PROCESSOR.saturating_mul(processors), capacity, clock)
    }

    fn with_shards(shards: usize, capacity: u64, clock: Arc<dyn Clock>) -> Self {
        let mut hash_key = [0; 16];
        if getrandom::fill(&mut hash_key).is_err() {
            // The key only spreads entries evenly whatever callers send; equality of digests does
            // not rest on its secrecy.
            tracing::warn!("no random bytes for the nonce backend's hash key");
        }
        Self {
            since: clock.now(),
            started: clock.monotonic(),
            clock,
            start_rule: StartRule::DatedBeforeStart,
            capacity,
            live: Live(AtomicU64::new(0)),
            hash_key,
            shards: std::iter::repeat_with(Lane::default).take(shards).collect(),
        }
    }

    /// Follows this rule after a start.
    #[must_use]
    pub const fn with_start_rule(mut self, start_rule: StartRule) -> Self {
        self.start_rule = start_rule;
        self
    }

    /// Live nonces, give or take those that expired and were not dropped yet.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.live.0.load(Ordering::Relaxed)
    }

    /// Whether no nonce is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn use_up(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        let now = self.clock.monotonic();
        self.check_start(nonce, now)?;
        if !self.reserve() {
            // What has expired in any shard makes room before anybody is turned away.
            self.shards.iter().for_each(|shard| self.sweep(&mut shard.lock(), now));
            if !self.reserve() {
                return Err(NonceError::Full { capacity: self.capacity });
            }
        }
        let digest = self.digest(nonce.key());
        let mut shard = self.shard(digest).lock();
        self.sweep(&mut shard, now);
        // One of those that expired is freed here, without the lock: no request pays for many.
        let expired = shard.expired.pop();
        let expires = now.saturating_add(nonce.lifetime()).saturating_add(LAST_MILLISECOND);
        let is_new = shard.insert(nonce.time(), digest, expires);
        drop(shard);
        drop(expired);
        if is_new {
            Ok(NonceOutcome::Fresh)
        } else {
            self.live.0.fetch_sub(1, Ordering::Relaxed);
            Ok(NonceOutcome::Replayed)
        }
    }

    /// When the rule's time is over nothing that was used before the start can be good, no more than what was
    /// used after it and has expired.
    fn check_start(&self, nonce: &NonceUse, now: Duration) -> Result<(), NonceError> {
        let up = now.saturating_sub(self.started);
        let skew = match self.start_rule {
            StartRule::Strict { server_skew } => server_skew,
            StartRule::DatedBeforeStart => Duration::ZERO,
            // To tests/models, which compile this file too, the rule is another crate's and may grow: it is asked.
            #[allow(unreachable_patterns, reason = "all of them are above, but in tests/models")]
            _ => Duration::MAX,
        };
        if up > nonce.lifetime().saturating_add(skew).saturating_add(LAST_MILLISECOND) {
            return Ok(());
        }
        // By what the clock says now, which may have been set since the start.
        let since = self.since.max(self.clock.now().saturating_sub(up));
        self.start_rule.check(nonce, since)
    }

    /// Takes a place for one more entry, if there is one.
    fn reserve(&self) -> bool {
        let one_more = |live| (live < self.capacity).then_some(live + 1);
        self.live.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn sweep(&self, shard: &mut Shard, now: Duration) {
        let dropped = shard.sweep(now);
        if dropped > 0 {
            self.live.0.fetch_sub(dropped, Ordering::Relaxed);
        }
    }

    fn shard(&self, digest: u128) -> &Lane {
        // By the lower half; the set in a shard goes by the upper one.
        #[allow(
            clippy::indexing_slicing,
            reason = "a remainder of the slice's own length, which is not zero"
        )]
        &self.shards[digest as usize % self.shards.len()]
    }

    /// A keyed hash, so that callers cannot aim at a shard or a slot.
    fn digest(&self, key: &NonceKey) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write(key.as_bytes());
        hasher.finish128().as_u128()
    }
}

impl Default for MemoryNonceBackend {
    /// With room for a million live nonces.
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

#[async_trait]
impl NonceBackend for MemoryNonceBackend {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        self.use_up(nonce)
    }
}

impl fmt::Debug for MemoryNonceBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNonceBackend")
            .field("since", &self.since)
            .field("start_rule", &self.start_rule)
            .field("capacity", &self.capacity)
            .field("live", &self.live.0)
            .finish_non_exhaustive()
    }
}

/// How many entries are live, on cache lines of its own: each claim writes it, and only reads what would lie beside it.
#[repr(align(128))]
struct Live(AtomicU64);

/// A shard behind its lock, padded to cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Lane(Mutex<Shard>);

impl Lane {
    /// A panic elsewhere leaves a shard as it was: every change to it is one step.
    fn lock(&self) -> MutexGuard<'_, Shard> {
        lock(&self.0)
    }
}

struct Shard {
    /// In the order of their times: what is used now is dated about now, and stands at the end.
    buckets: Vec<Bucket>,
    /// No bucket expires before.
    next_sweep: Duration,
    /// What is only to be freed.
    expired: Vec<DigestSet>,
    /// Entries of the bucket that expired last, which is what the next new one may expect. No more than that
    /// one has room made for it: memory stays bounded by what is used, whatever dates come after a burst.
    usual: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { buckets: Vec::new(), next_sweep: Duration::MAX, expired: Vec::new(), usual: 0 }
    }
}

/// Of the second that tokens are dated: all uses of one token meet in one bucket.
struct Bucket {
    time: i64,
    digests: DigestSet,
    /// When the lifetime of its youngest entry is over, by the monotonic clock.
    expires: Duration,
}

impl Shard {
    /// Adds a digest; `false` if it is there.
    fn insert(&mut self, time: i64, digest: u128, expires: Duration) -> bool {
        self.next_sweep = self.next_sweep.min(expires);
        let bucket = self.bucket(time, expires);
        let is_new = bucket.digests.insert(digest);
        if is_new {
            bucket.expires = bucket.expires.max(expires);
        }
        is_new
    }

    /// The bucket of this second: a new one, which expires then, if there was none.
    fn bucket(&mut self, time: i64, expires: Duration) -> &mut Bucket {
        let mut end = self.buckets.len();
        if self.buckets.last().is_some_and(|last| last.time > time) {
            end = self.buckets.partition_point(|bucket| bucket.time <= time);
        }
        let (not_later, _) = self.buckets.split_at(end);
        if not_later.last().is_none_or(|bucket| bucket.time != time) {
            let digests = DigestSet::with_room_for(mem::take(&mut self.usual));
            self.buckets.insert(end, Bucket { time, digests, expires });
            end += 1;
        }
        #[allow(clippy::indexing_slicing, reason = "it is there, or was put there")]
        &mut self.buckets[end - 1]
    }

    /// Takes the buckets out that expired; returns how many entries they had.
    fn sweep(&mut self, now: Duration) -> u64 {
        if now < self.next_sweep {
            return 0;
        }
        let mut dropped = 0;
        for bucket in self.buckets.extract_if(.., |bucket| bucket.expires <= now) {
            self.usual = bucket.digests.len();
            dropped += self.usual as u64;
            self.expired.push(bucket.digests);
        }
        self.next_sweep = self.buckets.iter().map(|bucket| bucket.expires).min().unwrap_or(Duration::MAX);
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MockClock;

    const START: i64 = 1_790_000_000;
    const TOLERANCE: Duration = Duration::from_secs(20);
    const MARGIN: Duration = Duration::from_secs(60);

    fn nonce(clock: &MockClock, number: u64, offset: i64) -> NonceUse {
        let time = clock.now().as_secs() + offset;
        NonceUse::new(
            NonceKey::of_claims("u", time, &number.to_string()),
            time,
            clock.now(),
            TOLERANCE,
            MARGIN,
        )
    }

    fn backend(clock: &MockClock, capacity: u64) -> MemoryNonceBackend {
        MemoryNonceBackend::with_clock(capacity, Arc::new(clock.clone()))
    }

    #[test]
    fn a_full_backend_refuses_and_keeps_every_live_entry() {
        let clock = MockClock::new(Timestamp::from_secs(START));
        let backend = backend(&clock, 100);
        let uses: Vec<_> = (0..100).map(|number| nonce(&clock, number, 0)).collect();
        assert!(backend.is_empty());
        for one in &uses {
            assert_eq!(backend.use_up(one).expect("room"), NonceOutcome::Fresh);
        }
        assert_eq!((backend.len(), backend.is_empty()), (100, false));
        assert!(matches!(backend.use_up(&nonce(&clock, 100, 0)), Err(NonceError::Full { capacity: 100 })));
        clock.advance(Duration::from_secs(99));
        assert!(matches!(backend.use_up(&nonce(&clock, 101, 0)), Err(NonceError::Full { .. })));
        // Their lifetime of 2 x 20 + 60 s is over: there is room again, and they are gone.
        clock.advance(Duration::from_millis(1001));
        assert_eq!(backend.use_up(&nonce(&clock, 102, 0)).expect("room"), NonceOutcome::Fresh);
        assert_eq!(backend.len(), 1);
    }

    #[test]
    fn an_entry_lives_its_lifetime_whatever_the_time_of_day_does() {
        let clock = MockClock::new(Timestamp::from_secs(START));
        let backend = backend(&clock, 100);
        let early = nonce(&clock, 1, 20);
        assert_eq!(backend.use_up(&early).expect("room"), NonceOutcome::Fresh);
        clock.set(Timestamp::from_secs(START + 86_400));
        assert_eq!(backend.use_up(&nonce(&clock, 2, 0)).expect("room"), NonceOutcome::Fresh);
        clock.set(Timestamp::from_secs(START));
        // A server whose clock is a margin behind still accepts the token at this very moment.
        clock.advance(Duration::from_secs(100));
        assert_eq!(backend.use_up(&early).expect("room"), NonceOutcome::Replayed);
        clock.advance(Duration::from_millis(1));
        assert_eq!(backend.use_up(&early).expect("room"), NonceOutcome::Fresh);
    }

    /// A host that starts with a slow clock, which is set right afterwards.
    #[test]
    fn a_clock_that_is_set_ahead_after_the_start_dates_the_start_anew() {
        let rules = [StartRule::DatedBeforeStart, StartRule::default()];
        for (rule, from) in rules.into_iter().zip([0, 26]) {
            let clock = MockClock::new(Timestamp::from_secs(START - 60));
            let backend = backend(&clock, 100).with_start_rule(rule);
            clock.advance(Duration::from_secs(3));
            clock.set(Timestamp::from_secs(START + 3));
            // It began at START by the clock that is right.
            let dated = |offset: i64| backend.use_up(&nonce(&clock, 1, offset - 3));
            for offset in [-17, -1, from - 1] {
                assert!(
                    matches!(dated(offset), Err(NonceError::MayHaveBeenUsed { .. })),
                    "{rule:?}: {offset}"
                );
            }
            assert_eq!(dated(from).expect("after it"), NonceOutcome::Fresh, "{rule:?}");
        }
    }

    /// As a host's whose clock was an hour ahead when it started.
    #[test]
    fn a_clock_that_is_set_back_after_the_start_costs_a_lifetime_and_no_more() {
        let clock = MockClock::new(Timestamp::from_secs(START + 3600));
        let backend = backend(&clock, 100);
        clock.set(Timestamp::from_secs(START));
        clock.advance(Duration::from_millis(100_001));
        let refused = backend.use_up(&nonce(&clock, 1, 0));
        assert!(matches!(refused, Err(NonceError::MayHaveBeenUsed { .. })), "{refused:?}");
        clock.advance(Duration::from_millis(1));
        assert_eq!(backend.use_up(&nonce(&clock, 1, 0)).expect("its time is over"), NonceOutcome::Fresh);
    }

    /// Of a server whose clock is ahead by more than the margin, and not by more than the skew.
    #[test]
    fn a_strict_start_holds_for_the_skew_even_where_the_margin_is_shorter() {
        let clock = MockClock::new(Timestamp::from_secs(START));
        let backend = backend(&clock, 100).with_start_rule(StartRule::default());
        let second = Duration::from_secs(1);
        let used = |time: i64| {
            let key = NonceKey::of_claims("u", time, "n");
            backend.use_up(&NonceUse::new(key, time, clock.now(), second, second))
        };
        for seconds in 1..8 {
            clock.advance(second);
            // The earliest date that is in the window.
            let answer = used(START + seconds - 1);
            let is_refused = matches!(answer, Err(NonceError::MayHaveBeenUsed { .. }));
            assert_eq!(is_refused, seconds - 1 <= 6, "after {seconds} s: {answer:?}");
        }
        clock.advance(second);
        assert_eq!(used(START + 7).expect("after it"), NonceOutcome::Fresh);
    }

    #[test]
    fn threads_that_meet_in_one_shard_accept_a_nonce_once() {
        let clock = MockClock::new(Timestamp::from_secs(START));
        let backend = MemoryNonceBackend::with_shards(1, 4000, Arc::new(clock.clone()));
        // Dates in an order that puts seconds before others that are there.
        let uses: Vec<_> = (0..4000).map(|number| nonce(&clock, number, (number * 17 % 41) as i64)).collect();
        let accepted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (backend, uses, accepted) = (&backend, &uses, &accepted);
                scope.spawn(move || {
                    let (after, before) = uses.split_at(thread * 1000);
                    for one in before.iter().chain(after) {
                        // With others' claims under way there may be no room.
                        if matches!(backend.use_up(one), Ok(NonceOutcome::Fresh)) {
                            accepted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let now =
            uses.iter().filter(|one| backend.use_up(one).is_ok_and(|found| found == NonceOutcome::Fresh));
        assert_eq!(accepted.load(Ordering::Relaxed) + now.count() as u64, 4000);
    }

    #[test]
    fn seconds_may_come_in_any_order() {
        let clock = MockClock::new(Timestamp::from_secs(START));
        let backend = backend(&clock, 4001);
        let offset = |number: u64| (number * 17 % 41).cast_signed();
        let uses: Vec<_> = (0..4000).map(|number| nonce(&clock, number, offset(number))).collect();
        for outcome in [NonceOutcome::Fresh, NonceOutcome::Replayed] {
            assert!(uses.iter().all(|one| backend.use_up(one).is_ok_and(|found| found == outcome)));
        }
        // There is room for as many again only once all of them are dropped.
        clock.advance(Duration::from_secs(101));
        let fresh = |number| backend.use_up(&nonce(&clock, number, 0)).expect("room") == NonceOutcome::Fresh;
        assert!((4000..8001).all(fresh));
    }

    #[test]
    fn what_expired_makes_room_for_one_second_only() {
        let (mut shard, expires) = (Shard::default(), Duration::from_secs(100));
        assert!((1..=1000).all(|digest| shard.insert(START, digest << 100, expires)));
        assert_eq!(shard.sweep(expires), 1000);
        assert_eq!(shard.usual, 1000);
        for second in 1..3 {
            assert!(shard.insert(START + second, 1, expires * 2));
            assert_eq!(shard.usual, 0, "room is made once");
        }
    }

    #[test]
    fn a_later_entry_of_one_second_outlives_the_earlier_ones() {
        let clock = MockClock::new(Timestamp::from_secs(START));
        let backend = backend(&clock, 100);
        // Dated in one second, used 40 s apart: the second keeps the bucket.
        let (first, second) = (nonce(&clock, 1, 20), nonce(&clock, 2, 20));
        assert_eq!(backend.use_up(&first).expect("room"), NonceOutcome::Fresh);
        clock.advance(Duration::from_secs(40));
        assert_eq!(backend.use_up(&second).expect("room"), NonceOutcome::Fresh);
        clock.advance(Duration::from_secs(99));
        assert_eq!(backend.use_up(&second).expect("room"), NonceOutcome::Replayed);
    }
}
