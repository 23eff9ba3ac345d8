//! Servers of a test's own, on free ports of the loopback interface, to be stopped, paused and filled up.
//!
//! They end with the test. The servers' packages must be installed: `scripts/test` sees to it.
#![allow(clippy::missing_panics_doc, reason = "tests panic")]

pub mod port;
pub mod redis;
pub mod redis_cluster;
pub mod sql;
pub mod tls;
