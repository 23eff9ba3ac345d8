//! What the test vectors hold is among the seeds: the literals beside it would hide that none of it is read.
//! Whatever a root has of each kind counts, and it need not have them all.

use std::{collections::HashSet, fs, path::Path};

use ajwt_fuzz::TARGETS;
use ajwt_vectors::{files, folders, folders_with, json, root};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

/// In bytes. What is longer may be left out of the seeds.
const MAX: usize = 4096;

#[test]
fn headers_of_the_token_corpora_are_seeds() {
    let Some(root) = root("headers_of_the_token_corpora_are_seeds") else { return };
    let (header_values, tokens) = (seeds("header_value"), seeds("token"));
    for file in files(&root.join("ajwt-tokens"), "json") {
        let corpus = json(&file);
        let steps = array(&corpus["sequences"]).iter().flat_map(|sequence| array(&sequence["steps"]));
        for case in array(&corpus["cases"]).iter().chain(steps) {
            if let (None, Some(header)) = (case.get("headers"), case["header"].as_str()) {
                assert_seed(&file, &header_values, header.into());
                if let Some((_, token)) = header.split_once(' ') {
                    assert_seed(&file, &tokens, token.into());
                }
            }
        }
    }
}

#[test]
fn tokens_and_keys_within_any_json_are_seeds() {
    let Some(root) = root("tokens_and_keys_within_any_json_are_seeds") else { return };
    let (tokens, jwk_sets) = (seeds("token"), seeds("jwk_set"));
    for file in folders(&root).iter().flat_map(|folder| files(folder, "json")) {
        // Some are no JSON on purpose.
        let Ok(document) = serde_json::from_slice::<Value>(&read(&file)) else { continue };
        for value in within(&document) {
            if value["keys"].is_array() || value.get("kty").is_some() {
                assert_seed(&file, &jwk_sets, value.to_string().into());
            }
            if let Some(text) = value.as_str().filter(|text| is_compact(text)) {
                assert_seed(&file, &tokens, text.into());
            }
        }
    }
}

#[test]
fn json_and_key_sets_at_the_edges_are_seeds() {
    let Some(root) = root("json_and_key_sets_at_the_edges_are_seeds") else { return };
    let (claims, jwk_sets) = (seeds("claims"), seeds("jwk_set"));
    for folder in ["test_parsing", "test_transform"] {
        for file in files(&root.join("jsontestsuite").join(folder), "") {
            assert_seed(&file, &claims, read(&file));
        }
    }
    for file in files(&root.join("jwks-docs"), "json") {
        for body in array(&json(&file)["cases"]).iter().filter_map(|case| case["body"].as_str()) {
            assert_seed(&file, &jwk_sets, body.into());
        }
    }
}

#[test]
fn signatures_of_ed25519_are_seeds() {
    let Some(root) = root("signatures_of_ed25519_are_seeds") else { return };
    // Without their messages.
    let known: HashSet<Vec<u8>> =
        seeds("verification").iter().filter_map(|seed| seed.get(..97)).map(<[u8]>::to_vec).collect();
    let check = |file: &Path, key: &Value, signature: &Value| {
        if let (Some(key), Some(signature)) = (hex(key, 32), hex(signature, 64)) {
            assert_seed(file, &known, [&[1], key.as_slice(), &signature].concat());
        }
    };
    for file in files(&root.join("wycheproof"), "json") {
        for group in array(&json(&file)["testGroups"]) {
            for test in array(&group["tests"]) {
                // With a message that is one.
                if test["msg"].is_string() {
                    check(&file, &group["publicKey"]["pk"], &test["sig"]);
                }
            }
        }
    }
    for file in files(&root.join("cctv-ed25519"), "json") {
        array(&json(&file)).iter().for_each(|case| check(&file, &case["key"], &case["sig"]));
    }
    for file in files(&root.join("ed25519-speccheck"), "json") {
        array(&json(&file)).iter().for_each(|case| check(&file, &case["pub_key"], &case["signature"]));
    }
}

#[test]
fn key_files_are_seeds() {
    const PUBLIC: [&str; 2] = ["PUBLIC KEY", "RSA PUBLIC KEY"];
    const PRIVATE: [&str; 4] =
        ["PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY"];

    let Some(root) = root("key_files_are_seeds") else { return };
    let texts = [seeds("public_key_text"), seeds("private_key_text")];
    let (public, private) = (seeds("public_key_der"), seeds("private_key_der"));
    let lines = seeds("authorized_keys");
    for file in folders_with(&root, "manifest.json").iter().flat_map(|folder| files(folder, "")) {
        let text = read(&file);
        for (labels, seeds) in [(PUBLIC.as_slice(), &public), (PRIVATE.as_slice(), &private)] {
            // The structure after its kind.
            for (kind, label) in (0..).zip(labels) {
                if let Some(body) = block(&text, label) {
                    assert_seed(&file, seeds, [&[kind], body.as_slice()].concat());
                }
            }
        }
        if text.starts_with(b"ssh-") {
            assert_seed(&file, &lines, text.clone());
        }
        texts.iter().for_each(|seeds| assert_seed(&file, seeds, text.clone()));
    }
}

fn seeds(name: &str) -> HashSet<Vec<u8>> {
    let target = TARGETS.into_iter().find(|target| target.name == name).expect("a target");
    (target.seeds)().into_iter().collect()
}

fn assert_seed(file: &Path, seeds: &HashSet<Vec<u8>>, seed: Vec<u8>) {
    let is_one = seed.len() > MAX || seeds.contains(&seed);
    assert!(is_one, "{}: no seed is \"{}\"", file.display(), seed.escape_ascii());
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).expect("a file")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// It, and every value within.
fn within(value: &Value) -> Vec<&Value> {
    let mut values = vec![value];
    match value {
        Value::Array(items) => values.extend(items.iter().flat_map(within)),
        Value::Object(members) => values.extend(members.values().flat_map(within)),
        _ => {}
    }
    values
}

/// Whether a text looks like a compact JWS.
fn is_compact(text: &str) -> bool {
    let is_base64url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.starts_with("ey")
        && text.split('.').count() == 3
        && text.split('.').all(|segment| segment.chars().all(is_base64url))
}

/// So many bytes in hex.
fn hex(value: &Value, len: usize) -> Option<Vec<u8>> {
    value.as_str().filter(|text| text.len() == 2 * len).map(ajwt_vectors::hex)
}

/// The body of a text that is one PEM block and nothing else.
fn block(text: &[u8], label: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let body = text.strip_prefix(&format!("-----BEGIN {label}-----\n"))?;
    let body = body.strip_suffix(&format!("\n-----END {label}-----\n"))?;
    STANDARD.decode(body.replace('\n', "")).ok()
}
