use std::{io, sync::Arc};

use ajwt_core::{Claims, Nonce, PrivateKey, PublicKey, Token, Username};
use async_trait::async_trait;

use super::username;
use crate::{
    Authenticator, Clock as _, MemoryNonceBackend, MemoryRepository, NonceBackend, NonceError, NonceOutcome,
    NonceUse, RepositoryError, SystemClock, User,
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
}

impl TestSigner {
    /// Signs as the user of this name, with an Ed25519 key made for it.
    ///
    /// # Panics
    /// If this is no username.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let key = PrivateKey::generate_ed25519().unwrap_or_else(|error| panic!("a key: {error}"));
        Self { username: username(name), key }
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

    /// An authenticator that knows this user alone, with its stores in memory.
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
        Authenticator::builder(users, Arc::new(nonces))
            .build()
            .unwrap_or_else(|error| panic!("an authenticator: {error}"))
    }

    /// A fresh value of an `Authorization` header. It works once.
    ///
    /// # Panics
    /// If the operating system gives no random bytes.
    #[must_use]
    pub fn authorization(&self) -> String {
        let nonce = Nonce::generate(getrandom::fill).unwrap_or_else(|error| panic!("a nonce: {error}"));
        let claims = Claims::new(self.username.clone(), SystemClock::new().now(), nonce);
        let token = Token::sign(&claims, &self.key).unwrap_or_else(|error| panic!("a token: {error}"));
        format!("JWT {}", token.as_str())
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
