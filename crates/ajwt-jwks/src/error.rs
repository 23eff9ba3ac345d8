use std::{error::Error, iter, net::IpAddr, time::Duration};

use ajwt_core::JwkSetError;
use thiserror::Error;

/// Characters that [`shown`] leaves of an error.
const MAX_CHARS: usize = 300;

type Source = Box<dyn Error + Send + Sync>;

/// Why a key set was not fetched. The last good one stays in use, for as long as it is trusted.
///
/// No text of these holds a URL, for its query or userinfo may be secret. What kept it from being fetched is told as an
/// escaped text of some 300 characters, for it may hold what the endpoint wrote, such as the names in its certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Not a URL.
    #[error("the URL cannot be read; write it as in https://host/path")]
    Url {
        /// What is wrong with it.
        source: Source,
    },
    /// A scheme that is not fetched.
    #[error("key sets are fetched over https, not {found} (http is an opt-in for development)")]
    Scheme {
        /// The scheme.
        found: Box<str>,
    },
    /// A username or password in the URL.
    #[error("the URL holds a username or a password; key sets are public, so remove them")]
    Userinfo,
    /// An address that the policy does not allow. Nothing was connected to.
    #[error("{host} is at {address}, which is not a public address; allow its network if it is one of yours")]
    Address {
        /// The host in the URL.
        host: Box<str>,
        /// The first address that is not allowed.
        address: IpAddr,
    },
    /// The host has no address, or that could not be found out.
    #[error("the host {host} cannot be resolved; check its name and the DNS of this machine")]
    Resolve {
        /// The host in the URL.
        host: Box<str>,
        /// What the resolver said. `None`: that there is no address.
        source: Option<Source>,
    },
    /// No connection, or TLS failed.
    #[error("cannot connect")]
    Connect {
        /// Why.
        source: Source,
    },
    /// Not done by the deadline.
    #[error("no complete answer within {deadline:?}")]
    Timeout {
        /// For name, connection, TLS, headers and body together.
        deadline: Duration,
    },
    /// The answer is not HTTP, or it broke off.
    #[error("the answer broke off or is not valid HTTP")]
    Http {
        /// What was found.
        source: Source,
    },
    /// Another status than 200.
    #[error("the answer has status {found}, not 200{}", redirect_hint(*.found))]
    Status {
        /// The status code.
        found: u16,
    },
    /// 304 where nothing was known that could be unmodified.
    #[error("the answer has status 304, though the request was not conditional")]
    NotModified,
    /// A body that is compressed or otherwise encoded, though that was not asked for.
    #[error("the body is encoded (Content-Encoding), which was not asked for")]
    Encoding,
    /// A body that is too long.
    #[error("the body has more than {max} bytes")]
    TooLong {
        /// Bytes allowed.
        max: usize,
    },
    /// The body is no key set.
    #[error(transparent)]
    Document(#[from] JwkSetError),
    /// A defect: the fetch panicked.
    #[error("the fetch ended by a panic; please report it")]
    Panic,
    /// The cache was closed.
    #[error("the cache was closed before the fetch ended")]
    Closed,
    /// The runtime that the fetch was on has ended.
    #[error(
        "tokio's runtime ended before the fetch did; the next request goes on with the fetches on its own"
    )]
    Stopped,
}

impl FetchError {
    /// Each [`label`](Self::label) but that of a cache that was closed, which is not counted.
    pub(crate) const LABELS: [&'static str; 12] = [
        "url", "address", "resolve", "connect", "timeout", "http", "status", "encoding", "too_long",
        "document", "panic", "stopped",
    ];

    /// The label of metrics: a closed list of lower-case words joined by underscores.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Url { .. } | Self::Scheme { .. } | Self::Userinfo => "url",
            Self::Address { .. } => "address",
            Self::Resolve { .. } => "resolve",
            Self::Connect { .. } => "connect",
            Self::Timeout { .. } => "timeout",
            Self::Http { .. } => "http",
            Self::Status { .. } | Self::NotModified => "status",
            Self::Encoding => "encoding",
            Self::TooLong { .. } => "too_long",
            Self::Document(_) => "document",
            Self::Panic => "panic",
            Self::Closed => "closed",
            Self::Stopped => "stopped",
        }
    }
}

/// An error and its causes as a source that can be logged and shown, whatever an endpoint wrote into them.
pub(crate) fn shown(error: &dyn Error) -> Source {
    let causes = iter::successors(error.source(), |error| (**error).source());
    let told = causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"));
    let mut escaped = String::new();
    for c in told.chars() {
        match c {
            '"' | '\'' => escaped.push(c),
            c => escaped.extend(c.escape_debug()),
        }
    }
    let mut chars = escaped.chars();
    let mut shown: String = chars.by_ref().take(MAX_CHARS).collect();
    if chars.next().is_some() {
        shown.push_str("..");
    }
    shown.into()
}

const fn redirect_hint(status: u16) -> &'static str {
    if matches!(status, 300..=399) {
        "; redirects are not followed, so trust the URL that they lead to"
    } else {
        ""
    }
}

/// Not a network of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{found:?} is no network; write it as in 10.96.0.0/12 or fd00::/8")]
#[non_exhaustive]
pub struct NetworkError {
    /// What was given, cut to 64 characters.
    pub found: Box<str>,
}

/// Why a client cannot be as asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The deadline is out of its bounds.
    #[error("a deadline of {found:?} is not usable; more than zero and at most {max:?} is")]
    Deadline {
        /// The deadline asked for.
        found: Duration,
        /// The longest.
        max: Duration,
    },
    /// Not root certificates.
    #[error("the root certificates cannot be read; they are texts of PEM blocks that say CERTIFICATE")]
    Certificates {
        /// What is wrong with them.
        source: Option<Source>,
    },
    /// The HTTP client cannot be made, usually for want of the system's root certificates.
    #[error("TLS cannot be set up; are root certificates installed (Debian's ca-certificates)?")]
    Tls {
        /// Why.
        source: Source,
    },
}

#[cfg(test)]
mod tests {
    use ajwt_core::JwkSet;

    use super::*;

    #[test]
    fn what_an_endpoint_wrote_is_escaped_and_cut() {
        let host = FetchError::Resolve { host: "a".into(), source: Some("b\n\u{1b}[2J\u{202e}".into()) };
        let told = "the host a cannot be resolved; check its name and the DNS of this machine: ";
        assert_eq!(shown(&host).to_string(), format!(r"{told}b\n\u{{1b}}[2J\u{{202e}}"));
        let whole = "\u{e9}\"".repeat(MAX_CHARS / 2);
        assert_eq!(shown(&*Source::from(whole.as_str())).to_string(), whole);
        assert_eq!(shown(&*Source::from(format!("{whole}b"))).to_string(), format!("{whole}.."));
        let controls = shown(&*Source::from("\u{1b}".repeat(MAX_CHARS))).to_string();
        assert_eq!(controls.len(), MAX_CHARS + "..".len());
    }

    #[test]
    fn every_label_is_listed() {
        let source = || Source::from("a source");
        let document = JwkSet::from_json("no set").expect_err("no set");
        let errors = [
            FetchError::Url { source: source() },
            FetchError::Scheme { found: "http".into() },
            FetchError::Userinfo,
            FetchError::Address { host: "a".into(), address: IpAddr::from([127, 0, 0, 1]) },
            FetchError::Resolve { host: "a".into(), source: None },
            FetchError::Connect { source: source() },
            FetchError::Timeout { deadline: Duration::ZERO },
            FetchError::Http { source: source() },
            FetchError::Status { found: 500 },
            FetchError::NotModified,
            FetchError::Encoding,
            FetchError::TooLong { max: 1 },
            FetchError::Document(document),
            FetchError::Panic,
            FetchError::Stopped,
        ];
        for error in &errors {
            // One more that is counted does not compile until it is above, too.
            match error {
                FetchError::Url { .. } | FetchError::Scheme { .. } | FetchError::Userinfo => {}
                FetchError::Address { .. } | FetchError::Resolve { .. } | FetchError::Connect { .. } => {}
                FetchError::Timeout { .. } | FetchError::Http { .. } | FetchError::Status { .. } => {}
                FetchError::NotModified | FetchError::Encoding | FetchError::TooLong { .. } => {}
                FetchError::Document(_) | FetchError::Panic | FetchError::Stopped => {}
                FetchError::Closed => panic!("it is not counted"),
            }
        }
        let mut labels: Vec<&str> = errors.iter().map(FetchError::label).collect();
        labels.dedup();
        assert_eq!(labels, FetchError::LABELS);
    }
}
