//! Inputs to begin with, made of the test vectors where there are any, and of the fixtures.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use ajwt_core::{Algorithm, JwkSet};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    fixed, model,
    targets::{claims, redis},
};

static ROOT: LazyLock<Option<PathBuf>> = LazyLock::new(|| ajwt_vectors::root("the seeds of the vectors"));

/// Texts of keys, with what the private ones are in, and no key is longer.
const MAX_KEY: usize = 16 * 1024;

pub(crate) fn header_values() -> Vec<Vec<u8>> {
    let mut values: Vec<String> = Algorithm::ALL
        .iter()
        .flat_map(|algorithm| {
            ["JWT", "jwt"].map(|scheme| format!("{scheme} {}", fixed::genuine(*algorithm, "nonce")))
        })
        .collect();
    values.extend(
        ["", "JWT", "JWT ", "JWT  a", "Bearer abc", "jWt a.b.c", "JWT a\nJWT a", "JWT\ta"].map(str::to_owned),
    );
    for case in corpus_cases() {
        let headers = case["headers"].as_array().into_iter().flatten().chain(case.get("header"));
        values.push(headers.filter_map(Value::as_str).collect::<Vec<_>>().join("\n"));
    }
    bytes(values)
}

pub(crate) fn tokens() -> Vec<Vec<u8>> {
    let mut tokens: Vec<String> = Algorithm::ALL.iter().map(|one| fixed::genuine(*one, "nonce")).collect();
    let headers = header_values().into_iter().filter_map(|value| String::from_utf8(value).ok());
    tokens.extend(headers.filter_map(|value| value.split_once(' ').map(|(_, token)| token.to_owned())));
    // Of those who make other tokens than ours.
    tokens
        .extend(values().iter().filter_map(Value::as_str).filter(|text| is_compact(text)).map(str::to_owned));
    bytes(tokens)
}

pub(crate) fn claims() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = bytes([
        r#"{"username":"guido","time":1790000000,"nonce":"n","exp":1790000005,"nbf":1790000030,"iat":1790000019}"#,
        r#"{"username":"guido","time":1790000000,"nonce":"n","aud":["a","b"],"sub":{},"iss":[1.5e3,-0,true,null]}"#,
        r#"{"username":"z\u00fcrich\ud83d\udd11","time":-9223372036854775808,"nonce":"\n","aud":"a"}"#,
    ]);
    for token in tokens() {
        let text = String::from_utf8(token).expect("text");
        if let Some([header, payload, _]) = model::segments(&text) {
            seeds.push([header.as_slice(), &[claims::SEPARATOR], &payload].concat());
        }
    }
    for json in json_cases() {
        let start = br#"{"username":"guido","time":1790000000,"nonce":"n","x":"#;
        seeds.push([start, json.as_slice(), b"}"].concat());
        seeds.push(json);
    }
    seeds
}

pub(crate) fn verifications() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        tokens().into_iter().map(|token| [&[0], token.as_slice()].concat()).collect();
    for (key, signature, message) in ed25519_cases() {
        if (key.len(), signature.len()) == (32, 64) {
            seeds.push([&[1], key.as_slice(), &signature, &message].concat());
        }
    }
    seeds.extend((0..4).flat_map(|algorithm| [0, 1].map(|mask| vec![2, algorithm, 0, 7, mask, b'm'])));
    for torsion in 0..64 {
        let mut seed = vec![3];
        seed.extend([torsion + 1; 32]);
        seed.extend([torsion + 65; 32]);
        seed.extend([torsion % 8, torsion / 8, b'm', torsion]);
        seeds.push(seed);
    }
    seeds
}

pub(crate) fn mutations() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for token in 0..4 {
        for kind in 0..15 {
            seeds.extend((0..8).map(|more| vec![0, token, kind, more, more * 31, more, 1, 1]));
        }
        // Every last character of every segment.
        for segment in 0..3 {
            seeds.extend((0..64).map(|character| vec![0, token, 9, 0, segment, character]));
        }
    }
    seeds
}

pub(crate) fn jwk_sets() -> Vec<Vec<u8>> {
    let keys = [&fixed::ED25519, &fixed::RSA].map(|key| key.public_key().clone());
    let mut seeds = bytes(keys.iter().map(|key| key.to_jwk().to_json()));
    seeds.push(JwkSet::of_keys(keys).to_json().into_bytes());
    seeds.extend(bytes([r#"{"keys":[]}"#, r#"{"keys":{}}"#]));
    for case in files_of("jwks-docs").iter().flat_map(|file| members(file, "cases")) {
        match (case["body"].as_str(), case["body_base64"].as_str()) {
            (Some(body), _) => seeds.push(body.as_bytes().to_vec()),
            (None, Some(body)) => seeds.push(STANDARD.decode(body).expect("base64")),
            (None, None) => {}
        }
    }
    for json in json_cases() {
        seeds.push([br#"{"keys":[{"kty":"OKP","kid":"k","x":"#.as_slice(), &json, b"}]}"].concat());
    }
    for value in values() {
        if value.get("keys").is_some_and(Value::is_array) || value.get("kty").is_some() {
            seeds.push(value.to_string().into_bytes());
        }
    }
    // The largest are padding.
    seeds.retain(|seed| seed.len() <= 64 * 1024);
    seeds
}

pub(crate) fn public_keys() -> Vec<Vec<u8>> {
    key_files()
}

pub(crate) fn public_keys_der() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (label, body) in key_files().iter().flat_map(|file| blocks(file)) {
        let kind = u8::from(label == "RSA PUBLIC KEY");
        if label.ends_with("PUBLIC KEY") {
            seeds.push([&[kind], body.as_slice()].concat());
        }
    }
    for line in key_files().iter().flat_map(|file| file.split(|byte| *byte == b'\n')) {
        let line = String::from_utf8_lossy(line);
        let kind = if line.starts_with("ssh-ed25519 ") { 2 } else { 3 };
        let body = line.split(' ').nth(1).filter(|_| line.starts_with("ssh-"));
        if let Some(body) = body.and_then(|body| STANDARD.decode(body).ok()) {
            seeds.push([&[kind], body.as_slice()].concat());
        }
    }
    seeds
}

pub(crate) fn authorized_keys() -> Vec<Vec<u8>> {
    let is_line =
        |file: &Vec<u8>| file.starts_with(b"ssh-") || file.starts_with(b"ecdsa-") || file.starts_with(b"sk-");
    let mut seeds: Vec<Vec<u8>> = key_files().into_iter().filter(is_line).collect();
    let keys = [&fixed::ED25519, &fixed::RSA].map(|key| key.public_key().to_openssh("a comment"));
    seeds.extend(bytes([
        format!("# two\n{}\n\n{}\r\n", keys[0], keys[1]),
        format!("no-pty,from=\"10.0.0.0/8\" {}\n", keys[0]),
        format!("{}\n-----BEGIN PUBLIC KEY-----\n", keys[0]),
    ]));
    seeds
}

pub(crate) fn private_keys() -> Vec<Vec<u8>> {
    key_files()
}

pub(crate) fn private_keys_der() -> Vec<Vec<u8>> {
    const LABELS: [&str; 4] =
        ["PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY"];
    let mut seeds = Vec::new();
    for (label, body) in key_files().iter().flat_map(|file| blocks(file)) {
        if let Some(kind) = LABELS.iter().position(|known| *known == label) {
            seeds.push([&[kind as u8], body.as_slice()].concat());
        }
    }
    seeds
}

pub(crate) fn redis_answers() -> Vec<Vec<u8>> {
    const PROCESS: &str = "5f0e5f0e5f0e5f0e5f0e";
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let whole = bulk(&format!("1789999000000 {PROCESS}"));
    let recent = bulk(&format!("1790000000000 {PROCESS}"));
    let just = bulk(&format!("1789999975000 {PROCESS}"));
    let before = bulk(&format!("1789999974999 {PROCESS}"));
    let another = bulk("1789999000000 0123");
    let resp3 = "%1\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n%1\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n=66\r\ntxt:# Server\r\nredis_mode:standalone\r\nrun_id:5f0e5f0e5f0e5f0e5f0e\r\n\r\n";
    let claims = [
        format!("+OK\r\n{whole}"),
        format!("$-1\r\n{whole}"),
        format!("_\r\n{whole}"),
        format!("+OK\r\n{recent}"),
        format!("+OK\r\n{just}"),
        format!("+OK\r\n{before}"),
        format!("+OK\r\n{another}"),
        format!("+QUEUED\r\n{whole}"),
        format!("$2\r\nOK\r\n{whole}"),
        format!(">2\r\n+message\r\n+OK\r\n+OK\r\n{whole}"),
        format!("|1\r\n+key\r\n:1\r\n+OK\r\n{whole}"),
        "+OK\r\n$-1\r\n".to_owned(),
        "-READONLY You can't write against a read only replica.\r\n$-1\r\n".to_owned(),
        "-MOVED 1 127.0.0.1:7000\r\n-MOVED 1 127.0.0.1:7000\r\n".to_owned(),
        "+OK\r\n-WRONGTYPE Operation against a key\r\n".to_owned(),
        "*2\r\n+OK\r\n:1\r\n:1\r\n".to_owned(),
        "+OK\r\n".to_owned(),
    ];
    let mut seeds = Vec::new();
    for checks in
        ["", redis::GOOD_CHECKS, resp3, "-NOAUTH Authentication required.\r\n", "*0\r\n*0\r\n$-1\r\n"]
    {
        for claim in &claims {
            let parts = [checks.as_bytes(), claim.as_bytes(), recent.as_bytes()];
            seeds.push(parts.join(&redis::SEPARATOR));
        }
    }
    seeds
}

pub(crate) fn urls() -> Vec<Vec<u8>> {
    const URLS: [&str; 40] = [
        "https://a.example/jwks.json",
        "https://a.example:8443/jwks.json?x#y",
        "http://a.example/",
        "HTTPS://A.EXAMPLE/",
        "https://user:secret@a.example/",
        "https://@a.example/",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://0x7f000001/",
        "https://127.0.0.1./",
        "https://127.0.0.1../",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[fe80::1%25eth0]/",
        "https://[2606:4700:4700::1111]/",
        "https://8.8.8.8/",
        "https://8.8.8.8\\@127.0.0.1/",
        "https:\\\\127.0.0.1/",
        "https:127.0.0.1/",
        "https:///127.0.0.1/",
        "https://%31%32%37.0.0.1/",
        "https://\u{ff11}27.0.0.1/",
        "https://127\u{3002}0\u{3002}0\u{3002}1/",
        "https://\u{2460}\u{2461}\u{2466}.0.0.1/",
        "https://a\tb.example/",
        " https://127.0.0.1/ ",
        "https://xn--a.example/",
        "https://a_b.example/",
        "https://a.example:0/",
        "file:///etc/passwd",
        "https://",
    ];
    const ADDRESSES: [[u8; 4]; 4] = [[127, 0, 0, 1], [10, 0, 0, 1], [169, 254, 169, 254], [8, 8, 8, 8]];
    let mut seeds = Vec::new();
    for (at, url) in URLS.iter().enumerate() {
        for kind in [0, 1, 2, 4] {
            let address = ADDRESSES[(at + usize::from(kind)) % ADDRESSES.len()];
            seeds.push([&[0, 0, kind], address.as_slice(), url.as_bytes()].concat());
        }
    }
    for first in [
        [0x20, 0x01, 0, 0],
        [0x20, 0x01, 0x0d, 0xb8],
        [0x20, 0x02, 0x7f, 0],
        [0xfd, 0, 0, 1],
        [0xfe, 0x80, 0, 0],
    ] {
        seeds.push([&[0, 0, 3], first.as_slice(), &[0; 12], b"https://a.example/"].concat());
    }
    seeds
}

fn bytes<T: Into<Vec<u8>>>(texts: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    texts.into_iter().map(Into::into).collect()
}

/// Every case and step of the token corpora.
fn corpus_cases() -> Vec<Value> {
    let mut cases = Vec::new();
    for file in files_of("ajwt-tokens") {
        cases.extend(members(&file, "cases"));
        cases.extend(members(&file, "sequences").iter().flat_map(|sequence| {
            sequence["steps"].as_array().into_iter().flatten().cloned().collect::<Vec<_>>()
        }));
    }
    cases
}

/// Every value within every JSON file of the vectors, but for texts that are no JSON.
fn values() -> Vec<Value> {
    fn add(value: Value, values: &mut Vec<Value>) {
        match &value {
            Value::Array(items) => items.iter().for_each(|item| add(item.clone(), values)),
            Value::Object(members) => members.values().for_each(|member| add(member.clone(), values)),
            _ => {}
        }
        values.push(value);
    }

    let mut values = Vec::new();
    for folder in ROOT.iter().flat_map(|root| ajwt_vectors::folders(root)) {
        for file in ajwt_vectors::files(&folder, "json") {
            if let Ok(value) = serde_json::from_slice(&fs::read(file).expect("a file")) {
                add(value, &mut values);
            }
        }
    }
    values
}

/// Whether a text looks like a compact JWS.
fn is_compact(text: &str) -> bool {
    let is_segment = |segment: &str| {
        segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= 8192
        && text.starts_with("ey")
        && text.split('.').count() == 3
        && text.split('.').all(is_segment)
}

/// Texts of JSON at the edges.
fn json_cases() -> Vec<Vec<u8>> {
    let folders = ROOT.iter().flat_map(|root| {
        ["test_parsing", "test_transform"].map(|folder| root.join("jsontestsuite").join(folder))
    });
    let mut cases: Vec<Vec<u8>> = folders.flat_map(|folder| contents(&folder)).collect();
    cases.retain(|case| case.len() <= 4096);
    cases
}

/// Key, signature and message of every Ed25519 case of the vectors.
fn ed25519_cases() -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut cases = Vec::new();
    let hex = |value: &Value| value.as_str().filter(|text| text.len() % 2 == 0).map(ajwt_vectors::hex);
    for file in files_of("wycheproof") {
        for group in members(&file, "testGroups") {
            for test in group["tests"].as_array().into_iter().flatten() {
                let parts = (hex(&group["publicKey"]["pk"]), hex(&test["sig"]), hex(&test["msg"]));
                if let (Some(key), Some(signature), Some(message)) = parts {
                    cases.push((key, signature, message));
                }
            }
        }
    }
    for file in files_of("cctv-ed25519").iter().chain(&files_of("ed25519-speccheck")) {
        for case in ajwt_vectors::json(file).as_array().into_iter().flatten() {
            let signature = case.get("sig").or(case.get("signature")).and_then(hex);
            let key = case.get("key").or(case.get("pub_key")).and_then(hex);
            let message = match (case["msg"].as_str(), case.get("message").and_then(hex)) {
                (Some(text), _) => Some(text.as_bytes().to_vec()),
                (None, message) => message,
            };
            if let (Some(key), Some(signature), Some(message)) = (key, signature, message) {
                cases.push((key, signature, message));
            }
        }
    }
    cases
}

/// Every file of the fixtures and of the folders of keys.
fn key_files() -> Vec<Vec<u8>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/ajwt-core/tests/fixtures");
    let folders = ROOT.iter().flat_map(|root| ajwt_vectors::folders_with(root, "manifest.json"));
    let mut files: Vec<Vec<u8>> =
        [fixtures].into_iter().chain(folders).flat_map(|folder| contents(&folder)).collect();
    files.retain(|file| file.len() <= MAX_KEY);
    files
}

/// Labels and bodies of the PEM blocks of a text.
fn blocks(text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = String::from_utf8_lossy(text);
    let mut blocks = Vec::new();
    let mut rest = text.as_ref();
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((label, after)) = after.split_once("-----") else { break };
        let Some((body, after)) = after.split_once("-----END ") else { break };
        let body: String = body.lines().filter(|line| !line.contains(':')).collect();
        if let Ok(body) = STANDARD.decode(body.replace([' ', '\r'], "")) {
            blocks.push((label.to_owned(), body));
        }
        rest = after;
    }
    blocks
}

fn contents(folder: &Path) -> Vec<Vec<u8>> {
    ajwt_vectors::files(folder, "").iter().map(|file| fs::read(file).expect("a file")).collect()
}

/// The JSON files of a folder of the vectors.
fn files_of(folder: &str) -> Vec<PathBuf> {
    ROOT.iter().flat_map(|root| ajwt_vectors::files(&root.join(folder), "json")).collect()
}

fn members(file: &Path, member: &str) -> Vec<Value> {
    ajwt_vectors::json(file)[member].as_array().cloned().unwrap_or_default()
}
