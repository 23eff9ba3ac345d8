//! The configuration of docs/gateway.md, in a real Envoy, before a plain service.

use std::time::Duration;

use super::proxy::{
    Proxy, app, asks_about_paths_that_lead_out, changes_no_protocol, changes_to_websockets_only, documented,
    gateway, installed, lets_through_who_has_a_token, names_nobody_where_nobody_is_asked,
    names_of_the_connection, send, silent, status_without_nonces, while_it_is_silent,
};
use crate::support::Folder;

fn envoy(folder: &Folder, gateway: &str, app: &str) -> Proxy {
    envoy_with(folder, gateway, app, "")
}

/// The documented configuration, with this line beside the first of its manager of connections.
fn envoy_with(folder: &Folder, gateway: &str, app: &str, line: &str) -> Proxy {
    let port_of = |address: &str| address.rsplit_once(':').expect("a port").1.to_owned();
    // As deep as the routes.
    let public = documented("yaml envoy-public.yaml", []);
    let public = public.trim().replace('\n', &format!("\n{:22}", ""));
    Proxy::start(folder, |port| {
        let configuration = documented(
            "yaml envoy.yaml",
            [
                ("address: 0.0.0.0, port_value: 80 }", format!("address: 127.0.0.1, port_value: {port} }}")),
                ("port_value: 4180", format!("port_value: {}", port_of(gateway))),
                ("port_value: 8000", format!("port_value: {}", port_of(app))),
                ("stat_prefix: orders", format!("stat_prefix: orders\n{:16}{line}", "")),
                ("- match: { prefix: / }", format!("{public}\n{:24}- match: {{ prefix: / }}", "")),
            ],
        );
        folder.write("envoy.yaml", configuration);
        let mut command = folder.command(&installed("envoy"));
        // What it would share with the Envoy that takes over from it stays behind when it is killed.
        command.args(["--config-path", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart"]);
        command
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_lets_through_who_has_a_token_under_its_own_name() {
    let (folder, gateway) = gateway();
    let envoy = envoy(&folder, gateway.address(), &app().await);
    lets_through_who_has_a_token(&envoy, &folder).await;

    names_nobody_where_nobody_is_asked(&envoy).await;
    asks_about_paths_that_lead_out(&envoy);
    changes_no_protocol(&envoy, &folder);
    for (_, seen) in names_of_the_connection(&envoy, &folder).await {
        assert!(seen.contains("user [\"\\\"billing\\\"\"] key 1 "), "{seen}");
    }

    assert_eq!(status_without_nonces(&envoy, &folder).await, 503);
    drop(gateway);
    assert_eq!(send(envoy.get("/", &folder.authorization())).await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_changes_to_websockets_only() {
    let (folder, gateway) = gateway();
    let line = "upgrade_configs: [{ upgrade_type: websocket }]";
    let envoy = envoy_with(&folder, gateway.address(), &app().await, line);
    changes_to_websockets_only(&envoy, &folder);
    lets_through_who_has_a_token(&envoy, &folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_does_not_wait_for_a_gateway_that_says_nothing() {
    let (folder, _gateway) = gateway();
    let (_silent, address) = silent();
    let envoy = envoy(&folder, &address, &app().await);
    let (status, took) = while_it_is_silent(&envoy, &folder).await;
    assert!(status == 503 && took < Duration::from_secs(20), "{status} {took:?}");
}
