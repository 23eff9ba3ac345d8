//! Keys and tokens.

use std::{sync::Arc, time::Duration};

use ajwt_core::{Claims, Nonce, PrivateKey, PublicKey, RsaKeySize, SignedToken, Token, Username, Validation};
use ajwt_server::{
    Authenticator, AuthenticatorBuilder, Clock as _, MemoryNonceBackend, MemoryRepository, SystemClock, User,
    UserRepository,
};

use crate::bare::Bare;

pub(crate) const NAME: &str = "guido";

/// What is compared: a name, a key, and how many tokens are timed in a short round.
pub(crate) fn keys() -> [(&'static str, PrivateKey, usize); 3] {
    let rsa = |size| PrivateKey::generate_rsa(size).expect("a key");
    [
        ("Ed25519", ed25519(), 80),
        ("RSA-2048", rsa(RsaKeySize::Bits2048), 120),
        ("RSA-4096", rsa(RsaKeySize::Bits4096), 40),
    ]
}

pub(crate) fn ed25519() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

pub(crate) fn claims(name: &str) -> Claims {
    let name = Username::new(name).expect("a name");
    let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
    Claims::new(name, SystemClock::new().now(), nonce)
}

pub(crate) fn sign(name: &str, key: &PrivateKey) -> SignedToken {
    Token::sign(&claims(name), key).expect("signed")
}

/// Header values, all different.
pub(crate) fn headers(key: &PrivateKey, count: usize) -> Vec<String> {
    (0..count).map(|_| header(NAME, key)).collect()
}

pub(crate) fn header(name: &str, key: &PrivateKey) -> String {
    format!("JWT {}", sign(name, key).as_str())
}

/// Memory nonces refuse tokens from before the second of their start.
pub(crate) fn wait_for_the_next_second() {
    std::thread::sleep(Duration::from_millis(1010));
}

/// One whose tokens last as long as a benchmark.
pub(crate) fn builder(users: Arc<dyn UserRepository<User = User>>) -> AuthenticatorBuilder {
    let validation = Validation::default().with_tolerance(Duration::from_secs(300)).expect("a tolerance");
    let nonces = Arc::new(MemoryNonceBackend::new(1 << 24));
    Authenticator::builder(users, nonces).validation(validation)
}

pub(crate) fn users(key: &PublicKey) -> Arc<MemoryRepository> {
    Arc::new(MemoryRepository::new([User::new(NAME).with_keys([key.clone()])]))
}

/// Authenticates each header, which must be good.
pub(crate) async fn authenticate(authenticator: &Authenticator, headers: &[String]) {
    for header in headers {
        let accepted = authenticator.authenticate([header.as_bytes()]).await;
        assert!(accepted.is_ok(), "{:?}", accepted.err());
    }
}

/// What a bare signature check is given, of each header.
pub(crate) fn bare(headers: &[String]) -> Vec<Bare> {
    headers.iter().map(|header| Bare::of(header.strip_prefix("JWT ").expect("our scheme"))).collect()
}
