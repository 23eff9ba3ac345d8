//! What the gateway tells of whether it can decide at all.

use ajwt_server::ReadinessState;

pub(super) const fn text(state: ReadinessState) -> &'static str {
    match state {
        ReadinessState::Ready => "ready\n",
        ReadinessState::NoUserStore => "not ready: the user store does not answer\n",
        ReadinessState::NoNonceStore => "not ready: the nonce store does not answer\n",
        ReadinessState::NonceStoreFull => "not ready: the nonce store is full\n",
        ReadinessState::NonceStoreStarting => "not ready: the nonce store was just started; this passes\n",
        // The library may tell more apart one day.
        _ => "not ready\n",
    }
}
