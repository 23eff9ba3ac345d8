use url::Url;

/// Characters of a URL in a log line or on a health page.
const MAX_CHARS: usize = 200;

/// A URL as it may be logged: scheme, host, port and path. Query and userinfo may be secret. An @ behind the host may
/// end a password that was not encoded, of which the parser took a part for the host or the path: then it is the scheme
/// alone.
pub(crate) fn shown_url(url: &str) -> Box<str> {
    let Ok(mut url) = Url::parse(url) else { return "(not a URL)".into() };
    let behind_host = [Some(url.path()), url.query(), url.fragment()];
    let url = if behind_host.iter().flatten().any(|part| part.contains('@')) {
        format!("{}://", url.scheme())
    } else {
        url.set_query(None);
        url.set_fragment(None);
        // These fail for URLs that cannot have them.
        let (_, _) = (url.set_username(""), url.set_password(None));
        url.into()
    };
    let mut chars = url.chars();
    let mut shown: String = chars.by_ref().take(MAX_CHARS).collect();
    if chars.next().is_some() {
        shown.push_str("..");
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_line_breaks_are_left_out() {
        for (url, shown) in [
            ("https://a.example/jwks.json", "https://a.example/jwks.json"),
            ("https://me:secret@a.example:8443/k?token=secret#secret", "https://a.example:8443/k"),
            ("https://a.example/\nfake\u{202e}line", "https://a.example/fake%E2%80%AEline"),
            ("secret", "(not a URL)"),
        ] {
            assert_eq!(&*shown_url(url), shown);
        }
        let long = format!("https://a.example/{}", "x".repeat(2000));
        assert_eq!(shown_url(&long).len(), MAX_CHARS + 2);
    }

    /// The table of ajwt-server's function of this name, and more. A parser takes some of it for no URL.
    #[test]
    fn what_may_be_a_password_that_was_not_encoded_is_left_out() {
        for (url, shown) in [
            ("https://idp.example/jwks?token=pa55#pa55", "https://idp.example/jwks"),
            ("https://idp.example:8443/jwks?token=pa55", "https://idp.example:8443/jwks"),
            ("https://svc:pa55@idp.example/jwks", "https://idp.example/jwks"),
            ("https://svc:pa@55@idp.example/jwks", "https://idp.example/jwks"),
            // Not known to be no password's.
            ("https://idp.example/@svc/jwks?token=pa55", "https://"),
            ("https://idp.example/jwks?token=pa55@x", "https://"),
            ("https://svc@idp.example/@b", "https://"),
            (r"https://CORP\svc:pa55@idp.example/jwks", "https://"),
            ("https://corp/svc:pa55@idp.example/jwks", "https://"),
            ("https://pa/55=@idp.example/jwks", "https://"),
            ("https://pa?55@idp.example/jwks", "https://"),
            ("https://pa#55@idp.example/jwks", "https://"),
            ("svc:pa55@idp.example/jwks", "svc://"),
            ("https://svc:pa/55@idp.example/jwks", "(not a URL)"),
            ("https:///svc:pa55@idp.example/jwks", "https://idp.example/jwks"),
            ("svc/pa55@idp.example", "(not a URL)"),
        ] {
            assert_eq!(&*shown_url(url), shown, "{url}");
        }
    }
}
