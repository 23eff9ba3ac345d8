//! No token, nonce, password or private key is told by a log at its most talkative level, an error or a
//! `Debug`: every vector, good or bad, goes through everything that reads one, and then all that was told, by
//! our crates and those they use, is searched.

mod corner_cases;
mod keys;
mod secrets;
mod services;
mod tokens;

use std::{
    any,
    collections::{BTreeMap, BTreeSet, HashSet},
    error::Error,
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
};

use ajwt_test_support::Trace;
use corner_cases::CornerCases;
use secrets::Secrets;

/// Who must have told something, or nothing was heard: `log` are records of the crate of that name. hyper
/// itself tells nothing unless it is built with `--cfg hyper_unstable_tracing`.
const HEARD: &[&str] = &["ajwt_jwks", "ajwt_server", "ajwt_sqlx", "hyper_util", "log", "sqlx", "test"];

/// What was seen, and what must not have been.
struct Scene {
    trace: Trace,
    secrets: Secrets,
    /// Texts by who told them, each once.
    seen: BTreeMap<String, HashSet<String>>,
    /// Of logs by us, of errors, and of `Debug` in one line: what may begin a line of its own.
    broken_lines: BTreeSet<String>,
    /// How many texts were seen, each as often as it was told.
    told: usize,
    /// How many inputs were read.
    fed: usize,
}

impl Scene {
    fn new() -> Self {
        Self {
            trace: Trace::start(),
            secrets: Secrets::default(),
            seen: BTreeMap::new(),
            broken_lines: BTreeSet::new(),
            told: 0,
            fed: 0,
        }
    }

    /// What was read of a kind must be told of, and where it holds secrets they must be known: else nothing
    /// was looked for, or at.
    fn fed(&mut self, kind: &str, inputs: usize, secrets: bool, before: (usize, usize)) {
        let (known, told) = self.progress();
        assert!(inputs == 0 || told > before.1, "{inputs} {kind}, and nothing is told of them");
        assert!(
            inputs == 0 || !secrets || known > before.0,
            "{inputs} {kind}, and no secret of them is known"
        );
        self.fed += inputs;
    }

    fn progress(&mut self) -> (usize, usize) {
        self.listen();
        (self.secrets.len(), self.told)
    }

    fn see(&mut self, who: &str, text: String) {
        self.told += 1;
        if let Some(texts) = self.seen.get_mut(who) {
            texts.insert(text);
        } else {
            self.seen.insert(who.to_owned(), HashSet::from([text]));
        }
    }

    fn debug(&mut self, value: &dyn Debug) {
        let line = format!("{value:?}");
        if line.contains(char::is_control) {
            self.broken_lines.insert(line.clone());
        }
        self.see("Debug", line);
        self.see("Debug", format!("{value:#?}"));
    }

    fn error<E: Error>(&mut self, error: &E) {
        if any::type_name::<E>().starts_with("ajwt_") {
            self.debug(error);
        } else {
            // It may hold a backtrace, of many lines.
            self.see("Debug", format!("{error:?}"));
            self.see("Debug", format!("{error:#?}"));
        }
        let error: &dyn Error = error;
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
        assert!(self.fed > 0, "no vector was read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_is_told() {
    let Some(root) = ajwt_vectors::root("nothing_secret_is_told") else { return };
    let cases = CornerCases::read(&root);
    let mut scene = Scene::new();
    keys::read_all(&mut scene, &root);
    tokens::read_all(&mut scene, &root).await;
    tokens::corner_cases(&mut scene, &cases).await;
    services::run(&mut scene, &root, &cases).await;
    scene.finish();
}

/// All files below a folder, in their order.
fn every_file(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a folder entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
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
