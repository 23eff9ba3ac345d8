//! Signatures: examples of the RFCs, Wycheproof, and odd Ed25519 points and encodings.

#[path = "support/jwk_rule.rs"]
#[allow(dead_code, reason = "sets have tests elsewhere")]
mod jwk_rule;

use std::collections::BTreeMap;

use ajwt_core::{
    Algorithm, Jwk, JwkSet, KeyError, PrivateKey, PublicKey, Timestamp, TokenError, UntrustedToken,
    Validation,
};
use ajwt_vectors::{Report, ensure, hex, hex_member};
use aws_lc_rs::digest::{SHA512, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use curve25519_dalek::{Scalar, constants::ED25519_BASEPOINT_POINT, edwards::CompressedEdwardsY};
use pkcs1::der::{Encode as _, asn1::UintRef};
use serde_json::Value;
use wycheproof::{HashFunction, TestResult, eddsa, rsa_pkcs1_verify};

type Outcome = Result<(), String>;

/// What a key says of a signature, with and without a table.
fn verifies(key: &PublicKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let plain = key.verify(algorithm, message, signature);
    let precomputed = key.precomputed();
    assert_eq!(precomputed.is_some(), key.preferred_algorithm() == Algorithm::EdDsa);
    if let Some(precomputed) = precomputed {
        assert_eq!(precomputed, *key);
        assert_eq!(precomputed.verify(algorithm, message, signature), plain, "with a table it differs");
    }
    plain
}

// The keys of a corpus, in the forms that this crate reads.

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// PKCS#8 around a seed (RFC 8410 section 7).
fn ed25519_from_seed(seed: &[u8]) -> Result<PrivateKey, String> {
    let der = [hex("302e020100300506032b657004220420").as_slice(), seed].concat();
    PrivateKey::from_pem(pem("PRIVATE KEY", &der), None).map_err(|error| error.to_string())
}

/// The private key of a JWK, which this crate reads in other forms only.
fn private_from_jwk(jwk: &Value) -> Result<PrivateKey, String> {
    let member = |name: &str| URL_SAFE_NO_PAD.decode(ajwt_vectors::str(jwk, name)).expect("base64url");
    if jwk["kty"] == "OKP" {
        return ed25519_from_seed(&member("d"));
    }
    let parts: Vec<Vec<u8>> = ["n", "e", "d", "p", "q", "dp", "dq", "qi"].map(member).into();
    let uint = |at: usize| UintRef::new(&parts[at]).expect("a number");
    let der = pkcs1::RsaPrivateKeyRef {
        modulus: uint(0),
        public_exponent: uint(1),
        private_exponent: uint(2),
        prime1: uint(3),
        prime2: uint(4),
        exponent1: uint(5),
        exponent2: uint(6),
        coefficient: uint(7),
        other_prime_infos: None,
    }
    .to_der()
    .expect("DER");
    PrivateKey::from_pem(pem("RSA PRIVATE KEY", &der), None).map_err(|error| error.to_string())
}

/// The JWK without its private members.
fn public_part(jwk: &Value) -> Value {
    let mut jwk = jwk.clone();
    if let Some(members) = jwk.as_object_mut() {
        members.retain(|name, _| !["d", "p", "q", "dp", "dq", "qi", "k"].contains(&name.as_str()));
    }
    jwk
}

// Tokens whose payloads are not our claims.

/// Whether everything but the claims of the token is right: strict segments, our header, a key that
/// its JWK allows, the signature. Fails if such a token becomes a `Token`.
fn passes(token: &str, keys: &[(PublicKey, Option<Algorithm>)]) -> Result<bool, String> {
    let untrusted = UntrustedToken::parse(token);
    if let Ok(untrusted) = &untrusted {
        for (key, _) in keys {
            let verified = untrusted.verify(key, &Validation::default(), Timestamp::from_secs(0));
            ensure!(verified.is_err(), "it became a token: {verified:?}");
        }
    }
    if !matches!(untrusted, Ok(_) | Err(TokenError::Payload | TokenError::Claim(_))) {
        return Ok(false);
    }
    let (signing_input, signature) = token.rsplit_once('.').ok_or("no full stop")?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|error| error.to_string());
    let (Some(algorithm), Ok(signature)) = (algorithm_of(token), signature) else { return Ok(false) };
    Ok(keys.iter().any(|(key, only)| {
        only.is_none_or(|only| only == algorithm)
            && verifies(key, algorithm, signing_input.as_bytes(), &signature)
    }))
}

fn header_of(token: &str) -> Option<Value> {
    let header = URL_SAFE_NO_PAD.decode(token.split_once('.')?.0).ok()?;
    serde_json::from_slice(&header).ok()
}

fn algorithm_of(token: &str) -> Option<Algorithm> {
    Algorithm::from_name(header_of(token)?["alg"].as_str()?)
}

/// The keys of a JWK or of a set that may verify.
fn usable(jwk_or_set: &Value, token: &str) -> Vec<(PublicKey, Option<Algorithm>)> {
    let usable = |jwk: &Jwk| (jwk.key().clone(), jwk.algorithm());
    if jwk_or_set.get("keys").is_some() {
        let Ok(set) = JwkSet::from_json(jwk_or_set.to_string()) else { return Vec::new() };
        let header = header_of(token).unwrap_or_default();
        return match header["kid"].as_str() {
            Some(kid) => set.find(kid).map(usable).collect(),
            None => set.keys().iter().map(usable).collect(),
        };
    }
    let only = jwk_or_set["alg"].as_str().and_then(Algorithm::from_name);
    PublicKey::from_jwk(jwk_or_set.to_string()).map(|key| (key, only)).into_iter().collect()
}

// RFCs.

/// Examples with a `compact` and a private key: verified, and signed again to the same bytes.
#[test]
fn compact_examples_of_the_rfcs() {
    let Some(root) = ajwt_vectors::root("compact_examples_of_the_rfcs") else { return };
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("rfc"), "json") {
        for (name, example) in ajwt_vectors::json(&file).as_object().expect("examples by name") {
            if let Some(compact) = example["compact"].as_str() {
                report.case(name, || {
                    let public = PublicKey::from_jwk(example["public_jwk"].to_string());
                    let public = public.map_err(|error| error.to_string())?;
                    let algorithm = Algorithm::from_name(ajwt_vectors::str(example, "alg")).ok_or("alg")?;
                    let private = private_from_jwk(&example["private_jwk"])?;
                    ensure!(private.public_key() == &public, "the halves differ");
                    ensure!(PublicKey::from_jwk(example["private_jwk"].to_string()).is_err(), "private JWK");
                    compact_example(compact, &private, algorithm)
                });
            }
        }
    }
    report.finish("compact examples of the RFCs");
}

fn compact_example(compact: &str, private: &PrivateKey, algorithm: Algorithm) -> Outcome {
    let public = private.public_key();
    ensure!(passes(compact, &[(public.clone(), None)])?, "does not verify");
    let (signing_input, signature) = compact.rsplit_once('.').ok_or("no full stop")?;
    let signed = private.sign(algorithm, signing_input.as_bytes()).map_err(|error| error.to_string())?;
    ensure!(URL_SAFE_NO_PAD.encode(&signed) == signature, "signs to other bytes");
    for at in [0, signed.len() / 2, signed.len() - 1] {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        ensure!(!public.verify(algorithm, signing_input.as_bytes(), &changed), "verifies, changed at {at}");
    }
    Ok(())
}

/// Lists of seed, public key, message and signature.
#[test]
fn ed25519_examples_of_rfc_8032() {
    let Some(root) = ajwt_vectors::root("ed25519_examples_of_rfc_8032") else { return };
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("rfc"), "json") {
        for (name, examples) in ajwt_vectors::json(&file).as_object().expect("examples by name") {
            for (at, example) in examples.as_array().into_iter().flatten().enumerate() {
                report.case(format!("{name} {at}"), || {
                    let private = ed25519_from_seed(&hex_member(example, "seed"))?;
                    let public = PublicKey::from_ed25519_bytes(&hex_member(example, "public"));
                    ensure!(public.as_ref() == Ok(private.public_key()), "another public key: {public:?}");
                    let message = hex_member(example, "message_hex");
                    let signed =
                        private.sign(Algorithm::EdDsa, &message).map_err(|error| error.to_string())?;
                    ensure!(signed == hex_member(example, "signature"), "signs to other bytes");
                    ensure!(
                        private.public_key().verify(Algorithm::EdDsa, &message, &signed),
                        "does not verify"
                    );
                    Ok(())
                });
            }
        }
    }
    report.finish("RFC 8032");
}

/// RFC 7520, 7797 and 8037: only compact tokens of an algorithm of ours verify.
#[test]
fn jose_cookbook() {
    let Some(root) = ajwt_vectors::root("jose_cookbook") else { return };
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("jose-cookbook"), "json") {
        let example = ajwt_vectors::json(&file);
        if example.get("output").is_some() {
            report.case(file.display().to_string(), || cookbook(&example));
        }
    }
    report.finish("jose-cookbook");
}

fn cookbook(example: &Value) -> Outcome {
    let (input, output) = (&example["input"], &example["output"]);
    let keys: Vec<&Value> = match input["key"].as_array() {
        Some(keys) => keys.iter().collect(),
        None => vec![&input["key"]],
    };
    for key in &keys {
        ensure!(PublicKey::from_jwk(key.to_string()).is_err(), "a private or symmetric JWK is read");
    }
    for serialisation in [&output["json"], &output["json_flat"], output] {
        ensure!(UntrustedToken::parse(&serialisation.to_string()).is_err(), "JSON is read as a token");
    }
    let Some(compact) = output["compact"].as_str() else { return Ok(()) };
    let algorithm = input["alg"].as_str().and_then(Algorithm::from_name);
    let is_ours = algorithm.is_some()
        && input["payload"].as_str().is_some_and(|payload| {
            compact.split('.').nth(1) == Some(URL_SAFE_NO_PAD.encode(payload).as_str())
        });
    let usable: Vec<_> = keys.iter().flat_map(|key| usable(&public_part(key), compact)).collect();
    ensure!(passes(compact, &usable)? == is_ours, "verifies: {}", !is_ours);
    match (algorithm, keys.as_slice()) {
        (Some(algorithm), [key]) if is_ours => compact_example(compact, &private_from_jwk(key)?, algorithm),
        _ => Ok(()),
    }
}

// Wycheproof.

#[test]
fn wycheproof_files() {
    let Some(root) = ajwt_vectors::root("wycheproof_files") else { return };
    let mut report = Report::new();
    let mut by_type: BTreeMap<String, usize> = BTreeMap::new();
    for file in ajwt_vectors::files(&root.join("wycheproof"), "json") {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let set = ajwt_vectors::json(&file);
        for group in set["testGroups"].as_array().expect("test groups") {
            let group_type = ajwt_vectors::str(group, "type");
            for test in group["tests"].as_array().expect("tests") {
                *by_type.entry(group_type.to_owned()).or_default() += 1;
                report.case(format!("{name} {} {}", test["tcId"], test["comment"]), || match group_type {
                    "EddsaVerify" => eddsa_verify(group, test),
                    "RsassaPkcs1Verify" => rsa_verify(group, test),
                    "RsassaPkcs1Generate" => rsa_generate(group, test),
                    "JsonWebSignature" | "JsonWebKey" | "JsonWebCrypto" => json_web_token(group, test),
                    other => Err(format!("no test knows groups of type {other}")),
                });
            }
        }
    }
    report.finish(&format!("wycheproof files {by_type:?}"));
}

fn is_valid(test: &Value) -> bool {
    test["result"] == "valid"
}

fn eddsa_verify(group: &Value, test: &Value) -> Outcome {
    let forms = [
        PublicKey::from_ed25519_bytes(&hex_member(&group["publicKey"], "pk")),
        PublicKey::from_pem(ajwt_vectors::str(group, "publicKeyPem")),
        PublicKey::from_pem(pem("PUBLIC KEY", &hex_member(group, "publicKeyDer"))),
    ];
    let jwk =
        group["publicKeyJwk"].is_object().then(|| PublicKey::from_jwk(group["publicKeyJwk"].to_string()));
    if group["publicKey"]["curve"].as_str().is_some_and(|curve| curve != "edwards25519") {
        ensure!(forms.iter().all(Result::is_err), "a key of another curve loads");
        ensure!(jwk.is_none_or(|jwk| jwk.is_err()), "a JWK of another curve loads");
        return Ok(());
    }
    let [key, others @ ..] = &forms;
    ensure!(
        others.iter().all(|other| other.as_ref().ok() == key.as_ref().ok()),
        "the forms of the key differ"
    );
    ensure!(jwk.is_none_or(|jwk| jwk.ok() == key.clone().ok()), "the JWK is another key");
    check_verify(key.as_ref(), Algorithm::EdDsa, test)
}

fn check_verify(key: Result<&PublicKey, &KeyError>, algorithm: Algorithm, test: &Value) -> Outcome {
    let verifies =
        key.is_ok_and(|key| verifies(key, algorithm, &hex_member(test, "msg"), &hex_member(test, "sig")));
    ensure!(verifies == is_valid(test), "{} {}, but verifies: {verifies}", test["result"], test["flags"]);
    Ok(())
}

/// The algorithm whose hash this is.
fn algorithm_of_hash(sha: &str) -> Option<Algorithm> {
    match sha {
        "SHA-256" => Some(Algorithm::Rs256),
        "SHA-384" => Some(Algorithm::Rs384),
        "SHA-512" => Some(Algorithm::Rs512),
        _ => None,
    }
}

const RSA_ALGORITHMS: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512];

fn rsa_verify(group: &Value, test: &Value) -> Outcome {
    let key = PublicKey::from_pem(ajwt_vectors::str(group, "publicKeyPem"));
    let as_der = PublicKey::from_pem(pem("PUBLIC KEY", &hex_member(group, "publicKeyDer")));
    let as_asn = PublicKey::from_pem(pem("RSA PUBLIC KEY", &hex_member(group, "publicKeyAsn")));
    let is_same = |other: &Result<PublicKey, KeyError>| other.as_ref().ok() == key.as_ref().ok();
    ensure!(is_same(&as_der) && is_same(&as_asn), "the forms of the key differ");
    let exponent = hex_member(&group["publicKey"], "publicExponent");
    let modulus = hex_member(&group["publicKey"], "modulus");
    let components = PublicKey::from_rsa_components(&modulus, &exponent);
    ensure!(is_same(&components), "the components are another key");
    ensure!(key.is_ok() == jwk_rule::is_good_rsa(&modulus, &exponent), "the key: {key:?}");
    let Ok(key) = key else { return Ok(()) };
    if group["keyJwk"].is_object() {
        let jwk = PublicKey::from_jwk(group["keyJwk"].to_string());
        ensure!(jwk.is_ok() == jwk_rule::is_usable(&group["keyJwk"]), "the JWK: {jwk:?}");
        ensure!(jwk.is_err() || jwk.as_ref() == Ok(&key), "the JWK is another key");
    }
    match algorithm_of_hash(ajwt_vectors::str(group, "sha")) {
        Some(algorithm) => check_verify(Ok(&key), algorithm, test),
        None => {
            let is_wrong_hash = test["flags"].to_string().contains("WrongHash");
            check_foreign_hash(&key, &hex_member(test, "msg"), &hex_member(test, "sig"), is_wrong_hash)
        }
    }
}

/// A signature of a group whose hash is not ours. Those that were made with another hash than the
/// group's (flag `WrongHash`) may be good ones of one algorithm of ours.
fn check_foreign_hash(key: &PublicKey, message: &[u8], signature: &[u8], is_wrong_hash: bool) -> Outcome {
    let verifying =
        Algorithm::ALL.into_iter().filter(|algorithm| verifies(key, *algorithm, message, signature));
    let verifying: Vec<Algorithm> = verifying.collect();
    ensure!(verifying.len() <= usize::from(is_wrong_hash), "verifies with {verifying:?}");
    Ok(())
}

fn rsa_generate(group: &Value, test: &Value) -> Outcome {
    let number = |name: &str| hex_member(&group["privateKey"], name);
    let is_ours = jwk_rule::is_good_rsa(&number("modulus"), &number("publicExponent"));
    let pkcs1 = PrivateKey::from_pem(ajwt_vectors::str(group, "privateKeyPem"), None);
    let pkcs8 = PrivateKey::from_pem(pem("PRIVATE KEY", &hex_member(group, "privateKeyPkcs8")), None);
    let public = PublicKey::from_pem(ajwt_vectors::str(group, "keyPem"));
    if !is_ours {
        ensure!(pkcs1.is_err() && pkcs8.is_err() && public.is_err(), "a key that is not ours loads");
        return Ok(());
    }
    let public = public.map_err(|error| error.to_string())?;
    for key in [pkcs1, pkcs8] {
        let key = key.map_err(|error| error.to_string())?;
        ensure!(key.public_key() == &public, "another public key");
        let (message, due) = (hex_member(test, "msg"), hex_member(test, "sig"));
        match algorithm_of_hash(ajwt_vectors::str(group, "sha")) {
            Some(algorithm) => {
                let signed = key.sign(algorithm, &message).map_err(|error| error.to_string())?;
                ensure!(signed == due, "signs to other bytes");
                ensure!(public.verify(algorithm, &message, &due), "does not verify");
            }
            None => {
                for algorithm in RSA_ALGORITHMS {
                    ensure!(key.sign(algorithm, &message).is_ok_and(|signed| signed != due), "{algorithm}");
                }
                check_foreign_hash(&public, &message, &due, false)?;
            }
        }
    }
    Ok(())
}

/// Valid for us are valid tokens of our algorithms under JWKs that allow them, nothing else.
fn json_web_token(group: &Value, test: &Value) -> Outcome {
    let text = match (&test["jws"], &test["jwe"]) {
        (Value::String(token), _) | (_, Value::String(token)) => token.clone(),
        (Value::Null, json) | (json, _) => json.to_string(),
    };
    let public = group.get("public").filter(|public| !public.is_null()).unwrap_or(&group["private"]);
    let keys = usable(public, &text);
    let passes = passes(&text, &keys)?;
    ensure!(!passes || usable(&group["private"], &text).is_empty(), "a private JWK is used");
    let algorithm = algorithm_of(&text);
    let jwks: Vec<&Value> = match public["keys"].as_array() {
        Some(keys) => keys.iter().collect(),
        None => vec![public],
    };
    let allows = |jwk: &&Value| {
        algorithm.is_some_and(|algorithm| jwk["alg"].as_str().is_none_or(|only| only == algorithm.name()))
            && (jwk["kty"] == "RSA" || jwk["kty"] == "OKP")
            && jwk.get("d").is_none()
    };
    let due = is_valid(test) && jwks.iter().any(allows);
    let notes = format!("{} {} {}", group["comment"], test["comment"], test["flags"]);
    let is_roca = notes.to_lowercase().contains("roca");
    ensure!(passes == due || is_roca, "{} {}, but passes: {passes}", test["result"], test["flags"]);
    Ok(())
}

/// The `wycheproof` crate's own copy: all sets of our two signature schemes.
#[test]
fn wycheproof_sets() {
    let mut report = Report::new();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("a test set");
    for group in set.test_groups {
        let key = PublicKey::from_ed25519_bytes(&group.key.pk);
        for test in &group.tests {
            report.case(format!("Ed25519 {} {}", test.tc_id, test.comment), || {
                let verifies =
                    key.as_ref().is_ok_and(|key| verifies(key, Algorithm::EdDsa, &test.msg, &test.sig));
                ensure!(verifies == (test.result == TestResult::Valid), "{:?}: {verifies}", test.result);
                Ok(())
            });
        }
    }
    for name in rsa_pkcs1_verify::TestName::all() {
        let set = rsa_pkcs1_verify::TestSet::load(name).expect("a test set");
        for group in set.test_groups {
            let key = PublicKey::from_pem(&group.pem);
            let is_ours = jwk_rule::is_good_rsa(&group.key.n, &group.key.e);
            let algorithm = match group.hash {
                HashFunction::Sha2_256 => Some(Algorithm::Rs256),
                HashFunction::Sha2_384 => Some(Algorithm::Rs384),
                HashFunction::Sha2_512 => Some(Algorithm::Rs512),
                _ => None,
            };
            for test in &group.tests {
                report.case(format!("{name:?} {} {}", test.tc_id, test.comment), || {
                    ensure!(key.is_ok() == is_ours, "the key: {key:?}");
                    let Ok(key) = &key else { return Ok(()) };
                    let Some(algorithm) = algorithm else {
                        let is_wrong_hash = test.flags.contains(&rsa_pkcs1_verify::TestFlag::WrongHash);
                        return check_foreign_hash(key, &test.msg, &test.sig, is_wrong_hash);
                    };
                    let verifies = verifies(key, algorithm, &test.msg, &test.sig);
                    ensure!(verifies == (test.result == TestResult::Valid), "{:?}: {verifies}", test.result);
                    Ok(())
                });
            }
        }
    }
    report.finish("wycheproof sets");
}

// Odd Ed25519 points and signatures.

#[test]
fn ed25519_points_of_cctv() {
    let Some(root) = ajwt_vectors::root("ed25519_points_of_cctv") else { return };
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("cctv-ed25519"), "json") {
        for case in ajwt_vectors::json(&file).as_array().expect("cases") {
            report.case(format!("{} {}", case["number"], case["flags"]), || {
                let told = |member: &str| case[member].as_bool().ok_or(format!("no {member}"));
                let key = PublicKey::from_ed25519_bytes(&hex_member(case, "key"));
                ensure!(key.is_err() || !told("key_must_be_refused")?, "the key loads");
                let Ok(key) = key else {
                    let has_torsion = case["flags"].to_string().contains("low_order_component_A");
                    ensure!(told("key_must_be_refused")? || has_torsion, "an honest key is refused");
                    return Ok(());
                };
                let (message, signature) = (ajwt_vectors::str(case, "msg"), hex_member(case, "sig"));
                let verify = || verifies(&key, Algorithm::EdDsa, message.as_bytes(), &signature);
                let verifies = verify();
                ensure!(verifies == verify(), "not the same verdict twice");
                ensure!(!verifies || !told("must_reject")?, "verifies");
                ensure!(verifies || told("must_reject")? || told("strict_reject")?, "does not verify");
                Ok(())
            });
        }
    }
    report.finish("cctv-ed25519");
}

/// What is due is computed: a key that is canonical and of no small order, and RFC 8032 section 5.1.7 without
/// the cofactor, where one whose R is of small order may be refused too.
#[test]
fn ed25519_speccheck() {
    let Some(root) = ajwt_vectors::root("ed25519_speccheck") else { return };
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("ed25519-speccheck"), "json") {
        for (row, case) in ajwt_vectors::json(&file).as_array().expect("cases").iter().enumerate() {
            report.case(format!("row {row}"), || speccheck(case));
        }
    }
    report.finish("ed25519-speccheck");
}

fn speccheck(case: &Value) -> Outcome {
    let (message, signature) = (hex_member(case, "message"), hex_member(case, "signature"));
    let encoded = hex_member(case, "pub_key");
    let point =
        |bytes: &[u8]| CompressedEdwardsY::from_slice(bytes).ok().and_then(|point| point.decompress());
    let good = point(&encoded)
        .filter(|point| point.compress().as_bytes().as_slice() == encoded && !point.is_small_order());
    let key = PublicKey::from_ed25519_bytes(&encoded);
    ensure!(key.is_ok() == good.is_some(), "the key: {key:?}");
    let (Ok(key), Some(good)) = (key, good) else { return Ok(()) };
    let verify = || verifies(&key, Algorithm::EdDsa, &message, &signature);
    let verified = verify();
    ensure!(verified == verify(), "not the same verdict twice");
    let Some((commitment, s)) = signature.split_first_chunk::<32>() else {
        ensure!(!verified, "a signature of {} bytes verifies", signature.len());
        return Ok(());
    };
    let s = s.try_into().ok().and_then(|s| Option::<Scalar>::from(Scalar::from_canonical_bytes(s)));
    let due = s.is_some_and(|s| {
        let hash = digest(&SHA512, &[commitment.as_slice(), &encoded, &message].concat());
        let challenge = Scalar::from_bytes_mod_order_wide(hash.as_ref().try_into().expect("64 bytes"));
        (ED25519_BASEPOINT_POINT * s - good * challenge).compress().as_bytes() == commitment
    });
    ensure!(due || !verified, "verifies");
    let may_be_refused = point(commitment).is_some_and(|commitment| commitment.is_small_order());
    ensure!(!due || verified || may_be_refused, "does not verify");
    Ok(())
}
