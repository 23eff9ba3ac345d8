use std::{error::Error, net::SocketAddr};

use ajwt_client::{OriginSigner, RequestSigner, SigningLayer, SigningService};
use tonic::transport::{Channel, Endpoint};
use tower::Layer as _;

use crate::generated::greeter_client::GreeterClient;

/// A client that signs each call.
pub type Client = GreeterClient<SigningService<Channel>>;

/// Connects to the service. Each call has a token of its own, which goes to this origin only. A retry is a
/// call: it goes around the layer.
pub async fn connect(address: SocketAddr, signer: RequestSigner) -> Result<Client, Box<dyn Error>> {
    let origin = format!("http://{address}");
    let layer = SigningLayer::new(OriginSigner::new(signer, [&origin])?);
    let channel = Endpoint::from_shared(origin.clone())?.connect().await?;
    Ok(GreeterClient::with_origin(layer.layer(channel), origin.parse()?))
}
