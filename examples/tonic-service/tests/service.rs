//! The service over real HTTP/2, and what the program prints.

use std::{process::Command, sync::Arc};

use ajwt_client::RequestSigner;
use ajwt_core::PrivateKey;
use ajwt_server::{
    Authenticator, MemoryNonceBackend, MemoryRepository, User,
    testing::{StoreIsDown, TestSigner},
};
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue, transport::Endpoint};
use tonic_service::{
    Greeting, HealthCheckRequest, SERVING, connect,
    generated::{greeter_client::GreeterClient, health_client::HealthClient},
    serve,
};

/// Calls the service with these values of `authorization` and no others.
async fn greet(authenticator: &Authenticator, authorization: &[String]) -> Result<String, Status> {
    let address = serve(authenticator.clone()).await.expect("it serves");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an endpoint");
    let mut client = GreeterClient::new(endpoint.connect().await.expect("connected"));
    let mut request = Request::new(Greeting { text: "hello".to_owned() });
    for value in authorization {
        let value = AsciiMetadataValue::try_from(value.as_str()).expect("a value");
        request.metadata_mut().append("authorization", value);
    }
    client.greet(request).await.map(|response| response.into_inner().text)
}

#[tokio::test]
async fn a_token_works_once_and_a_bad_one_is_unauthenticated() {
    let signer = TestSigner::new("guido");
    let authenticator = signer.authenticator();
    let token = signer.authorization();
    let greeted = greet(&authenticator, std::slice::from_ref(&token)).await.expect("greeted");
    assert_eq!(greeted, "hello to you, guido");
    let stranger = TestSigner::new("guido");
    for (what, authorization) in [
        ("no token", vec![]),
        ("the same token again", vec![token]),
        ("a token of an unknown key", vec![stranger.authorization()]),
        ("no token at all", vec!["JWT abc".to_owned()]),
        ("two good ones", vec![signer.authorization(), signer.authorization()]),
    ] {
        let status = greet(&authenticator, &authorization).await.expect_err(what);
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "unauthorized"), "{what}");
        assert!(status.details().is_empty(), "{what}");
    }
}

/// As Kubernetes probes a container.
#[tokio::test]
async fn a_probe_needs_no_token_and_every_method_of_the_greeter_does() {
    let address = serve(TestSigner::new("guido").authenticator()).await.expect("it serves");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an endpoint");
    let channel = endpoint.connect().await.expect("connected");
    let mut health = HealthClient::new(channel.clone());
    let check = |service: &str| HealthCheckRequest { service: service.to_owned() };
    assert_eq!(health.check(check("")).await.expect("an answer").into_inner().status, SERVING);
    assert_eq!(health.check(check("other")).await.expect_err("unknown").code(), Code::NotFound);

    let mut greeter = GreeterClient::new(channel);
    let hello = || Greeting { text: "hello".to_owned() };
    assert_eq!(greeter.greet(hello()).await.expect_err("refused").code(), Code::Unauthenticated);
    assert_eq!(greeter.greet_often(hello()).await.expect_err("refused").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_store_that_is_down_is_unavailable() {
    let signer = TestSigner::new("guido");
    let authenticator = signer.authenticator_with(StoreIsDown);
    let status = greet(&authenticator, &[signer.authorization()]).await.expect_err("refused");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "service unavailable"));
}

#[tokio::test]
async fn a_stream_takes_one_token() {
    let key = PrivateKey::generate_ed25519().expect("a key");
    let user = User::new("guido").with_keys([key.public_key().clone()]);
    let users = MemoryRepository::new([user]);
    let nonces = Arc::new(MemoryNonceBackend::default());
    let authenticator = Authenticator::builder(Arc::new(users), Arc::clone(&nonces) as _).build();
    let address = serve(authenticator.expect("an authenticator")).await.expect("it serves");
    let signer = RequestSigner::new("guido", key).expect("a signer");
    let mut client = connect(address, signer).await.expect("connected");
    for calls in 1..=2 {
        let response = client.greet_often(Greeting { text: "hi".to_owned() }).await.expect("an answer");
        let mut greetings = response.into_inner();
        let mut count = 0;
        while let Some(greeting) = greetings.message().await.expect("a message") {
            assert_eq!(greeting.text, "hi to you, guido");
            count += 1;
        }
        assert_eq!((count, nonces.len()), (3, calls));
    }
}

#[test]
fn the_program_shows_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_tonic-service")).output().expect("it runs");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[..4], ["guido:    hello to you, guido"; 4], "{printed}");
    assert_eq!(lines[4..], ["stranger: Unauthenticated: unauthorized"], "{printed}");
}
