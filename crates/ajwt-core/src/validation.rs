use std::time::Duration;

use smol_str::SmolStr;

use crate::{
    Timestamp, TokenError, ValidationError,
    claims::{ReceivedClaims, RegisteredClaims},
    timestamp::millis,
};

/// The tolerance of the Python library and the default here.
const DEFAULT_TOLERANCE: Duration = Duration::from_secs(20);

/// Tokens carry whole seconds, so less would refuse honest callers.
const MIN_TOLERANCE: Duration = Duration::from_secs(1);

/// Used nonces are remembered for twice the tolerance and more, so it cannot be without bound.
const MAX_TOLERANCE: Duration = Duration::from_secs(3600);

/// What a server demands of a token's claims, whoever signed it.
///
/// ```
/// # fn main() -> Result<(), ajwt_core::ValidationError> {
/// use std::time::Duration;
/// use ajwt_core::Validation;
///
/// let validation = Validation::default()
///     .with_tolerance(Duration::from_secs(10))?
///     .with_audience("https://billing.example")?;
/// assert_eq!(validation.tolerance(), Duration::from_secs(10));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Validation {
    tolerance: Duration,
    audiences: Vec<Box<str>>,
    allow_missing_audience: bool,
}

impl Default for Validation {
    /// A tolerance of 20 s, no audience.
    fn default() -> Self {
        Self { tolerance: DEFAULT_TOLERANCE, audiences: Vec::new(), allow_missing_audience: false }
    }
}

impl Validation {
    /// How far a token's `time` may lie from the server's clock on either side, inclusive:
    /// 1 s to 3600 s.
    ///
    /// # Errors
    /// [`ValidationError::Tolerance`] outside of these.
    pub fn with_tolerance(mut self, tolerance: Duration) -> Result<Self, ValidationError> {
        if tolerance < MIN_TOLERANCE || tolerance > MAX_TOLERANCE {
            let (min, max) = (MIN_TOLERANCE, MAX_TOLERANCE);
            return Err(ValidationError::Tolerance { found: tolerance, min, max });
        }
        self.tolerance = tolerance;
        Ok(self)
    }

    /// Adds an audience. Once there is one, a token must name it in `aud`, compared byte for byte;
    /// without any, a token that has `aud` is refused (RFC 7519 section 4.1.3).
    ///
    /// # Errors
    /// [`ValidationError::EmptyAudience`].
    pub fn with_audience(mut self, audience: impl Into<Box<str>>) -> Result<Self, ValidationError> {
        let audience = audience.into();
        if audience.is_empty() {
            return Err(ValidationError::EmptyAudience);
        }
        self.audiences.push(audience);
        Ok(self)
    }

    /// Accepts tokens without `aud` although audiences are configured. Only for the time in which
    /// callers are taught to send one: such a token can be replayed to other services.
    #[must_use]
    pub const fn allow_missing_audience(mut self) -> Self {
        self.allow_missing_audience = true;
        self
    }

    /// How far a token's `time` may lie from the server's clock.
    #[must_use]
    pub const fn tolerance(&self) -> Duration {
        self.tolerance
    }

    /// Checks the claims against the clock and the audiences.
    pub(crate) fn check(&self, claims: &ReceivedClaims, now: Timestamp) -> Result<(), TokenError> {
        // i128 holds every product and difference of these.
        let now_ms = i128::from(now.as_millis());
        let tolerance_ms = i128::from(millis(self.tolerance));
        let in_ms = |seconds: i64| i128::from(seconds) * 1000;

        if (now_ms - in_ms(claims.time)).abs() > tolerance_ms {
            let time = Timestamp::from_secs(claims.time);
            return Err(TokenError::Window { time, now, tolerance: self.tolerance });
        }
        let RegisteredClaims { expires, not_before, issued_at, audience } = &claims.registered;
        if expires.is_some_and(|expires| now_ms >= in_ms(expires)) {
            return Err(TokenError::Expired);
        }
        for (name, start) in [("nbf", not_before), ("iat", issued_at)] {
            if start.is_some_and(|start| in_ms(start) - now_ms > tolerance_ms) {
                return Err(TokenError::NotYetValid(name));
            }
        }
        if self.is_for_us(audience.as_deref()) { Ok(()) } else { Err(TokenError::Audience) }
    }

    fn is_for_us(&self, audience: Option<&[SmolStr]>) -> bool {
        match audience {
            Some(named) => named.iter().any(|one| self.audiences.iter().any(|ours| **ours == **one)),
            None => self.audiences.is_empty() || self.allow_missing_audience,
        }
    }
}
