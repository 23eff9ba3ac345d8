use std::{error::Error as StdError, num::NonZero, sync::Arc, thread::available_parallelism, time::Instant};

use ajwt_core::{Algorithm, Claims, KeyType, PrivateKey, PublicKey, SignedToken, Token};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[cfg(all(unix, feature = "ssh-agent"))]
use crate::AgentKey;
use crate::{SigningError, remote_key::RemoteKey};

/// RSA keys of more bits sign off the async threads. A signature was measured, on a busy machine, to
/// take 0.7 ms with 2048 bits, 2 ms with 3072 and 5 to 13 ms with 4096; the way to another thread and
/// back, 20 us.
const MAX_INLINE_RSA_BITS: usize = 2048;

/// Signatures of one key elsewhere that are asked for at once: each holds one of tokio's blocking threads, on which
/// names are resolved too.
pub(crate) const AT_ONCE: usize = 16;

/// A key that can sign: a [`PrivateKey`] in memory, one in an ssh-agent, or one that is [elsewhere](Self::remote).
#[derive(Debug)]
pub struct SigningKey(Place);

/// Where the private half is.
#[derive(Debug)]
enum Place {
    Memory(PrivateKey, Turns),
    Remote(RemoteKey),
    #[cfg(all(unix, feature = "ssh-agent"))]
    Agent(AgentKey),
}

impl SigningKey {
    /// A key whose private half is elsewhere, as in a key management service, an HSM, or the Transit engine of
    /// Vault: `sign` has a signature made there, anew for each token.
    ///
    /// `sign` gets the algorithm (of [`PublicKey::preferred_algorithm`]: EdDSA of an Ed25519 key, RS512 of an RSA
    /// key) and the JWS Signing Input (RFC 7515 section 2): the bytes themselves, some hundred, not their hash. It
    /// returns the signature as JWS has it (RFC 7518 section 3.3, RFC 8037 section 3.1): of Ed25519 the raw 64
    /// bytes, not those of Ed25519ph; of RSA that of PKCS#1 v1.5 with SHA-512, in as many bytes as the modulus has.
    /// No base64, no prefix, no ASN.1 around either. What does not verify with the public key is not sent, but
    /// [`RemoteKeyError::WrongSignature`](crate::RemoteKeyError::WrongSignature).
    ///
    /// It is called on tokio's blocking threads, by 16 of them at most, and may block; `Handle::block_on` of tokio
    /// waits there for an async client. Only [`RequestSigner::authorization`](crate::RequestSigner::authorization)
    /// and `RequestBuilderExt::sign_with` call it where they are called themselves (in async code it must not
    /// `block_on` then), and so does everything where there is no tokio runtime.
    ///
    /// Let it end in time: nothing else limits how long a request waits for its signature. A panic of it is one of
    /// the caller. Keep what it is given out of logs: with its signature it is a token.
    ///
    /// ```
    /// use ajwt_client::{RequestSigner, SigningKey};
    /// use ajwt_core::PublicKey;
    /// # use ajwt_core::{Algorithm, PrivateKey, SignError};
    ///
    /// # struct Kms(PrivateKey);
    /// # impl Kms {
    /// #     fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, SignError> {
    /// #         self.0.sign(algorithm, message)
    /// #     }
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = PrivateKey::generate_ed25519()?;
    /// # let (pem, kms) = (key.public_key().to_pem(), Kms(key));
    /// let public_key = PublicKey::from_pem(pem)?;
    /// // `kms` is a client of whatever holds the private half.
    /// let key = SigningKey::remote(public_key, move |algorithm, signing_input| {
    ///     Ok(kms.sign(algorithm, signing_input)?)
    /// });
    /// let signer = RequestSigner::new("billing", key)?;
    /// assert!(signer.authorization()?.is_sensitive());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn remote<F>(public_key: PublicKey, sign: F) -> Self
    where
        F: Fn(Algorithm, &[u8]) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
    {
        Self(Place::Remote(RemoteKey::new(public_key, Box::new(sign))))
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        match &self.0 {
            Place::Memory(key, _) => key.public_key(),
            Place::Remote(key) => key.public_key(),
            #[cfg(all(unix, feature = "ssh-agent"))]
            Place::Agent(key) => key.public_key(),
        }
    }

    /// Waits for its turn, where only so many signatures may be under way.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        match &self.0 {
            Place::Memory(_, turns) => turns.wait().await,
            Place::Remote(key) => key.turns().wait().await,
            #[cfg(all(unix, feature = "ssh-agent"))]
            Place::Agent(key) => key.turns().wait().await,
        }
    }

    /// `asked` is since when it is waited for.
    #[cfg_attr(
        not(all(unix, feature = "ssh-agent")),
        allow(unused_variables, reason = "only an agent is waited for")
    )]
    pub(crate) fn sign(&self, claims: &Claims, asked: Instant) -> Result<SignedToken, SigningError> {
        match &self.0 {
            Place::Memory(key, _) => Ok(Token::sign(claims, key)?),
            Place::Remote(key) => key.sign(claims),
            #[cfg(all(unix, feature = "ssh-agent"))]
            Place::Agent(key) => key.sign(claims, asked),
        }
    }

    /// Whether a signature holds a thread for long enough to matter to other tasks on it.
    pub(crate) fn is_slow(&self) -> bool {
        match &self.0 {
            Place::Memory(key, _) => match key.public_key().key_type() {
                KeyType::Rsa { bits } => bits > MAX_INLINE_RSA_BITS,
                KeyType::Ed25519 => false,
                // What it takes is not known.
                _ => true,
            },
            Place::Remote(_) => true,
            #[cfg(all(unix, feature = "ssh-agent"))]
            Place::Agent(_) => true,
        }
    }
}

/// Lets so many signatures of a key be under way; its clones count with it.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Turns {
    /// Of a key elsewhere: [`AT_ONCE`].
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Of a key that keeps a processor busy: as many as there are. More would take those from all else that runs, and
    /// end none of them sooner.
    fn of_processors() -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(processors)))
    }

    /// Waits, without a thread, until the key may be asked.
    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        // An error says that the semaphore is closed, which nobody does.
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

impl From<PrivateKey> for SigningKey {
    fn from(key: PrivateKey) -> Self {
        Self(Place::Memory(key, Turns::of_processors()))
    }
}

#[cfg(all(unix, feature = "ssh-agent"))]
impl From<AgentKey> for SigningKey {
    fn from(key: AgentKey) -> Self {
        Self(Place::Agent(key))
    }
}
