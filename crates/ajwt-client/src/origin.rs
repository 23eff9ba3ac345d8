use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use http::Uri;
use thiserror::Error;

/// Where tokens may go: scheme, host and port (RFC 6454).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    is_https: bool,
    /// In lower case.
    host: Box<str>,
    port: u16,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl Origin {
    /// Reads `https://host` or `https://host:port`; `http` only for this host.
    pub(crate) fn parse(text: &str) -> Result<Self, OriginError> {
        let origin = Self::parse_with_http(text)?;
        if origin.is_https || origin.is_loopback() {
            Ok(origin)
        } else {
            Err(OriginError::Insecure { origin: origin.to_string().into() })
        }
    }

    /// As [`parse`](Self::parse), and `http` for any host.
    pub(crate) fn parse_with_http(text: &str) -> Result<Self, OriginError> {
        // What stands before an @ may be a password.
        let (user, rest) = match text.rsplit_once('@') {
            // The @ is of a query, or of a password that was not encoded: nobody knows.
            Some((user, _)) if user.contains(['?', '#']) => ("..", ""),
            Some((_, rest)) => ("..@", rest),
            None => ("", text),
        };
        // And what follows a ? or # a token.
        let (rest, more) = match rest.find(['?', '#']).and_then(|at| rest.get(..=at)) {
            Some(rest) => (rest, ".."),
            None => (rest, ""),
        };
        let shown: Box<str> = format!("{user}{rest}{more}").into();
        let malformed = || OriginError::Malformed { found: Box::clone(&shown) };
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let has_more = uri.path() != "/" || uri.query().is_some() || text.contains(['@', '#']);
        let target = Target::of_uri(&uri).filter(|_| !has_more).ok_or_else(malformed)?;
        if !is_found_in_urls(target.host) {
            return Err(malformed());
        }
        let is_https = target.scheme.eq_ignore_ascii_case("https");
        if !is_https && !target.scheme.eq_ignore_ascii_case("http") {
            return Err(malformed());
        }
        let port = target.port.unwrap_or(if is_https { 443 } else { 80 });
        Ok(Self { is_https, host: target.host.to_ascii_lowercase().into(), port })
    }

    pub(crate) const fn is_https(&self) -> bool {
        self.is_https
    }

    /// Whether a request that goes there goes here.
    pub(crate) fn is(&self, target: &Target<'_>) -> bool {
        let (scheme, default_port) = if self.is_https { ("https", 443) } else { ("http", 80) };
        scheme.eq_ignore_ascii_case(target.scheme)
            && is_same_host(&self.host, target.host)
            && self.port == target.port.unwrap_or(default_port)
    }

    /// Whether nothing that goes there leaves this host.
    fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        &*self.host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        Target { scheme, host: &self.host, port: Some(self.port) }.fmt(f)
    }
}

/// Without regard to case or, of an IPv6 address, to spelling: reqwest has one of each, which need not be the one that
/// was configured, and other clients have all.
fn is_same_host(one: &str, other: &str) -> bool {
    match (ipv6(one), ipv6(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// The address in brackets.
fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Whether a URL may have the host as it is spelled. One that ends in a number is an IPv4 address, which URLs have in
/// full, whatever was written (`127.1`, `0x7f.1`, `127.0.0.1.`): no request would go to it.
fn is_found_in_urls(host: &str) -> bool {
    if host.starts_with('[') {
        return ipv6(host).is_some();
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = match last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit()),
    };
    !is_number || host.parse::<Ipv4Addr>().is_ok()
}

impl<'a> Target<'a> {
    /// `None` if it names no host, or a port that is none.
    pub(crate) fn of_uri(uri: &'a Uri) -> Option<Self> {
        let authority = uri.authority()?;
        let text = authority.as_str();
        let host_and_port = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        let host = authority.host();
        let port = match host_and_port.strip_prefix(host)? {
            "" => None,
            rest => Some(rest.strip_prefix(':')?.parse().ok()?),
        };
        Some(Self { scheme: uri.scheme_str()?, host, port }).filter(|target| !target.host.is_empty())
    }

    #[cfg(feature = "middleware")]
    pub(crate) fn of_url(url: &'a reqwest::Url) -> Option<Self> {
        Some(Self { scheme: url.scheme(), host: url.host_str()?, port: url.port() })
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        let default_port = if self.scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
        match self.port {
            Some(port) if port != default_port => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// Why no token goes there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OriginError {
    /// No origin was configured.
    #[error("no origin is configured; name the services that tokens may go to, as in https://orders.example")]
    NoOrigins,
    /// What was configured is not an origin.
    #[error(
        "{found:?} is no origin: write https://host or https://host:port, without a path, and an IPv4 address in full"
    )]
    Malformed {
        /// What was configured; of `user:password@host` what begins with the `@`, of `host?query` what ends with the
        /// `?`, or `#`; nothing where an `@` follows one of these.
        found: Box<str>,
    },
    /// Plain http to another host, where whoever sees the token can use it first.
    #[error(
        "{origin} is not encrypted, and whoever sees a token can use it: use https; http is for localhost, 127.0.0.0/8 and [::1], and, where a service mesh encrypts it, for OriginSigner::insecure_allow_http"
    )]
    Insecure {
        /// The origin.
        origin: Box<str>,
    },
    /// The request goes to an origin that was not configured.
    #[error(
        "requests to {origin} are not signed: add it to the origins if it may have tokens, else send them with another client"
    )]
    NotListed {
        /// The request's origin.
        origin: Box<str>,
    },
    /// The request's URI is only a path.
    #[error(
        "the request's URI names no scheme and host, so it is not known where the token would go; give tonic's client an origin (with_origin)"
    )]
    Relative,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes(origin: &str, uri: &str) -> bool {
        let origin = Origin::parse(origin).expect("an origin");
        let uri: Uri = uri.parse().expect("a URI");
        Target::of_uri(&uri).is_some_and(|target| origin.is(&target))
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        for uri in
            ["https://a.example", "https://A.Example:443/x?y", "HTTPS://a.example/", "https://u@a.example"]
        {
            assert!(goes("https://a.example", uri), "{uri}");
            assert!(goes("https://A.EXAMPLE:443/", uri), "{uri}");
        }
        for uri in [
            "http://a.example",
            "http://a.example:443",
            "https://a.example:8443",
            "https://a.example.",
            "https://a.example.evil",
            "https://b.a.example",
            "https://a.example@evil.example",
            "https://a.example:443@evil.example",
            "https://a.example:70000",
            "/path",
            "a.example:443",
        ] {
            assert!(!goes("https://a.example", uri), "{uri}");
        }
        assert!(goes("http://[::1]:80", "http://[::1]/"));
        assert!(!goes("http://127.0.0.1:8080", "http://127.0.0.1:8081/"));
    }

    #[test]
    fn an_ipv6_address_is_the_same_in_each_spelling() {
        for spellings in [
            ["https://[2001:db8::1]", "https://[2001:DB8:0:0::1]", "https://[2001:0db8::0.0.0.1]"],
            ["https://[::ffff:102:304]", "https://[::FFFF:1.2.3.4]", "https://[0:0:0:0:0:ffff:102:304]:443"],
        ] {
            for origin in spellings {
                for uri in spellings {
                    assert!(goes(origin, uri), "{uri} is not at {origin}");
                    // As reqwest has it.
                    #[cfg(feature = "middleware")]
                    {
                        let url = reqwest::Url::parse(uri).expect("a URL");
                        let target = Target::of_url(&url).expect("a target");
                        assert!(
                            Origin::parse(origin).expect("an origin").is(&target),
                            "{url} is not at {origin}"
                        );
                    }
                }
                for uri in ["https://[2001:db8::2]", "https://[::1]", "https://2001.db8", "https://1.2.3.4"] {
                    assert!(!goes(origin, uri), "{uri} is at {origin}");
                }
            }
        }
        assert!(!goes("https://[2001:db8::1]", "https://[2001:db8::1]:8443"));
    }

    #[test]
    fn names_with_numbers_are_names() {
        for origin in
            ["https://1.2.3.4", "https://3scale", "https://1.example", "https://a.0xg", "https://a.1b."]
        {
            assert!(goes(origin, origin), "{origin}");
        }
    }

    #[test]
    fn plain_http_is_for_this_host_only() {
        for origin in [
            "http://localhost",
            "http://LOCALHOST:1",
            "http://127.0.0.1",
            "http://127.9.9.9:8",
            "http://[::1]",
        ] {
            assert!(Origin::parse(origin).is_ok(), "{origin}");
        }
        for origin in [
            "http://a.example",
            "http://localhost.example",
            "http://10.0.0.1",
            "http://[::]",
            "http://0.0.0.0",
            "http://[::ffff:7f00:1]",
            "http://127.0.0.1.example",
        ] {
            assert!(matches!(Origin::parse(origin), Err(OriginError::Insecure { .. })), "{origin}");
            // Unless it is asked for.
            let origin = Origin::parse_with_http(origin).expect(origin);
            assert!(!origin.is_https());
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "a.example",
            "a.example:443",
            "/",
            "https://",
            "https:///x",
            "ftp://a.example",
            "https://a.example/x",
            "https://a.example?x",
            "https://a.example#x",
            "https://u@a.example",
            "https://a b",
            "https://a.example:x",
            "https://a.example:65536",
            "https://b\u{fc}cher.example",
            "http://127.1",
            "http://127.0.0.1.",
            "http://0177.0.0.1",
            "http://2130706433",
            "http://0x7F000001",
            "https://a.example.0x",
            "https://[2001:db8::1::]",
            "https://[a]",
        ] {
            for parse in [Origin::parse, Origin::parse_with_http] {
                assert!(matches!(parse(text), Err(OriginError::Malformed { .. })), "{text}");
            }
        }
        for text in ["https://u:secret@a.example", "u:secret@a.example", "https://u:secret@x@a.example:443/"]
        {
            let error = Origin::parse(text).expect_err(text);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("secret") && shown.contains("..@a.example"), "{shown}");
        }
        for (text, shown) in [
            ("https://a.example/x?key=secret#secret", "https://a.example/x?.."),
            ("https://a.example#secret", "https://a.example#.."),
            ("https://u:secret@a.example?key=secret", "..@a.example?.."),
            ("https://a.example?user=a@b&key=secret", ".."),
        ] {
            assert_eq!(Origin::parse(text), Err(OriginError::Malformed { found: shown.into() }));
        }
    }
}
