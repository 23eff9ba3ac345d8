//! Proxies that the environment names.

use std::{env, process::Command};

use crate::{
    client, fetch, key, keys,
    server::{Server, ok, set_of},
};

/// Tells the process that a test starts that it is that one.
const IS_CHILD: &str = "AJWT_TEST_BEHIND_PROXY";

const VARIABLES: [&str; 6] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    let test = "proxies::proxies_of_the_environment_are_not_used";
    if env::var_os(IS_CHILD).is_some() {
        behind_a_proxy().await;
        return;
    }
    let proxy = Server::answering(ok(set_of(&key()))).await;
    let mut child = Command::new(env::current_exe().expect("this program"));
    child.args(["--exact", test, "--nocapture"]).env(IS_CHILD, "1").env_remove("NO_PROXY");
    child.env_remove("no_proxy").env_remove("REQUEST_METHOD");
    for variable in VARIABLES {
        child.env(variable, format!("http://{}", proxy.address));
    }
    let output = tokio::task::spawn_blocking(move || child.output()).await.expect("joined").expect("started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(proxy.connections(), 1, "that of the client that uses it, no other: {told}");
}

async fn behind_a_proxy() {
    let key = key();
    let server = Server::answering(ok(set_of(&key))).await;
    // A client that uses what the environment names shows that it names one.
    let careless = reqwest::Client::new().get(server.url()).send().await.expect("the proxy answers");
    assert!(careless.text().await.is_ok_and(|text| text != set_of(&key)));
    assert_eq!(server.connections(), 0);
    assert_eq!(keys(fetch(&client(), &server.url()).await), [key]);
    assert_eq!(server.connections(), 1);
}
