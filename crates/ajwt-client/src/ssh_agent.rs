//! Keys in an ssh-agent.

mod protocol;

use std::{env, fmt, io, path::PathBuf, time::Instant};

use ajwt_core::{Claims, KeyType, PublicKey, SignError, SignedToken, UnsignedToken};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use self::protocol::{Identity, Limit, Signature};
use crate::{SigningError, clock, signing_key::Turns};

/// A running ssh-agent: private keys stay in it, it signs for us.
///
/// It is asked anew for each signature, so it may be restarted. A signature takes at most 15 s in all; a key
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
        let identities = protocol::identities(&self.socket, Limit::since(clock::instant()))?;
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
    turns: Turns,
}

impl AgentKey {
    fn new(agent: &SshAgent, Identity { blob, comment }: Identity) -> Option<Self> {
        let name = protocol::name(&blob)?;
        let public = PublicKey::from_openssh(format!("{name} {}", STANDARD.encode(&blob))).ok()?;
        let comment = String::from_utf8_lossy(&comment).into();
        Some(Self { agent: agent.clone(), blob: blob.into(), comment, public, turns: Turns::new() })
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

    /// The agent makes one signature after the other. To wait for a turn takes no longer than the signatures that were
    /// asked for before may take, which is until the time of this one is over.
    pub(crate) const fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn sign(&self, claims: &Claims, asked: Instant) -> Result<SignedToken, SigningError> {
        let unsigned = UnsignedToken::new(claims, &self.public)?;
        let kind = match self.public.key_type() {
            KeyType::Ed25519 => Signature::Ed25519,
            KeyType::Rsa { .. } => Signature::RsaSha512,
            _ => return Err(SignError::KeyAlgorithm(self.public.preferred_algorithm()).into()),
        };
        let (socket, limit) = (&self.agent.socket, Limit::since(asked));
        let signature = protocol::sign(socket, &self.blob, unsigned.signing_input(), kind, limit)?;
        // Some agents leave leading zeros out (RFC 4253 section 6.6); JWS has the full length.
        let missing = self.public.signature_len().saturating_sub(signature.len());
        let signature = [vec![0; missing], signature].concat();
        unsigned.verified_with(&signature).map_err(|_: SignError| AgentError::WrongSignature.into())
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

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixListener,
        path::Path,
        process::Command,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        thread,
        time::Duration,
    };

    use ajwt_core::PrivateKey;
    use futures_util::FutureExt as _;
    use tokio::{runtime::Builder, task::spawn_blocking, time::sleep};

    use super::*;
    use crate::{RequestSigner, signing_key::AT_ONCE};

    /// With a key whose private half an agent at this socket holds.
    fn signer(socket: &Path) -> RequestSigner {
        let public = PrivateKey::generate_ed25519().expect("a key").public_key().clone();
        let line = public.to_openssh("");
        let blob = STANDARD.decode(line.split(' ').nth(1).expect("base64")).expect("base64");
        let identity = Identity { blob, comment: Vec::new() };
        let key = AgentKey::new(&SshAgent::at(socket), identity).expect("a key");
        RequestSigner::new("guido", key).expect("a signer")
    }

    /// Runs itself again with other environments, for a process cannot change its own safely.
    #[test]
    fn the_environment_names_the_agent() {
        const CHILD: &str = "AJWT_TEST_CHILD";
        if let Some(due) = env::var_os(CHILD) {
            let agent = SshAgent::from_env();
            if due.is_empty() {
                assert!(matches!(agent, Err(AgentError::NoSocket)), "{agent:?}");
            } else {
                assert_eq!(agent.expect("an agent"), SshAgent::at(due));
            }
            return;
        }
        for socket in [Some("/run/agent/socket"), Some(""), None] {
            let child = Command::new(env::current_exe().expect("this program"))
                .args(["--exact", "ssh_agent::tests::the_environment_names_the_agent"])
                .env(CHILD, socket.unwrap_or_default())
                .env_remove("SSH_AUTH_SOCK")
                .envs(socket.map(|socket| ("SSH_AUTH_SOCK", socket)))
                .output()
                .expect("it runs");
            let told = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success() && told.contains("1 passed"), "{socket:?}: {told}");
        }
    }

    #[test]
    fn a_signature_that_nobody_waits_for_any_more_is_not_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let signer = signer(&socket);
        let runtime = Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let (free, taken) = mpsc::channel::<()>();
            spawn_blocking(move || taken.recv());
            // It stands in the queue for the thread, and is given up.
            assert!(signer.authorization_async().now_or_never().is_none());
            free.send(()).expect("it waits");
            // What came after it has its turn.
            spawn_blocking(|| ()).await.expect("no panic");
        });
        listener.set_nonblocking(true).expect("set");
        let error = listener.accept().expect_err("the agent is not asked");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn an_agent_is_asked_for_few_signatures_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).expect("a socket");
        // It answers nobody, and in the end closes all connections.
        let (asked, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Some(Vec::new()))));
        let (count, hold) = (Arc::clone(&asked), Arc::clone(&held));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if let Some(held) = hold.lock().expect("lock").as_mut() {
                    held.push(stream.expect("a connection"));
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        let signer = signer(&socket);
        let requests: Vec<_> = (0..3 * AT_ONCE)
            .map(|_| {
                let signer = signer.clone();
                tokio::spawn(async move { signer.authorization_async().await })
            })
            .collect();
        while asked.load(Ordering::SeqCst) < AT_ONCE {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(300)).await;
        assert_eq!(asked.load(Ordering::SeqCst), AT_ONCE);

        // The others have their turn.
        drop(held.lock().expect("lock").take());
        for request in requests {
            let error = request.await.expect("no panic").expect_err("no signature");
            assert!(matches!(error, SigningError::Agent(AgentError::Unreachable { .. })), "{error:?}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3 * AT_ONCE);
    }
}
