use crate::{Reason, RejectionKind};

/// The body of a rejection, and its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectionBody {
    pub(crate) content_type: &'static str,
    pub(crate) text: Box<str>,
}

impl RejectionBody {
    /// `text/plain; charset=utf-8`.
    #[must_use]
    pub fn text(text: impl Into<Box<str>>) -> Self {
        Self { content_type: "text/plain; charset=utf-8", text: text.into() }
    }

    /// `application/json` (RFC 8259). For `application/problem+json` (RFC 9457) there is [`problem_details`].
    #[must_use]
    pub fn json(json: impl Into<Box<str>>) -> Self {
        Self { content_type: "application/json", text: json.into() }
    }
}

/// What may be told to the peer of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectionSummary {
    kind: RejectionKind,
    reason: Option<Reason>,
}

impl RejectionSummary {
    pub(crate) const fn new(kind: RejectionKind, reason: Option<Reason>) -> Self {
        Self { kind, reason }
    }

    /// The status code: 401 or 503.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.kind.status()
    }

    /// What the status code means: `Unauthorized` or `Service Unavailable`.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        match self.kind {
            RejectionKind::NoCredentials | RejectionKind::Refused => "Unauthorized",
            RejectionKind::Unavailable => "Service Unavailable",
        }
    }

    /// Why, where the operator has asked for it: see
    /// [`Guard::insecure_show_reasons`](crate::Guard::insecure_show_reasons).
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

/// The terse body that is the default: one line of text.
pub(crate) fn terse(rejection: RejectionSummary) -> RejectionBody {
    let line = rejection.title().to_ascii_lowercase();
    RejectionBody::text(match rejection.reason {
        Some(reason) => format!("{line}: {reason}\n"),
        None => format!("{line}\n"),
    })
}

/// A body in JSON problem details (RFC 9457). The reason, where it is shown, is the member `reason`.
#[must_use]
pub fn problem_details(rejection: RejectionSummary) -> RejectionBody {
    let (title, status) = (rejection.title(), rejection.status());
    // Labels are lower-case words joined by underscores: nothing needs an escape.
    let reason = rejection.reason.map(|reason| format!(r#","reason":"{reason}""#)).unwrap_or_default();
    let text = format!(r#"{{"type":"about:blank","title":"{title}","status":{status}{reason}}}"#);
    RejectionBody { content_type: "application/problem+json", text: text.into() }
}

/// Writes the bodies of rejections.
pub(crate) type BodyWriter = dyn Fn(RejectionSummary) -> RejectionBody + Send + Sync;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_details_are_json_whatever_the_reason() {
        for reason in Reason::ALL.iter().copied().map(Some).chain([None]) {
            let kind = reason.map_or(RejectionKind::Refused, Reason::kind);
            let body = problem_details(RejectionSummary::new(kind, reason));
            let json: serde_json::Value = serde_json::from_str(&body.text).expect("JSON");
            assert_eq!(json["status"], kind.status());
            assert_eq!(json["reason"].as_str(), reason.map(Reason::label));
        }
    }
}
