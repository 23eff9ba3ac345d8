//! What the Python library accepts of what ajwt refuses, as the pages say.

use crate::support::Folder;

/// The rows of the page's last table, and of the one in security.md, that are about single tokens and keys.
#[test]
fn the_library_accepts_what_the_page_says() {
    let folder = Folder::new();
    folder.write("library.py", include_str!("library.py"));
    let python = std::env::var_os("AJWT_PYTHON").expect("AJWT_PYTHON is not set: run ./scripts/test");
    let output =
        folder.command(python.to_str().expect("a path")).arg("library.py").output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(),
        [
            "a good token: accepted",
            "a bad token: refused",
            "a payload that is no JSON: 500",
            "a time with a fraction: accepted",
            "a nonce that is a number: accepted",
            "a nonce that is true: accepted",
            "a nonce of 5000 bytes: accepted",
            "a name twice: accepted",
            "padded base64: accepted",
            "a time that is NaN: accepted",
            "a nonce that is a list: 500",
            "a time that is a list: 500",
            "a time that is a text: 500",
            "a lone surrogate: accepted",
            "a byte order mark: accepted",
            "UTF-16: accepted",
            "Infinity: accepted",
            "typ null: accepted",
            "typ 1: accepted",
            r#"typ ["JWT"]: accepted"#,
            r#"zip "DEF": accepted"#,
            r#"enc "A256GCM": accepted"#,
            "b64 true: accepted",
            "b64 null: accepted",
            "b64 0: accepted",
            r#"b64 "false": accepted"#,
            "b64 false: refused",
            "aud null: accepted",
            r#"aud "": accepted"#,
            "aud []: accepted",
            "aud {}: accepted",
            "aud 0: accepted",
            "aud false: accepted",
            "aud 5: refused",
            r#"aud {"a": 1}: refused"#,
            "aud true: refused",
            "exp with a fraction: accepted",
            "exp that is a text: accepted",
            "nbf with a fraction: accepted",
            "nbf that is a text: accepted",
            "iat with a fraction: accepted",
            "iat that is a text: accepted",
            "not before 10 s ahead: refused",
            "a token: accepted",
            "the token again: refused",
            "the token again, after its cache was emptied: accepted",
            "issued 10 s ahead: refused",
            "a control character: accepted",
            "a user that is not active: accepted",
            "RSA of 1024 bits, exponent 65537: accepted",
            "RSA of 2048 bits, exponent 3: accepted",
            "a row that is no key before the right one: 500",
            "the last of 41 keys: accepted",
            "the oldest of five keys, and no kid: accepted",
            "a key set: accepted",
            "a JWK whose alg is another: accepted",
            "a JWK whose key_ops have no verify: accepted",
            "a JWK with padded numbers: accepted",
            "a kid of two keys, for the first: accepted",
            "a kid of two keys, for the second: refused",
            "a key set of 101 keys: accepted",
            "a token that nobody signed, under a point of small order: accepted",
            "a file of a pair: read",
            "a file of one line: read",
            "the JWK of an RSA key: RSA",
            "the JWK of an Ed25519 key: an exception",
        ],
        "{told}"
    );
}
