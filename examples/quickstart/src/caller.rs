use std::error::Error;

use ajwt_client::{RequestBuilderExt as _, RequestSigner};
use reqwest::{Client, Response};

/// The client: every request carries a fresh token that only this key can sign.
pub async fn call(client: &Client, url: &str, signer: &RequestSigner) -> Result<Response, Box<dyn Error>> {
    Ok(client.get(url).sign_with(signer)?.send().await?)
}
