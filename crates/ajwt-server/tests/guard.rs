//! The guard: who passes, and what the others are told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ajwt_core::Timestamp;
use ajwt_server::{
    Answer, AnswerFormat, Authenticator, Checked, Clock as _, Guard, MemoryNonceBackend, MemoryRepository,
    MockClock, Reason, RejectionBody, SystemClock, User, problem_details,
    testing::{StoreIsDown, TestSigner},
};

async fn check(guard: &Guard, authorization: &[&str]) -> Result<Checked, Answer> {
    guard.check(authorization.iter().map(|value| value.as_bytes()), AnswerFormat::Http, None).await
}

async fn refused(guard: &Guard, authorization: &[&str]) -> Answer {
    check(guard, authorization).await.expect_err("an answer")
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|header| header.0 == name).map(|header| &*header.1)
}

/// Refused for different reasons, each of them with status 401.
fn bad(signer: &TestSigner) -> [Vec<String>; 5] {
    let stranger = TestSigner::new("nobody");
    [
        vec![],
        vec!["Bearer abc".into()],
        vec!["JWT abc".into()],
        vec![stranger.authorization()],
        vec![signer.authorization(), signer.authorization()],
    ]
}

#[tokio::test]
async fn each_mode_lets_through_what_it_says() {
    let signer = TestSigner::new("guido");
    let required = Guard::new(signer.authenticator());
    let optional = required.clone().optional();
    let lenient = required.clone().bad_credentials_are_anonymous();
    for guard in [&required, &optional, &lenient] {
        let checked = check(guard, &[&signer.authorization()]).await.expect("checked");
        assert_eq!(checked.caller().expect("a caller").user().username(), "guido");
    }
    let optional_at_last = lenient.clone().optional();
    let lenient_at_last = optional.clone().bad_credentials_are_anonymous();
    for (guard, absent, bad) in [
        (&required, false, false),
        (&optional, true, false),
        (&lenient, true, true),
        (&optional_at_last, true, false),
        (&lenient_at_last, true, true),
    ] {
        for (authorization, passes) in
            [(&[][..], absent), (&["Bearer x"], absent), (&["JWT x"], bad), (&["JWT x", "JWT x"], bad)]
        {
            match check(guard, authorization).await {
                Ok(checked) => assert!(passes && checked.caller().is_none(), "{guard:?} {authorization:?}"),
                Err(answer) => assert!(!passes && answer.status == 401, "{guard:?} {authorization:?}"),
            }
        }
    }
    let down = Guard::new(signer.authenticator_with(StoreIsDown));
    for guard in [down.clone(), down.clone().optional(), down.bad_credentials_are_anonymous()] {
        assert_eq!(refused(&guard, &[&signer.authorization()]).await.status, 503);
    }
}

/// Else what it took would show whether the name is known.
#[tokio::test]
async fn a_bad_token_that_passes_as_anonymous_waits_for_its_quantum_too() {
    let (signer, quantum) = (TestSigner::new("guido"), Duration::from_millis(200));
    let users = Arc::new(MemoryRepository::new([User::new("guido")]));
    let nonces = Arc::new(MemoryNonceBackend::default());
    let authenticator =
        Authenticator::builder(users, nonces).refusal_quantum(quantum).build().expect("built");
    let lenient = Guard::new(authenticator).bad_credentials_are_anonymous();
    let clock = SystemClock::new();
    for (token, due) in [(Some(signer.authorization()), quantum), (None, Duration::ZERO)] {
        let begun = clock.monotonic();
        let token: Vec<_> = token.as_deref().into_iter().collect();
        assert!(check(&lenient, &token).await.expect("anonymous").caller().is_none());
        let taken = clock.monotonic() - begun;
        assert!(taken >= due && (taken < quantum) == due.is_zero(), "{token:?}: {taken:?}");
    }
}

#[tokio::test]
async fn a_handler_that_needs_a_caller_refuses_as_the_guard_does() {
    let signer = TestSigner::new("guido");
    let guard = Guard::new(signer.authenticator()).rejection_body(problem_details);
    let anonymous = check(&guard.clone().optional(), &[]).await.expect("anonymous");
    assert_eq!(anonymous.refusal(), refused(&guard, &[]).await);
    let anonymous = guard.clone().optional().check([], AnswerFormat::Grpc, None).await.expect("anonymous");
    assert_eq!(header(&anonymous.refusal(), "grpc-status"), Some("16"));
    // Whoever has reasons shown is told the one of this request.
    let guard = guard.insecure_show_reasons();
    let lenient = guard.clone().bad_credentials_are_anonymous();
    let replayed = signer.authorization();
    check(&guard, &[&replayed]).await.expect("checked");
    for (authorization, reason) in
        [(&[][..], "no_credentials"), (&["JWT x"], "malformed_token"), (&[&*replayed], "replayed")]
    {
        let anonymous = check(&lenient, authorization).await.expect("anonymous");
        assert!(anonymous.refusal().body.contains(reason), "{:?}", anonymous.refusal());
        assert_eq!(anonymous.refusal(), refused(&guard, authorization).await);
    }
}

#[tokio::test]
async fn what_an_outer_guard_left_counts_if_it_is_of_the_same_authenticator() {
    let signer = TestSigner::new("guido");
    let outer = Guard::new(signer.authenticator()).optional();
    let token = signer.authorization();
    let checked = check(&outer, &[&token]).await.expect("checked");
    let again = |guard: Guard, earlier: Checked| {
        let token = token.clone();
        async move { guard.check([token.as_bytes()], AnswerFormat::Http, Some(earlier)).await }
    };
    assert!(again(outer.clone(), checked.clone()).await.expect("checked").caller().is_some());
    // Another authenticator judges for itself, and here it knows nobody of that key.
    let other = Guard::new(TestSigner::new("guido").authenticator());
    assert_eq!(again(other, checked).await.expect_err("an answer").status, 401);
    // An anonymous one is not taken for granted.
    let anonymous = check(&outer, &[]).await.expect("anonymous");
    assert_eq!(again(outer, anonymous).await.expect_err("an answer").status, 401);
}

#[tokio::test]
async fn a_body_of_the_applications_own_is_the_same_for_all_refusals() {
    let signer = TestSigner::new("guido");
    // It tries to tell rejections apart by the order of its calls.
    let calls = AtomicU64::new(0);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let guard = Guard::new(signer.authenticator()).rejection_body(move |rejection| {
        told.lock().expect("lock").push(rejection);
        let call = calls.fetch_add(1, Ordering::SeqCst);
        RejectionBody::json(format!("[{call},{},\"{}\"]", rejection.status(), rejection.title()))
    });
    // Other options have no body written anew.
    let guard = guard.http_answers_only();
    let mut answers = Vec::new();
    for authorization in bad(&signer) {
        let authorization: Vec<_> = authorization.iter().map(String::as_str).collect();
        answers.push(refused(&guard, &authorization).await);
    }
    assert_eq!(&*answers[0].body, "[0,401,\"Unauthorized\"]");
    assert_eq!(header(&answers[0], "content-type"), Some("application/json"));
    assert_eq!(header(&answers[0], "www-authenticate"), Some("JWT"));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let seen = seen.lock().expect("lock");
    assert!(seen.iter().all(|rejection| rejection.reason().is_none()), "{seen:?}");
    assert_eq!(seen.iter().map(|rejection| rejection.status()).collect::<Vec<_>>(), [401, 503]);
}

#[tokio::test]
async fn reasons_are_shown_where_the_operator_asks_for_them() {
    let signer = TestSigner::new("guido");
    let plain = Guard::new(signer.authenticator());
    for (guard, due) in [
        (plain.clone(), "unauthorized\n"),
        (plain.clone().insecure_show_reasons(), "unauthorized: unknown_user\n"),
        (
            plain.clone().rejection_body(problem_details),
            r#"{"type":"about:blank","title":"Unauthorized","status":401}"#,
        ),
        // In either order.
        (
            plain.clone().insecure_show_reasons().rejection_body(problem_details),
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"reason":"unknown_user"}"#,
        ),
        (
            plain.clone().rejection_body(problem_details).insecure_show_reasons(),
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"reason":"unknown_user"}"#,
        ),
    ] {
        let answer = refused(&guard, &[&TestSigner::new("nobody").authorization()]).await;
        assert_eq!(&*answer.body, due);
        assert_eq!(answer.status, 401);
    }
    let down = Guard::new(signer.authenticator_with(StoreIsDown)).rejection_body(problem_details);
    let answer = refused(&down, &[&signer.authorization()]).await;
    assert_eq!(&*answer.body, r#"{"type":"about:blank","title":"Service Unavailable","status":503}"#);
    assert_eq!(header(&answer, "content-type"), Some("application/problem+json"));
    assert_eq!(header(&answer, "www-authenticate"), None);
}

#[tokio::test]
async fn grpc_is_answered_in_its_headers_alone() {
    let signer = TestSigner::new("guido");
    let working = Guard::new(signer.authenticator()).rejection_body(problem_details).insecure_show_reasons();
    let down = Guard::new(signer.authenticator_with(StoreIsDown));
    for (guard, status, message) in [(working, "16", "unauthorized"), (down, "14", "service unavailable")] {
        let tokens = [signer.authorization(), signer.authorization()];
        let tokens = if status == "16" { &tokens[..] } else { &tokens[..1] };
        let checked =
            guard.check(tokens.iter().map(|token| token.as_bytes()), AnswerFormat::Grpc, None).await;
        let answer = checked.expect_err("an answer");
        let headers: Vec<_> = answer.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let due = [("content-type", "application/grpc"), ("grpc-status", status), ("grpc-message", message)];
        assert_eq!(headers, due);
        assert_eq!((answer.status, &*answer.body), (200, ""));
    }
}

/// A proxy that asks takes a 200 of gRPC for yes.
#[tokio::test]
async fn a_guard_may_answer_in_http_only() {
    let signer = TestSigner::new("guido");
    let working = Guard::new(signer.authenticator()).http_answers_only();
    let down = Guard::new(signer.authenticator_with(StoreIsDown)).http_answers_only();
    let token = signer.authorization();
    for (guard, authorization, status) in
        [(&working, None, 401), (&working, Some("JWT x"), 401), (&down, Some(&*token), 503)]
    {
        let values = authorization.into_iter().map(str::as_bytes);
        let answer = guard.check(values, AnswerFormat::Grpc, None).await.expect_err("an answer");
        assert_eq!((answer.status, header(&answer, "grpc-status")), (status, None));
    }
    // Of a handler that needs a caller, too.
    let anonymous = working.optional().check([], AnswerFormat::Grpc, None).await.expect("anonymous");
    assert_eq!(anonymous.refusal().status, 401);
}

async fn judge(authenticator: &Authenticator, token: String) -> Result<(), Reason> {
    let outcome = authenticator.authenticate([token.as_bytes()]).await;
    outcome.map(drop).map_err(|rejection| rejection.reason())
}

#[tokio::test]
async fn a_test_signer_may_name_an_audience_and_a_scheme() {
    let signer = TestSigner::new("guido").with_audience("reports").with_scheme("Service");
    let authenticator = signer.authenticator();
    let token = signer.authorization();
    assert!(token.starts_with("Service "), "{token}");
    assert_eq!(judge(&authenticator, token).await, Ok(()));
    let other_scheme = signer.authorization().replacen("Service", "JWT", 1);
    assert_eq!(judge(&authenticator, other_scheme).await, Err(Reason::NoCredentials));

    let users = Arc::new(MemoryRepository::new([signer.user()]));
    let nonces = Arc::new(MemoryNonceBackend::default());
    let without_audience =
        Authenticator::builder(users, nonces).scheme("Service").build().expect("an authenticator");
    assert_eq!(judge(&without_audience, signer.authorization()).await, Err(Reason::WrongAudience));
}

/// As the docs of `MockClock` say.
#[tokio::test]
async fn a_test_signer_dates_tokens_by_the_clock_of_the_test() {
    let clock = MockClock::new(Timestamp::from_secs(1_700_000_000));
    let signer = TestSigner::new("guido");
    let beside = |nonces: MemoryNonceBackend| {
        let users = Arc::new(MemoryRepository::new([signer.user()]));
        let builder = Authenticator::builder(users, Arc::new(nonces)).clock(Arc::new(clock.clone()));
        builder.build().expect("an authenticator")
    };
    let authenticator = beside(MemoryNonceBackend::with_clock(1000, Arc::new(clock.clone())));
    assert_eq!(judge(&authenticator, signer.authorization_at(clock.now())).await, Ok(()));
    assert_eq!(judge(&authenticator, signer.authorization()).await, Err(Reason::OutsideWindow));
    let apart = beside(MemoryNonceBackend::default());
    let token = signer.authorization_at(clock.now());
    assert_eq!(judge(&apart, token).await, Err(Reason::NonceStoreStarting));
}
