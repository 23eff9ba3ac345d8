//! What acceptance allocates, so that no allocation comes back unseen.

use std::{sync::Arc, time::Duration};

use ajwt_core::{
    Claims, JwkSet, MAX_JWK_SET_LEN, Nonce, PrivateKey, Token, UntrustedToken, Username, Validation,
};
use ajwt_server::{
    Authenticator, Clock as _, MemoryNonceBackend, MemoryRepository, MockClock, SystemClock, User,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};

/// The three segments decoded (1); `kid`, and what shares the claims with the token (2), in which names and nonces of up
/// to 23 bytes have a place, and an audience too; a future for each of user, keys and nonce, which traits that are held
/// as `dyn` return in boxes (3).
const ALLOCATIONS: u64 = 6;

#[test]
fn acceptance_allocates_what_it_must() {
    assert_eq!(allocations_of_acceptance(None), ALLOCATIONS);
}

#[test]
fn an_audience_of_usual_length_costs_no_allocation() {
    assert_eq!(allocations_of_acceptance(Some("https://billing.test")), ALLOCATIONS);
}

/// The median of many tokens: a map that grows is not the request's.
fn allocations_of_acceptance(audience: Option<&str>) -> u64 {
    let key = PrivateKey::generate_ed25519().expect("a key");
    let users = MemoryRepository::new([User::new("guido").with_keys([key.public_key().clone()])]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    // It stands still: nonces of a new second have a place of their own, which is allocated.
    let clock = MockClock::new(SystemClock::new().now());
    let nonces = Arc::new(MemoryNonceBackend::with_clock(1 << 16, Arc::new(clock.clone())));
    let mut builder = Authenticator::builder(Arc::new(users), nonces).clock(Arc::new(clock.clone()));
    if let Some(audience) = audience {
        builder = builder.validation(Validation::default().with_audience(audience).expect("an audience"));
    }
    let authenticator = builder.build().expect("built");
    // Memory nonces refuse tokens from before the second of their start.
    clock.advance(Duration::from_secs(1));
    let header = || {
        let name = Username::new("guido").expect("a name");
        let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
        let mut claims = Claims::new(name, clock.now(), nonce);
        if let Some(audience) = audience {
            claims = claims.with_audience(audience);
        }
        let token = Token::sign(&claims, &key).expect("signed");
        format!("JWT {}", token.as_str())
    };
    // What is made once is made by the first ones.
    let warm: Vec<_> = (0..1000).map(|_| header()).collect();
    for header in &warm {
        assert!(runtime.block_on(authenticator.authenticate([header.as_bytes()])).is_ok());
    }
    let headers: Vec<_> = (0..100).map(|_| header()).collect();
    let mut counted: Vec<_> = headers
        .iter()
        .map(|header| {
            allocation_counter::measure(|| {
                let accepted = runtime.block_on(authenticator.authenticate([header.as_bytes()]));
                assert!(accepted.is_ok());
            })
            .count_total
        })
        .collect();
    counted.sort_unstable();
    *counted.get(50).expect("a hundred")
}

/// Whoever answers under a trusted URL writes it.
#[test]
fn a_key_set_takes_no_more_than_ten_times_its_text() {
    const TEXT: u64 = MAX_JWK_SET_LEN as u64;
    let peak = |set: &str, is_read: bool| {
        assert!(set.len() <= MAX_JWK_SET_LEN, "{}", set.len());
        let read = allocation_counter::measure(|| assert_eq!(JwkSet::from_json(set).is_ok(), is_read));
        read.bytes_max
    };
    let full = |item: &str| [item].repeat((MAX_JWK_SET_LEN - 100) / (item.len() + 1)).join(",");
    let names = |count: usize| (0..count).map(|at| format!(r#""{at}":0"#)).collect::<Vec<_>>().join(",");
    for (what, keys) in [
        ("members", format!("{{{}}}", full(r#""":0"#))),
        ("members with names of their own", format!("{{{}}}", names(90_000))),
        ("members that are strings with escapes", format!("{{{}}}", full(r#""\n":"\n""#))),
        ("members that are arrays", format!("{{{}}}", full(r#""":[""]"#))),
        ("many operations", format!(r#"{{"key_ops":[{}]}}"#, full(r#""""#))),
        ("many operations in a list of lists", format!(r#"{{"key_ops":[[{}]]}}"#, full(r#""""#))),
        ("an operation that is one long text", format!(r#"{{"key_ops":["\n{}"]}}"#, "x".repeat(1_000_000))),
        ("one long number", format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, "A".repeat(1_000_000))),
        ("a hundred large keys", vec![format!("{{{}}}", names(300)); 100].join(",")),
    ] {
        let bytes = peak(&format!(r#"{{"keys":[{keys}]}}"#), true);
        assert!(bytes < 4 * TEXT, "{what}: {bytes} bytes");
    }
    // Of the document itself all names are looked at, for one that occurs twice.
    let bytes = peak(&format!(r#"{{"keys":[],{}}}"#, full(r#""":0"#)), false);
    assert!(bytes < 10 * TEXT, "{bytes} bytes");
}

#[test]
fn members_that_nobody_reads_are_not_kept() {
    let parsing = |ignored: &str| {
        let base64url = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
        let payload = format!(r#"{{"username":"guido","time":1790000000,"nonce":"n","x":{ignored}}}"#);
        let segments = [br#"{"alg":"EdDSA"}"#.as_slice(), payload.as_bytes(), &[0; 64]].map(base64url);
        let token = segments.join(".");
        allocation_counter::measure(|| assert!(UntrustedToken::parse(&token).is_ok())).count_total
    };
    let nested = format!("[{}0]", "[[],[\"a\",{\"b\":1}]],".repeat(200));
    assert_eq!(parsing(&nested), parsing("0"));
}
