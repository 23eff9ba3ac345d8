//! Fetching from real servers, which the tests start on free ports of loopback addresses.

mod addresses;
mod answers;
mod caching;
mod documents;
mod proxies;
mod server;
#[cfg(feature = "rustls")]
mod tls;

use std::{error::Error, time::Duration};

use ajwt_core::{JwkSet, PrivateKey, PublicKey};
use ajwt_jwks::{AddressPolicy, FetchError, JwksClient, JwksClientBuilder, JwksResponse, Validators};

/// For tests that are not about the deadline: the machine may be busy.
const PATIENT: Duration = Duration::from_secs(30);

/// A client that may reach the servers of these tests.
fn builder() -> JwksClientBuilder {
    let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
    JwksClient::builder().address_policy(policy).insecure_allow_http().deadline(PATIENT)
}

fn client() -> JwksClient {
    builder().build().expect("a client")
}

async fn fetch(client: &JwksClient, url: &str) -> Result<JwksResponse, FetchError> {
    client.fetch(url, &Validators::default()).await
}

fn key() -> PublicKey {
    PrivateKey::generate_ed25519().expect("a key").public_key().clone()
}

fn told(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |error| (**error).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// What a fetch must be refused with.
#[track_caller]
fn refused(result: Result<JwksResponse, FetchError>, what: &str, label: &str) -> String {
    let error = result.map(|response| response.set.map(|set| set.keys().len())).expect_err(what);
    let told = told(&error);
    assert_eq!(error.label(), label, "{what}: {told}");
    told
}

#[track_caller]
fn keys(result: Result<JwksResponse, FetchError>) -> Vec<PublicKey> {
    let response = result.unwrap_or_else(|error| panic!("{}", told(&error)));
    response.set.map(|set: JwkSet| set.keys().iter().map(|jwk| jwk.key().clone()).collect()).expect("a set")
}
