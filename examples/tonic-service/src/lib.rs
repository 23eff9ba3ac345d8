//! A gRPC service whose callers are authenticated, and its client.
#![allow(clippy::missing_errors_doc, reason = "example code, kept as short as a reader's own")]

mod client;
mod health;
mod service;

pub use client::{Client, connect};
pub use health::{HealthCheckRequest, HealthCheckResponse, SERVING};
pub use service::serve;

/// The message in both directions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Greeting {
    /// Whatever one says.
    #[prost(string, tag = "1")]
    pub text: String,
}

/// What `build.rs` has made.
#[allow(missing_debug_implementations, missing_docs, reason = "it is as tonic makes it")]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/example.Greeter.rs"));
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.Health.rs"));
}
