//! Every case and sequence of the token corpus through the whole decision path.

#[path = "support/observe.rs"]
mod observe;

use std::sync::Arc;

use ajwt_core::Timestamp;
use ajwt_server::{
    Authenticator, MemoryNonceBackend, MockClock, NonceBackend, NonceError, NonceOutcome, NonceUse,
    RejectionKind, StartRule,
};
use ajwt_vectors::{
    Report, ensure, root,
    tokens::{TokenCorpus, empty_nonces, headers, step_to, time},
};
use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use observe::observe;
use serde_json::Value;

#[test]
fn every_case_and_sequence() {
    run("token_corpus", StartRule::DatedBeforeStart);
}

#[test]
fn every_case_and_sequence_under_the_strict_start_rule() {
    run("token_corpus, strict start rule", StartRule::default());
}

#[test]
fn nothing_that_makes_a_token_is_logged_or_printed() {
    let test = "token_corpus, log";
    let Some(root) = root(test) else { return };
    let mut report = Report::new();
    for corpus in TokenCorpus::all(&root) {
        let corpus = Corpus { corpus, start_rule: StartRule::DatedBeforeStart };
        let cases = corpus.corpus.cases();
        let names: Vec<_> = corpus.corpus.document["users"].as_object().expect("users").keys().collect();
        let ((), seen) = observe(async {
            let mut authenticators = Vec::new();
            for case in cases {
                let now = time(case);
                let clock = MockClock::new(now);
                let authenticator = corpus.authenticator(&clock, now, &case["audience"]);
                let headers = headers(case);
                let outcome =
                    authenticator.authenticate(headers.iter().map(|header| header.as_bytes())).await;
                tracing::trace!(?outcome, "judged");
                authenticators.push(authenticator);
            }
            tracing::trace!(last = ?authenticators.last(), "the end");
        });
        for logged in ["NonceUse {", "Authentication {", "Authenticator {", "not authenticated"] {
            assert!(seen.log.contains(logged), "{logged:?} is not in the log");
        }
        let counted: u64 = seen.counters.values().sum();
        assert_eq!(usize::try_from(counted).expect("few"), cases.len(), "each case is counted once");
        assert!(seen.log.lines().count() > 2 * cases.len(), "the log is short");
        for header in cases.iter().flat_map(headers) {
            for secret in secrets(header).filter(|secret| !names.iter().any(|name| name.contains(secret))) {
                report.case(&secret, || {
                    let line = seen.log.lines().find(|line| line.contains(&secret));
                    ensure!(line.is_none(), "{line:?} has it");
                    Ok(())
                });
            }
        }
    }
    report.finish(test);
}

/// The segments of a token and its nonce, as far as they tell it from other texts.
fn secrets(header: &str) -> impl Iterator<Item = String> {
    let segments: Vec<_> = header.split(['.', ' ']).map(str::to_owned).collect();
    let payload = segments.get(2).and_then(|payload| BASE64_URL_SAFE_NO_PAD.decode(payload).ok());
    let payload = payload.and_then(|payload| serde_json::from_slice::<Value>(&payload).ok());
    let nonce = payload.and_then(|payload| payload["nonce"].as_str().map(str::to_owned));
    let segments = segments.into_iter().filter(|segment| segment.len() >= 16);
    segments.chain(nonce.filter(|nonce| nonce.len() >= 5))
}

fn run(test: &str, start_rule: StartRule) {
    let Some(root) = root(test) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut report = Report::new();
    for corpus in TokenCorpus::all(&root) {
        let corpus = Corpus { corpus, start_rule };
        for case in corpus.corpus.cases() {
            let id = ajwt_vectors::str(case, "id");
            report.case(id, || runtime.block_on(corpus.case(case)));
        }
        for sequence in corpus.corpus.sequences() {
            let id = ajwt_vectors::str(sequence, "id");
            report.case(id, || runtime.block_on(corpus.sequence(sequence)));
        }
    }
    report.finish(test);
}

struct Corpus {
    corpus: TokenCorpus,
    start_rule: StartRule,
}

/// Prints what a backend is told.
#[derive(Debug)]
struct Telling(MemoryNonceBackend);

#[async_trait]
impl NonceBackend for Telling {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        let outcome = self.0.consume(nonce).await;
        tracing::trace!(?nonce, ?outcome, "consumed");
        outcome
    }
}

impl Corpus {
    /// An authenticator with an empty nonce store, which was begun before the clock reached `now`.
    fn authenticator(&self, clock: &MockClock, now: Timestamp, audiences: &Value) -> Authenticator {
        let nonces = Telling(empty_nonces(clock, now).with_start_rule(self.start_rule));
        self.corpus.authenticator(Arc::new(nonces), clock, audiences)
    }

    async fn case(&self, case: &Value) -> Result<(), String> {
        let now = time(case);
        let judged = self.judge_alone(case, now).await;
        judged.check(case)?;
        // "either" still means always the same.
        let again = self.judge_alone(case, now).await;
        ensure!(judged == again, "first {judged:?}, then {again:?}");
        Ok(())
    }

    async fn judge_alone(&self, case: &Value, now: Timestamp) -> Judged {
        let clock = MockClock::new(now);
        let authenticator = self.authenticator(&clock, now, &case["audience"]);
        Judged::of(&authenticator, case).await
    }

    async fn sequence(&self, sequence: &Value) -> Result<(), String> {
        let steps = sequence["steps"].as_array().expect("steps");
        let first = time(&steps[0]);
        let clock = MockClock::new(first);
        let authenticator = self.authenticator(&clock, first, &sequence["audience"]);
        let mut latest = first;
        let mut failures = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            latest = step_to(&clock, time(step), latest);
            let judged = Judged::of(&authenticator, step).await;
            if let Err(failure) = judged.check(step) {
                failures.push(format!("step {number}: {failure}"));
            }
        }
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
enum Judged {
    Accepted(String),
    Rejected(ajwt_server::Reason),
}

impl Judged {
    async fn of(authenticator: &Authenticator, case: &Value) -> Self {
        let headers = headers(case);
        match authenticator.authenticate(headers.iter().map(|header| header.as_bytes())).await {
            Ok(accepted) => Self::Accepted(accepted.user().username().to_owned()),
            Err(rejection) => Self::Rejected(rejection.reason()),
        }
    }

    fn check(&self, case: &Value) -> Result<(), String> {
        let outcome = match self {
            Self::Accepted(_) => "accepted",
            Self::Rejected(reason) => match reason.kind() {
                RejectionKind::NoCredentials => "no-credentials",
                RejectionKind::Refused => "rejected",
                RejectionKind::Unavailable => return Err(format!("{self:?}: the stores are up")),
            },
        };
        let expect = ajwt_vectors::str(case, "expect");
        let is_due = match expect.strip_prefix("policy:").unwrap_or(expect) {
            "accept" => outcome == "accepted",
            "reject" => outcome != "accepted",
            "either" => true,
            other => return Err(format!("{other:?} is no verdict")),
        };
        let why = case["why"].as_str().unwrap_or_default();
        ensure!(is_due, "{self:?}, not {expect} ({why})");
        let finer = case["outcome"].as_str();
        ensure!(finer.is_none_or(|finer| finer == outcome), "{self:?}, not {finer:?} ({why})");
        Ok(())
    }
}
