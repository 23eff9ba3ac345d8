//! Times as people write and read them, in UTC.

use std::time::Duration;

use ajwt_core::Timestamp;
use jiff::{civil::Date, tz::TimeZone};
use serde_json::Value;

/// As RFC 3339 writes it: `2027-01-31T12:00:00Z`.
pub(crate) fn text(time: Timestamp) -> String {
    // Outside of the years -9999 to 9999 it is told in seconds.
    jiff::Timestamp::from_second(time.as_secs())
        .map_or_else(|_| format!("{} s since 1970", time.as_secs()), |time| time.to_string())
}

/// A time that may not be there, in a table.
pub(crate) fn value(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |time| text(time).into())
}

/// Reads `2027-01-31`, which is its first moment in UTC, or `2027-01-31T12:00:00Z`. No number: as seconds,
/// `20270131` would be a day of 1970.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    let date = || {
        // In this spelling only: 27-01-31 would be a day of the year 27.
        let date = text.parse::<Date>().ok().filter(|date| date.to_string() == text)?;
        date.to_zoned_datetime(TimeZone::UTC).ok().map(|day| day.timestamp())
    };
    let time = text.parse::<jiff::Timestamp>().ok().or_else(date);
    time.map(|time| Timestamp::from_millis(time.as_millisecond())).ok_or_else(|| {
        // So that it is in the year 9999 in every zone.
        let is_late = ["9999-12-31", "9999-12-30T2"].iter().any(|start| text.starts_with(start));
        let due = if is_late {
            "the last day is 9999-12-30, until 22:00 in UTC"
        } else {
            "a time is a date, as in 2027-01-31, or a moment, as in 2027-01-31T12:00:00Z"
        };
        due.to_owned()
    })
}

/// As [`parse`], or seconds since 1970, as tokens have them.
pub(crate) fn parse_or_seconds(text: &str) -> Result<Timestamp, String> {
    text.parse::<i64>().map(Timestamp::from_secs).or_else(|_| parse(text))
}

/// A length of time, to the millisecond where it is short.
pub(crate) fn duration(length: Duration) -> String {
    let millis = length.as_millis();
    match millis {
        0..10_000 => format!("{}.{:03} s", millis / 1000, millis % 1000),
        10_000..600_000 => format!("{} s", millis / 1000),
        600_000..36_000_000 => format!("{} min", millis / 60_000),
        36_000_000..864_000_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} days", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_in_utc() {
        for (written, seconds) in
            [("1970-01-02", 86_400), ("1970-01-01T00:00:01Z", 1), ("1970-01-01T01:00:01+01:00", 1)]
        {
            assert_eq!(parse(written), Ok(Timestamp::from_secs(seconds)), "{written}");
        }
        for wrong in [
            "",
            "tomorrow",
            "2027-02-30",
            "2027-01-31T12:00:00",
            "20270131",
            "2027",
            "1800000000",
            "27-01-31",
            "2027-1-31",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("9999-12-30"), Ok(Timestamp::from_secs(253_402_128_000)));
        assert!(parse("9999-12-30T22:00:00Z").is_ok());
        for late in ["9999-12-31", "9999-12-31T00:00:00Z", "9999-12-30T22:00:01Z"] {
            let told = "the last day is 9999-12-30, until 22:00 in UTC".to_owned();
            assert_eq!(parse(late), Err(told), "{late}");
        }
        assert_eq!(parse_or_seconds("1800000000"), Ok(Timestamp::from_secs(1_800_000_000)));
        assert_eq!(parse_or_seconds("1970-01-02"), Ok(Timestamp::from_secs(86_400)));
        assert_eq!(text(Timestamp::from_millis(1_800_000_000_999)), "2027-01-15T08:00:00Z");
        assert_eq!(text(Timestamp::from_secs(i64::MAX)), "9223372036854775 s since 1970");
    }
}
