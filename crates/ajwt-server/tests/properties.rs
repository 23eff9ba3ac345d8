//! What must hold for all values, not for chosen ones.

use std::{
    collections::{HashMap, HashSet},
    hint::black_box,
    sync::Arc,
    time::Duration,
};

use ajwt_core::{Claims, Nonce, PrivateKey, Timestamp, Token, Username, Validation};
use ajwt_server::{
    Authenticator, Clock as _, MemoryNonceBackend, MemoryRepository, MockClock, NonceBackend as _,
    NonceError, NonceOutcome, NonceUse, Reason, RejectionKind, StartRule, User, testing::nonce_use,
};
use ajwt_vectors::timed;
use proptest::prelude::*;

const NOW: i64 = 1_790_000_000;

const ACCEPTANCE: Duration = Duration::from_secs(20);

fn ms(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).expect("not negative"))
}

/// Runs a future that waits for nothing.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("the memory backend waits"),
    }
}

fn consume(backend: &MemoryNonceBackend, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
    now_or_never(backend.consume(nonce))
}

/// One user's token, and servers that share a nonce store but have a clock each.
struct Servers {
    key: PrivateKey,
    users: Arc<MemoryRepository>,
    nonces: Arc<MemoryNonceBackend>,
    tolerance: Duration,
    margin: Duration,
}

impl Servers {
    fn new(store: &MockClock, start_rule: StartRule, tolerance: Duration, margin: Duration) -> Self {
        let key = PrivateKey::generate_ed25519().expect("a key");
        let users = MemoryRepository::new([User::new("u").with_keys([key.public_key().clone()])]);
        let nonces = MemoryNonceBackend::with_clock(100, Arc::new(store.clone())).with_start_rule(start_rule);
        Self { key, users: Arc::new(users), nonces: Arc::new(nonces), tolerance, margin }
    }

    /// What a server whose clock shows `now` makes of a token dated `time`.
    fn judge(&self, token: &str, now: Timestamp) -> Result<(), Reason> {
        self.judge_with(&self.nonces, token, now)
    }

    fn judge_with(
        &self,
        nonces: &Arc<MemoryNonceBackend>,
        token: &str,
        now: Timestamp,
    ) -> Result<(), Reason> {
        let validation = Validation::default().with_tolerance(self.tolerance).expect("a tolerance");
        let authenticator = Authenticator::builder(Arc::clone(&self.users) as _, Arc::clone(nonces) as _)
            .validation(validation)
            .nonce_margin(self.margin)
            .clock(Arc::new(MockClock::new(now)))
            .build()
            .expect("an authenticator");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let outcome = runtime.block_on(authenticator.authenticate([token.as_bytes()]));
        outcome.map(drop).map_err(|rejection| rejection.reason())
    }

    fn token(&self, time: i64) -> String {
        let username = Username::new("u").expect("a name");
        let claims = Claims::new(username, Timestamp::from_secs(time), Nonce::new("n").expect("a nonce"));
        format!("JWT {}", Token::sign(&claims, &self.key).expect("a token").as_str())
    }
}

fn at(true_ms: i64, ahead_ms: i64) -> Timestamp {
    Timestamp::from_millis(NOW * 1000 + true_ms + ahead_ms)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// An entry outlives its token on every server whose clock differs by at most the margin:
    /// accepted by A, a token is accepted nowhere ever after.
    #[test]
    fn a_token_accepted_by_one_server_is_accepted_by_no_other_later(
        tolerance_s in 1..=60_i64,
        margin_ms in 1000..=120_000_i64,
        // Fractions of what is allowed, the ends among them.
        date in prop_oneof![Just(-1.0), Just(1.0), -1.0..=1.0_f64],
        skew in prop_oneof![Just(-1.0), Just(1.0), -1.0..=1.0_f64],
        later in prop::collection::vec(prop_oneof![Just(1.0), 0.0..=1.0_f64], 1..6),
        others in 0..4_usize,
    ) {
        let (tolerance_ms, fraction) = (tolerance_s * 1000, |of: i64, by: f64| (of as f64 * by) as i64);
        let store = MockClock::new(Timestamp::from_secs(NOW - 1000));
        let (tolerance, margin) = (ms(tolerance_ms), ms(margin_ms));
        let servers = Servers::new(&store, StartRule::DatedBeforeStart, tolerance, margin);
        store.advance(Duration::from_secs(1000));
        // The token's date lies within A's window; A's clock is the true one.
        let time = NOW + fraction(tolerance_s, date);
        let token = servers.token(time);
        prop_assert_eq!(servers.judge(&token, at(0, 0)), Ok(()));

        // B's clock differs by up to the margin; the last moment at which it may accept comes last.
        let ahead_ms = fraction(margin_ms, skew);
        let last_ms = (time - NOW) * 1000 + tolerance_ms - ahead_ms;
        let mut moments: Vec<_> = later.iter().map(|by| fraction(last_ms.max(0), *by)).collect();
        moments.sort_unstable();
        let mut passed = 0;
        for moment in moments {
            store.advance(ms(moment - passed));
            passed = moment;
            // Other tokens make the store drop what has expired.
            for other in 0..others {
                let other = format!("{other} {moment}");
                let other = nonce_use("v", NOW, &other, at(moment, 0), tolerance, margin);
                prop_assert!(consume(&servers.nonces, &other).is_ok());
            }
            let outcome = servers.judge(&token, at(moment, ahead_ms));
            prop_assert!(
                matches!(outcome, Err(Reason::Replayed | Reason::OutsideWindow)),
                "{:?} after {} ms on a clock {} ms ahead", outcome, moment, ahead_ms
            );
            // At the last moment it is the store alone that refuses.
            if moment == last_ms {
                prop_assert_eq!(outcome, Err(Reason::Replayed));
            }
        }
    }

    /// Under the strict rule a backend that has lost its memory accepts nothing that a server whose
    /// clock is up to the skew ahead can have accepted before.
    #[test]
    fn under_the_strict_rule_nothing_accepted_before_the_start_is_accepted_after(
        // Whole seconds among them: the last date that is refused is one.
        skew_ms in prop_oneof![(0..=20_i64).prop_map(|seconds| seconds * 1000), 0..=20_000_i64],
        ahead in prop_oneof![Just(1.0), -1.0..=1.0_f64],
        date in prop_oneof![Just(1.0), -1.0..=1.0_f64],
        since_fraction_ms in prop_oneof![Just(0), 0..1000_i64],
        before_ms in prop_oneof![Just(0), 0..60_000_i64],
        after_ms in prop_oneof![Just(0), 0..60_000_i64],
        ahead_after in -1.0..=1.0_f64,
    ) {
        let since = at(since_fraction_ms, 0);
        let ahead_ms = (skew_ms as f64 * ahead) as i64;
        let rule = StartRule::Strict { server_skew: ms(skew_ms) };
        let servers = Servers::new(&MockClock::new(at(-1_000_000, 0)), StartRule::DatedBeforeStart, ACCEPTANCE, ms(60_000));
        // Accepted, at the latest at the start, by a server that is ahead.
        let accepted_at = since.saturating_sub(ms(before_ms)).as_millis() + ahead_ms;
        let time = (accepted_at + (20_000.0 * date) as i64).div_euclid(1000);
        let token = servers.token(time);
        prop_assume!(servers.judge(&token, Timestamp::from_millis(accepted_at)) == Ok(()));

        let emptied = Arc::new(
            MemoryNonceBackend::with_clock(100, Arc::new(MockClock::new(since))).with_start_rule(rule),
        );
        let now = since.as_millis() + after_ms + (skew_ms as f64 * ahead_after) as i64;
        let outcome = servers.judge_with(&emptied, &token, Timestamp::from_millis(now));
        prop_assert!(
            matches!(outcome, Err(Reason::OutsideWindow | Reason::NonceStoreStarting)),
            "accepted at {}, since {}: {:?} at {}", accepted_at, since, outcome, now
        );
    }

    /// The strict rule ends: a token made tolerance and skew after the start is accepted.
    #[test]
    fn the_strict_rule_refuses_no_longer_than_it_must(skew_ms in 0..=20_000_i64, more_ms in 1..5_000_i64) {
        let clock = MockClock::new(at(0, 0));
        let rule = StartRule::Strict { server_skew: ms(skew_ms) };
        let servers = Servers::new(&clock, rule, ACCEPTANCE, ms(60_000));
        // The date of a token is whole seconds.
        let time = (NOW * 1000 + 20_000 + skew_ms + more_ms + 999).div_euclid(1000);
        prop_assert_eq!(servers.judge(&servers.token(time), Timestamp::from_secs(time)), Ok(()));
    }

    /// No two triples of username, time and nonce have one key, however their bytes are shared out.
    #[test]
    fn different_claims_have_different_nonce_keys(
        text in "[ab:|\u{0}\u{e9}0-9]{1,12}",
        splits in prop::collection::vec((0..12_usize, 0..12_usize, prop_oneof![Just(NOW), -3..3_i64]), 2..12),
    ) {
        let chars: Vec<_> = text.chars().collect();
        let piece = |from: usize, to: usize| -> String { chars.iter().skip(from).take(to.saturating_sub(from)).collect() };
        let mut triples = HashSet::new();
        for (first, second, time) in splits {
            let (first, second) = (first.min(second), first.max(second));
            // Bytes move between the name and the nonce, and some into the time.
            triples.insert((piece(0, first), time, piece(first, chars.len())));
            triples.insert((piece(0, first), time, piece(second, chars.len())));
            triples.insert((piece(0, second), time, piece(second, chars.len())));
            triples.insert((format!("{}{time}", piece(0, first)), time, piece(first, chars.len())));
            triples.insert((piece(0, first), time, format!("{time}{}", piece(first, chars.len()))));
        }
        let keys: HashSet<_> = triples.iter().map(|(username, time, nonce)| key(username, *time, nonce)).collect();
        prop_assert_eq!(keys.len(), triples.len());
    }

    /// Any header bytes are judged without a panic, and a token is looked for in one form only.
    #[test]
    fn only_the_exact_form_of_a_header_is_read(
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[Jj][Ww][Tt][ \t]{0,2}[A-Za-z0-9_.=~ -]{0,12}".prop_map(String::into_bytes),
            "(JWT|Bearer|JW|JWTX|)[ ,\t]?[a.]{0,8}".prop_map(String::into_bytes),
            (8180..8200_usize).prop_map(|len| format!("JWT {}", "a".repeat(len - 4)).into_bytes()),
            (8180..8200_usize).prop_map(|len| format!("Basic {}", "a".repeat(len - 6)).into_bytes()),
        ],
    ) {
        let scheme_len = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
        let is_ours = value[..scheme_len].eq_ignore_ascii_case(b"JWT");
        let token = value.get(scheme_len + 1..).unwrap_or_default();
        let is_token = !token.is_empty()
            && token.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte));
        let due = match (is_ours, is_token && value.len() <= 8192) {
            (false, _) => Reason::NoCredentials,
            (true, false) => Reason::MalformedHeader,
            // None of these is a token.
            (true, true) => Reason::MalformedToken,
        };
        let authenticator = Authenticator::builder(
            Arc::new(MemoryRepository::new([])),
            Arc::new(MemoryNonceBackend::default()),
        )
        .build()
        .expect("an authenticator");
        let outcome = now_or_never(authenticator.authenticate([value.as_slice()]));
        prop_assert_eq!(outcome.map(drop).map_err(|rejection| rejection.reason()), Err(due));
        let twice = now_or_never(authenticator.authenticate([value.as_slice(), value.as_slice()]));
        prop_assert_eq!(twice.map(drop).map_err(|rejection| rejection.kind()), Err(RejectionKind::Refused));
    }

    /// The memory backend against a map of expiry times, over any sequence of uses and steps of
    /// either clock.
    #[test]
    fn the_memory_backend_answers_as_a_map_does(
        capacity in 1..40_u64,
        steps in prop::collection::vec(
            prop_oneof![
                // A use: which nonce, how far its date is off, how long tolerance and margin are.
                8 => (0..60_u32, 0..8_i64, 1..4_u64).prop_map(|(nonce, offset, seconds)| (nonce, offset, seconds, 0, 0)),
                2 => (0..9_000_u64).prop_map(|passes| (0, 0, 0, passes, 0)),
                1 => (-100_000..100_000_i64).prop_map(|set| (0, 0, 0, 0, set)),
            ],
            1..300,
        ),
    ) {
        let clock = MockClock::new(at(0, 0));
        let backend = MemoryNonceBackend::with_clock(capacity, Arc::new(clock.clone()));
        let started = clock.monotonic();
        // Longest lifetime of each dated second: the backend may keep entries that long, not longer.
        let mut model: HashMap<(i64, u32), Duration> = HashMap::new();
        let mut kept: HashMap<i64, Duration> = HashMap::new();
        for (nonce, offset, seconds, passes, set) in steps {
            clock.advance(Duration::from_millis(passes));
            if set != 0 {
                clock.set(at(0, set));
            }
            if seconds == 0 {
                continue;
            }
            let time = NOW + offset;
            let length = Duration::from_secs(seconds);
            let used = nonce_use("u", time, &nonce.to_string(), clock.now(), length, length);
            let now = clock.monotonic();
            let lives = model.get(&(time, nonce)).is_some_and(|expires| *expires > now);
            let may_be_kept = model.contains_key(&(time, nonce)) && kept[&time] > now;
            let live = model.values().filter(|expires| **expires > now).count() as u64;
            let may_be_live = model.keys().filter(|(time, _)| kept[time] > now).count() as u64;
            // By the clock as it is set now, or was at the start; for a lifetime.
            let up = now - started;
            let since = clock.now().saturating_sub(up).max(at(0, 0));
            let may_have_been_used = up <= used.lifetime() + ms(1) && time < since.as_secs();
            let outcome = consume(&backend, &used);
            prop_assert!(!may_have_been_used || matches!(outcome, Err(NonceError::MayHaveBeenUsed { .. })), "{:?}", outcome);
            match outcome {
                Ok(NonceOutcome::Fresh) => {
                    prop_assert!(!lives, "nonce {} of {} is Fresh again", nonce, offset);
                    prop_assert!(live < capacity, "more than {} entries are live", capacity);
                    // To the end of the last millisecond.
                    let expires = now + used.lifetime() + ms(1);
                    model.insert((time, nonce), expires);
                    let until = kept.entry(time).or_insert(expires);
                    *until = expires.max(*until);
                }
                Ok(NonceOutcome::Replayed) => prop_assert!(may_be_kept, "nonce {} of {} was never used", nonce, offset),
                Err(NonceError::Full { .. }) => prop_assert!(may_be_live >= capacity, "full with {} of {}", may_be_live, capacity),
                Err(NonceError::MayHaveBeenUsed { .. }) if may_have_been_used => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
            prop_assert!(backend.len() <= capacity);
        }
    }
}

fn key(username: &str, time: i64, nonce: &str) -> [u8; 32] {
    *nonce_use(username, time, nonce, at(0, 0), ACCEPTANCE, ACCEPTANCE).key().as_bytes()
}

#[test]
fn bytes_of_the_time_and_of_lengths_cannot_move_into_the_name() {
    // What would follow the longer name is what the shorter one's nonce holds.
    let bytes = |number: i64| String::from_utf8(number.to_be_bytes().to_vec()).expect("ASCII");
    let nonce = format!("{}{}n", bytes(2), bytes(1));
    let longer = format!("a{}{}", bytes(3), bytes(i64::try_from(nonce.len()).expect("short")));
    assert_ne!(key("a", 3, &nonce), key(&longer, 2, "n"));
}

#[test]
fn a_million_entries_expire_and_none_costs_more_for_it() {
    const PER_SECOND: u64 = 10_000;
    const MARGIN: Duration = Duration::from_secs(60);

    let mock = MockClock::new(at(0, 0));
    let backend = MemoryNonceBackend::with_clock(1_000_000, Arc::new(mock.clone()));
    // As long as an entry lives: as many as there is room for; then as many again.
    let mut costs = Vec::new();
    for second in 0..200_u64 {
        let uses: Vec<_> = (0..PER_SECOND)
            .map(|number| {
                let time = mock.now().as_secs() + i64::try_from(number % 41).expect("small") - 20;
                let time = time.max(NOW);
                nonce_use("u", time, &format!("{second} {number}"), mock.now(), ACCEPTANCE, MARGIN)
            })
            .collect();
        let is_fresh = |used: &&NonceUse| matches!(consume(&backend, used), Ok(NonceOutcome::Fresh));
        let (fresh, took) = timed(|| uses.iter().filter(is_fresh).count());
        costs.push(took);
        // A bucket lives as long as its youngest entry, up to 40 s more than its eldest.
        if second < 100 {
            assert_eq!(fresh as u64, PER_SECOND, "second {second}: {backend:?}");
        }
        assert!(backend.len() <= 1_000_000, "{backend:?}");
        if second == 99 {
            assert_eq!(backend.len(), 1_000_000, "all are live");
        }
        mock.advance(Duration::from_secs(1));
    }
    let median = |costs: &[Duration]| {
        let mut costs = costs.to_vec();
        costs.sort_unstable();
        costs[costs.len() / 2]
    };
    let (few, many) = (median(&costs[..10]), median(&costs[90..100]));
    assert!(many < few * 5, "a use costs {many:?} among a million and {few:?} among few");

    mock.advance(Duration::from_secs(141));
    let last = nonce_use("u", mock.now().as_secs(), "last", mock.now(), ACCEPTANCE, MARGIN);
    for _ in 0..1000 {
        // Shards are swept as they are used.
        let nonce = format!("{}", black_box(mock.now().as_millis()));
        let _ =
            consume(&backend, &nonce_use("w", mock.now().as_secs(), &nonce, mock.now(), ACCEPTANCE, MARGIN));
        mock.advance(Duration::from_millis(1));
    }
    assert!(matches!(consume(&backend, &last), Ok(NonceOutcome::Fresh)));
    assert!(backend.len() <= 1001, "{backend:?}");
}
