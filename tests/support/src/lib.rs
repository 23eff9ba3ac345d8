//! What the tests of several crates need.

mod clock;
mod log;
mod process;
mod wait;

pub use clock::TokioClock;
pub use log::{Listening, Log};
pub use process::terminate;
pub use tracing::Level;
pub use wait::{until, until_blocking};
