//! "At most once", as a history: several processes of `ajwt gateway` share a nonce store; a driver
//! sends them tokens, fresh, again, late and early, while the store and the processes are killed,
//! paused, restarted and filled up, and clocks are set. What they answered is recorded, and
//! [`checker`] judges it afterwards, knowing nothing of how it came about.
//!
//! The tests are short by themselves, each kind of fault once. `AJWT_HISTORY_SECONDS=600` makes each take ten
//! minutes, then with faults by chance; `AJWT_HISTORY_SEED` repeats the choices of an earlier run.
#![allow(clippy::missing_panics_doc, reason = "tests panic")]

pub mod checker;
pub mod driver;
pub mod gateway;
pub mod history;
pub mod program;
pub mod recorder;
pub mod store;
pub mod stores;
mod tokens;
