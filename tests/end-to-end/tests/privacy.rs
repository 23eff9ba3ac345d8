//! What a refusal costs does not depend on whose name the token has: over a real store, with and without a
//! cache of users and tables of hot keys, queries and signature checks are counted by the log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ajwt_axum::JwksService;
use ajwt_core::{Claims, Nonce, PrivateKey, PublicKey, RsaKeySize, Timestamp, Token, Username};
use ajwt_jwks::{AddressPolicy, JwksCache, JwksClient, JwksKeyRepository};
use ajwt_server::{
    Authenticator, CachedUserRepository, Clock as _, KeyAdmin as _, NewKey, Reason, SystemClock, User,
    UserCacheOptions, UserRepository,
};
use ajwt_sqlx::{SqliteNonceBackend, SqliteRepository};
use ajwt_test_support::{Told, Trace};
use axum::Router;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Bytes of signatures that are tried: of the usual RSA keys, of odd ones, and of the largest.
const RSA_LENGTHS: [usize; 6] = [256, 257, 384, 511, 512, 1024];

/// Claims in order, after the name. What stands in angle brackets is filled in for each request.
const CLAIMS: &str = r#""time":<now>,"nonce":"<nonce>""#;

/// What a request cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cost {
    /// Statements by their first words.
    statements: BTreeMap<String, usize>,
    /// Signature checks by algorithm and length.
    checks: BTreeMap<String, usize>,
    /// Those of them that a table of a key was used for.
    by_table: usize,
}

impl Cost {
    fn of(told: &[Told]) -> Self {
        let mut cost = Self::default();
        for told in told {
            let field =
                |name| told.fields.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
            match (told.target.as_str(), field("summary"), field("message")) {
                // What a new connection begins with, and the removal of old nonces, are no part of a request.
                ("sqlx::query", Some(summary), _)
                    if !["PRAGMA", "DELETE", "BEGIN IMMEDIATE; DELETE"]
                        .iter()
                        .any(|begin| summary.starts_with(begin)) =>
                {
                    *cost.statements.entry(summary.to_owned()).or_default() += 1;
                }
                ("ajwt_server::authenticator", _, Some("signature check")) => {
                    let [algorithm, len] =
                        ["algorithm", "signature_len"].map(|name| field(name).expect("a field"));
                    let kind = format!("{algorithm} {len}");
                    *cost.checks.entry(kind).or_default() += 1;
                    cost.by_table += usize::from(field("by_table") == Some("true"));
                }
                _ => {}
            }
        }
        cost
    }

    fn statements(&self) -> usize {
        self.statements.values().sum()
    }

    fn checks(&self) -> usize {
        self.checks.values().sum()
    }
}

/// The store, who is in it, and their keys.
struct Store {
    _folder: TempDir,
    repository: SqliteRepository,
    sets: Arc<JwksCache>,
    /// Everybody a token can claim to be from, one of each kind.
    names: Vec<&'static str>,
    /// Those who can sign.
    signers: Vec<(&'static str, PrivateKey)>,
}

fn ed25519() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

fn ed25519_keys(count: usize) -> Vec<PublicKey> {
    (0..count).map(|_| ed25519().public_key().clone()).collect()
}

/// Keys whose private halves nobody has.
fn rsa_keys(count: usize, len: usize) -> Vec<PublicKey> {
    let key = || {
        let mut modulus = vec![0; len];
        getrandom::fill(&mut modulus).expect("random bytes");
        modulus[0] |= 0x80;
        modulus[len - 1] |= 1;
        PublicKey::from_rsa_components(&modulus, &[1, 0, 1]).expect("a key")
    };
    (0..count).map(|_| key()).collect()
}

/// A set under a URL, with these keys.
async fn serve_set(keys: Vec<PublicKey>) -> String {
    let app = Router::new().route_service(JwksService::PATH, JwksService::from_fn(move || keys.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}{}", listener.local_addr().expect("an address"), JwksService::PATH);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

impl Store {
    async fn fill() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("ajwt.db").display());
        let repository = SqliteRepository::connect(&url).await.expect("opened");
        repository.migrate().await.expect("migrated");

        let rsa = PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key");
        let signers = [
            ("known", ed25519()),
            ("known, RSA", rsa),
            ("many keys", ed25519()),
            ("trusts a URL", ed25519()),
            ("hot key", ed25519()),
        ];
        let public = |name| {
            let signer = signers.iter().find(|(other, _)| *other == name);
            signer.map(|(_, key)| key.public_key().clone()).into_iter().collect::<Vec<_>>()
        };
        let url = serve_set([public("trusts a URL"), rsa_keys(2, 256), ed25519_keys(2)].concat()).await;
        let keys_of: Vec<(&str, Vec<PublicKey>)> = vec![
            ("known", public("known")),
            ("known, RSA", public("known, RSA")),
            ("RSA, 3072 bits", rsa_keys(1, 384)),
            ("RSA, 4096 bits", rsa_keys(1, 512)),
            ("RSA, odd lengths", [rsa_keys(1, 257), rsa_keys(2, 511), rsa_keys(1, 1024)].concat()),
            ("of both types", [ed25519_keys(2), rsa_keys(3, 256), rsa_keys(1, 512)].concat()),
            ("many keys", [ed25519_keys(28), rsa_keys(3, 256), public("many keys")].concat()),
            ("without keys", Vec::new()),
            ("inactive", [ed25519_keys(5), rsa_keys(1, 256)].concat()),
            ("keys of the past", [ed25519_keys(2), rsa_keys(2, 256)].concat()),
            ("revoked keys", [ed25519_keys(2), rsa_keys(2, 256)].concat()),
            ("trusts a URL", Vec::new()),
            ("trusts a URL, with keys", [ed25519_keys(1), rsa_keys(1, 256)].concat()),
            ("hot key", public("hot key")),
        ];
        let mut names = vec!["nobody", "KNOWN"];
        for (name, keys) in keys_of {
            names.push(name);
            let username = Username::new(name).expect("a name");
            repository.add_user(&username).await.expect("added");
            for key in keys {
                let key = repository.add_key(&username, &NewKey::of_key(key)).await.expect("added");
                if name == "keys of the past" {
                    let past = Some(Timestamp::from_secs(1_000_000_000));
                    repository.set_key_expiry(&username, key.id, past).await.expect("ended");
                }
                if name == "revoked keys" {
                    repository.revoke_key(&username, key.id).await.expect("revoked");
                }
            }
            if name.starts_with("trusts a URL") {
                repository.add_trust(&username, &url).await.expect("trusted");
            }
            if name == "inactive" {
                repository.set_user_active(&username, false).await.expect("deactivated");
            }
        }
        let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
        let client = JwksClient::builder().address_policy(policy).insecure_allow_http();
        let sets = Arc::new(JwksCache::builder(client.build().expect("a client")).build());
        assert_eq!(sets.warm_up(&repository).await.expect("listed").fetched, 1);
        Self { _folder: folder, repository, sets, names, signers: signers.into() }
    }

    async fn authenticator(&self, staleness: Option<Duration>, hot_keys: usize) -> Authenticator {
        let store = Arc::new(self.repository.clone());
        let users: Arc<dyn UserRepository<User = User>> = match staleness {
            None => store,
            Some(staleness) => {
                let options = UserCacheOptions::default().max_staleness(staleness);
                Arc::new(CachedUserRepository::over(store, options))
            }
        };
        let nonces = SqliteNonceBackend::new(self.repository.pool().clone());
        nonces.initialise().await.expect("marked");
        Authenticator::builder(users, Arc::new(nonces))
            .keys(Arc::new(JwksKeyRepository::new(Arc::clone(&self.sets))))
            .hot_keys(hot_keys)
            .build()
            .expect("an authenticator")
    }
}

fn claims(name: &str, time: Timestamp) -> Claims {
    let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
    Claims::new(Username::new(name).expect("a name"), time, nonce)
}

/// A header with a good token.
fn sign(name: &str, key: &PrivateKey) -> String {
    let token = Token::sign(&claims(name, SystemClock::new().now()), key).expect("a token");
    format!("JWT {}", token.as_str())
}

/// A form of requests, whoever their tokens claim to be from.
struct Form {
    what: String,
    algorithm: &'static str,
    /// Members of the header after the algorithm.
    parameters: String,
    /// Members of the payload after the name. `<past>` and `<future>` are a minute away.
    claims: &'static str,
    signature: Vec<u8>,
    /// Values of `Authorization`.
    headers: &'static [&'static str],
}

impl Form {
    /// A form that is in order as far as its algorithm and its signature are.
    fn new(what: impl Into<String>, algorithm: &'static str, signature: Vec<u8>) -> Self {
        Self {
            what: what.into(),
            algorithm,
            parameters: String::new(),
            claims: CLAIMS,
            signature,
            headers: &["JWT <token>"],
        }
    }

    fn headers(&self, name: &str) -> Vec<String> {
        let head = format!(r#"{{"alg":"{}"{}}}"#, self.algorithm, self.parameters);
        let now = SystemClock::new().now().as_secs();
        let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
        let claims = self
            .claims
            .replace("<now>", &now.to_string())
            .replace("<past>", &(now - 60).to_string())
            .replace("<future>", &(now + 60).to_string())
            .replace("<nonce>", nonce.as_str());
        let payload = format!(r#"{{"username":"{name}",{claims}}}"#);
        let parts = [head.as_bytes(), payload.as_bytes(), &self.signature];
        let token = parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        self.headers.iter().map(|header| header.replace("<token>", &token)).collect()
    }

    /// The checks that a refusal after the look at the store costs.
    fn checks(&self, hot_keys: usize) -> BTreeMap<String, usize> {
        let checks = 4 + self.by_table(hot_keys);
        BTreeMap::from([(format!("{} {}", self.algorithm, self.signature.len()), checks)])
    }

    fn by_table(&self, hot_keys: usize) -> usize {
        usize::from(self.algorithm == "EdDSA" && hot_keys > 0)
    }
}

/// Forms that are refused by the signature.
fn late_forms(store: &Store) -> Vec<Form> {
    let random = |len| {
        let mut bytes = vec![0; len];
        getrandom::fill(&mut bytes).expect("random bytes");
        bytes
    };
    let mut key_ids = vec![("no kid", None), ("an unknown kid", Some("0".repeat(64)))];
    for (name, key) in store.signers.iter().filter(|(name, _)| ["known", "trusts a URL"].contains(name)) {
        key_ids.push((name, Some(key.public_key().fingerprint().as_str().to_owned())));
    }
    let mut forms = Vec::new();
    for (whose, key_id) in &key_ids {
        let parameters = key_id.as_ref().map(|key_id| format!(r#","kid":"{key_id}""#)).unwrap_or_default();
        let mut add = |algorithm, signature: Vec<u8>, kind: &str| {
            let what = format!("{algorithm}, {} bytes ({kind}), {whose}", signature.len());
            forms.push(Form { parameters: parameters.clone(), ..Form::new(what, algorithm, signature) });
        };
        add("EdDSA", random(64), "random");
        add("EdDSA", vec![0; 64], "zeros");
        add("EdDSA", vec![0xff; 64], "ones");
        for (algorithm, len) in
            ["RS512", "RS384", "RS256"].into_iter().flat_map(|name| RSA_LENGTHS.map(|len| (name, len)))
        {
            // Each length once, each algorithm once, and the kid with the usual ones.
            if len == 256 && (algorithm == "RS512" || key_id.is_none()) {
                add(algorithm, random(len), "random");
                add(algorithm, vec![0xff; len], "above every modulus");
            } else if algorithm == "RS512" && key_id.is_none() {
                add(algorithm, random(len), "random");
            }
        }
    }
    forms
}

/// Forms that are refused before the store is asked, and why.
fn early_forms() -> Vec<(Form, Reason)> {
    let mut forms = Vec::new();
    for (algorithm, len) in [("EdDSA", 64), ("RS256", 256), ("RS512", 512)] {
        let form = |what: &str| Form::new(format!("{algorithm}, {what}"), algorithm, vec![1; len]);
        for (what, claims, reason) in [
            ("a minute old", r#""time":<past>,"nonce":"<nonce>""#, Reason::OutsideWindow),
            ("of the future", r#""time":<future>,"nonce":"<nonce>""#, Reason::OutsideWindow),
            ("expired", r#""time":<now>,"nonce":"<nonce>","exp":<past>"#, Reason::NotValidNow),
            ("not valid yet", r#""time":<now>,"nonce":"<nonce>","nbf":<future>"#, Reason::NotValidNow),
            ("not issued yet", r#""time":<now>,"nonce":"<nonce>","iat":<future>"#, Reason::NotValidNow),
            ("for another audience", r#""time":<now>,"nonce":"<nonce>","aud":"x""#, Reason::WrongAudience),
            ("with two times", r#""time":<now>,"nonce":"<nonce>","time":<now>"#, Reason::MalformedToken),
            ("whose nonce is a number", r#""time":<now>,"nonce":7"#, Reason::MalformedToken),
        ] {
            forms.push((Form { claims, ..form(what) }, reason));
        }
        let critical = Form { parameters: r#","crit":[]"#.to_owned(), ..form("with crit") };
        forms.push((critical, Reason::UnsupportedToken));
        let as_sent: [(&str, &[&str], Reason); 4] = [
            ("padded", &["JWT <token>=="], Reason::MalformedHeader),
            // The header has 15 bytes, and no base64 has a character more than a multiple of four.
            ("malformed base64", &["JWT A<token>"], Reason::MalformedToken),
            ("after two spaces", &["JWT  <token>"], Reason::MalformedHeader),
            ("in each of two headers", &["JWT <token>", "JWT <token>"], Reason::SeveralHeaders),
        ];
        for (what, headers, reason) in as_sent {
            forms.push((Form { headers, ..form(what) }, reason));
        }
    }
    for (what, algorithm, len, reason) in [
        ("EdDSA of an RSA signature's length", "EdDSA", 256, Reason::MalformedToken),
        ("RSA of an Ed25519 signature's length", "RS512", 64, Reason::MalformedToken),
        ("RSA, too short", "RS256", 255, Reason::MalformedToken),
        ("RSA, too long", "RS256", 1025, Reason::MalformedToken),
        ("no algorithm", "none", 0, Reason::UnsupportedToken),
        ("a shared secret", "HS256", 32, Reason::UnsupportedToken),
    ] {
        forms.push((Form::new(what, algorithm, vec![1; len]), reason));
    }
    forms
}

/// A request, its outcome, and what it cost.
struct Counter<'a> {
    trace: &'a Trace,
    authenticator: &'a Authenticator,
}

impl Counter<'_> {
    /// `statements` are those due. sqlx tells of one when it lets go of it, which may be a moment after its
    /// answer is there: those due are waited for, and one too many is found with the next request at the
    /// latest.
    async fn ask(&self, headers: &[String], statements: usize) -> (Result<(), Reason>, Cost) {
        let outcome = self.authenticator.authenticate(headers.iter().map(String::as_bytes)).await;
        let mut told = self.trace.take();
        for _ in 0..30_000 {
            if Cost::of(&told).statements() >= statements {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            told.append(&mut self.trace.take());
        }
        (outcome.map(drop).map_err(|rejection| rejection.reason()), Cost::of(&told))
    }
}

#[tokio::test]
async fn the_cost_of_a_refusal_is_a_function_of_the_token() {
    let trace = Trace::start();
    let store = Store::fill().await;
    let (late, early) = (late_forms(&store), early_forms());
    let mut wrong = Vec::new();
    // With a cache twice: the first time a user comes from the store, the second from the cache.
    let hour = Some(Duration::from_secs(3600));
    let settings = [(None, 0, 1), (None, 4, 1), (Some(Duration::ZERO), 0, 1), (hour, 0, 2), (hour, 4, 2)];
    for (staleness, hot_keys, turns) in settings {
        let setting = format!("staleness {staleness:?}, {hot_keys} hot keys");
        let authenticator = store.authenticator(staleness, hot_keys).await;
        let counter = Counter { trace: &trace, authenticator: &authenticator };
        // What the cache may spare who is accepted.
        let reads = usize::from(staleness.is_none_or(|staleness| staleness.is_zero()));
        if hot_keys > 0 {
            make_hot(&store, &counter, reads).await;
        }
        trace.take();

        for turn in 0..turns {
            for form in &late {
                for name in &store.names {
                    let (outcome, cost) = counter.ask(&form.headers(name), 1).await;
                    let is_due = matches!(
                        outcome,
                        Err(Reason::UnknownUser
                            | Reason::InactiveUser
                            | Reason::NoCandidateKey
                            | Reason::BadSignature)
                    ) && cost.statements
                        == BTreeMap::from([("WITH found AS (SELECT …".to_owned(), 1)])
                        && cost.checks == form.checks(hot_keys)
                        && cost.by_table == form.by_table(hot_keys);
                    if !is_due {
                        wrong.push(format!(
                            "{setting}, turn {turn}: {} as {name:?}: {outcome:?} {cost:?}",
                            form.what
                        ));
                    }
                }
            }
        }
        for (form, reason) in &early {
            for name in &store.names {
                let (outcome, cost) = counter.ask(&form.headers(name), 0).await;
                if outcome != Err(*reason) || cost != Cost::default() {
                    wrong.push(format!(
                        "{setting}: {} as {name:?}: {outcome:?} where {reason:?} is due, {cost:?}",
                        form.what
                    ));
                }
            }
        }
        replays(&store, &counter, reads, &setting, &mut wrong).await;
    }
    assert!(wrong.is_empty(), "{} costs are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Only who has a genuine token can have it refused as used. That costs with each user the same: the read that
/// the cache may spare, one check, and two statements on nonces.
async fn replays(store: &Store, counter: &Counter<'_>, reads: usize, setting: &str, wrong: &mut Vec<String>) {
    for (name, key) in &store.signers {
        let headers = [sign(name, key)];
        let (accepted, first) = counter.ask(&headers, reads + 1).await;
        let (outcome, cost) = counter.ask(&headers, reads + 2).await;
        if accepted.is_err()
            || outcome != Err(Reason::Replayed)
            || (cost.checks(), cost.statements()) != (1, reads + 2)
        {
            wrong.push(format!("{setting}: a replay as {name:?}: {outcome:?} {cost:?} after {first:?}"));
        }
    }
}

/// Signs until the key has its table, by which a signature is checked then.
async fn make_hot(store: &Store, counter: &Counter<'_>, reads: usize) {
    let (name, key) = store.signers.iter().find(|(name, _)| *name == "hot key").expect("a signer");
    for _ in 0..10_000 {
        let (outcome, cost) = counter.ask(&[sign(name, key)], reads + 1).await;
        outcome.expect("accepted");
        if cost.by_table > 0 {
            return;
        }
    }
    panic!("the key has no table after 10,000 uses");
}
