use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A point in time: milliseconds since the Unix epoch, leap seconds not counted.
///
/// Tokens carry whole seconds, clocks are read in milliseconds: a token's window does not depend
/// on how a server rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// This many milliseconds after (or, negative, before) the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// This many seconds after (or, negative, before) the epoch, clamped to what milliseconds hold.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This much later, clamped to the representable range.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// This much earlier, clamped to the representable range.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// How much later this is than `earlier`; zero if it is not.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        if self.0 > earlier.0 { Duration::from_millis(self.0.abs_diff(earlier.0)) } else { Duration::ZERO }
    }

    /// As the standard library's type; `None` where that does not reach so far, which depends on the
    /// system.
    #[must_use]
    pub fn to_system_time(self) -> Option<SystemTime> {
        let from_epoch = Duration::from_millis(self.0.unsigned_abs());
        if self.0 < 0 { UNIX_EPOCH.checked_sub(from_epoch) } else { UNIX_EPOCH.checked_add(from_epoch) }
    }
}

impl From<SystemTime> for Timestamp {
    /// Rounded down to the millisecond, clamped to the representable range.
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(millis(after)),
            Err(before) => {
                let before = before.duration();
                let floor = millis(before).saturating_neg();
                let partial = before.subsec_nanos() % 1_000_000 != 0;
                Self(if partial { floor.saturating_sub(1) } else { floor })
            }
        }
    }
}

impl fmt::Display for Timestamp {
    /// Seconds since the epoch with milliseconds, as in `1790000000.250`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:03}", magnitude / 1000, magnitude % 1000)
    }
}

/// Whole milliseconds, clamped.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_times_round_down_on_both_sides_of_the_epoch() {
        let half = Duration::from_micros(1500);
        assert_eq!(Timestamp::from(UNIX_EPOCH + half).as_millis(), 1);
        assert_eq!(Timestamp::from(UNIX_EPOCH - half).as_millis(), -2);
        assert_eq!(Timestamp::from(UNIX_EPOCH).as_millis(), 0);
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_millis(7)).as_millis(), -7);
    }

    #[test]
    fn system_times_are_the_same_moments() {
        let early = Timestamp::from_millis(-1500).to_system_time();
        assert_eq!(early, Some(UNIX_EPOCH - Duration::from_millis(1500)));
        for millis in [0, 1, -1, 1_790_000_000_250, i64::MAX, -i64::MAX] {
            let at = Timestamp::from_millis(millis);
            // Some systems have no time at the ends.
            assert!(at.to_system_time().is_none_or(|time| Timestamp::from(time) == at), "{at}");
        }
        let _ = Timestamp::from_millis(i64::MIN).to_system_time();
    }

    #[test]
    fn what_is_not_later_is_later_by_nothing() {
        let at = Timestamp::from_millis;
        assert_eq!(at(1500).saturating_duration_since(at(-500)), Duration::from_secs(2));
        assert_eq!(at(-500).saturating_duration_since(at(1500)), Duration::ZERO);
        let longest = at(i64::MAX).saturating_duration_since(at(i64::MIN));
        assert_eq!(longest, Duration::from_millis(u64::MAX));
    }

    #[test]
    fn seconds_round_down_and_clamp() {
        assert_eq!(Timestamp::from_millis(-1).as_secs(), -1);
        assert_eq!(Timestamp::from_millis(1999).as_secs(), 1);
        assert_eq!(Timestamp::from_secs(i64::MAX).as_millis(), i64::MAX);
        assert_eq!(Timestamp::from_secs(i64::MIN).as_millis(), i64::MIN);
        for (millis, text) in
            [(-1250, "-1.250"), (0, "0.000"), (7, "0.007"), (i64::MIN, "-9223372036854775.808")]
        {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        }
    }
}
