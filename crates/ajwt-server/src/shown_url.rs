/// Characters of a URL that are told.
const MAX_CHARS: usize = 200;

/// A URL as it may be told: scheme, host, port and path. User, query and fragment may be secret. What was refused, or
/// stored by others, may be no URL, and an @ the end of a password that was not encoded: where it may as well be of the
/// path or the query, the scheme alone is told.
pub(crate) fn shown_url(url: &str) -> String {
    let is_scheme = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), url),
    };
    let shown = match rest.rsplit_once('@') {
        Some((user, _)) if user.contains(['/', '\\', '?', '#']) => "",
        Some((_, rest)) => rest,
        None => rest,
    };
    let shown = shown.split(['?', '#']).next().unwrap_or_default();
    scheme.chars().chain(shown.chars()).take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrustedUrl;

    #[test]
    fn a_url_is_told_by_scheme_host_and_path() {
        for (url, shown) in [
            ("https://idp.example/jwks?token=pa55#pa55", "https://idp.example/jwks"),
            ("https://idp.example:8443/jwks?token=pa55", "https://idp.example:8443/jwks"),
            ("https://svc:pa55@idp.example/jwks", "https://idp.example/jwks"),
            // Not known to be no password's.
            ("https://idp.example/@svc/jwks?token=pa55", "https://"),
            ("https://idp.example/jwks?token=pa55@x", "https://"),
            ("https://svc@idp.example/@b", "https://"),
            (r"https://CORP\svc:pa55@idp.example/jwks", "https://"),
            ("https://corp/svc:pa55@idp.example/jwks", "https://"),
            ("https://pa/55=@idp.example/jwks", "https://"),
            ("https://svc:pa/55@idp.example/jwks", "https://"),
            ("https:///svc:pa55@idp.example/jwks", "https://"),
            ("svc/pa55@idp.example", ""),
        ] {
            assert_eq!(shown_url(url), shown, "{url}");
        }
        assert_eq!(shown_url(&format!("https://idp.example/{}", "x".repeat(300))).len(), MAX_CHARS);
    }

    #[test]
    fn a_trusted_url_is_printed_so() {
        let url = TrustedUrl::new(7, "https://svc:pa55@idp.example/\njwks?token=pa55");
        let shown = r#"TrustedUrl { source: Trust(7), url: "https://idp.example/\njwks" }"#;
        assert_eq!(format!("{url:?}"), shown);
    }
}
