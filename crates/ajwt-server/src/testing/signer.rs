use std::{io, sync::Arc};

use ajwt_core::{Claims, Nonce, PrivateKey, PublicKey, Timestamp, Token, Username, Validation};
use async_trait::async_trait;

use super::username;
use crate::{
    Authenticator, Clock as _, MemoryNonceBackend, MemoryRepository, NonceBackend, NonceError, NonceOutcome,
    NonceUse, RepositoryError, SystemClock, User, authorization,
};

/// A caller for the tests of a protected route: a user with a new key, who signs.
///
/// ```
/// use ajwt_server::testing::TestSigner;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let signer = TestSigner::new("guido");
/// let authenticator = signer.authenticator();
///
/// // As the value of a request's `Authorization` header.
/// let accepted = authenticator.authenticate([signer.authorization().as_bytes()]).await?;
/// assert_eq!(accepted.user().username(), "guido");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestSigner {
    username: Username,
    key: PrivateKey,
    audience: Option<Box<str>>,
    scheme: Box<str>,
}

impl TestSigner {
    /// Signs as the user of this name, with an Ed25519 key made for it.
    ///
    /// # Panics
    /// If this is no username.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let key = PrivateKey::generate_ed25519().unwrap_or_else(|error| panic!("a key: {error}"));
        Self { username: username(name), key, audience: None, scheme: "JWT".into() }
    }

    /// Names the service that the tokens are for, in the claim `aud`. [`authenticator`](Self::authenticator) has this
    /// audience then.
    ///
    /// # Panics
    /// If it is empty.
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<Box<str>>) -> Self {
        let audience: Box<str> = audience.into();
        assert!(!audience.is_empty(), "an audience is not empty");
        self.audience = Some(audience);
        self
    }

    /// Uses this authentication scheme instead of `JWT`. [`authenticator`](Self::authenticator) has it then.
    ///
    /// # Panics
    /// If it is none: one word of letters, digits and ``!#$%&'*+-.^_`|~`` is.
    #[must_use]
    pub fn with_scheme(mut self, scheme: impl Into<Box<str>>) -> Self {
        let scheme: Box<str> = scheme.into();
        assert!(authorization::is_scheme(&scheme), "{scheme:?} is no authentication scheme");
        self.scheme = scheme;
        self
    }

    /// The user, with the public half of the key.
    #[must_use]
    pub fn user(&self) -> User {
        User::new(self.username.as_str()).with_keys([self.public_key().clone()])
    }

    /// The public half of the key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// An authenticator that knows this user alone, with its stores in memory, on the operating system's clocks.
    ///
    /// # Panics
    /// If the cryptographic library fails.
    #[must_use]
    pub fn authenticator(&self) -> Authenticator {
        self.authenticator_with(MemoryNonceBackend::default())
    }

    /// As [`authenticator`](Self::authenticator), with another nonce backend: [`StoreIsDown`], to see
    /// a route's 503.
    ///
    /// # Panics
    /// If the cryptographic library fails.
    #[must_use]
    pub fn authenticator_with(&self, nonces: impl NonceBackend) -> Authenticator {
        let users = Arc::new(MemoryRepository::new([self.user()]));
        let mut validation = Validation::default();
        if let Some(audience) = self.audience.clone() {
            validation =
                validation.with_audience(audience).unwrap_or_else(|error| panic!("an audience: {error}"));
        }
        Authenticator::builder(users, Arc::new(nonces))
            .validation(validation)
            .scheme(self.scheme.clone())
            .build()
            .unwrap_or_else(|error| panic!("an authenticator: {error}"))
    }

    /// A fresh value of an `Authorization` header. It works once.
    ///
    /// # Panics
    /// If the operating system gives no random bytes.
    #[must_use]
    pub fn authorization(&self) -> String {
        self.authorization_at(SystemClock::new().now())
    }

    /// As [`authorization`](Self::authorization), dated `now`: for an authenticator on a
    /// [`MockClock`](crate::MockClock), and for tokens that are too old.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use ajwt_core::Timestamp;
    /// use ajwt_server::{
    ///     Authenticator, Clock as _, MemoryNonceBackend, MemoryRepository, MockClock, testing::TestSigner,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = MockClock::new(Timestamp::from_secs(1_700_000_000));
    /// let signer = TestSigner::new("guido");
    /// let users = Arc::new(MemoryRepository::new([signer.user()]));
    /// // On the same clock.
    /// let nonces = Arc::new(MemoryNonceBackend::with_clock(1000, Arc::new(clock.clone())));
    /// let authenticator = Authenticator::builder(users, nonces).clock(Arc::new(clock.clone())).build()?;
    ///
    /// let token = signer.authorization_at(clock.now());
    /// assert!(authenticator.authenticate([token.as_bytes()]).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the operating system gives no random bytes.
    #[must_use]
    pub fn authorization_at(&self, now: Timestamp) -> String {
        let nonce = Nonce::generate(getrandom::fill).unwrap_or_else(|error| panic!("a nonce: {error}"));
        let mut claims = Claims::new(self.username.clone(), now, nonce);
        if let Some(audience) = self.audience.clone() {
            claims = claims.with_audience(audience);
        }
        let token = Token::sign(&claims, &self.key).unwrap_or_else(|error| panic!("a token: {error}"));
        format!("{} {}", self.scheme, token.as_str())
    }
}

/// A nonce backend whose store is down.
#[derive(Clone, Copy, Debug)]
pub struct StoreIsDown;

#[async_trait]
impl NonceBackend for StoreIsDown {
    async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
        Err(NonceError::Store(RepositoryError::new(
            "consuming a nonce",
            io::Error::other("the store is down"),
        )))
    }
}
