//! What the tests of several crates need.

mod clock;
pub mod hearing;
mod log;
mod process;
mod trace;
mod wait;

pub use clock::TokioClock;
pub use log::{Listening, Log};
pub use process::terminate;
pub use trace::{Told, Trace};
pub use tracing::Level;
pub use wait::{until, until_blocking};
