//! Every key file and every JWK, read in each way in which it may come, also in pieces and in the wrong place.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use ajwt_client::{KeyFile, RequestSigner};
use ajwt_core::{Claims, JwkSet, Nonce, PrivateKey, PublicKey, Timestamp, Token, Username};
use ajwt_server::NewKey;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::Scene;

pub(crate) fn read_all(scene: &mut Scene, root: &Path) {
    let before = scene.progress();
    let folder = tempfile::tempdir().expect("a folder");
    let passwords = passwords(root);
    for file in crate::every_file(root) {
        let text = fs::read(&file).expect("a file");
        match serde_json::from_slice(&text) {
            Ok(document) => json(scene, &document),
            Err(_) => {
                let password = passwords.get(&file).map(String::as_str);
                key(scene, &text, password, &folder.path().join("key"));
            }
        }
    }
    let folders = ajwt_vectors::folders_with(root, "manifest.json");
    let files = folders.iter().flat_map(|folder| ajwt_vectors::files(folder, ""));
    let private = files.filter(|file| is_private(&fs::read(file).expect("a file"))).count();
    scene.fed("private keys", private, true, before);
}

/// By the files that they are for.
fn passwords(root: &Path) -> HashMap<PathBuf, String> {
    let mut passwords = HashMap::new();
    for folder in ajwt_vectors::folders_with(root, "manifest.json") {
        let manifest = ajwt_vectors::json(&folder.join("manifest.json"));
        let entries = manifest.as_array().into_iter().flatten();
        let password =
            |entry: &Value| Some((folder.join(entry["file"].as_str()?), entry["password"].as_str()?.into()));
        passwords.extend(entries.filter_map(password));
    }
    passwords
}

fn is_private(text: &[u8]) -> bool {
    text.windows(11).any(|window| window == b"PRIVATE KEY")
}

/// A file of whatever kind, as each kind.
fn key(scene: &mut Scene, text: &[u8], password: Option<&str>, copy: &Path) {
    let is_private = is_private(text);
    if is_private {
        // Neither the label nor the headers of an encrypted file.
        let is_body = |line: &&str| !line.starts_with("-----") && !line.contains(':');
        for line in String::from_utf8_lossy(text).lines().filter(is_body) {
            scene.secrets.add(line.trim());
            // One line alone, where somebody pasted too little.
            scene.outcome(&PublicKey::from_text(line));
            scene.outcome(&NewKey::from_authorized_keys(line));
        }
    }
    if !is_private
        && let Ok(keys) =
            NewKey::from_authorized_keys(text).or_else(|_| NewKey::from_text(text).map(|key| vec![key]))
    {
        keys.iter().for_each(|key| scene.secrets.publish(key.text()));
    }
    if let Some(password) = password {
        scene.secrets.add(password);
    }
    scene.outcome(&PublicKey::from_text(text));
    scene.outcome(&PublicKey::from_pem(text));
    scene.outcome(&PublicKey::from_openssh(text));
    scene.outcome(&PublicKey::from_jwk(text));
    scene.outcome(&JwkSet::from_json(text));
    scene.outcome(&NewKey::from_text(text));
    scene.outcome(&NewKey::from_authorized_keys(text));
    let loaded = PrivateKey::from_pem(text, password.map(str::as_bytes));
    scene.outcome(&loaded);
    if let Ok(key) = loaded {
        use_key(scene, key);
    }
    if password.is_some() {
        scene.outcome(&PrivateKey::from_pem(text, None));
        scene.outcome(&PrivateKey::from_pem(text, Some(b"a wrong password")));
    }
    fs::write(copy, text).expect("written");
    let file = KeyFile::new(copy).allow_open_permissions();
    scene.outcome(&file.read());
    scene.debug(&file.password(password.unwrap_or_default().as_bytes()));
}

/// What is made of a key, and what makes use of it.
fn use_key(scene: &mut Scene, key: PrivateKey) {
    let public = key.public_key();
    scene.secrets.publish(&public.to_pem());
    scene.secrets.publish(&public.to_openssh(""));
    let pem = key.to_pem().expect("PEM");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(base64).expect("base64");
    // An Ed25519 key ends in its seed; an RSA key in its primes and what is made of them.
    let private = if der.len() < 100 { 32 } else { 128 };
    scene.secrets.add_bytes(&der[der.len() - private..]);
    let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
    let claims = Claims::new(Username::new("guido").expect("a name"), Timestamp::from_secs(0), nonce);
    let token = Token::sign(&claims, &key).expect("signed");
    scene.secrets.add(token.as_str());
    scene.secrets.add(claims.nonce().as_str());
    scene.debug(&claims);
    scene.debug(&token);
    scene.debug(&key);
    let signer = RequestSigner::new("guido", key).expect("a signer");
    let header = signer.authorization().expect("signed");
    scene.secrets.add(header.to_str().expect("ASCII"));
    scene.debug(&signer);
    scene.debug(&signer.keys());
    scene.debug(&header);
}

/// Members of a JWK that are private (RFC 7518 section 6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Whatever a document holds: JWKs, sets, PEM texts, and documents in texts.
pub(crate) fn json(scene: &mut Scene, value: &Value) {
    match value {
        Value::Object(members) => {
            if members.contains_key("kty") || members.contains_key("keys") {
                for secret in PRIVATE.iter().filter_map(|name| members.get(*name)?.as_str()) {
                    scene.secrets.add(secret);
                }
                let text = value.to_string();
                scene.outcome(&PublicKey::from_jwk(&text));
                scene.outcome(&JwkSet::from_json(&text));
                scene.outcome(&JwkSet::from_json(format!(r#"{{"keys":[{text}]}}"#)));
                scene.outcome(&PublicKey::from_text(&text));
                scene.outcome(&PrivateKey::from_pem(text.as_bytes(), None));
            }
            members.values().for_each(|member| json(scene, member));
        }
        Value::Array(elements) => elements.iter().for_each(|element| json(scene, element)),
        Value::String(text) if text.contains("-----BEGIN") && text.contains("PRIVATE KEY") => {
            for line in text.lines().filter(|line| !line.starts_with("-----")) {
                scene.secrets.add(line);
            }
            scene.outcome(&PublicKey::from_text(text));
            scene.outcome(&PrivateKey::from_pem(text.as_bytes(), None));
        }
        Value::String(text) if text.contains("-----BEGIN") => scene.secrets.publish(text),
        Value::String(text) if text.starts_with('{') => {
            scene.outcome(&PublicKey::from_jwk(text));
            scene.outcome(&JwkSet::from_json(text));
            if let Ok(document) = serde_json::from_str(text) {
                json(scene, &document);
            }
        }
        _ => {}
    }
}
