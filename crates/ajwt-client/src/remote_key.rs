//! Keys that are elsewhere, and sign by a function of the application.

use std::{error::Error as StdError, fmt};

use ajwt_core::{Algorithm, Claims, PublicKey, SignError, SignedToken, UnsignedToken};
use thiserror::Error;

use crate::{SigningError, signing_key::Turns};

type Sign = dyn Fn(Algorithm, &[u8]) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> + Send + Sync;

/// What signs elsewhere, and what its signatures must verify with.
pub(crate) struct RemoteKey {
    public: PublicKey,
    sign: Box<Sign>,
    turns: Turns,
}

impl RemoteKey {
    pub(crate) fn new(public: PublicKey, sign: Box<Sign>) -> Self {
        Self { public, sign, turns: Turns::new() }
    }

    pub(crate) const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Those of calls of the function.
    pub(crate) const fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<SignedToken, SigningError> {
        let unsigned = UnsignedToken::new(claims, &self.public)?;
        let algorithm = unsigned.algorithm();
        let signature = (self.sign)(algorithm, unsigned.signing_input())
            .map_err(|source| RemoteKeyError::Failed { source })?;
        let (found, due) = (signature.len(), self.public.signature_len());
        let wrong = |_: SignError| RemoteKeyError::WrongSignature { algorithm, found, due };
        Ok(unsigned.verified_with(&signature).map_err(wrong)?)
    }
}

impl fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Why a key of [`SigningKey::remote`](crate::SigningKey::remote) did not sign.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemoteKeyError {
    /// The function returned an error.
    #[error("the remote key did not sign")]
    Failed {
        /// That error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// What the function returned is no signature of the key over what it was given.
    #[error(
        "the signature of the remote key does not verify ({found} bytes, of {due} due); sign the very bytes with \
         {algorithm}, by the private half of the public key that was given"
    )]
    WrongSignature {
        /// What was to be signed with.
        algorithm: Algorithm,
        /// Bytes that the function returned.
        found: usize,
        /// Bytes of a signature of the key.
        due: usize,
    },
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        thread,
        time::Duration,
    };

    use ajwt_core::PrivateKey;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{RequestSigner, SigningKey, signing_key::AT_ONCE};

    type Signed = Result<Vec<u8>, Box<dyn StdError + Send + Sync>>;

    /// With a key whose private half is with this function.
    fn signer(
        sign: impl Fn(&PrivateKey, Algorithm, &[u8]) -> Signed + Send + Sync + 'static,
    ) -> RequestSigner {
        let key = PrivateKey::generate_ed25519().expect("a key");
        let public = key.public_key().clone();
        let key = SigningKey::remote(public, move |algorithm, message| sign(&key, algorithm, message));
        RequestSigner::new("guido", key).expect("a signer")
    }

    /// What lets the signature be made is a task of the same thread.
    #[tokio::test]
    async fn a_slow_signature_holds_up_no_other_task() {
        let (begin, begun) = oneshot::channel();
        let (finish, finished) = mpsc::channel();
        let (begin, finished) = (Mutex::new(Some(begin)), Mutex::new(finished));
        let signer = signer(move |key, algorithm, message| {
            if let Some(begin) = begin.lock().expect("lock").take() {
                let _ = begin.send(());
            }
            // A minute is long enough on the busiest machine.
            finished.lock().expect("lock").recv_timeout(Duration::from_secs(60))?;
            Ok(key.sign(algorithm, message)?)
        });
        let signing = tokio::spawn(async move { signer.authorization_async().await });
        begun.await.expect("it is asked");
        finish.send(()).expect("it waits");
        let header = signing.await.expect("no panic").expect("signed");
        assert!(header.to_str().expect("ascii").starts_with("JWT ey"));
    }

    #[tokio::test]
    async fn a_key_is_asked_for_few_signatures_at_once() {
        let (under_way, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&most);
        let signer = signer(move |key, algorithm, message| {
            let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
            count.fetch_max(now, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(200));
            under_way.fetch_sub(1, Ordering::SeqCst);
            Ok(key.sign(algorithm, message)?)
        });
        let requests: Vec<_> = (0..3 * AT_ONCE)
            .map(|_| {
                let signer = signer.clone();
                tokio::spawn(async move { signer.authorization_async().await })
            })
            .collect();
        for request in requests {
            request.await.expect("no panic").expect("signed");
        }
        assert!(most.load(Ordering::SeqCst) <= AT_ONCE, "{most:?}");
    }

    /// As where the function is called on the thread that asks.
    #[tokio::test]
    async fn a_panic_of_the_function_is_the_callers() {
        let signer = signer(|_, _, _| panic!("a function that panics, as this test wants it"));
        let signing = tokio::spawn(async move { signer.authorization_async().await });
        assert!(signing.await.expect_err("it panics").is_panic());
    }

    #[test]
    fn the_function_is_not_printed() {
        let public = PrivateKey::generate_ed25519().expect("a key").public_key().clone();
        let shown = format!("SigningKey(Remote(RemoteKey {{ public: {public:?}, .. }}))");
        let key = SigningKey::remote(public, |_, _| Err("no".into()));
        assert_eq!(format!("{key:?}"), shown);
    }
}
