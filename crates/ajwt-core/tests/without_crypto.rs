//! What of a token is read before any key is looked at, and names: without aws-lc, so that Miri can run it
//! (`scripts/models`).

use ajwt_core::{TokenError, UntrustedToken, Username};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

fn token(header: &str, payload: &str, signature: usize) -> String {
    let segments = [header.as_bytes(), payload.as_bytes(), &vec![0xa5; signature]];
    segments.map(|segment| URL_SAFE_NO_PAD.encode(segment)).join(".")
}

/// Of every length, so that what is left over of blocks of any size is read, too.
#[test]
fn segments_of_every_length_are_decoded() {
    for pad in (0..70).chain([255, 1023]) {
        let spaces = " ".repeat(pad);
        let payload = format!(r#"{{"username":"zoë","time":1790000000,"nonce":"a\u0062"{spaces}}}"#);
        let token = token(&format!(r#"{{"alg":"EdDSA","kid":"{spaces}"}}"#), &payload, 64);
        let read = UntrustedToken::parse(&token).unwrap_or_else(|error| panic!("{pad}: {error}"));
        assert_eq!((read.claimed_username().as_str(), read.key_id()), ("zoë", Some(spaces.as_str())));
        for at in [0, token.len() / 3, token.len() - 1] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = b'=';
            let changed = String::from_utf8(bytes).expect("text");
            assert!(UntrustedToken::parse(&changed).is_err(), "{pad}: a change at {at}");
        }
    }
}

#[test]
fn json_is_read_to_its_end() {
    let good = r#"{"username":"guido","time":1790000000,"nonce":"n","x":[[{}],"\ud83d\udd11",-1.5e3,null]}"#;
    assert!(UntrustedToken::parse(&token(r#"{"alg":"EdDSA"}"#, good, 64)).is_ok());
    for end in (0..good.len()).filter(|end| good.is_char_boundary(*end)) {
        let token = token(r#"{"alg":"EdDSA"}"#, &good[..end], 64);
        let cut = UntrustedToken::parse(&token);
        assert!(matches!(cut, Err(TokenError::Payload)), "{end}: {cut:?}");
    }
    for deep in [126, 127] {
        let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
        let payload = format!(r#"{{"username":"guido","time":1790000000,"nonce":"n","x":{nested}}}"#);
        let token = token(r#"{"alg":"EdDSA"}"#, &payload, 64);
        let read = UntrustedToken::parse(&token);
        assert_eq!(read.is_ok(), deep == 126, "{deep} brackets within the object's");
    }
}

#[test]
fn names_are_written_and_read() {
    for name in ["a", "a+b", "zoë %2B", "\u{1f511}", " "] {
        let name = Username::new(name).expect("a name");
        assert_eq!(Username::from_percent_encoded(&name.to_percent_encoded()), Ok(name));
    }
    for wrong in ["", "%", "%c3", "%C3%A", "a+b", "%41", "\n"] {
        assert!(Username::from_percent_encoded(wrong).is_err(), "{wrong:?}");
    }
}
