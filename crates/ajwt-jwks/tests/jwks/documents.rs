//! Key sets as endpoints answer them, over HTTP and into the cache.

use std::collections::BTreeSet;

use ajwt_core::{Algorithm, PrivateKey, PublicKey};
use ajwt_vectors::{Report, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    caching::{Cached, changing},
    key,
    server::{ok, set_of, with_headers},
};

const MESSAGE: &[u8] = b"header.payload";

/// What a case came to.
struct Seen {
    /// Whether the key of the set before is still there.
    keeps_the_last: bool,
    failures: u32,
    /// The ids of which a caller of the corpus has the key.
    verifying: BTreeSet<String>,
    /// The ids of which there are keys.
    listed: BTreeSet<String>,
}

#[test]
fn each_document_has_the_effect_due() {
    let Some(root) = ajwt_vectors::root("each_document_has_the_effect_due") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("jwks-docs"), "json") {
        let corpus = ajwt_vectors::json(&file);
        let load =
            |pem: &Value| PrivateKey::from_pem(pem.as_str().expect("a PEM text"), None).expect("a key");
        let signers: Vec<_> = corpus["keys"].as_object().expect("keys by name").values().map(load).collect();
        for case in corpus["cases"].as_array().expect("cases") {
            let run = || check(case, &runtime.block_on(serve(case, &signers)));
            report.case(ajwt_vectors::str(case, "id"), run);
        }
    }
    report.finish("JWK set documents over HTTP");
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

/// Serves a good set, then the case's document.
async fn serve(case: &Value, signers: &[PrivateKey]) -> Seen {
    let last = key();
    let (server, answer) = changing(ok(set_of(&last))).await;
    let cached = Cached::new(&server.url());
    cached.warm_up().await;
    assert!(cached.has(&last).await);
    let content_type = match case["content_type"].as_str() {
        None | Some("") => String::new(),
        Some(content_type) => format!("content-type: {content_type}\r\n"),
    };
    let body = body(case);
    let mut ids: BTreeSet<String> = ids(&body).into_iter().collect();
    *answer.lock().expect("a lock") = with_headers(&content_type, body);
    cached.refresh().await;

    let (mut verifying, mut listed) = (BTreeSet::new(), BTreeSet::new());
    let named = case["usable_kids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    ids.extend(named.map(str::to_owned));
    for kid in ids {
        let found = cached.find(&kid).await;
        if found.iter().any(|key| signers.iter().any(|signer| verifies(key, signer))) {
            verifying.insert(kid.clone());
        }
        if !found.is_empty() {
            listed.insert(kid);
        }
    }
    Seen { keeps_the_last: cached.has(&last).await, failures: cached.state().failures, verifying, listed }
}

/// The texts after each `"kid"`, in a document that need not be JSON.
fn ids(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let after = text.split(r#""kid""#).skip(1);
    after.filter_map(|rest| rest.split('"').nth(1).map(str::to_owned)).collect()
}

fn verifies(key: &PublicKey, signer: &PrivateKey) -> bool {
    let algorithm = match signer.public_key().preferred_algorithm() {
        Algorithm::EdDsa => Algorithm::EdDsa,
        _ => Algorithm::Rs256,
    };
    key.verify(algorithm, MESSAGE, &signer.sign(algorithm, MESSAGE).expect("a signature"))
}

fn check(case: &Value, seen: &Seen) -> Result<(), String> {
    let due: BTreeSet<String> = match &case["usable_kids"] {
        Value::String(verdict) if verdict == "error" => {
            ensure!(seen.failures == 1 && seen.keeps_the_last, "it is a set: {:?}", seen.listed);
            return Ok(());
        }
        Value::String(verdict) if verdict == "either" => return Ok(()),
        Value::Array(kids) => kids.iter().filter_map(Value::as_str).map(Into::into).collect(),
        other => return Err(format!("the corpus says {other}")),
    };
    ensure!(seen.failures == 0, "the fetch failed");
    ensure!(!seen.keeps_the_last, "the set before is still used");
    let no_private = case["no_private"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let no_private: BTreeSet<String> = no_private.map(Into::into).collect();
    let (verifying, listed) = (&seen.verifying, &seen.listed);
    ensure!(due.difference(&no_private).all(|kid| verifying.contains(kid)), "verifying: {verifying:?}");
    ensure!(due.is_subset(listed), "listed: {listed:?}");
    // Which algorithm a key is for is the engine's matter: see the test of the core.
    let is_for_another = |kid: &String| {
        let body = String::from_utf8_lossy(&body(case)).into_owned();
        listed.contains(kid) && (body.contains("RS384") || body.contains("RS512"))
    };
    ensure!(verifying.difference(&due).all(is_for_another), "verifying: {verifying:?}, due: {due:?}");
    Ok(())
}
