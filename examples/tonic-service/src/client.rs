use std::{error::Error, net::SocketAddr};

use ajwt_client::RequestSigner;
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::interceptor::{InterceptedService, Interceptor},
    transport::{Channel, Endpoint},
};

use crate::generated::greeter_client::GreeterClient;

/// A client that signs each call.
pub type Client = GreeterClient<InterceptedService<Channel, Signing>>;

/// Connects to the service.
pub async fn connect(address: SocketAddr, signer: RequestSigner) -> Result<Client, Box<dyn Error>> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    Ok(GreeterClient::with_interceptor(channel, Signing(signer)))
}

/// Gives each call a token of its own. A retry is a call: have it come through here again.
#[derive(Clone, Debug)]
pub struct Signing(RequestSigner);

impl Interceptor for Signing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = self.0.authorization().map_err(|error| Status::internal(error.to_string()))?;
        let value = AsciiMetadataValue::try_from(value.as_bytes());
        let mut value = value.map_err(|error| Status::internal(error.to_string()))?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}
