//! Corner cases of JSON (`jsontestsuite`): control characters, raw line ends, texts that are no UTF-8. Each is
//! put wherever a service reads JSON: as the whole of a header, a payload and a JWKS document, and as one value
//! in them, since what is read well is told elsewhere than what is not.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use ajwt_core::{Algorithm, MAX_TOKEN_LEN, PrivateKey};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

/// When the tokens are dated.
pub(crate) const NOW: i64 = 1_790_000_000;

/// Headers and payloads. For `%` stands a case, for `#` another number in each token. A nonce is more than the
/// case: as a name the same case may be told.
const PLACES: [(&str, &str); 9] = [
    ("%", PAYLOAD),
    (HEADER, "%"),
    (r#"{"alg":%}"#, PAYLOAD),
    (r#"{"alg":"EdDSA","kid":%}"#, PAYLOAD),
    (r#"{"alg":"EdDSA","typ":%}"#, PAYLOAD),
    (HEADER, r#"{"username":%,"time":1790000000,"nonce":"corner-case-#"}"#),
    (HEADER, r#"{"username":"guido","time":%,"nonce":"corner-case-#"}"#),
    (HEADER, r#"{"username":"guido","time":1790000000,"nonce":"corner-case-#-%}"#),
    (HEADER, r#"{"username":"guido","time":1790000000,"nonce":"corner-case-#","aud":%}"#),
];

const HEADER: &str = r#"{"alg":"EdDSA"}"#;
const PAYLOAD: &str = r#"{"username":"guido","time":1790000000,"nonce":"corner-case-#"}"#;

/// The texts, and the values in them: of an array what is between its brackets.
pub(crate) struct CornerCases {
    pub(crate) texts: Vec<Vec<u8>>,
    values: BTreeSet<Vec<u8>>,
}

impl CornerCases {
    pub(crate) fn read(root: &Path) -> Self {
        let folder = root.join("jsontestsuite");
        let files = crate::every_file(&folder);
        let is_json = |file: &&PathBuf| file.extension().is_some_and(|found| found == "json");
        let texts: Vec<_> =
            files.iter().filter(is_json).map(|file| fs::read(file).expect("a file")).collect();
        assert!(!folder.is_dir() || !texts.is_empty(), "nothing in {}", folder.display());
        let within = |text: &Vec<u8>| {
            let text = text.trim_ascii();
            text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]")).unwrap_or(text).to_vec()
        };
        // The others come as a whole: too long is too long.
        let values = texts.iter().map(within).filter(|value| value.len() < MAX_TOKEN_LEN).collect();
        Self { texts, values }
    }

    /// Signed, for what is not read before a signature is checked.
    pub(crate) fn tokens(&self, key: &PrivateKey) -> Vec<String> {
        let mut tokens = Vec::new();
        for (header, payload) in PLACES {
            let whole = header == "%" || payload == "%";
            let cases: Vec<&Vec<u8>> =
                if whole { self.texts.iter().collect() } else { self.values.iter().collect() };
            for value in cases {
                let number = tokens.len();
                let segment = |template| BASE64_URL_SAFE_NO_PAD.encode(filled(template, value, number));
                let signed = format!("{}.{}", segment(header), segment(payload));
                let signature = key.sign(Algorithm::EdDsa, signed.as_bytes()).expect("signed");
                tokens.push(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)));
            }
        }
        tokens
    }

    /// JWKS documents.
    pub(crate) fn documents(&self) -> Vec<Vec<u8>> {
        let key = PrivateKey::generate_ed25519().expect("a key").public_key().to_jwk().to_json();
        let mut key: serde_json::Value = serde_json::from_str(&key).expect("JSON");
        for member in ["kid", "alg", "use"] {
            key.as_object_mut().expect("an object").remove(member);
        }
        let key = key.to_string();
        let key = key.trim_end_matches('}');
        let mut documents = self.texts.clone();
        for value in &self.values {
            // The second key is not used, and reported.
            let members = [r#""kid":%"#, r#""use":"enc","kid":%"#, r#""alg":%"#];
            let members = members.map(|members| format!("{key},{members}}}"));
            let sets = members.map(|jwk| filled(&format!(r#"{{"keys":[{jwk}]}}"#), value, 0));
            documents.extend(sets);
        }
        documents
    }

    /// What is no secret where it stands: a name, a key's id.
    pub(crate) fn values(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.values.iter().map(|value| String::from_utf8_lossy(value))
    }
}

/// A template with a value and a number in it. A text that goes on within quotes loses its first one.
fn filled(template: &str, value: &[u8], number: usize) -> Vec<u8> {
    let template = template.replace('#', &number.to_string());
    let Some((before, after)) = template.split_once('%') else { return template.into_bytes() };
    let is_within = before.ends_with('-');
    let value = if is_within { value.strip_prefix(b"\"").unwrap_or(value) } else { value };
    [before.as_bytes(), value, after.as_bytes()].concat()
}
