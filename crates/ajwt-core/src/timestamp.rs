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
