use std::{error::Error, net::SocketAddr, pin::Pin};

use ajwt_axum::{AuthLayer, Authenticated, AuthenticatedRejection};
use ajwt_server::Authenticator;
use futures_util::{Stream, stream};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, service::LayerExt as _, transport::Server, transport::server::TcpIncoming,
};

use crate::{
    Greeting,
    generated::{
        greeter_server::{Greeter, GreeterServer},
        health_server::HealthServer,
    },
    health::Running,
};

/// Serves on a free port of the loopback interface. Every call of the greeter needs a fresh token: without one the
/// answer is `UNAUTHENTICATED`, and `UNAVAILABLE` while a store is down. The health service is open: a probe has no
/// token.
pub async fn serve(authenticator: Authenticator) -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let greeter = AuthLayer::new(authenticator).named_layer(GreeterServer::new(Polite));
    let router = Server::builder().add_service(greeter).add_service(HealthServer::new(Running));
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(address)
}

struct Polite;

#[tonic::async_trait]
impl Greeter for Polite {
    async fn greet(&self, request: Request<Greeting>) -> Result<Response<Greeting>, Status> {
        let caller = caller(&request)?;
        let text = format!("{} to you, {}", request.get_ref().text, caller.user().username());
        Ok(Response::new(Greeting { text }))
    }

    type GreetOftenStream = Pin<Box<dyn Stream<Item = Result<Greeting, Status>> + Send>>;

    /// A stream is one call, and takes one token however long it is.
    async fn greet_often(
        &self,
        request: Request<Greeting>,
    ) -> Result<Response<Self::GreetOftenStream>, Status> {
        let greeting = self.greet(request).await?.into_inner();
        Ok(Response::new(Box::pin(stream::iter((0..3).map(move |_| Ok(greeting.clone()))))))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Authenticated, Status> {
    Authenticated::from_extensions(request.extensions()).map_err(|rejection| match rejection {
        // Under a layer that is `optional()`.
        AuthenticatedRejection::Anonymous(_) => Status::unauthenticated("unauthorized"),
        // A layer is missing: the log says which.
        _ => Status::internal("internal server error"),
    })
}
