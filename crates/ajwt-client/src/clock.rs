//! The one place that reads the clocks: a token is dated by the caller's.

use std::time::SystemTime;

use ajwt_core::Timestamp;

#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// For durations, which must not jump with the time of day.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
pub(crate) fn instant() -> std::time::Instant {
    std::time::Instant::now()
}
