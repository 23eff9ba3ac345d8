//! JWK Sets as endpoints answer them: which keys of a document may verify, and that they do.

#[path = "support/jwk_rule.rs"]
mod jwk_rule;

use std::collections::BTreeSet;

use ajwt_core::{Algorithm, JwkError, JwkSet, JwkSetError, MAX_JWK_SET_LEN, PrivateKey, PublicKey};
use ajwt_vectors::{Report, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const MESSAGE: &[u8] = b"header.payload";

type Outcome = Result<(), String>;

/// The callers of a corpus, and what they sign with.
struct Signers(Vec<(PrivateKey, Algorithm)>);

impl Signers {
    fn of(keys: &Value) -> Self {
        let load = |pem: &Value| {
            let key = PrivateKey::from_pem(pem.as_str().expect("a PEM text"), None).expect("a private key");
            let algorithm = match key.public_key().preferred_algorithm() {
                Algorithm::EdDsa => Algorithm::EdDsa,
                _ => Algorithm::Rs256,
            };
            (key, algorithm)
        };
        Self(keys.as_object().expect("keys by name").values().map(load).collect())
    }

    /// Whether a token that a caller signed verifies with a key of this id.
    fn verify(&self, set: &JwkSet, key_id: &str) -> bool {
        self.0.iter().any(|(private, algorithm)| {
            let signature = private.sign(*algorithm, MESSAGE).expect("a signature");
            set.find(key_id).any(|jwk| {
                jwk.algorithm().is_none_or(|only| only == *algorithm)
                    && jwk.key().verify(*algorithm, MESSAGE, &signature)
            })
        })
    }
}

#[test]
fn exactly_the_usable_keys_of_each_document_verify() {
    let Some(root) = ajwt_vectors::root("exactly_the_usable_keys_of_each_document_verify") else { return };
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("jwks-docs"), "json") {
        let corpus = ajwt_vectors::json(&file);
        let signers = Signers::of(&corpus["keys"]);
        for case in corpus["cases"].as_array().expect("cases") {
            report.case(ajwt_vectors::str(case, "id"), || document(case, &signers));
        }
    }
    report.finish("JWK set documents");
}

fn body(case: &Value) -> Vec<u8> {
    let mut body = match case["body_base64"].as_str() {
        Some(base64) => STANDARD.decode(base64).expect("base64"),
        None => ajwt_vectors::str(case, "body").as_bytes().to_vec(),
    };
    let len = case["pad_to"].as_u64().map_or(body.len(), |len| usize::try_from(len).expect("a length"));
    body.resize(len.max(body.len()), b' ');
    body
}

fn document(case: &Value, signers: &Signers) -> Outcome {
    let body = body(case);
    let read = JwkSet::from_json(&body);
    ensure!(read == JwkSet::from_json(&body), "not the same verdict twice");
    let due: BTreeSet<&str> = match &case["usable_kids"] {
        Value::Array(kids) => kids.iter().filter_map(Value::as_str).collect(),
        Value::String(verdict) if verdict == "error" => {
            return read.map_or(Ok(()), |set| Err(format!("it is read: {set:?}")));
        }
        Value::String(verdict) if verdict == "either" => return Ok(()),
        other => return Err(format!("the corpus says {other}")),
    };
    let set = read.map_err(|error| error.to_string())?;
    let no_private: BTreeSet<&str> =
        case["no_private"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for kid in &due {
        if no_private.contains(kid) {
            ensure!(set.find(kid).next().is_some(), "{kid:?} is not usable: {:?}", set.skipped());
        } else {
            ensure!(signers.verify(&set, kid), "{kid:?} does not verify: {:?}", set.skipped());
        }
    }
    // What is listed beyond that must be of no use to a caller.
    for jwk in set.keys() {
        let kid = jwk.key_id();
        let is_for_another_algorithm =
            jwk.algorithm().is_some_and(|only| !matches!(only, Algorithm::Rs256 | Algorithm::EdDsa));
        ensure!(due.contains(kid) || is_for_another_algorithm, "{kid:?} is usable");
        ensure!(due.contains(kid) || !signers.verify(&set, kid), "{kid:?} verifies");
    }
    round_trips(&set)
}

/// What is published of a set reads back as the same keys, under its own ids.
fn round_trips(set: &JwkSet) -> Outcome {
    let read = JwkSet::from_json(set.to_json()).map_err(|error| error.to_string())?;
    ensure!(read.keys() == set.keys() && read.skipped().is_empty(), "does not read back");
    Ok(())
}

/// RFC 7517 and 7638: entries with a `jwks` or a `jwk`; the note `ajwt` is prose, so the rules that it
/// tells are applied to the members.
#[test]
fn sets_of_the_rfcs() {
    let Some(root) = ajwt_vectors::root("sets_of_the_rfcs") else { return };
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("rfc"), "json") {
        let corpus = ajwt_vectors::json(&file);
        for (name, entry) in corpus.as_object().expect("examples by name") {
            let set = match (entry.get("jwks"), entry.get("jwk")) {
                (Some(set), _) => set.clone(),
                (None, Some(jwk)) => json!({ "keys": [jwk] }),
                (None, None) => continue,
            };
            report.case(name, || rfc_set(&set, entry["ajwt"].as_str().unwrap_or_default()));
        }
    }
    report.finish("sets of the RFCs");
}

fn rfc_set(document: &Value, note: &str) -> Outcome {
    let set = JwkSet::from_json(document.to_string()).map_err(|error| error.to_string())?;
    let due = jwk_rule::usable(document["keys"].as_array().map(Vec::as_slice).unwrap_or_default());
    let kids: Vec<&str> = due.iter().filter_map(|jwk| jwk["kid"].as_str()).collect();
    let found: Vec<&str> = set.keys().iter().map(ajwt_core::Jwk::key_id).collect();
    ensure!(found == kids, "usable are {found:?}, due are {kids:?}: {:?}", set.skipped());
    ensure!(!note.contains("no usable key") || found.is_empty(), "usable are {found:?}: {note}");
    ensure!(!note.contains("private members") || found.is_empty(), "usable are {found:?}: {note}");
    for (jwk, due) in set.keys().iter().zip(due) {
        ensure!(jwk.algorithm().map(Algorithm::name) == due["alg"].as_str(), "alg is {:?}", jwk.algorithm());
        // The numbers are those of the members, whatever x5c says.
        let read: Value = serde_json::from_str(&jwk.to_json()).map_err(|error| error.to_string())?;
        let has_numbers = ["n", "e", "x"].iter().all(|name| read[name] == due[name]);
        ensure!(has_numbers, "another key: {read}");
        ensure!(read.get("x5c").is_none(), "x5c is published");
    }
    Ok(())
}

#[test]
fn bounds_of_a_document() {
    let key = PrivateKey::generate_ed25519().expect("a key");
    let mut body = JwkSet::of_keys([key.public_key().clone()]).to_json().into_bytes();
    body.resize(MAX_JWK_SET_LEN, b' ');
    assert!(JwkSet::from_json(&body).is_ok());
    body.push(b' ');
    let refused = Err(JwkSetError::TooLong { len: MAX_JWK_SET_LEN + 1, max: MAX_JWK_SET_LEN });
    assert_eq!(JwkSet::from_json(&body), refused);

    assert_eq!(JwkSet::from_json(r#"{"keys":[]}"#), Ok(JwkSet::default()));
    assert_eq!(JwkSet::from_json("{}"), Err(JwkSetError::NoKeys));
    assert_eq!(JwkSet::from_json(r#"{"keys":null}"#), Err(JwkSetError::NoKeys));
    let many = |count: usize| format!(r#"{{"keys":[{}]}}"#, vec!["null"; count].join(","));
    assert!(JwkSet::from_json(many(100)).is_ok_and(|set| set.skipped().len() == 100));
    assert_eq!(JwkSet::from_json(many(101)), Err(JwkSetError::TooManyKeys { max: 100 }));
}

/// What no key is made of changes nothing, unless it is no JSON.
#[test]
fn members_that_are_not_read() {
    let key = PrivateKey::generate_ed25519().expect("a key").public_key().clone();
    let (jwk, kid) = (key.to_jwk().to_json(), key.fingerprint());
    let with = |member: &str| jwk.replacen('{', &format!("{{{member},"), 1);
    let set = |member: &str| JwkSet::from_json(format!(r#"{{"keys":[{}]}}"#, with(member)));
    // At most 127 are open, of which three are the set's, its array's and the entry's.
    let brackets = |count: usize| format!(r#""deep":{}{}"#, "[".repeat(count), "]".repeat(count));

    for member in [
        r#""x5c":["a",["b"],{"c":[]},null]"#,
        r#""oth\u0065r":{"a":{"a":1,"a":2},"b":"\u0041"}"#,
        r#""":1.5e3"#,
        &brackets(124),
    ] {
        let set = set(member).expect("a set");
        assert!(set.find(kid.as_str()).any(|jwk| *jwk.key() == key), "{member}: {:?}", set.skipped());
        assert_eq!(PublicKey::from_jwk(with(member)).as_ref(), Ok(&key), "{member}");
    }
    for (member, due) in [
        (r#""a":1,"a":[[]]"#, JwkError::DuplicateMember),
        (r#""a":[],"\u0061":{}"#, JwkError::DuplicateMember),
        (r#""oth":[[{}]]"#, JwkError::PrivateMember("oth")),
        (r#""k":null"#, JwkError::PrivateMember("k")),
        (r#""key_ops":["sign"]"#, JwkError::KeyOps),
        (r#""key_ops":[]"#, JwkError::KeyOps),
        (r#""key_ops":["verify",["verify"]]"#, JwkError::WrongType("key_ops")),
        (r#""key_ops":[{},"verify"]"#, JwkError::WrongType("key_ops")),
        (r#""key_ops":{"verify":[]}"#, JwkError::WrongType("key_ops")),
        (r#""key_ops":"verify""#, JwkError::WrongType("key_ops")),
    ] {
        let set = set(member).expect("a set");
        let [skipped] = set.skipped() else { panic!("{member}: {set:?}") };
        assert_eq!((skipped.index, skipped.key_id.as_deref()), (0, Some(kid.as_str())), "{member}");
        assert_eq!(skipped.reason, due, "{member}");
        assert_eq!(PublicKey::from_jwk(with(member)), Err(due), "{member}");
    }
    for member in [
        r#""a":01"#,
        r#""a":1e999"#,
        r#""a":[1,]"#,
        r#""a":[["b",{"c":nul}]]"#,
        r#""a":{"\ud800":1}"#,
        r#""key_ops":[1,"\ud800"]"#,
        &brackets(125),
    ] {
        assert_eq!(set(member), Err(JwkSetError::Json), "{member}");
    }
}

/// The entries beside it are keys all the same. What it costs to read is counted in `ajwt-server/tests/allocations.rs`.
#[test]
fn an_entry_of_too_many_members_is_skipped() {
    const TOO_MANY: JwkError = JwkError::TooManyMembers { max: 256 };
    let keys = [(); 3].map(|()| PrivateKey::generate_ed25519().expect("a key").public_key().clone());
    let [before, jwk, after] = keys.each_ref().map(|key| key.to_jwk().to_json());
    let with = |members: &str| jwk.replacen('{', &format!("{{{members}"), 1);
    let own = serde_json::from_str::<Value>(&jwk).expect("JSON").as_object().expect("an object").len();
    let named = |count: usize| (0..count).map(|at| format!(r#""m{at}":0,"#)).collect::<Vec<_>>().concat();

    let full = with(&named(256 - own));
    assert_eq!(PublicKey::from_jwk(&full).as_ref(), Ok(&keys[1]));
    let over = with(&named(257 - own));
    assert_eq!(PublicKey::from_jwk(&over), Err(TOO_MANY));
    let ids = keys.each_ref().map(|key| key.fingerprint().as_str().to_owned());
    for (entry, skipped_id) in [
        (over, Some(ids[1].as_str())),
        // In front of all others, where its id is not looked for.
        (with(&r#""":0,"#.repeat(200_000)), None),
    ] {
        let set = JwkSet::from_json(format!(r#"{{"keys":[{before},{entry},{after}]}}"#)).expect("a set");
        let found: Vec<&PublicKey> = set.keys().iter().map(ajwt_core::Jwk::key).collect();
        assert_eq!(found, [&keys[0], &keys[2]]);
        let [skipped] = set.skipped() else { panic!("{:?}", set.skipped()) };
        assert_eq!((skipped.index, skipped.key_id.as_deref()), (1, skipped_id));
        assert_eq!(skipped.reason, TOO_MANY);
    }
    // It is read to its end.
    let broken = with(&named(1000)).replacen(r#""m999":0"#, r#""m999":nul"#, 1);
    assert_eq!(JwkSet::from_json(format!(r#"{{"keys":[{broken}]}}"#)), Err(JwkSetError::Json));
}

#[test]
fn entries_that_are_no_keys() {
    let set =
        JwkSet::from_json(r#"{"keys":[null,"a",[{"kid":"a"}],{},{"kty":["RSA"]},{"kid":"b","kid":"c"}]}"#);
    let set = set.expect("a set");
    let found = set.skipped().iter().map(|skipped| (skipped.key_id.as_deref(), skipped.reason.clone()));
    let due = [
        (None, JwkError::Json),
        (None, JwkError::Json),
        (None, JwkError::Json),
        (None, JwkError::Missing("kty")),
        (None, JwkError::WrongType("kty")),
        (Some("b"), JwkError::DuplicateMember),
    ];
    assert_eq!(found.collect::<Vec<_>>(), due);
    for keys in [r#"{"a":[]}"#, r#""[]""#, "1"] {
        assert_eq!(JwkSet::from_json(format!(r#"{{"keys":{keys}}}"#)), Err(JwkSetError::NoKeys), "{keys}");
    }
    // The last of too many is read too.
    let many = |last: &str| format!(r#"{{"keys":[{}{last}]}}"#, "{},".repeat(1000));
    assert_eq!(JwkSet::from_json(many("[]")), Err(JwkSetError::TooManyKeys { max: 100 }));
    assert_eq!(JwkSet::from_json(many("nul")), Err(JwkSetError::Json));
    for text in ["[]", "1", "null", r#""{}""#] {
        assert_eq!(PublicKey::from_jwk(text), Err(JwkError::Json), "{text}");
    }
}
