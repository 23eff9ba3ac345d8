//! A user of the published packages: scripts/package runs the README's code with this, below a
//! manifest that is the README's too. The argument is the path of a database that it may make.

use std::{env, error::Error};

use ajwt_client::RequestSigner;
use ajwt_core::PrivateKey;
use ajwt_sqlx::SqliteRepository;
use reqwest::{Client, header::AUTHORIZATION, redirect::Policy, retry};
use tokio::net::TcpListener;

mod service {
    include!("readme/service.rs");
}

mod register {
    include!("readme/register.rs");
}

mod call {
    include!("readme/call.rs");
}

mod client {
    include!("readme/client.rs");
}

mod audience {
    include!("readme/billing_calls_orders.rs");

    /// A signer with an audience, for a service that is really there.
    pub fn signer(key: PrivateKey) -> Result<RequestSigner, Box<dyn std::error::Error>> {
        validation_of_orders()?;
        Ok(billing_calls_orders(key)?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("name a database that may be made")?;
    let (key, second) = (PrivateKey::generate_ed25519()?, PrivateKey::generate_ed25519()?);
    let repository = SqliteRepository::connect(&format!("sqlite://{path}")).await?;
    register::register(&repository, "billing", &[key.public_key(), second.public_key()]).await?;

    let (router, authenticator) = service::service(repository)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/hello", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let http = Client::builder().no_proxy().redirect(Policy::none()).retry(retry::never()).build()?;
    let signer = RequestSigner::new("billing", key)?;
    let answer = call::call(&http, &url, &signer).await?.error_for_status()?.text().await?;
    assert_eq!(answer, "hello, billing");

    let token = signer.authorization()?;
    for expected in [200, 401] {
        let status = http.get(&url).header(AUTHORIZATION, token.clone()).send().await?.status();
        assert_eq!(status, expected, "a token works once");
    }
    let status = call::call(&http, &url, &audience::signer(second)?).await?.status();
    assert_eq!(status, 401, "the service has no audience");
    let elsewhere = client::client(signer)?.get(&url).send().await;
    assert!(elsewhere.is_err(), "the client is for https://orders.example alone");

    server.abort();
    authenticator.close().await;
    println!("the README's code works with the packages");
    Ok(())
}
