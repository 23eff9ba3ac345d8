//! Users, keys and tokens.

use std::{path::Path, sync::Arc, time::Duration};

use ajwt_core::{Claims, Nonce, PrivateKey, PublicKey, RsaKeySize, SignedToken, Token, Username, Validation};
use ajwt_server::{
    Authenticator, AuthenticatorBuilder, Clock as _, KeyAdmin as _, MemoryNonceBackend, MemoryRepository,
    NewKey, SystemClock, User, UserRepository,
};
use ajwt_sqlx::SqliteRepository;
use tokio::runtime::Runtime;

use crate::{bare::Bare, measure::cpu_per_op};

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

/// Users in memory that all have this key, each in a place of its own: one that all share would never leave the
/// processor's nearest cache. A million take some 11 s for it.
pub(crate) fn in_memory(users: usize, key: &PrivateKey) -> Arc<MemoryRepository> {
    let pem = key.public_key().to_pem();
    let parsed = || PublicKey::from_pem(&pem).expect("a key");
    let user = |number| User::new(format!("{NAME}{number}")).with_keys([parsed()]);
    Arc::new(MemoryRepository::new((0..users).map(user)))
}

/// A new database in this folder, without users.
pub(crate) async fn open_store(folder: &Path) -> SqliteRepository {
    let url = format!("sqlite://{}", folder.join("ajwt.db").display());
    let store = SqliteRepository::connect(&url).await.expect("opened");
    store.migrate().await.expect("migrated");
    store
}

/// A database with users that all have this key.
pub(crate) async fn filled(users: usize, key: &PrivateKey) -> (tempfile::TempDir, SqliteRepository) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_store(folder.path()).await;
    let first = Username::new(format!("{NAME}0")).expect("a name");
    store.add_user(&first).await.expect("added");
    store.add_key(&first, &NewKey::of_key(key.public_key().clone())).await.expect("added");
    let last = i64::try_from(users).expect("few") - 1;
    let mut transaction = store.pool().begin().await.expect("begun");
    for sql in [
        "INSERT INTO ajwt_user (username, created_at)
            WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
            SELECT 'guido' || n, 0 FROM number WHERE ?1 > 0",
        "INSERT INTO ajwt_public_key (user_id, key, fingerprint, created_at)
            SELECT u.id, k.key, k.fingerprint, 0 FROM ajwt_user AS u
            CROSS JOIN (SELECT key, fingerprint FROM ajwt_public_key LIMIT 1) AS k
            WHERE u.username <> 'guido0' AND ?1 > 0",
    ] {
        sqlx::query(sql).bind(last).execute(&mut *transaction).await.expect("filled");
    }
    transaction.commit().await.expect("filled");
    (folder, store)
}

/// Authenticates each header, which must be good.
pub(crate) async fn authenticate(authenticator: &Authenticator, headers: &[String]) {
    for header in headers {
        let accepted = authenticator.authenticate([header.as_bytes()]).await;
        assert!(accepted.is_ok(), "{:?}", accepted.err());
    }
}

/// Nanoseconds of this process's time for each.
pub(crate) fn time(runtime: &Runtime, authenticator: &Authenticator, headers: &[String]) -> f64 {
    cpu_per_op(headers.len(), || runtime.block_on(authenticate(authenticator, headers)))
}

/// What a bare signature check is given, of each header.
pub(crate) fn bare(headers: &[String]) -> Vec<Bare> {
    headers.iter().map(|header| Bare::of(header.strip_prefix("JWT ").expect("our scheme"))).collect()
}
