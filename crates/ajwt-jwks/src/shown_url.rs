use url::Url;

/// Characters of a URL in a log line or on a health page.
const MAX_CHARS: usize = 200;

/// A URL as it may be logged: scheme, host, port and path. Query and userinfo may be secret.
pub(crate) fn shown_url(url: &str) -> Box<str> {
    let Ok(mut url) = Url::parse(url) else { return "(not a URL)".into() };
    url.set_query(None);
    url.set_fragment(None);
    // These fail for URLs that cannot have them.
    let (_, _) = (url.set_username(""), url.set_password(None));
    let mut chars = url.as_str().chars();
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
}
