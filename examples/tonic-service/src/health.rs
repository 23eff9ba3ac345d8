//! The part of gRPC's health checking protocol that a probe of Kubernetes asks for. The crate `tonic-health` has all of
//! it.

use tonic::{Request, Response, Status};

use crate::generated::health_server::Health;

/// The status of a service that takes calls.
pub const SERVING: i32 = 1;

/// Asks after a service; the empty name is the server as a whole.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// How it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckResponse {
    /// [`SERVING`], or why not.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// Knows of the server as a whole.
pub(crate) struct Running;

#[tonic::async_trait]
impl Health for Running {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("only the server as a whole is known"));
        }
        Ok(Response::new(HealthCheckResponse { status: SERVING }))
    }
}
