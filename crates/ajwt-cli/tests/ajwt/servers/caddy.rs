//! The configuration of docs/gateway.md, in a real Caddy, before a plain service.

use std::time::Duration;

use super::proxy::{
    Proxy, REQUESTS, app, asks_about_paths_that_lead_out, changes_no_protocol, changes_to_websockets_only,
    documented, gateway, has_decided_once_each, lets_through_who_has_a_token, losing_the_second,
    names_nobody_where_nobody_is_asked, names_of_the_connection, send, silent, status_without_nonces,
    while_it_is_silent,
};
use crate::support::Folder;

fn caddy(folder: &Folder, gateway: &str, app: &str) -> Proxy {
    caddy_with(folder, gateway, app, |site| site)
}

/// The documented configuration, with a change that the page tells of.
fn caddy_with(folder: &Folder, gateway: &str, app: &str, change: impl Fn(String) -> String) -> Proxy {
    Proxy::start(folder, |port| {
        let mut site = documented(
            "caddyfile",
            [
                (":80 {", format!("http://:{port} {{\n\tbind 127.0.0.1")),
                ("reverse_proxy 127.0.0.1:8000", format!("reverse_proxy {app}")),
                ("forward_auth 127.0.0.1:4180", format!("forward_auth {gateway}")),
            ],
        );
        let public = documented("caddyfile-public", [("127.0.0.1:8000", app.to_owned())]);
        site.insert_str(site.rfind('}').expect("its end"), &public);
        folder.write("Caddyfile", format!("{{\n\tadmin off\n\tauto_https off\n}}\n{}", change(site)));
        let mut command = folder.command("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.path("Caddyfile"));
        // Where it keeps what it wants to find again.
        command.envs(["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"].map(|name| (name, folder.path("caddy"))));
        command
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_lets_through_who_has_a_token_under_its_own_name() {
    let (folder, gateway) = gateway();
    let caddy = caddy(&folder, gateway.address(), &app().await);
    lets_through_who_has_a_token(&caddy, &folder).await;

    names_nobody_where_nobody_is_asked(&caddy).await;
    asks_about_paths_that_lead_out(&caddy);
    changes_no_protocol(&caddy, &folder);
    for (status, seen) in names_of_the_connection(&caddy, &folder).await {
        assert!(status == 400 && !seen.contains("user"), "{status} {seen}");
    }

    assert_eq!(status_without_nonces(&caddy, &folder).await, 503);
    drop(gateway);
    assert_eq!(send(caddy.get("/", &folder.authorization())).await.status(), 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_changes_to_websockets_only() {
    let (folder, gateway) = gateway();
    let caddy = caddy_with(&folder, gateway.address(), &app().await, |site| {
        site.replace("request_header -Upgrade", "request_header Upgrade websocket")
    });
    changes_to_websockets_only(&caddy, &folder);
    lets_through_who_has_a_token(&caddy, &folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_does_not_wait_for_a_gateway_that_says_nothing() {
    let (folder, _gateway) = gateway();
    let (_silent, address) = silent();
    let caddy = caddy(&folder, &address, &app().await);
    let (status, took) = while_it_is_silent(&caddy, &folder).await;
    assert!(status == 504 && took < Duration::from_secs(20), "{status} {took:?}");
}

/// On a connection that is kept it would ask again, and the gateway knows the token by then.
#[tokio::test(flavor = "multi_thread")]
async fn caddy_asks_once() {
    let (folder, gateway) = gateway();
    let caddy = caddy(&folder, &losing_the_second(gateway.address()), &app().await);
    for _ in 0..REQUESTS {
        assert_eq!(send(caddy.get("/", &folder.authorization())).await.status(), 200);
    }
    has_decided_once_each(&gateway).await;
}
