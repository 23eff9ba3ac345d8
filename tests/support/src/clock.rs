use std::time::Duration;

use ajwt_core::Timestamp;
use ajwt_server::Clock;
use tokio::time::Instant;

/// tokio's clock since then, which a test lets pass. The time of day stands still.
#[derive(Debug)]
pub struct TokioClock(pub Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(0)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}
