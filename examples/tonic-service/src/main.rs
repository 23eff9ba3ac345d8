//! A gRPC service and its callers in one program: `cargo run -p tonic-service`.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{error::Error, sync::Arc};

use ajwt_client::RequestSigner;
use ajwt_core::PrivateKey;
use ajwt_server::{Authenticator, MemoryNonceBackend, MemoryRepository, User};
use tonic_service::{Greeting, connect, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let key = PrivateKey::generate_ed25519()?;
    let users = MemoryRepository::new([User::new("guido").with_keys([key.public_key().clone()])]);
    let nonces = MemoryNonceBackend::default();
    let authenticator = Authenticator::builder(Arc::new(users), Arc::new(nonces)).build()?;
    let address = serve(authenticator.clone()).await?;

    let hello = || Greeting { text: "hello".to_owned() };
    let mut guido = connect(address, RequestSigner::new("guido", key)?).await?;
    println!("guido:    {}", guido.greet(hello()).await?.into_inner().text);
    let mut greetings = guido.greet_often(hello()).await?.into_inner();
    while let Some(greeting) = greetings.message().await? {
        println!("guido:    {}", greeting.text);
    }
    let stranger = RequestSigner::new("guido", PrivateKey::generate_ed25519()?)?;
    let answer = connect(address, stranger).await?.greet(hello()).await;
    match answer {
        Ok(answer) => println!("stranger: {}", answer.into_inner().text),
        Err(status) => println!("stranger: {:?}: {}", status.code(), status.message()),
    }
    authenticator.close().await;
    Ok(())
}
