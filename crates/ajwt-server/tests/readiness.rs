//! Readiness beside an authenticator whose clock is not the host's.

use std::{sync::Arc, time::Duration};

use ajwt_core::Validation;
use ajwt_server::{
    Authenticator, Clock as _, MemoryNonceBackend, MemoryRepository, MockClock, NonceBackend, Readiness,
    ReadinessState, SystemClock, testing::TestSigner,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn on_the_clock_of_the_authenticator_it_is_ready_when_that_one_is() {
    let clock = MockClock::new(SystemClock::new().now().saturating_add(DAY));
    let signer = TestSigner::new("guido");
    let users = Arc::new(MemoryRepository::new([signer.user()]));
    let nonces: Arc<dyn NonceBackend> =
        Arc::new(MemoryNonceBackend::with_clock(1000, Arc::new(clock.clone())));
    let tolerance = Validation::default().tolerance();
    let by_the_host = Readiness::new(users.clone(), Arc::clone(&nonces), tolerance);
    let readiness =
        Readiness::with_clock(users.clone(), Arc::clone(&nonces), tolerance, Arc::new(clock.clone()));
    let authenticator = Authenticator::builder(users, nonces).clock(Arc::new(clock.clone())).build();
    let authenticator = authenticator.expect("an authenticator");

    let token = signer.authorization_at(clock.now());
    assert!(authenticator.authenticate([token.as_bytes()]).await.is_ok());
    assert_eq!(readiness.state().await, ReadinessState::Ready);
    // What the host's clock makes of it, which is a day behind.
    assert_eq!(by_the_host.state().await, ReadinessState::NonceStoreStarting);
}
