//! The same bytes at the axum, the actix and the hyper door: status, headers and body agree, and
//! are what the engine says of the same header values.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use ajwt_core::Timestamp;
use ajwt_server::{
    Authenticator, MemoryNonceBackend, MockClock, NonceBackend, NonceError, NonceOutcome, NonceUse,
    testing::{StoreIsDown, TestSigner},
};
use ajwt_vectors::tokens::{TokenCorpus, empty_nonces, headers, step_to, time};
use async_trait::async_trait;
use serde_json::Value;

use crate::{
    doors::{self, Mode, NAMES, three},
    wire::{Response, ask, request},
};

/// Asks all doors; their common answer.
pub(crate) async fn ask_all(addresses: [SocketAddr; 3], request: &[u8]) -> Result<Response, String> {
    let [one, two, three] = addresses.map(|address| ask(address, request));
    let (first, second, third) = tokio::join!(one, two, three);
    for (name, other) in NAMES[1..].iter().zip([second, third]) {
        if first != other {
            return Err(format!("{} answers {first:?},\n      {name} {other:?}", NAMES[0]));
        }
    }
    Ok(first)
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    Accepted,
    /// Another kind of answer than that of a bad token only where anonymous callers pass.
    NoCredentials,
    Refused,
    /// HTTP itself forbids it.
    BadRequest,
}
use Due::{Accepted, BadRequest, NoCredentials, Refused};

/// Header lines in which `TOKEN` stands for a good token of `guido`.
fn cases() -> Vec<(&'static str, Vec<Vec<u8>>, Due)> {
    let lines = |lines: &[&str]| lines.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>();
    let long = |len| format!("Authorization: JWT {}", "a".repeat(len));
    let bearer = format!("Authorization: Bearer {}", "a".repeat(30_000));
    vec![
        ("no header", lines(&[]), NoCredentials),
        ("a good one", lines(&["Authorization: JWT TOKEN"]), Accepted),
        ("a name in lower case", lines(&["authorization: JWT TOKEN"]), Accepted),
        ("a name in upper case", lines(&["AUTHORIZATION: JWT TOKEN"]), Accepted),
        ("a name in both", lines(&["aUtHoRiZaTiOn: JWT TOKEN"]), Accepted),
        ("a scheme in lower case", lines(&["Authorization: jwt TOKEN"]), Accepted),
        ("no space after the colon", lines(&["Authorization:JWT TOKEN"]), Accepted),
        ("space around", lines(&["Authorization: \t  JWT TOKEN \t "]), Accepted),
        ("two spaces", lines(&["Authorization: JWT  TOKEN"]), Refused),
        ("many spaces", lines(&["Authorization: JWT      TOKEN"]), Refused),
        ("a tab", lines(&["Authorization: JWT\tTOKEN"]), NoCredentials),
        ("a space and a tab", lines(&["Authorization: JWT \tTOKEN"]), Refused),
        ("no space", lines(&["Authorization: JWTTOKEN"]), NoCredentials),
        ("the scheme alone", lines(&["Authorization: JWT"]), Refused),
        ("the scheme and a space", lines(&["Authorization: JWT "]), Refused),
        ("a token alone", lines(&["Authorization: TOKEN"]), NoCredentials),
        ("text behind", lines(&["Authorization: JWT TOKEN x"]), Refused),
        ("a parameter behind", lines(&["Authorization: JWT TOKEN, realm=\"x\""]), Refused),
        ("an empty value", lines(&["Authorization:"]), NoCredentials),
        ("a value of spaces", lines(&["Authorization:   \t "]), NoCredentials),
        ("twice the same", lines(&["Authorization: JWT TOKEN", "Authorization: JWT TOKEN"]), Refused),
        ("twice in other case", lines(&["authorization: JWT TOKEN", "AUTHORIZATION: JWT TOKEN"]), Refused),
        ("a good and an empty one", lines(&["Authorization: JWT TOKEN", "Authorization:"]), Refused),
        ("an empty and a good one", lines(&["Authorization:", "Authorization: JWT TOKEN"]), Refused),
        (
            "a good and a foreign one",
            lines(&["Authorization: JWT TOKEN", "Authorization: Bearer x"]),
            Refused,
        ),
        ("two foreign ones", lines(&["Authorization: Bearer x", "Authorization: Bearer x"]), Refused),
        ("apart", lines(&["Authorization: JWT TOKEN", "X-Other: x", "Authorization: JWT TOKEN"]), Refused),
        ("eighty times", vec![b"Authorization: JWT TOKEN".to_vec(); 80], Refused),
        ("joined by a comma", lines(&["Authorization: JWT TOKEN,JWT TOKEN"]), Refused),
        ("joined by comma and space", lines(&["Authorization: JWT TOKEN, JWT TOKEN"]), Refused),
        (
            "a foreign one and a good one, joined",
            lines(&["Authorization: Bearer x, JWT TOKEN"]),
            NoCredentials,
        ),
        ("8 KiB of our scheme", lines(&[&long(8188)]), Refused),
        ("more than 8 KiB", lines(&[&long(8189)]), Refused),
        ("30 KiB", lines(&[&long(30_000)]), Refused),
        ("30 KiB of another scheme", lines(&[&bearer]), NoCredentials),
        (
            "another name",
            lines(&["Proxy-Authorization: JWT TOKEN", "X-Authorization: JWT TOKEN"]),
            NoCredentials,
        ),
        ("text in UTF-8", vec!["Authorization: JWT T\u{f6}KEN".into()], Refused),
        ("a scheme in UTF-8", vec!["Authorization: J\u{174}T TOKEN".into()], NoCredentials),
        ("a byte that is no UTF-8", vec![b"Authorization: JWT \xff\xfe".to_vec()], Refused),
        ("a scheme that is no UTF-8", vec![b"Authorization: \xff TOKEN".to_vec()], NoCredentials),
        ("no-break space", vec![b"Authorization: JWT\xa0TOKEN".to_vec()], NoCredentials),
        ("NUL", vec![b"Authorization: JWT TOKEN\0".to_vec()], BadRequest),
        ("DEL", vec![b"Authorization: JWT TOKEN\x7f".to_vec()], BadRequest),
        ("a control character", vec![b"Authorization: JWT \x01TOKEN".to_vec()], BadRequest),
        ("a space before the colon", lines(&["Authorization : JWT TOKEN"]), BadRequest),
        ("a space in the name", lines(&["Author ization: JWT TOKEN"]), BadRequest),
        ("a folded line", lines(&["Authorization: JWT", " TOKEN"]), BadRequest),
        ("a name in UTF-8", vec!["Authorizati\u{f6}n: JWT TOKEN".into()], BadRequest),
        (
            "gRPC, a good one",
            lines(&["Content-Type: application/grpc", "Authorization: JWT TOKEN"]),
            Accepted,
        ),
        ("gRPC, no header", lines(&["Content-Type: application/grpc"]), NoCredentials),
        (
            "gRPC, a bad one",
            lines(&["content-type: Application/grpc+proto", "Authorization: JWT x"]),
            Refused,
        ),
    ]
}

/// The lines with a token in its place.
fn with_token(lines: &[Vec<u8>], token: &[u8]) -> Vec<Vec<u8>> {
    const PLACE: &[u8] = b"TOKEN";

    let with_token = |line: &Vec<u8>| {
        let mut made = Vec::new();
        let mut rest = line.as_slice();
        while let Some(at) = rest.windows(PLACE.len()).position(|window| window == PLACE) {
            made.extend_from_slice(&rest[..at]);
            made.extend_from_slice(token);
            rest = &rest[at + PLACE.len()..];
        }
        made.extend_from_slice(rest);
        made
    };
    lines.iter().map(with_token).collect()
}

/// What a case's answer must be under a mode.
fn check(
    mode: Mode,
    (method, path): (&str, &str),
    lines: &[Vec<u8>],
    due: &Due,
    answer: &Response,
) -> Result<(), String> {
    // Where a proxy asks, 200 is yes, whatever stands in the headers.
    let is_grpc = mode != Mode::HttpOnly && method == "POST" && names_grpc(lines);
    let anonymous = match due {
        NoCredentials => matches!(mode, Mode::Optional | Mode::BadIsAnonymous),
        Refused => mode == Mode::BadIsAnonymous,
        Accepted | BadRequest => false,
    };
    let (status, start) = match due {
        BadRequest => (400, ""),
        Accepted => (200, "hello, guido with "),
        _ if anonymous && path != "/required" => (200, "hello, stranger\n"),
        _ if is_grpc => (200, ""),
        _ if mode == Mode::ProblemDetails => {
            (401, r#"{"type":"about:blank","title":"Unauthorized","status":401}"#)
        }
        _ if mode == Mode::ShowingReasons => (401, "unauthorized: "),
        _ => (401, "unauthorized\n"),
    };
    let challenge = (status == 401).then_some("JWT");
    let grpc_status = (is_grpc && status == 200 && start.is_empty()).then_some("16");
    let is_due = answer.status == status
        && answer.text().starts_with(start)
        && answer.header("www-authenticate") == challenge
        && answer.header("grpc-status") == grpc_status;
    if is_due { Ok(()) } else { Err(format!("{answer:?}")) }
}

fn names_grpc(lines: &[Vec<u8>]) -> bool {
    lines.first().is_some_and(|line| line.to_ascii_lowercase().starts_with(b"content-type:"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_requests_get_one_answer_at_every_door() {
    let signer = TestSigner::new("guido");
    let mut failures = Vec::new();
    for mode in Mode::ALL {
        let doors = doors::open(three(|| signer.authenticator()), mode, false).await;
        for (what, lines, due) in cases() {
            // gRPC is POST: to all else its content type says nothing.
            let methods: &[_] = if names_grpc(&lines) { &["GET", "POST"] } else { &["GET"] };
            for (method, path) in
                methods.iter().flat_map(|method| ["/", "/required"].map(|path| (*method, path)))
            {
                let token = signer.authorization();
                let lines = with_token(&lines, token.strip_prefix("JWT ").expect("a token").as_bytes());
                let result = ask_all(doors, &request(method, path, &lines)).await;
                let result = result.and_then(|answer| check(mode, (method, path), &lines, &due, &answer));
                if let Err(failure) = result {
                    failures.push(format!("{mode:?}, {method} {path}, {what}: {failure}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n  {}", failures.len(), failures.join("\n  "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_gets_one_answer_at_every_door() {
    let signer = TestSigner::new("guido");
    for mode in Mode::ALL {
        let doors = doors::open(three(|| signer.authenticator_with(StoreIsDown)), mode, false).await;
        let line = format!("Authorization: {}", signer.authorization()).into_bytes();
        let answer = ask_all(doors, &request("GET", "/", &[line])).await.expect("one answer");
        let body = match mode {
            Mode::ProblemDetails => r#"{"type":"about:blank","title":"Service Unavailable","status":503}"#,
            Mode::ShowingReasons => "service unavailable: nonce_store_unavailable\n",
            _ => "service unavailable\n",
        };
        assert_eq!((answer.status, answer.text()), (503, body), "{mode:?}");
        assert_eq!(answer.header("www-authenticate"), None, "{mode:?}");

        let line = format!("Authorization: {}", signer.authorization()).into_bytes();
        let lines = [b"Content-Type: application/grpc".to_vec(), line];
        let answer = ask_all(doors, &request("POST", "/", &lines)).await.expect("one answer");
        let due = if mode == Mode::HttpOnly { (503, body, None) } else { (200, "", Some("14")) };
        assert_eq!((answer.status, answer.text(), answer.header("grpc-status")), due, "{mode:?}");
    }
}

/// A nonce store that can be made anew under an authenticator.
#[derive(Clone, Debug)]
struct Renewable(Arc<Mutex<Arc<MemoryNonceBackend>>>);

#[async_trait]
impl NonceBackend for Renewable {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        let nonces = Arc::clone(&self.0.lock().expect("lock"));
        nonces.consume(nonce).await
    }
}

/// The doors of a corpus for some audiences, and the engine that says what they must answer.
struct Stage {
    clock: MockClock,
    /// Those of the engine and of the doors.
    nonces: [Renewable; 4],
    engine: Authenticator,
    doors: [SocketAddr; 3],
}

impl Stage {
    async fn set(corpus: &TokenCorpus, audiences: &Value) -> Self {
        let clock = MockClock::new(Timestamp::from_secs(0));
        let nonces: [Renewable; 4] = std::array::from_fn(|_| {
            Renewable(Arc::new(Mutex::new(Arc::new(empty_nonces(&clock, Timestamp::from_secs(0))))))
        });
        let [engine, axum, actix, hyper] =
            nonces.clone().map(|nonces| corpus.authenticator(Arc::new(nonces), &clock, audiences));
        let doors = doors::open([axum, actix, hyper], Mode::ShowingReasons, false).await;
        Self { clock, nonces, engine, doors }
    }

    /// Empties the nonce stores, and sets the clock.
    fn begin(&self, now: Timestamp) {
        for nonces in &self.nonces {
            *nonces.0.lock().expect("lock") = Arc::new(empty_nonces(&self.clock, now));
        }
    }

    async fn judge(&self, case: &Value) -> Result<(), String> {
        let headers = headers(case);
        let lines: Vec<_> =
            headers.iter().map(|value| format!("Authorization: {value}").into_bytes()).collect();
        let answer = ask_all(self.doors, &request("GET", "/", &lines)).await?;
        // HTTP takes white space around a value away, and forbids control characters within.
        let values: Vec<_> = headers.iter().map(|value| value.trim_matches([' ', '\t'])).collect();
        if values.iter().any(|value| value.contains(|c: char| c.is_ascii_control() && c != '\t')) {
            return Ok(());
        }
        let due = match self.engine.authenticate(values.iter().map(|value| value.as_bytes())).await {
            Ok(caller) => (200, doors::greeting(Some(&caller))),
            Err(rejection) => (401, format!("unauthorized: {}\n", rejection.reason())),
        };
        if (answer.status, answer.text()) != (due.0, &due.1) {
            return Err(format!("{answer:?}, but {due:?} is due"));
        }
        // Where HTTP changes nothing, the corpus' own verdict stands.
        let expect = ajwt_vectors::str(case, "expect");
        let verdict = expect.strip_prefix("policy:").unwrap_or(expect);
        let is_due = match verdict {
            "accept" => answer.status == 200,
            "reject" => answer.status == 401,
            _ => true,
        };
        if is_due || values != headers { Ok(()) } else { Err(format!("{answer:?}, not {expect}")) }
    }

    async fn sequence(&self, sequence: &Value) -> Result<(), String> {
        let steps = sequence["steps"].as_array().expect("steps");
        let mut latest = time(&steps[0]);
        self.begin(latest);
        for (number, step) in steps.iter().enumerate() {
            latest = step_to(&self.clock, time(step), latest);
            self.judge(step).await.map_err(|failure| format!("step {number}: {failure}"))?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the count of the cases that ran")]
async fn every_case_and_sequence_of_the_token_corpus_gets_one_answer_at_every_door() {
    let test = "parity of the token corpus";
    let Some(root) = ajwt_vectors::root(test) else { return };
    let (mut count, mut failures) = (0, Vec::new());
    for corpus in TokenCorpus::all(&root) {
        let mut stages: Vec<(Value, Stage)> = Vec::new();
        let cases = corpus.cases().iter().map(|case| (case, false));
        for (case, is_sequence) in cases.chain(corpus.sequences().map(|sequence| (sequence, true))) {
            let audiences = &case["audience"];
            if !stages.iter().any(|(found, _)| found == audiences) {
                stages.push((audiences.clone(), Stage::set(&corpus, audiences).await));
            }
            let (_, stage) = stages.iter().find(|(found, _)| found == audiences).expect("a stage");
            let result = if is_sequence {
                stage.sequence(case).await
            } else {
                stage.begin(time(case));
                stage.judge(case).await
            };
            count += 1;
            if let Err(failure) = result {
                failures.push(format!("{}: {failure}", ajwt_vectors::str(case, "id")));
            }
        }
    }
    println!("{test}: {count} cases and sequences");
    assert!(failures.is_empty(), "{} of {count} failed:\n  {}", failures.len(), failures.join("\n  "));
}
