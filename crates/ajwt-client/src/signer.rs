use std::{fmt, panic::resume_unwind, time::Instant};

use ajwt_core::{ClaimError, Claims, Nonce, NonceGenerationError, PublicKey, SignError, Timestamp, Username};
use http::HeaderValue;
use thiserror::Error;
use tokio::{
    runtime::Handle,
    task::{self, JoinHandle},
};
use zeroize::Zeroizing;

use crate::{KeyRing, RemoteKeyError, SigningKey, clock};

const DEFAULT_SCHEME: &str = "JWT";

/// Signs requests as one user. Cheap to clone.
#[derive(Clone)]
pub struct RequestSigner {
    username: Username,
    keys: KeyRing,
    audience: Option<Box<str>>,
    scheme: Box<str>,
}

impl RequestSigner {
    /// As the user of this name, whose public half the server knows: with a
    /// [`PrivateKey`](ajwt_core::PrivateKey), or with the newest of a [`KeyRing`].
    ///
    /// # Errors
    /// [`SignerError::Username`].
    pub fn new(username: impl AsRef<str>, keys: impl Into<KeyRing>) -> Result<Self, SignerError> {
        let username = Username::new(username)?;
        Ok(Self { username, keys: keys.into(), audience: None, scheme: DEFAULT_SCHEME.into() })
    }

    /// Names the service that the tokens are for in the claim `aud`, so that no other service that
    /// trusts the key accepts them. The service must have the same audience configured; the Python
    /// library's server refuses tokens that name one.
    ///
    /// # Errors
    /// [`SignerError::EmptyAudience`].
    pub fn with_audience(mut self, audience: impl Into<Box<str>>) -> Result<Self, SignerError> {
        let audience: Box<str> = audience.into();
        if audience.is_empty() {
            return Err(SignerError::EmptyAudience);
        }
        self.audience = Some(audience);
        Ok(self)
    }

    /// Uses this authentication scheme, a token of RFC 9110 section 5.6.2, instead of `JWT`.
    ///
    /// # Errors
    /// [`SignerError::Scheme`].
    pub fn with_scheme(mut self, scheme: impl Into<Box<str>>) -> Result<Self, SignerError> {
        let scheme: Box<str> = scheme.into();
        if !is_scheme(&scheme) {
            return Err(SignerError::Scheme { found: scheme });
        }
        self.scheme = scheme;
        Ok(self)
    }

    /// The keys that it signs with.
    #[must_use]
    pub const fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// The public half of the key that signs now: what the server must know.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.keys.signing_key(clock::now()).public_key().clone()
    }

    /// The value of an `Authorization` header with a fresh token, marked as sensitive. It works
    /// once, within the server's tolerance of now.
    ///
    /// It is made on this thread: in microseconds with an Ed25519 key, in milliseconds with a large
    /// RSA key, and as fast as an ssh-agent, or what holds a [remote](SigningKey::remote) key, answers. In async
    /// code prefer [`authorization_async`](Self::authorization_async).
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn authorization(&self) -> Result<HeaderValue, SigningError> {
        self.authorization_at(clock::now())
    }

    /// As [`authorization`](Self::authorization), dated `now`.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn authorization_at(&self, now: Timestamp) -> Result<HeaderValue, SigningError> {
        self.sign(&self.keys.signing_key(clock::now()), now, clock::instant())
    }

    /// As [`authorization`](Self::authorization), for async code: keys whose signature takes long
    /// enough to hold other tasks up (RSA above 2048 bits, those of an ssh-agent, and remote ones) sign on
    /// tokio's blocking threads, where there is a tokio runtime. A signature that waits for such a thread is not
    /// made if the future is dropped before.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn authorization_async(&self) -> Result<HeaderValue, SigningError> {
        self.authorization_async_at(clock::now()).await
    }

    /// As [`authorization_async`](Self::authorization_async), dated `now`; if it has to wait for a thread, later
    /// by that.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn authorization_async_at(&self, now: Timestamp) -> Result<HeaderValue, SigningError> {
        self.authorization_in_turn(now).await.map(|(value, _)| value)
    }

    /// As [`authorization_async_at`](Self::authorization_async_at), and when the token was dated.
    pub(crate) async fn authorization_in_turn(
        &self,
        now: Timestamp,
    ) -> Result<(HeaderValue, Instant), SigningError> {
        let (key, asked) = (self.keys.signing_key(clock::now()), clock::instant());
        if !key.is_slow() || Handle::try_current().is_err() {
            return self.sign(&key, now, asked).map(|value| (value, asked));
        }
        let signer = self.clone();
        let turn = key.turn().await;
        // Dated when its turn comes: behind many others a token would be old before it is sent.
        let sign = move || {
            let dated = clock::instant();
            let now = now.saturating_add(dated.saturating_duration_since(asked));
            let signed = signer.sign(&key, now, asked);
            drop(turn);
            signed.map(|value| (value, dated))
        };
        let mut signing = Signing(task::spawn_blocking(sign));
        match (&mut signing.0).await {
            Ok(signed) => signed,
            // What panics is the function of a remote key, which is the caller's.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => Err(SigningError::Stopped),
            },
        }
    }

    fn sign(&self, key: &SigningKey, now: Timestamp, asked: Instant) -> Result<HeaderValue, SigningError> {
        let nonce = Nonce::generate(getrandom::fill)?;
        let mut claims = Claims::new(self.username.clone(), now, nonce);
        if let Some(audience) = self.audience.as_deref() {
            claims = claims.with_audience(audience);
        }
        let token = key.sign(&claims, asked)?;
        let value = Zeroizing::new(format!("{} {}", self.scheme, token.as_str()));
        // What a scheme and base64url are made of may all stand in a header.
        let mut value = HeaderValue::from_str(&value).map_err(|_| SignError::Library)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for RequestSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSigner")
            .field("username", &self.username)
            .field("keys", &self.keys)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// A signature on a blocking thread, or in the queue for one. When nobody waits for it any more it leaves the
/// queue: else those of callers that gave up would delay the others, until these give up as well.
struct Signing(JoinHandle<Result<(HeaderValue, Instant), SigningError>>);

impl Drop for Signing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A token of RFC 9110 section 5.6.2, the server's own rule: no server has a scheme that is refused here.
fn is_scheme(scheme: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !scheme.is_empty() && scheme.bytes().all(is_tchar)
}

/// Why a signer cannot be as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The username cannot be one.
    #[error(transparent)]
    Username(#[from] ClaimError),
    /// The audience is the empty string, which no server has.
    #[error("the audience is empty; name the service that the tokens are for")]
    EmptyAudience,
    /// The scheme is not one.
    #[error("{found:?} is no authentication scheme: one word of letters, digits and !#$%&'*+-.^_`|~ is")]
    Scheme {
        /// The scheme asked for.
        found: Box<str>,
    },
}

/// Why a request is not signed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SigningError {
    /// The request goes where no token may go.
    #[cfg(any(feature = "middleware", feature = "tower"))]
    #[error(transparent)]
    Origin(#[from] crate::OriginError),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Nonce(#[from] NonceGenerationError),
    /// The key did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A remote key did not sign.
    #[error(transparent)]
    Remote(#[from] RemoteKeyError),
    /// The ssh-agent did not sign.
    #[cfg(all(unix, feature = "ssh-agent"))]
    #[error(transparent)]
    Agent(#[from] crate::AgentError),
    /// The runtime was shut down before the token was signed.
    #[error("the runtime was shut down before the token was signed")]
    Stopped,
}
