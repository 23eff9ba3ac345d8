//! The arithmetic of the nonce store over whole grids: how long an entry must live, and which tokens a
//! store that has forgotten refuses, against the same in numbers that cannot overflow.

use std::{pin::pin, sync::Arc, task, time::Duration};

use ajwt_core::Timestamp;
use ajwt_server::{
    MemoryNonceBackend, MockClock, NonceBackend as _, NonceError, NonceOutcome, NonceUse, StartRule,
    testing::nonce_use,
};

/// 1 s, 20 s and an hour, and what is no whole second.
const TOLERANCES_MS: [i64; 5] = [1000, 1001, 20_000, 20_500, 3_600_000];
const MARGINS_MS: [i64; 4] = [1000, 1001, 60_000, 90_500];

fn ms(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

/// What lies within so many milliseconds on either side: the edges, and what is beside them.
fn within(edge: i64) -> [i64; 9] {
    [-edge, 1 - edge, -1000, -1, 0, 1, 1000, edge - 1, edge]
}

fn consume(backend: &MemoryNonceBackend, nonce: &NonceUse) -> NonceOutcome {
    let consuming = pin!(backend.consume(nonce));
    match consuming.poll(&mut task::Context::from_waker(task::Waker::noop())) {
        task::Poll::Ready(outcome) => outcome.expect("room"),
        task::Poll::Pending => panic!("the memory backend waits"),
    }
}

/// Accepted by one server, a token is known to the store for as long as any server accepts it whose clock
/// is within the margin: to the last millisecond, and not longer than that needs.
#[test]
fn an_entry_outlives_its_token_on_every_server_whose_clock_is_within_the_margin() {
    let (mut checked, mut longest) = (0, 0);
    for time in [0, 1_790_000_000, -7] {
        for (tolerance, margin) in TOLERANCES_MS.iter().flat_map(|t| MARGINS_MS.map(|m| (*t, m))) {
            let mut spare = i64::MAX;
            for date in within(tolerance) {
                // The first server's clock when it accepts the token; it is the true one.
                let now = time * 1000 + date;
                for ahead in within(margin) {
                    // The last millisecond of the window on the other's clock, which is ahead.
                    let last = (time * 1000 + tolerance) - (now + ahead);
                    let clock = MockClock::new(Timestamp::from_millis(now));
                    let backend = MemoryNonceBackend::with_clock(10, Arc::new(clock.clone()))
                        .with_start_rule(StartRule::DatedBeforeStart);
                    let used = |now| {
                        nonce_use("u", time, "n", Timestamp::from_millis(now), ms(tolerance), ms(margin))
                    };
                    let lifetime = i64::try_from(used(now).lifetime().as_millis()).expect("short");
                    assert!(lifetime >= last, "lives {lifetime} ms, accepted for {last} ms");
                    spare = spare.min(lifetime - last);
                    if last < 0 {
                        continue;
                    }
                    // A token of the very second of the start, or before, is refused by the start rule.
                    if date < 0 || time * 1000 >= now {
                        assert_eq!(consume(&backend, &used(now)), NonceOutcome::Fresh);
                        clock.advance(ms(last));
                        let again = consume(&backend, &used(now + last + ahead));
                        assert_eq!(again, NonceOutcome::Replayed, "after {last} ms");
                    }
                    checked += 1;
                    longest = longest.max(last);
                }
            }
            assert_eq!(spare, 0, "tolerance {tolerance} ms, margin {margin} ms");
        }
    }
    assert!(checked > 2000, "{checked}");
    assert_eq!(longest, 2 * 3_600_000 + 90_500);
}

#[test]
fn a_lifetime_does_not_overflow() {
    for (tolerance, margin) in [
        (Duration::MAX, Duration::ZERO),
        (Duration::ZERO, Duration::MAX),
        (Duration::MAX, Duration::MAX),
        (Duration::MAX / 2 + Duration::from_secs(1), Duration::ZERO),
    ] {
        let now = Timestamp::from_millis(i64::MAX);
        let used = nonce_use("u", i64::MAX, "n", now, tolerance, margin);
        assert_eq!(used.lifetime(), Duration::MAX);
        let backend = MemoryNonceBackend::with_clock(10, Arc::new(MockClock::new(now)));
        assert_eq!(consume(&backend, &used), NonceOutcome::Fresh);
        assert_eq!(consume(&backend, &used), NonceOutcome::Replayed);
    }
}

#[test]
fn the_start_rules_at_each_edge_and_at_the_ends() {
    let ends = [i64::MIN, i64::MIN + 1, i64::MIN / 1000, i64::MAX / 1000, i64::MAX - 1, i64::MAX];
    let clamp = |value: i128| value.clamp(i64::MIN.into(), i64::MAX.into());
    let mut checked = 0;
    let sinces = [-1001, -1, 0, 1, 999, 1000, 1_790_000_000_000, 1_790_000_000_999];
    for since in sinces.into_iter().chain(ends) {
        for (tolerance, skew) in TOLERANCES_MS.iter().flat_map(|t| [0, 1, 999, 5000].map(|s| (*t, s))) {
            let until = i128::from(since) + i128::from(tolerance) + i128::from(skew);
            // Dates about the edge of the strict rule, and about the second of the start.
            let about = [until.div_euclid(1000), i128::from(since).div_euclid(1000)];
            let near = about.into_iter().flat_map(|at| [-1, 0, 1].map(|off| clamp(at + off)));
            let times: Vec<_> = near.map(|time| i64::try_from(time).expect("clamped")).chain(ends).collect();
            for time in times {
                let now = Timestamp::from_millis(since);
                let used = nonce_use("u", time, "n", now, ms(tolerance), ms(60_000));
                let refuses = |rule: StartRule| match rule.check(&used, now) {
                    Ok(()) => false,
                    Err(NonceError::MayHaveBeenUsed { since }) => {
                        assert_eq!(since, now);
                        true
                    }
                    Err(other) => panic!("{other}"),
                };
                let strict = StartRule::Strict { server_skew: ms(skew) };
                let exact = i128::from(time) * 1000 <= until;
                let found = refuses(strict);
                let context = format!("time {time}, since {since}, tolerance {tolerance}, skew {skew}");
                // Where numbers end it may refuse more, never less.
                assert!(found || !exact, "{context}");
                if clamp(until) == until && clamp(i128::from(time) * 1000) == i128::from(time) * 1000 {
                    assert_eq!(found, exact, "{context}");
                }
                let dated_before = time < since.div_euclid(1000);
                assert_eq!(refuses(StartRule::DatedBeforeStart), dated_before, "{context}");
                checked += 1;
            }
        }
    }
    assert!(checked > 3000, "{checked}");
}
