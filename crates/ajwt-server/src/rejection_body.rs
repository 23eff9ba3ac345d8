use thiserror::Error;

use crate::{Reason, RejectionKind, authorization};

/// The body of a rejection, and its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectionBody {
    pub(crate) content_type: &'static str,
    pub(crate) text: Box<str>,
}

impl RejectionBody {
    /// Of this media type (RFC 9110 section 8.3.1), in characters that can stand in a header: visible ASCII and spaces.
    ///
    /// A function for [`Guard::rejection_body`](crate::Guard::rejection_body) may `expect` it to be one: it is called
    /// when the guard is made, not by a request.
    ///
    /// # Errors
    /// [`ContentTypeError`] if it is none.
    pub fn new(content_type: &'static str, text: impl Into<Box<str>>) -> Result<Self, ContentTypeError> {
        if !is_content_type(content_type) {
            return Err(ContentTypeError { found: content_type });
        }
        Ok(Self { content_type, text: text.into() })
    }

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

/// What adapters make a header of without a further look: nothing here may end its line or be refused by them.
fn is_content_type(value: &str) -> bool {
    let media_type = value.split(';').next().unwrap_or_default().trim_end_matches(' ');
    // Both parts are tokens, as schemes are.
    let is_token = authorization::is_scheme;
    let is_media_type =
        media_type.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    is_media_type && !value.ends_with(' ') && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A text that is no value of `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{found:?} is no media type: a type and a subtype in visible ASCII are, as in \"application/json\"")]
#[non_exhaustive]
pub struct ContentTypeError {
    /// The text.
    pub found: &'static str,
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
    fn a_content_type_can_stand_in_a_header() {
        for good in [
            "application/vnd.api+json",
            "application/problem+json; charset=utf-8",
            r#"text/plain ;charset="utf-8""#,
        ] {
            let body = RejectionBody::new(good, "{}").expect(good);
            assert_eq!((body.content_type, &*body.text), (good, "{}"));
        }
        for bad in [
            "",
            "json",
            "/json",
            "application/",
            "application/a/b",
            " text/plain",
            "text/plain ",
            "text/plain;\tcharset=utf-8",
            "text/plain\r\nset-cookie: a=b",
            "text/plain; charset=\r\n\r\n",
            "text/plain; a=\u{7f}",
            "text/plain; a=\0",
            "text/pl\u{e4}in",
            "text/plain; a=\u{e4}",
        ] {
            assert_eq!(RejectionBody::new(bad, "{}"), Err(ContentTypeError { found: bad }));
        }
    }

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
