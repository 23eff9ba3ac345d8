//! An authenticator that knows the fixed keys and counts what it uses up.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ajwt_core::Timestamp;
use ajwt_server::{
    Authenticator, MemoryRepository, MockClock, NonceBackend, NonceError, NonceOutcome, NonceUse, Reason,
    User,
};
use async_trait::async_trait;
use tokio::runtime::Runtime;

use crate::fixed;

pub(crate) struct Engine {
    runtime: Runtime,
    authenticator: Authenticator,
    consumed: Arc<Counting>,
}

/// Every nonce is fresh; only how often it was asked is of interest.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

#[async_trait]
impl NonceBackend for Counting {
    async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(NonceOutcome::Fresh)
    }
}

impl Engine {
    pub(crate) fn new() -> Self {
        let keys = [&fixed::ED25519, &fixed::RSA].map(|key| key.public_key().clone());
        let users = Arc::new(MemoryRepository::new([User::new(fixed::USERNAME).with_keys(keys)]));
        let consumed = Arc::new(Counting::default());
        let clock = MockClock::new(Timestamp::from_secs(fixed::NOW));
        let authenticator = Authenticator::builder(users, Arc::clone(&consumed) as _).clock(Arc::new(clock));
        Self {
            runtime: paused_runtime(),
            authenticator: authenticator.build().expect("an authenticator"),
            consumed,
        }
    }

    /// Who is authenticated by these values of the header, or why nobody is. A nonce is used up for the
    /// one and none for the other.
    pub(crate) fn authenticate(&self, values: &[&[u8]]) -> Result<String, Reason> {
        let before = self.consumed.0.load(Ordering::Relaxed);
        let authenticated = self.runtime.block_on(self.authenticator.authenticate(values.iter().copied()));
        let consumed = self.consumed.0.load(Ordering::Relaxed) - before;
        assert_eq!(consumed, usize::from(authenticated.is_ok()), "{consumed} nonces were used up");
        authenticated
            .map(|accepted| accepted.user().username().to_owned())
            .map_err(|rejection| rejection.reason())
    }
}

/// One thread whose time passes when there is nothing else to do.
pub(crate) fn paused_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}
