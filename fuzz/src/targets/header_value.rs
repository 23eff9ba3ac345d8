use ajwt_core::UntrustedToken;
use ajwt_server::Reason;

use crate::{engine::Engine, fixed, model};

/// The values of all `Authorization` headers, one a line: what is no single token of our scheme is told
/// apart as RFC 9110 and the protocol have it, and only a token that verifies is accepted.
pub fn header_value(data: &[u8]) {
    thread_local!(static ENGINE: Engine = Engine::new());

    let values: Vec<&[u8]> = match data {
        [] => Vec::new(),
        data => data.split(|byte| *byte == b'\n').take(3).collect(),
    };
    let found = ENGINE.with(|engine| engine.authenticate(&values));
    match token(&values) {
        Err(reason) => assert_eq!(found, Err(reason)),
        Ok(token) => match UntrustedToken::parse(token) {
            Err(error) => assert_eq!(found, Err(Reason::from(error))),
            Ok(token) => {
                let key = fixed::key_of(token.algorithm()).public_key();
                let is_genuine = token.claimed_username().as_str() == fixed::USERNAME
                    && token.verify(key, &ajwt_core::Validation::default(), fixed::now()).is_ok();
                assert_eq!(found.is_ok(), is_genuine, "{found:?}");
            }
        },
    }
}

/// What the header says, read a character at a time.
fn token<'a>(values: &[&'a [u8]]) -> Result<&'a str, Reason> {
    let value = match values {
        [] => return Err(Reason::NoCredentials),
        [one] => one,
        _ => return Err(Reason::SeveralHeaders),
    };
    let mut parts = value.splitn(2, |byte| *byte == b' ');
    let scheme = parts.next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"jwt") {
        return Err(Reason::NoCredentials);
    }
    let token = parts.next().and_then(|token| std::str::from_utf8(token).ok());
    let is_token = |token: &&str| {
        !token.is_empty()
            && token.chars().all(|c| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '.' | '-'))
    };
    token.filter(is_token).filter(|_| value.len() <= model::MAX_LEN).ok_or(Reason::MalformedHeader)
}
