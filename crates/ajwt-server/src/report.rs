//! What operators see of outcomes: trace events, counters, and hints in the log.

use std::{
    error::Error,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{Clock, Reason, Rejection, RejectionKind};

/// Between two messages of one kind in the log.
const QUIET: Duration = Duration::from_secs(60);

/// Tokens outside of the window, in one minute, that are worth a hint.
const MANY_OUTSIDE_WINDOW: u64 = 20;

/// What requests wait for that are given up.
const WAITED_FOR: [Reason; 2] = [Reason::StoreUnavailable, Reason::NonceStoreUnavailable];

/// Counts a request, or so many. A macro, for labels that are literals are made by the compiler.
macro_rules! count {
    ($outcome:tt, $reason:tt) => {
        count!($outcome, $reason, 1);
    };
    ($outcome:tt, $reason:tt, $requests:tt) => {
        #[cfg(feature = "metrics")]
        metrics::counter!("ajwt_authentications_total", "outcome" => $outcome, "reason" => $reason)
            .increment($requests);
        #[cfg(not(feature = "metrics"))]
        let _ = ($outcome, $reason);
    };
}

/// Counts and logs outcomes.
#[derive(Debug, Default)]
pub(crate) struct Report {
    store_failures: LogLimit,
    key_failures: LogLimit,
    nonce_failures: LogLimit,
    nonce_starts: LogLimit,
    /// Tokens outside of the window in the minute that is being counted.
    outside_window: AtomicU64,
    counted_minute: AtomicU64,
    window_hint: LogLimit,
    guards_within_others: LogLimit,
}

impl Report {
    /// All counters are there from the start: one that comes with its first event has not grown, to whoever looks at
    /// how they do.
    pub(crate) fn new() -> Self {
        count!("accepted", "accepted", 0);
        for reason in Reason::ALL {
            let outcome = outcome_of(*reason);
            count!(outcome, (reason.label()), 0);
        }
        for reason in WAITED_FOR {
            count!("given_up", (reason.label()), 0);
        }
        Self::default()
    }

    pub(crate) fn accepted(&self, username: &str) {
        count!("accepted", "accepted");
        tracing::debug!(username = %LogName(username), "authenticated");
    }

    pub(crate) fn rejected(&self, rejection: Rejection, username: Option<&str>, clock: &dyn Clock) {
        let reason = rejection.reason();
        let outcome = outcome_of(reason);
        count!(outcome, (reason.label()));
        let username = username.map(LogName).map(tracing::field::display);
        tracing::debug!(%reason, username, "not authenticated");
        if reason == Reason::OutsideWindow {
            self.hint_at_clocks(clock);
        }
    }

    /// A request ended before the decision did. Of that only its caller knows why.
    pub(crate) fn given_up(&self, waited_for: Reason) {
        count!("given_up", (waited_for.label()));
    }

    /// The store of users failed: logged once, then at most once a minute with a count.
    pub(crate) fn store_failed(&self, error: &(dyn Error + 'static), clock: &dyn Clock) {
        tell(&self.store_failures, error, clock, "the user store failed; requests are answered with 503");
    }

    /// As [`store_failed`](Self::store_failed), of what has a user's keys, such as the cache of key sets: it must
    /// not keep a failure of the user store out of the log.
    pub(crate) fn keys_failed(&self, error: &(dyn Error + 'static), clock: &dyn Clock) {
        let message = "keys could not be read; their users' requests are answered with 503";
        tell(&self.key_failures, error, clock, message);
    }

    /// As [`store_failed`](Self::store_failed), of the nonce store.
    pub(crate) fn nonce_store_failed(&self, error: &(dyn Error + 'static), clock: &dyn Clock) {
        tell(&self.nonce_failures, error, clock, "the nonce store failed; requests are answered with 503");
    }

    /// A nonce store whose memory began too recently: it passes by itself, and must not keep a real
    /// failure out of the log.
    pub(crate) fn nonce_store_starting(&self, error: &(dyn Error + 'static), clock: &dyn Clock) {
        if let Some(Held { unlogged, unlogged_earlier }) = self.nonce_starts.pass(clock) {
            tracing::warn!(
                error,
                unlogged,
                unlogged_earlier,
                "the nonce store was just started; for a while the answer is 503"
            );
        }
    }

    /// A token was used up on its way to the guard that refused it: no request can pass both.
    pub(crate) fn guard_within_another(&self, clock: &dyn Clock) {
        if self.guards_within_others.pass(clock).is_some() {
            tracing::error!(
                "a token was used up by a layer of another authenticator around this one: put layers of different \
                 authenticators around routes of their own, not around one another"
            );
        }
    }

    fn hint_at_clocks(&self, clock: &dyn Clock) {
        let minute = clock.monotonic().as_secs() / QUIET.as_secs();
        if self.counted_minute.swap(minute, Ordering::Relaxed) != minute {
            self.outside_window.store(0, Ordering::Relaxed);
        }
        let seen = self.outside_window.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if seen >= MANY_OUTSIDE_WINDOW && self.window_hint.pass(clock).is_some() {
            tracing::warn!(
                tokens = seen,
                "many tokens are dated outside of the time window; check NTP on this server and on its callers"
            );
        }
    }
}

const fn outcome_of(reason: Reason) -> &'static str {
    match reason.kind() {
        RejectionKind::NoCredentials => "no_credentials",
        RejectionKind::Refused => "refused",
        RejectionKind::Unavailable => "unavailable",
    }
}

fn tell(limit: &LogLimit, error: &(dyn Error + 'static), clock: &dyn Clock, message: &'static str) {
    if let Some(Held { unlogged, unlogged_earlier }) = limit.pass(clock) {
        tracing::error!(error, unlogged, unlogged_earlier, "{message}");
    }
}

/// Lets one message through a minute and counts the others.
#[derive(Debug, Default)]
struct LogLimit {
    /// Milliseconds of the monotonic clock, plus one; zero before the first message.
    last: AtomicU64,
    unlogged: AtomicU64,
    /// When the last one was held back, as `last`.
    held_at: AtomicU64,
}

/// Messages that were held back since the last one that passed. Where the last of them is long ago they belong to a
/// trouble that has passed, of which nobody is to be told by a single failure weeks later as if it was of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    unlogged: u64,
    unlogged_earlier: Option<u64>,
}

impl LogLimit {
    /// What was held back since the last one, if this one may pass.
    fn pass(&self, clock: &dyn Clock) -> Option<Held> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = ms(clock.monotonic()).saturating_add(1);
        let last = self.last.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= ms(QUIET);
        // Of several threads at once, one passes.
        let passes =
            is_due && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if passes {
            let unlogged = self.unlogged.swap(0, Ordering::Relaxed);
            let held_for = now.saturating_sub(self.held_at.load(Ordering::Relaxed));
            let is_earlier = unlogged > 0 && held_for > ms(QUIET.saturating_mul(2));
            return Some(if is_earlier {
                Held { unlogged: 0, unlogged_earlier: Some(unlogged) }
            } else {
                Held { unlogged, unlogged_earlier: None }
            });
        }
        self.held_at.store(now, Ordering::Relaxed);
        self.unlogged.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// A username that cannot break a log line: escaped, and cut to 64 characters.
struct LogName<'a>(&'a str);

impl fmt::Display for LogName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(64) {
            write!(f, "{}", c.escape_debug())?;
        }
        if chars.next().is_some() { f.write_str("..") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use ajwt_core::Timestamp;

    use super::*;
    use crate::MockClock;

    #[test]
    fn one_message_a_minute_passes_and_the_rest_are_counted() {
        let clock = MockClock::new(Timestamp::from_secs(0));
        let limit = LogLimit::default();
        assert_eq!(limit.pass(&clock), held(0));
        assert_eq!(limit.pass(&clock), None);
        clock.advance(Duration::from_millis(59_999));
        assert_eq!(limit.pass(&clock), None);
        clock.advance(Duration::from_millis(1));
        assert_eq!(limit.pass(&clock), held(2));
    }

    fn held(unlogged: u64) -> Option<Held> {
        Some(Held { unlogged, unlogged_earlier: None })
    }

    #[test]
    fn what_was_held_back_in_another_outage_is_told_as_that() {
        let clock = MockClock::new(Timestamp::from_secs(0));
        let limit = LogLimit::default();
        assert_eq!(limit.pass(&clock), held(0));
        assert_eq!(limit.pass(&clock), None);
        clock.advance(Duration::from_secs(120));
        assert_eq!(limit.pass(&clock), held(1));
        assert_eq!(limit.pass(&clock), None);
        clock.advance(Duration::from_secs(121));
        assert_eq!(limit.pass(&clock), Some(Held { unlogged: 0, unlogged_earlier: Some(1) }));
        clock.advance(Duration::from_secs(121));
        assert_eq!(limit.pass(&clock), held(0), "it is told once");
    }

    #[test]
    fn one_store_keeps_no_other_out_of_the_log() {
        let clock = MockClock::new(Timestamp::from_secs(0));
        let report = Report::default();
        let error = crate::RepositoryError::timeout("reading keys");
        report.keys_failed(&error, &clock);
        report.nonce_store_starting(&error, &clock);
        for limit in [&report.store_failures, &report.nonce_failures] {
            assert_eq!(limit.pass(&clock), held(0));
        }
    }

    #[test]
    fn tokens_outside_of_the_window_count_by_the_minute() {
        let clock = MockClock::new(Timestamp::from_secs(0));
        let report = Report::default();
        for _ in 0..100 {
            report.hint_at_clocks(&clock);
            clock.advance(Duration::from_secs(4));
        }
        assert_eq!(report.window_hint.last.load(Ordering::Relaxed), 0, "15 a minute are not many");
        for _ in 0..20 {
            report.hint_at_clocks(&clock);
        }
        assert_ne!(report.window_hint.last.load(Ordering::Relaxed), 0, "20 in one moment are");
    }

    #[test]
    fn names_in_logs_are_escaped_and_cut() {
        assert_eq!(LogName("a\u{202e}b\"\u{2028}").to_string(), "a\\u{202e}b\\\"\\u{2028}");
        assert_eq!(LogName(&"x".repeat(65)).to_string(), format!("{}..", "x".repeat(64)));
        assert_eq!(LogName(&"x".repeat(64)).to_string(), "x".repeat(64));
    }
}
