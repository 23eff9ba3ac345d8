use std::time::Instant;

use ajwt_core::{Claims, KeyType, PrivateKey, PublicKey, SignedToken, Token};
use tokio::sync::OwnedSemaphorePermit;

#[cfg(all(unix, feature = "ssh-agent"))]
use crate::AgentKey;
use crate::SigningError;

/// RSA keys of more bits sign off the async threads. A signature was measured, on a busy machine, to
/// take 0.7 ms with 2048 bits, 2 ms with 3072 and 5 to 13 ms with 4096; the way to another thread and
/// back, 20 us.
const MAX_INLINE_RSA_BITS: usize = 2048;

/// A key that can sign: a [`PrivateKey`] in memory, or one in an ssh-agent.
#[derive(Debug)]
pub struct SigningKey(Place);

/// Where the private half is.
#[derive(Debug)]
enum Place {
    Memory(PrivateKey),
    #[cfg(all(unix, feature = "ssh-agent"))]
    Agent(AgentKey),
}

impl SigningKey {
    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        match &self.0 {
            Place::Memory(key) => key.public_key(),
            #[cfg(all(unix, feature = "ssh-agent"))]
            Place::Agent(key) => key.public_key(),
        }
    }

    /// Waits for its turn, where only so many signatures may be under way.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        match &self.0 {
            Place::Memory(_) => None,
            #[cfg(all(unix, feature = "ssh-agent"))]
            Place::Agent(key) => key.turn().await,
        }
    }

    /// `asked` is since when it is waited for.
    #[cfg_attr(
        not(all(unix, feature = "ssh-agent")),
        allow(unused_variables, reason = "only an agent is waited for")
    )]
    pub(crate) fn sign(&self, claims: &Claims, asked: Instant) -> Result<SignedToken, SigningError> {
        match &self.0 {
            Place::Memory(key) => Ok(Token::sign(claims, key)?),
            #[cfg(all(unix, feature = "ssh-agent"))]
            Place::Agent(key) => key.sign(claims, asked),
        }
    }

    /// Whether a signature holds a thread for long enough to matter to other tasks on it.
    pub(crate) fn is_slow(&self) -> bool {
        match &self.0 {
            Place::Memory(key) => match key.public_key().key_type() {
                KeyType::Rsa { bits } => bits > MAX_INLINE_RSA_BITS,
                KeyType::Ed25519 => false,
            },
            #[cfg(all(unix, feature = "ssh-agent"))]
            Place::Agent(_) => true,
        }
    }
}

impl From<PrivateKey> for SigningKey {
    fn from(key: PrivateKey) -> Self {
        Self(Place::Memory(key))
    }
}

#[cfg(all(unix, feature = "ssh-agent"))]
impl From<AgentKey> for SigningKey {
    fn from(key: AgentKey) -> Self {
        Self(Place::Agent(key))
    }
}
