use std::{error::Error, net::SocketAddr, time::Duration};

use ajwt_client::{OriginSigner, RequestSigner, SigningLayer, SigningService};
use tonic::transport::{Channel, Endpoint};
use tower::{Layer as _, timeout::Timeout};

use crate::generated::greeter_client::GreeterClient;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Until a call is answered, or a stream of answers begins. The channel queues calls that are signed, as while the
/// server is not reached: what has waited for longer is not sent any more, for servers take no token of 20 s ago.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that signs each call.
pub type Client = GreeterClient<Timeout<SigningService<Channel>>>;

/// Connects to the service. Each call has a token of its own, which goes to this origin only. A retry is a
/// call: it goes around the layer, as limits do.
pub async fn connect(address: SocketAddr, signer: RequestSigner) -> Result<Client, Box<dyn Error>> {
    let origin = format!("http://{address}");
    let layer = SigningLayer::new(OriginSigner::new(signer, [&origin])?);
    let endpoint = Endpoint::from_shared(origin.clone())?.connect_timeout(CONNECT_TIMEOUT);
    let client = Timeout::new(layer.layer(endpoint.connect().await?), CALL_TIMEOUT);
    Ok(GreeterClient::with_origin(client, origin.parse()?))
}
