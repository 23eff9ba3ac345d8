use std::fmt;

use ajwt_core::TokenError;
use thiserror::Error;

/// A request is not authenticated.
///
/// What the peer is told depends on the [`kind`](Self::kind) only, and so does this error's text, which may end up in
/// an answer. The [`reason`](Self::reason) is for traces and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{}", .reason.kind())]
pub struct Rejection {
    reason: Reason,
}

impl Rejection {
    pub(crate) const fn new(reason: Reason) -> Self {
        Self { reason }
    }

    /// What an adapter makes its answer of.
    #[must_use]
    pub const fn kind(&self) -> RejectionKind {
        self.reason.kind()
    }

    /// Why, for traces and metrics. Never tell it to the peer: it says which users exist.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }
}

/// The three ways of not being authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// There is no token: no `Authorization` header, or one of another scheme.
    NoCredentials,
    /// There is a token, and it is refused.
    Refused,
    /// It is not known whether the token is good: a store failed. Answered with 503, never 401,
    /// and never with access.
    Unavailable,
}

impl fmt::Display for RejectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCredentials => "there are no credentials",
            Self::Refused => "the credentials are refused",
            Self::Unavailable => "credentials cannot be checked at the moment",
        })
    }
}

impl RejectionKind {
    /// The status code that it is answered with: 401 or 503.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NoCredentials | Self::Refused => 401,
            Self::Unavailable => 503,
        }
    }
}

/// Why a request is not authenticated: a closed list, so that it can label a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No `Authorization` header, or one of another scheme.
    NoCredentials,
    /// More than one `Authorization` header.
    SeveralHeaders,
    /// The header's value is too long, or not our scheme, one space and one token.
    MalformedHeader,
    /// The token is not a well-formed one with the claims due.
    MalformedToken,
    /// An algorithm or a header parameter that is not supported.
    UnsupportedToken,
    /// The token's `time` is outside of the window. Many of these: check NTP on both sides.
    OutsideWindow,
    /// `exp` has passed, or `nbf` or `iat` lies in the future.
    NotValidNow,
    /// The token is for another audience.
    WrongAudience,
    /// There is no user of that name.
    UnknownUser,
    /// The user is not active.
    InactiveUser,
    /// The user has no key that could have signed the token.
    NoCandidateKey,
    /// None of the user's keys signed the token.
    BadSignature,
    /// The token was used before.
    Replayed,
    /// A store of users or keys failed or took too long.
    StoreUnavailable,
    /// The nonce store failed or took too long.
    NonceStoreUnavailable,
    /// The nonce store is full.
    NonceStoreFull,
    /// The nonce store's memory began too recently to know this token.
    NonceStoreStarting,
}

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::NoCredentials,
        Self::SeveralHeaders,
        Self::MalformedHeader,
        Self::MalformedToken,
        Self::UnsupportedToken,
        Self::OutsideWindow,
        Self::NotValidNow,
        Self::WrongAudience,
        Self::UnknownUser,
        Self::InactiveUser,
        Self::NoCandidateKey,
        Self::BadSignature,
        Self::Replayed,
        Self::StoreUnavailable,
        Self::NonceStoreUnavailable,
        Self::NonceStoreFull,
        Self::NonceStoreStarting,
    ];

    /// The label of metrics: lower-case words joined by underscores.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::SeveralHeaders => "several_headers",
            Self::MalformedHeader => "malformed_header",
            Self::MalformedToken => "malformed_token",
            Self::UnsupportedToken => "unsupported_token",
            Self::OutsideWindow => "outside_window",
            Self::NotValidNow => "not_valid_now",
            Self::WrongAudience => "wrong_audience",
            Self::UnknownUser => "unknown_user",
            Self::InactiveUser => "inactive_user",
            Self::NoCandidateKey => "no_candidate_key",
            Self::BadSignature => "bad_signature",
            Self::Replayed => "replayed",
            Self::StoreUnavailable => "store_unavailable",
            Self::NonceStoreUnavailable => "nonce_store_unavailable",
            Self::NonceStoreFull => "nonce_store_full",
            Self::NonceStoreStarting => "nonce_store_starting",
        }
    }

    /// What an adapter makes its answer of.
    #[must_use]
    pub const fn kind(self) -> RejectionKind {
        match self {
            Self::NoCredentials => RejectionKind::NoCredentials,
            Self::StoreUnavailable
            | Self::NonceStoreUnavailable
            | Self::NonceStoreFull
            | Self::NonceStoreStarting => RejectionKind::Unavailable,
            Self::SeveralHeaders
            | Self::MalformedHeader
            | Self::MalformedToken
            | Self::UnsupportedToken
            | Self::OutsideWindow
            | Self::NotValidNow
            | Self::WrongAudience
            | Self::UnknownUser
            | Self::InactiveUser
            | Self::NoCandidateKey
            | Self::BadSignature
            | Self::Replayed => RejectionKind::Refused,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl From<TokenError> for Reason {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unsupported(_) | TokenError::Algorithm => Self::UnsupportedToken,
            TokenError::Window { .. } => Self::OutsideWindow,
            TokenError::Expired | TokenError::NotYetValid(_) => Self::NotValidNow,
            TokenError::Audience => Self::WrongAudience,
            TokenError::KeyAlgorithm(_) | TokenError::Signature => Self::BadSignature,
            _ => Self::MalformedToken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frameworks put the text of errors into answers.
    #[test]
    fn the_text_tells_no_more_than_an_answer_does() {
        for &reason in Reason::ALL {
            let rejection = Rejection::new(reason);
            assert_eq!(rejection.to_string(), reason.kind().to_string());
            assert!(!rejection.to_string().contains(&reason.to_string()), "{reason}");
        }
    }

    #[test]
    fn a_reason_tells_what_was_wrong_with_a_token() {
        for (error, reason) in [
            (TokenError::Algorithm, Reason::UnsupportedToken),
            (TokenError::Expired, Reason::NotValidNow),
            (TokenError::Audience, Reason::WrongAudience),
            (TokenError::Signature, Reason::BadSignature),
        ] {
            assert_eq!(Reason::from(error), reason);
        }
    }
}
