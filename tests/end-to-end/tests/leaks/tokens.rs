//! Every token, through the core, the engine, and axum.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use ajwt_axum::AuthLayer;
use ajwt_core::{PrivateKey, PublicKey, Timestamp, UntrustedToken, Validation};
use ajwt_server::{Authenticator, InsecureNoReplayProtection, MemoryRepository, MockClock, User};
use ajwt_vectors::tokens::{TokenCorpus, empty_nonces, headers, step_to, time};
use axum::{Router, body::Body, extract::Request, response::Response};
use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{
    Scene,
    corner_cases::{CornerCases, NOW},
};

/// Reads what the corpus' forgeries hold too.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(crate) async fn read_all(scene: &mut Scene, root: &Path) {
    every_text(scene, root);
    let before = scene.progress();
    let mut count = 0;
    let door = Door::open().await;
    for corpus in TokenCorpus::all(root) {
        for case in corpus.cases() {
            let clock = MockClock::new(Timestamp::from_secs(0));
            door.set(|| {
                let nonces = Arc::new(empty_nonces(&clock, time(case)));
                corpus.authenticator(nonces, &clock, &case["audience"])
            });
            door.ask(scene, &headers(case)).await;
        }
        count += corpus.cases().len();
        for sequence in corpus.sequences() {
            let clock = MockClock::new(Timestamp::from_secs(0));
            let steps = sequence["steps"].as_array().expect("steps");
            let mut latest = time(&steps[0]);
            door.set(|| {
                let nonces = Arc::new(empty_nonces(&clock, latest));
                corpus.authenticator(nonces, &clock, &sequence["audience"])
            });
            for step in steps {
                latest = step_to(&clock, time(step), latest);
                door.ask(scene, &headers(step)).await;
            }
        }
        scene.listen();
    }
    scene.fed("tokens", count, true, before);
}

/// Tokens of corner cases, for a service that knows their key; and the cases as they are, which HTTP would not
/// let through.
pub(crate) async fn corner_cases(scene: &mut Scene, cases: &CornerCases) {
    let before = scene.progress();
    for value in cases.values() {
        scene.secrets.publish(&value);
    }
    let key = PrivateKey::generate_ed25519().expect("a key");
    let user = User::new("guido").with_keys([key.public_key().clone()]);
    let users = Arc::new(MemoryRepository::new([user]));
    let now = Timestamp::from_secs(NOW);
    let clock = MockClock::new(now);
    let tokens = cases.tokens(&key);
    let door = Door::open().await;
    door.set(|| {
        let nonces = InsecureNoReplayProtection;
        let authenticator = Authenticator::builder(Arc::clone(&users) as _, Arc::new(nonces));
        authenticator.clock(Arc::new(clock.clone())).build().expect("an authenticator")
    });
    for token in &tokens {
        let parsed = UntrustedToken::parse(token);
        scene.outcome(&parsed);
        if let Ok(parsed) = parsed {
            scene.outcome(&parsed.verify(key.public_key(), &Validation::default(), now));
        }
        door.ask(scene, &[&format!("JWT {token}")]).await;
    }
    let engine = door.engine.lock().expect("lock").clone().expect("set");
    for text in &cases.texts {
        scene.outcome(&engine.authenticate([text.as_slice()]).await);
        scene.outcome(&engine.authenticate([[b"JWT ", text.as_slice()].concat().as_slice()]).await);
    }
    scene.fed("corner cases of JSON", cases.texts.len(), true, before);
}

/// Each text of each document that may be a token, as the core reads it.
fn every_text(scene: &mut Scene, root: &Path) {
    let mut keys = Vec::new();
    let mut texts = Vec::new();
    for file in crate::every_file(root) {
        // Where the document itself is the vector it need not be JSON.
        if let Ok(document) = serde_json::from_slice(&std::fs::read(&file).expect("a file")) {
            collect(&document, &mut texts, &mut keys);
        }
    }
    for text in texts {
        let token = text.trim_start_matches("JWT ");
        remember(scene, token);
        let parsed = UntrustedToken::parse(token);
        scene.outcome(&parsed);
        let Ok(parsed) = parsed else { continue };
        for key in &keys {
            for time in [1_439_216_312, 1_790_000_000] {
                scene.outcome(&parsed.verify(key, &Validation::default(), Timestamp::from_secs(time)));
            }
        }
    }
}

fn collect(value: &Value, texts: &mut Vec<String>, keys: &mut Vec<PublicKey>) {
    match value {
        Value::Object(members) => members.values().for_each(|member| collect(member, texts, keys)),
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, texts, keys)),
        Value::String(text) if is_like_token(text) => texts.push(text.clone()),
        Value::String(text) if text.starts_with("-----BEGIN PUBLIC KEY") => {
            keys.extend(PublicKey::from_pem(text).ok().filter(|key| !keys.contains(key)));
        }
        _ => {}
    }
}

/// Whether it has the segments of a token, and its header is an object, or begins as one is usually written.
fn is_like_token(text: &str) -> bool {
    let header = text.trim_start_matches("JWT ").split('.').next().unwrap_or_default();
    let header = LENIENT.decode(header).unwrap_or_default();
    let is_object = || serde_json::from_slice(&header).is_ok_and(|header: Value| header.is_object());
    text.matches('.').count() >= 2 && (text.contains("eyJ") || is_object())
}

/// What of a token, or of what looks like one, must not be told: its text, its nonce, its signature.
fn remember(scene: &mut Scene, token: &str) {
    scene.secrets.add(token);
    let mut segments = token.split('.').map(|segment| LENIENT.decode(segment).unwrap_or_default());
    if let Some(Ok(Value::Object(claims))) = segments.nth(1).map(|payload| serde_json::from_slice(&payload))
        && let Some(nonce) = claims.get("nonce").and_then(Value::as_str)
    {
        scene.secrets.add(nonce);
    }
    if let Some(signature) = segments.next() {
        scene.secrets.add_bytes(&signature);
    }
}

/// Who decides now: the engine asked by itself, and another for the door, so that neither uses up what the
/// other is asked.
struct Door {
    engine: Mutex<Option<Authenticator>>,
    behind: Arc<Mutex<Option<Authenticator>>>,
    address: SocketAddr,
}

impl Door {
    async fn open() -> Self {
        let behind = Arc::default();
        let address = open(Arc::clone(&behind)).await;
        Self { engine: Mutex::default(), behind, address }
    }

    fn set(&self, make: impl Fn() -> Authenticator) {
        *self.engine.lock().expect("lock") = Some(make());
        *self.behind.lock().expect("lock") = Some(make());
    }

    async fn ask(&self, scene: &mut Scene, headers: &[&str]) {
        for header in headers {
            remember(scene, header.trim_start_matches("JWT "));
        }
        let engine = self.engine.lock().expect("lock").clone().expect("set");
        scene.outcome(&engine.authenticate(headers.iter().map(|header| header.as_bytes())).await);
        let lines: String = headers.iter().map(|header| format!("Authorization: {header}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{lines}\r\n");
        let mut connection = TcpStream::connect(self.address).await.expect("connected");
        // A server may have answered and closed before it has read everything.
        let _ = connection.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        scene.see("answer", String::from_utf8_lossy(&answer).into_owned());
    }
}

/// An application that logs what it gets.
async fn log_request(request: Request) -> Result<Response, Infallible> {
    tracing::trace!(target: "test", headers = ?request.headers(), ?request, "axum");
    Ok(Response::new(Body::empty()))
}

async fn open(behind: Arc<Mutex<Option<Authenticator>>>) -> SocketAddr {
    let service = service_fn(move |request: Request| {
        let authenticator = behind.lock().expect("lock").clone().expect("set");
        AuthLayer::new(authenticator).layer(service_fn(log_request)).oneshot(request)
    });
    let app = Router::new().fallback_service(service);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}
