use crate::{JwksDocument, RejectionBody, RejectionKind};

/// An HTTP response of ours, as plain data: adapters make their framework's response of it.
///
/// Headers are complete but for `Content-Length`, and can stand in HTTP as they are: names in
/// lower case, values of visible ASCII and spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The status code (RFC 9110 section 15).
    pub status: u16,
    /// Names and values; no name twice.
    pub headers: Vec<(&'static str, Box<str>)>,
    /// The body, the same for HEAD as for GET: HTTP servers leave it out there.
    pub body: Box<str>,
}

impl Answer {
    /// The answer to a rejection by an authenticator of this scheme, over plain HTTP.
    pub(crate) fn to_rejection(kind: RejectionKind, scheme: &str, body: RejectionBody) -> Self {
        let status = kind.status();
        let mut headers = vec![("content-type", body.content_type.into())];
        if status == 401 {
            // RFC 9110 section 11.6.1.
            headers.push(("www-authenticate", scheme.into()));
        }
        Self { status, headers, body: body.text }
    }

    /// The answer to a rejection in gRPC: "Trailers-Only", that is 200 and the status among the headers.
    /// To whoever looks at the status code alone that is an accepted request.
    pub(crate) fn to_grpc_rejection(kind: RejectionKind) -> Self {
        let (grpc_status, message) = match kind {
            RejectionKind::NoCredentials | RejectionKind::Refused => ("16", "unauthorized"),
            RejectionKind::Unavailable => ("14", "service unavailable"),
        };
        let headers = vec![
            ("content-type", "application/grpc".into()),
            ("grpc-status", grpc_status.into()),
            ("grpc-message", message.into()),
        ];
        Self { status: 200, headers, body: "".into() }
    }
}

/// In which form a client understands a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerFormat {
    /// The status code: 401 or 503.
    Http,
    /// gRPC's own status: `UNAUTHENTICATED` (16) or `UNAVAILABLE` (14).
    Grpc,
}

impl AnswerFormat {
    /// Of a request with this method and `Content-Type`: gRPC's are POST, of a type that begins with
    /// `application/grpc`, in any case. Where the status code decides what happens, as behind a proxy that
    /// only asks, add [`Guard::http_answers_only`](crate::Guard::http_answers_only).
    #[must_use]
    pub fn for_request(method: &str, content_type: Option<&[u8]>) -> Self {
        const GRPC: &[u8] = b"application/grpc";

        let start = content_type.and_then(|value| value.get(..GRPC.len()));
        let is_grpc = method == "POST" && start.is_some_and(|start| start.eq_ignore_ascii_case(GRPC));
        if is_grpc { Self::Grpc } else { Self::Http }
    }
}

impl JwksDocument {
    /// The answer to a request for the document, by its method and the values of all its
    /// `If-None-Match` headers: 200, 304 where the client has it already, or 405.
    #[must_use]
    pub fn answer<'h>(&self, method: &str, if_none_match: impl IntoIterator<Item = &'h [u8]>) -> Answer {
        if !matches!(method, "GET" | "HEAD") {
            return Answer { status: 405, headers: vec![("allow", "GET, HEAD".into())], body: "".into() };
        }
        let mut headers = vec![("cache-control", Self::CACHE_CONTROL.into()), ("etag", self.etag().into())];
        if if_none_match.into_iter().any(|tags| self.matches(tags)) {
            return Answer { status: 304, headers, body: "".into() };
        }
        headers.push(("content-type", Self::CONTENT_TYPE.into()));
        Answer { status: 200, headers, body: self.body().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_the_method_and_the_start_of_the_content_type() {
        let format = |method, value: &str| AnswerFormat::for_request(method, Some(value.as_bytes()));
        let is_grpc = |value: &str| format("POST", value) == AnswerFormat::Grpc;
        for value in
            ["application/grpc", "application/grpc+proto", "Application/GRPC; x=y", "application/grpc-web"]
        {
            assert!(is_grpc(value), "{value}");
        }
        for value in ["", "application/json", "application/grp", " application/grpc", "text/application/grpc"]
        {
            assert!(!is_grpc(value), "{value}");
        }
        assert_eq!(AnswerFormat::for_request("POST", None), AnswerFormat::Http);
        // A cache, and a proxy that asks, would take 200 for an accepted request.
        for method in ["GET", "HEAD", "PUT", "post"] {
            assert_eq!(format(method, "application/grpc"), AnswerFormat::Http, "{method}");
        }
    }

    #[test]
    fn the_key_set_is_for_get_and_head_and_is_not_sent_to_who_has_it() {
        let document = JwksDocument::new([]);
        let other = b"\"other\"".as_slice();
        for method in ["GET", "HEAD"] {
            let answer = document.answer(method, [other]);
            assert_eq!((answer.status, &*answer.body), (200, document.body()), "{method}");
            let answer = document.answer(method, [other, document.etag().as_bytes()]);
            assert_eq!((answer.status, &*answer.body), (304, ""), "{method}");
        }
        for method in ["POST", "get", ""] {
            let answer = document.answer(method, [document.etag().as_bytes()]);
            assert_eq!((answer.status, &*answer.body), (405, ""), "{method}");
            assert_eq!(answer.headers, [("allow", "GET, HEAD".into())]);
        }
    }
}
