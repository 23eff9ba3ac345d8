//! No token, nonce, password or private key is told by a log at its most talkative level, an error or a
//! `Debug`: every vector, good or bad, goes through everything that reads one, and then all that was told, by
//! our crates and those they use, is searched.

mod keys;
mod secrets;
mod services;
mod tokens;
#[path = "../support/trace.rs"]
mod trace;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    error::Error,
    fmt::Debug,
};

use secrets::Secrets;
use trace::Trace;

/// Who must have told something, or nothing was heard: `log` are records of the crate of that name. hyper
/// itself tells nothing unless it is built with `--cfg hyper_unstable_tracing`.
const HEARD: &[&str] = &["ajwt_server", "ajwt_sqlx", "hyper_util", "log", "sqlx", "test"];

/// What was seen, and what must not have been.
struct Scene {
    trace: Trace,
    secrets: Secrets,
    /// Texts by who told them, each once.
    seen: BTreeMap<String, HashSet<String>>,
    /// Of logs by us and of errors: what may begin a line of its own.
    broken_lines: BTreeSet<String>,
}

impl Scene {
    fn new() -> Self {
        Self {
            trace: Trace::start(),
            secrets: Secrets::default(),
            seen: BTreeMap::new(),
            broken_lines: BTreeSet::new(),
        }
    }

    fn see(&mut self, who: &str, text: String) {
        if let Some(texts) = self.seen.get_mut(who) {
            texts.insert(text);
        } else {
            self.seen.insert(who.to_owned(), HashSet::from([text]));
        }
    }

    fn debug(&mut self, value: &dyn Debug) {
        self.see("Debug", format!("{value:?}"));
        self.see("Debug", format!("{value:#?}"));
    }

    fn error(&mut self, error: &dyn Error) {
        self.debug(&error);
        for error in std::iter::successors(Some(error), |error| (**error).source()) {
            let text = error.to_string();
            if text.contains(char::is_control) {
                self.broken_lines.insert(text.clone());
            }
            self.see("Display", text);
        }
    }

    fn outcome<T: Debug, E: Error>(&mut self, result: &Result<T, E>) {
        match result {
            Ok(value) => self.debug(value),
            Err(error) => self.error(error),
        }
    }

    /// What was told since the last call.
    fn listen(&mut self) {
        for told in self.trace.take() {
            for (_, value) in told.fields {
                if told.target.starts_with("ajwt") && value.contains(char::is_control) {
                    self.broken_lines.insert(value.clone());
                }
                self.see(&told.target, value);
            }
        }
    }

    fn finish(&mut self) {
        self.listen();
        for crate_name in HEARD {
            let heard = |target: &String| target.split("::").next() == Some(crate_name);
            assert!(self.seen.keys().any(heard), "nothing of {crate_name}, but of {:?}", self.seen.keys());
        }
        let mut leaks = Vec::new();
        for (who, texts) in &self.seen {
            for text in texts {
                if let Some(found) = self.secrets.find(text) {
                    leaks.push(format!("{who} tells {found:?} in {:.300?}", text));
                }
            }
        }
        leaks.sort();
        let count = self.seen.values().map(HashSet::len).sum::<usize>();
        assert!(leaks.is_empty(), "{} of {count} texts leak:\n{}", leaks.len(), leaks.join("\n"));
        assert!(
            self.broken_lines.is_empty(),
            "line ends and other control characters: {:#?}",
            self.broken_lines
        );
        assert!(self.secrets.len() > 10_000 && count > 500, "{} secrets, {count} texts", self.secrets.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_is_told() {
    let Some(root) = ajwt_vectors::root("nothing_secret_is_told") else { return };
    let mut scene = Scene::new();
    keys::read_all(&mut scene, &root);
    tokens::read_all(&mut scene, &root).await;
    services::run(&mut scene, &root).await;
    scene.finish();
}

/// A test that finds nothing must be able to find something.
#[test]
fn what_is_told_is_found() {
    let mut secrets = Secrets::default();
    let token = "eyJhbGciOiJFZERTQSJ9.eyJ1c2VybmFtZSI6Imd1aWRvIn0.c2lnbmF0dXJl";
    let seed: Vec<u8> = (0..32_u8).map(|number| number.wrapping_mul(37)).collect();
    secrets.add(token);
    secrets.add("n0nce-1234");
    secrets.add_bytes(&seed);
    let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &seed);
    for told in [
        format!("a request with JWT {token}"),
        format!("cut to {}", &token[..20]),
        format!("of a line {}", &token[30..50]),
        "nonce n0nce-1234 was used".to_owned(),
        format!("{seed:?}"),
        format!("[7, {}", &format!("{:?}", &seed[10..24])[1..]),
        format!("seed: {}", base64),
        format!("{:02x?}", seed).replace(", ", ""),
    ] {
        assert!(secrets.find(&told).is_some(), "{told}");
    }
    for told in ["", "JWT", "a request of guido was refused: bad_signature", "[0, 0, 0, 0, 0, 0, 0, 0]"] {
        assert_eq!(secrets.find(told), None);
    }
}
