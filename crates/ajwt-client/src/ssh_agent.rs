//! Keys in an ssh-agent.

mod protocol;

use std::{env, fmt, io, path::PathBuf};

use ajwt_core::{Claims, KeyType, PublicKey, SignError, SignedToken, UnsignedToken};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use self::protocol::{Identity, Signature};
use crate::SigningError;

/// A running ssh-agent: private keys stay in it, it signs for us.
///
/// It is asked anew for each signature, so it may be restarted. An answer takes at most 30 s; a key
/// that was added with `ssh-add -c` asks its user each time.
///
/// ```no_run
/// use ajwt_client::{RequestSigner, SshAgent};
/// use ajwt_core::PublicKey;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (public_key, _) = PublicKey::from_text(std::fs::read("/home/me/.ssh/id_ed25519.pub")?)?;
/// let key = SshAgent::from_env()?.key(&public_key)?;
/// let signer = RequestSigner::new("billing", key)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAgent {
    socket: PathBuf,
}

impl SshAgent {
    /// The agent whose socket `SSH_AUTH_SOCK` names.
    ///
    /// # Errors
    /// [`AgentError::NoSocket`] if it names none.
    pub fn from_env() -> Result<Self, AgentError> {
        let socket = env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        socket.map(Self::at).ok_or(AgentError::NoSocket)
    }

    /// The agent at this socket.
    #[must_use]
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The keys that can sign tokens: Ed25519, and RSA of 2048 to 8192 bits. Certificates, hardware
    /// security keys (`sk-`) and other types are left out.
    ///
    /// # Errors
    /// [`AgentError`] if the agent cannot be asked.
    pub fn keys(&self) -> Result<Vec<AgentKey>, AgentError> {
        let identities = protocol::identities(&self.socket)?;
        Ok(identities.into_iter().filter_map(|identity| AgentKey::new(self, identity)).collect())
    }

    /// The private half of this key.
    ///
    /// # Errors
    /// [`AgentError::UnknownKey`] if the agent does not hold it; other [`AgentError`]s if it cannot
    /// be asked.
    pub fn key(&self, public: &PublicKey) -> Result<AgentKey, AgentError> {
        let found = self.keys()?.into_iter().find(|key| key.public_key() == public);
        found.ok_or_else(|| AgentError::UnknownKey { line: public.to_openssh("").into() })
    }
}

/// A private key in an ssh-agent.
#[derive(Clone)]
pub struct AgentKey {
    agent: SshAgent,
    blob: Box<[u8]>,
    comment: Box<str>,
    public: PublicKey,
}

impl AgentKey {
    fn new(agent: &SshAgent, Identity { blob, comment }: Identity) -> Option<Self> {
        let name = protocol::name(&blob)?;
        let public = PublicKey::from_openssh(format!("{name} {}", STANDARD.encode(&blob))).ok()?;
        let comment = String::from_utf8_lossy(&comment).into();
        Some(Self { agent: agent.clone(), blob: blob.into(), comment, public })
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The comment, which is often the name of the file that the key came from.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<SignedToken, SigningError> {
        let unsigned = UnsignedToken::new(claims, &self.public)?;
        let kind = match self.public.key_type() {
            KeyType::Ed25519 => Signature::Ed25519,
            KeyType::Rsa { .. } => Signature::RsaSha512,
        };
        let signature = protocol::sign(&self.agent.socket, &self.blob, unsigned.signing_input(), kind)?;
        // Some agents leave leading zeros out (RFC 4253 section 6.6); JWS has the full length.
        let missing = self.public.signature_len().saturating_sub(signature.len());
        let signature = [vec![0; missing], signature].concat();
        unsigned.verified_with(&signature).map_err(|SignError { .. }| AgentError::WrongSignature.into())
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentKey")
            .field("agent", &self.agent)
            .field("comment", &self.comment)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Why an ssh-agent did not help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The environment names no agent.
    #[error("SSH_AUTH_SOCK names no ssh-agent; start one: eval $(ssh-agent)")]
    NoSocket,
    /// It cannot be reached, or does not answer.
    #[error("the ssh-agent at {} does not answer", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What answers is no ssh-agent.
    #[error("{} answers as no ssh-agent does", socket.display())]
    Protocol {
        /// Its socket.
        socket: PathBuf,
    },
    /// It refuses: the key is gone, the agent is locked, or its user did not agree.
    #[error("the ssh-agent at {} refuses: it has no such key, is locked, or its user did not agree", socket.display())]
    Refused {
        /// Its socket.
        socket: PathBuf,
    },
    /// It does not hold this key.
    #[error("the ssh-agent does not hold the private half of {line}; add it: ssh-add FILE")]
    UnknownKey {
        /// The public key as an OpenSSH line.
        line: Box<str>,
    },
    /// Its signature does not verify.
    #[error("the signature of the ssh-agent does not verify")]
    WrongSignature,
}
