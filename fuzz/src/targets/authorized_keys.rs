use ajwt_core::PublicKey;
use ajwt_server::{AuthorizedKeysError, NewKey};

use super::public_key;

/// A text in the format of `authorized_keys`: one key a line in their order, or none and the first line
/// that is no key.
pub fn authorized_keys(data: &[u8]) {
    let lines: Vec<(usize, &[u8])> = (1..)
        .zip(data.split(|byte| *byte == b'\n'))
        .map(|(number, line)| (number, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty() && line[0] != b'#')
        .collect();
    match NewKey::from_authorized_keys(data) {
        Ok(keys) => {
            assert_eq!(keys.len(), lines.len());
            for (key, (_, line)) in keys.iter().zip(lines) {
                assert_eq!(Some(key.key()), public_key::check(line).as_ref());
                assert!(key.comment().chars().count() <= ajwt_server::MAX_COMMENT_CHARS);
                let (stored, _) = PublicKey::from_text(key.text()).expect("a text to be stored");
                assert_eq!(stored, *key.key());
                assert!(!key.text().contains('\n'));
            }
        }
        Err(error) => {
            let (AuthorizedKeysError::Key { line: named, .. }
            | AuthorizedKeysError::Option { line: named, .. }
            | AuthorizedKeysError::Pem { line: named }) = error
            else {
                panic!("{error}")
            };
            crate::check_error(&error);
            for (number, line) in lines {
                if number >= named {
                    assert_eq!(number, named);
                    assert!(line.starts_with(b"-----BEGIN") || public_key::check(line).is_none());
                    break;
                }
                assert!(public_key::check(line).is_some(), "line {number} is no key, but {named} was named");
            }
        }
    }
}
