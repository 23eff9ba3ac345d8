//! An engine whose stores note each call, and what is refused by it.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Store {
    Works,
    Fails,
    /// An hour late.
    Sleeps,
    /// Answers from a cache, and fails when it must read.
    FailsBehindItsCache,
}

impl Store {
    pub(crate) async fn answer<T>(self, value: T) -> Result<T, RepositoryError> {
        match self {
            Self::Works | Self::FailsBehindItsCache => Ok(value),
            Self::Fails => Err(RepositoryError::new("asking the test", "the disk is on fire")),
            Self::Sleeps => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Ok(value)
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Users {
    pub(crate) store: Store,
    pub(crate) users: Vec<Arc<User>>,
    pub(crate) reads: AtomicUsize,
}

#[async_trait]
impl UserRepository for Users {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        freshness: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let user = self.users.iter().find(|user| user.username() == username).cloned();
        if self.store == Store::FailsBehindItsCache {
            return match freshness {
                Freshness::MayBeCached => Ok(user.map(Found::cached)),
                Freshness::Current => Store::Fails.answer(None).await,
            };
        }
        self.store.answer(user.map(Found::current)).await
    }
}

#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) store: Store,
    /// Whose keys were asked for.
    pub(crate) asked: Mutex<Vec<Option<String>>>,
}

#[async_trait]
impl PublicKeyRepository<User> for Keys {
    async fn candidates<'a>(
        &'a self,
        user: Option<&'a User>,
        _: Option<&str>,
    ) -> Result<Cow<'a, [StoredKey]>, RepositoryError> {
        self.asked.lock().expect("lock").push(user.map(|user| user.username().to_owned()));
        self.store.answer(Cow::Borrowed([].as_slice())).await
    }
}

#[derive(Debug)]
pub(crate) enum NonceStore {
    Memory(Box<MemoryNonceBackend>),
    Full,
    Starting,
    Store(Store),
}

#[derive(Debug)]
pub(crate) struct Nonces {
    pub(crate) store: NonceStore,
    pub(crate) uses: Mutex<Vec<NonceUse>>,
    pub(crate) closed: AtomicUsize,
}

#[async_trait]
impl NonceBackend for Nonces {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        self.uses.lock().expect("lock").push(nonce.clone());
        match &self.store {
            NonceStore::Memory(memory) => memory.consume(nonce).await,
            NonceStore::Full => Err(NonceError::Full { capacity: 3 }),
            NonceStore::Starting => Err(NonceError::MayHaveBeenUsed { since: Timestamp::from_secs(NOW) }),
            NonceStore::Store(store) => Ok(store.answer(NonceOutcome::Fresh).await?),
        }
    }

    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) uses: Mutex<Vec<(KeySource, Timestamp)>>,
    pub(crate) flushed: AtomicUsize,
}

#[async_trait]
impl UsageRecorder for Usage {
    fn record(&self, source: KeySource, at: Timestamp) {
        self.uses.lock().expect("lock").push((source, at));
    }

    async fn flush(&self) {
        self.flushed.fetch_add(1, Ordering::SeqCst);
    }
}

/// An engine with everything around it.
pub(crate) struct Engine {
    pub(crate) clock: MockClock,
    pub(crate) key: PrivateKey,
    pub(crate) users: Arc<Users>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) nonces: Arc<Nonces>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) authenticator: Authenticator,
}

impl Engine {
    pub(crate) fn new() -> Self {
        Self::with(Store::Works, Store::Works, None)
    }

    pub(crate) fn with(users: Store, keys: Store, nonces: Option<NonceStore>) -> Self {
        Self::build(users, keys, nonces, |builder| builder)
    }

    pub(crate) fn build(
        users: Store,
        keys: Store,
        nonces: Option<NonceStore>,
        configure: impl FnOnce(AuthenticatorBuilder) -> AuthenticatorBuilder,
    ) -> Self {
        let clock = MockClock::new(Timestamp::from_secs(NOW - 200));
        let key = PrivateKey::generate_ed25519().expect("a key");
        let stored = StoredKey::new(key.public_key().clone(), KeySource::Key(42));
        let all = [
            User::new("guido").with_stored_keys(vec![stored.clone()]),
            User::new("inactive").with_stored_keys(vec![stored.clone()]).with_active(false),
            User::new("keyless"),
            User::new("other").with_keys([stranger().public_key().clone()]),
        ];
        let users =
            Arc::new(Users { store: users, users: all.map(Arc::new).into(), reads: AtomicUsize::new(0) });
        let keys = Arc::new(Keys { store: keys, asked: Mutex::default() });
        let memory = MemoryNonceBackend::with_clock(1000, Arc::new(clock.clone()));
        let store = nonces.unwrap_or(NonceStore::Memory(Box::new(memory)));
        let nonces = Arc::new(Nonces { store, uses: Mutex::default(), closed: AtomicUsize::new(0) });
        clock.advance(Duration::from_secs(200));
        let usage = Arc::new(Usage::default());
        let builder = Authenticator::builder(Arc::clone(&users) as _, Arc::clone(&nonces) as _)
            .keys(Arc::clone(&keys) as _)
            .usage(Arc::clone(&usage) as _)
            .clock(Arc::new(clock.clone()));
        let authenticator = configure(builder).build().expect("an authenticator");
        Self { clock, key, users, keys, nonces, usage, authenticator }
    }

    pub(crate) fn header(&self, username: &str) -> String {
        header(&claims(username, NOW), &self.key)
    }

    pub(crate) async fn judge(&self, headers: &[&str]) -> Result<(), Reason> {
        let headers = headers.iter().map(|header| header.as_bytes());
        self.authenticator.authenticate(headers).await.map(drop).map_err(|rejection| rejection.reason())
    }
}

pub(crate) fn stranger() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

pub(crate) fn claims(username: &str, time: i64) -> Claims {
    let username = Username::new(username).expect("a name");
    Claims::new(username, Timestamp::from_secs(time), Nonce::generate(getrandom::fill).expect("a nonce"))
}

pub(crate) fn header(claims: &Claims, key: &PrivateKey) -> String {
    format!("JWT {}", Token::sign(claims, key).expect("a token").as_str())
}

/// Signs any texts.
pub(crate) fn raw(head: &str, payload: &str, key: &PrivateKey) -> String {
    let input = [head, payload].map(|text| BASE64_URL_SAFE_NO_PAD.encode(text)).join(".");
    let algorithm = key.public_key().preferred_algorithm();
    let signature = key.sign(algorithm, input.as_bytes()).expect("a signature");
    format!("JWT {input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

pub(crate) const HEAD: &str = r#"{"alg":"EdDSA"}"#;

/// Headers of every refusal: what they are refused for, and whether the store is asked first.
pub(crate) fn refused(engine: &Engine) -> Vec<(Reason, bool, Vec<String>)> {
    let key = &engine.key;
    let good = engine.header("guido");
    let payload = |more: &str| format!(r#"{{"username":"guido","time":{NOW},"nonce":"refused"{more}}}"#);
    vec![
        (Reason::NoCredentials, false, vec![]),
        (Reason::NoCredentials, false, vec!["Basic Z3VpZG86".into()]),
        (Reason::SeveralHeaders, false, vec![good.clone(), good.clone()]),
        (Reason::SeveralHeaders, false, vec!["Basic Z3VpZG86".into(), good.clone()]),
        (Reason::MalformedHeader, false, vec!["JWT".into()]),
        (Reason::MalformedHeader, false, vec![format!("{good} ")]),
        (Reason::MalformedHeader, false, vec![format!("JWT {}", "a".repeat(8192))]),
        (Reason::MalformedToken, false, vec!["JWT a.b.c".into()]),
        (Reason::MalformedToken, false, vec![raw(HEAD, r#"{"username":"guido"}"#, key)]),
        (Reason::UnsupportedToken, false, vec![raw(r#"{"alg":"none"}"#, &payload(""), key)]),
        (Reason::UnsupportedToken, false, vec![raw(r#"{"alg":"EdDSA","crit":[]}"#, &payload(""), key)]),
        (Reason::OutsideWindow, false, vec![header(&claims("guido", NOW - 21), key)]),
        (Reason::OutsideWindow, false, vec![header(&claims("guido", NOW + 21), key)]),
        (Reason::NotValidNow, false, vec![raw(HEAD, &payload(&format!(r#","exp":{NOW}"#)), key)]),
        (Reason::NotValidNow, false, vec![raw(HEAD, &payload(&format!(r#","nbf":{}"#, NOW + 21)), key)]),
        (Reason::WrongAudience, false, vec![header(&claims("guido", NOW).with_audience("api"), key)]),
        (Reason::UnknownUser, true, vec![engine.header("nobody")]),
        (Reason::UnknownUser, true, vec![engine.header("Guido")]),
        (Reason::InactiveUser, true, vec![engine.header("inactive")]),
        (Reason::NoCandidateKey, true, vec![engine.header("keyless")]),
        (Reason::BadSignature, true, vec![engine.header("other")]),
        (Reason::BadSignature, true, vec![header(&claims("guido", NOW), &stranger())]),
    ]
}
