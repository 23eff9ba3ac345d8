//! The token corpus: users, their keys, and what becomes of a header, at a fixed time.

use std::{borrow::Cow, collections::HashMap, path::Path, sync::Arc, time::Duration};

use ajwt_core::{JwkSet, PublicKey, Timestamp, Validation};
use ajwt_server::{
    Authenticator, KeySource, KeyedUser, MemoryNonceBackend, MemoryRepository, MockClock, NonceBackend,
    PublicKeyRepository, RepositoryError, StoredKey, TrustedUrl, User,
};
use async_trait::async_trait;
use serde_json::Value;

/// How long before a case's time its nonce backend was begun.
const BEGUN_BEFORE: Duration = Duration::from_secs(200);

const MARGIN: Duration = Duration::from_secs(60);

/// A file of cases and sequences.
#[derive(Debug)]
pub struct TokenCorpus {
    /// The file.
    pub document: Value,
    tolerance: Duration,
    users: Arc<MemoryRepository>,
    documents: Arc<dyn PublicKeyRepository<User>>,
}

/// The sets of trusted URLs, which are named by their user.
#[derive(Debug)]
struct Documents(HashMap<String, Vec<StoredKey>>);

#[async_trait]
impl PublicKeyRepository<User> for Documents {
    async fn candidates<'a>(
        &'a self,
        user: Option<&'a User>,
        _: Option<&str>,
    ) -> Result<Cow<'a, [StoredKey]>, RepositoryError> {
        let urls = user.into_iter().flat_map(KeyedUser::jwks_urls);
        let keys: Vec<_> = urls.filter_map(|url| self.0.get(url.url())).flatten().cloned().collect();
        Ok(keys.into())
    }
}

impl TokenCorpus {
    /// Every corpus below the root.
    ///
    /// # Panics
    /// If one cannot be read.
    pub fn all(root: &Path) -> impl Iterator<Item = Self> {
        crate::files(&root.join("ajwt-tokens"), "json").into_iter().map(|file| Self::read(&file))
    }

    fn read(path: &Path) -> Self {
        let document = crate::json(path);
        let text = |name: &str| {
            let key = document["keys"].get(name).map(|key| crate::str(key, "public_pem"));
            key.or_else(|| document["bad_rows"][name].as_str())
                .unwrap_or_else(|| panic!("no key {name:?} in {}", path.display()))
        };
        let mut documents = HashMap::new();
        let mut users = Vec::new();
        for (name, told) in document["users"].as_object().expect("users") {
            let rows =
                told["keys"].as_array().expect("keys").iter().map(|name| name.as_str().expect("a name"));
            // The store keeps texts; a row that is no key is skipped, and takes its place all the same.
            let keys = rows.rev().take(32).filter_map(|name| PublicKey::from_text(text(name)).ok());
            let mut user = User::new(name.as_str())
                .with_active(told["active"].as_bool().unwrap_or(true))
                .with_keys(keys.map(|(key, _)| key));
            if let Some(jwks) = told.get("jwks") {
                let url = format!("https://jwks.example/{}", documents.len());
                // A text is the document as the endpoint answers it; one that is no set has no keys.
                let document = jwks.as_str().map_or_else(|| jwks.to_string(), ToOwned::to_owned);
                let set = JwkSet::from_json(document).unwrap_or_default();
                let keys = set.keys().iter().map(|jwk| StoredKey::of_jwk(jwk, KeySource::Trust(1)));
                documents.insert(url.clone(), keys.collect());
                user = user.with_jwks_urls(vec![TrustedUrl::new(1, url)]);
            }
            users.push(user);
        }
        let tolerance = document["tolerance"].as_f64().expect("a tolerance");
        Self {
            tolerance: Duration::from_secs_f64(tolerance),
            users: Arc::new(MemoryRepository::new(users)),
            documents: Arc::new(Documents(documents)),
            document,
        }
    }

    /// The cases: each begins with an empty nonce store.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn cases(&self) -> &[Value] {
        self.document["cases"].as_array().expect("cases")
    }

    /// The sequences: the store is kept between their steps.
    pub fn sequences(&self) -> impl Iterator<Item = &Value> {
        self.document["sequences"].as_array().into_iter().flatten()
    }

    /// An authenticator that knows the corpus' users.
    ///
    /// # Panics
    /// If the corpus asks for what cannot be.
    #[must_use]
    pub fn authenticator(
        &self,
        nonces: Arc<dyn NonceBackend>,
        clock: &MockClock,
        audiences: &Value,
    ) -> Authenticator {
        let mut validation = Validation::default().with_tolerance(self.tolerance).expect("a tolerance");
        for audience in audiences.as_array().into_iter().flatten() {
            validation =
                validation.with_audience(audience.as_str().expect("an audience")).expect("an audience");
        }
        Authenticator::builder(Arc::clone(&self.users) as _, nonces)
            .keys(Arc::clone(&self.documents))
            .validation(validation)
            .nonce_margin(MARGIN)
            .clock(Arc::new(clock.clone()))
            .build()
            .expect("an authenticator")
    }
}

/// An empty nonce store that was begun before the clock reached `now`, where it stands then.
#[must_use]
pub fn empty_nonces(clock: &MockClock, now: Timestamp) -> MemoryNonceBackend {
    clock.set(now.saturating_sub(BEGUN_BEFORE));
    let nonces = MemoryNonceBackend::with_clock(1000, Arc::new(clock.clone()));
    clock.advance(BEGUN_BEFORE);
    nonces
}

/// Moves the clock to the next step of a sequence. A step back is one of a server whose clock is
/// behind: no time passes in the store. Returns the latest time so far.
#[must_use]
pub fn step_to(clock: &MockClock, now: Timestamp, latest: Timestamp) -> Timestamp {
    let passed = u64::try_from(now.as_millis() - latest.as_millis());
    if let Ok(passed) = passed {
        clock.advance(Duration::from_millis(passed));
    }
    clock.set(now);
    if passed.is_ok() { now } else { latest }
}

/// The values of all `Authorization` headers of a case, in order.
///
/// # Panics
/// If the case has none.
#[must_use]
pub fn headers(case: &Value) -> Vec<&str> {
    match case.get("headers") {
        Some(headers) => {
            headers.as_array().expect("headers").iter().map(|one| one.as_str().expect("a header")).collect()
        }
        None => vec![crate::str(case, "header")],
    }
}

/// When a case takes place: seconds, perhaps with a fraction that milliseconds hold.
///
/// # Panics
/// If it has no time.
#[must_use]
pub fn time(case: &Value) -> Timestamp {
    match case["now"].as_i64() {
        Some(seconds) => Timestamp::from_secs(seconds),
        // Rounded: binary fractions are not decimal ones.
        None => Timestamp::from_millis((case["now"].as_f64().expect("a time") * 1000.0).round() as i64),
    }
}
