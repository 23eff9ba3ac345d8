//! The configuration of docs/gateway.md, in a real Traefik, before a plain service.

use std::{fs, time::Duration};

use super::proxy::{
    Proxy, app, asks_about_paths_that_lead_out, changes_no_protocol, changes_to_websockets_only, documented,
    gateway, installed, lets_through_who_has_a_token, names_nobody_where_nobody_is_asked,
    names_of_the_connection, send, silent, status_without_nonces, while_it_is_silent,
};
use crate::support::{Folder, eventually};

fn traefik(folder: &Folder, gateway: &str, app: &str) -> Proxy {
    traefik_with(folder, gateway, app, "Upgrade: \"\"")
}

/// The documented configuration, with this in the place of what it does with `Upgrade`.
fn traefik_with(folder: &Folder, gateway: &str, app: &str, upgrade: &str) -> Proxy {
    let configuration = documented(
        "yaml dynamic.yaml",
        [
            ("address: http://127.0.0.1:4180/", format!("address: http://{gateway}/")),
            ("url: http://127.0.0.1:8000", format!("url: http://{app}")),
            ("Upgrade: \"\"", upgrade.to_owned()),
        ],
    );
    fs::create_dir(folder.path("traefik")).expect("a folder");
    folder.write("traefik/dynamic.yaml", configuration);
    let healthz = ("address: http://127.0.0.1:4180/", format!("address: http://{gateway}/"));
    folder.write("traefik/public.yaml", documented("yaml public.yaml", [healthz]));
    Proxy::start(folder, |port| {
        let mut command = folder.command(&installed("traefik"));
        command.args(["--providers.file.directory=traefik", "--log.level=INFO"]);
        command.arg(format!("--entrypoints.web.address=127.0.0.1:{port}"));
        // It is to speak with nobody else.
        command.args(["--global.checknewversion=false", "--global.sendanonymoususage=false"]);
        command
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn traefik_lets_through_who_has_a_token_under_its_own_name() {
    let (folder, gateway) = gateway();
    let traefik = traefik(&folder, gateway.address(), &app().await);
    // It listens before it has read what to do.
    eventually("router", async || send(traefik.get("/", "")).await.status() != 404).await;
    lets_through_who_has_a_token(&traefik, &folder).await;

    names_nobody_where_nobody_is_asked(&traefik).await;
    asks_about_paths_that_lead_out(&traefik);
    changes_no_protocol(&traefik, &folder);
    for (_, seen) in names_of_the_connection(&traefik, &folder).await {
        assert!(seen.contains("user [\"\\\"billing\\\"\"] key 1 "), "{seen}");
    }

    assert_eq!(status_without_nonces(&traefik, &folder).await, 503);
    drop(gateway);
    assert_eq!(send(traefik.get("/", &folder.authorization())).await.status(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn traefik_changes_to_websockets_only() {
    let (folder, gateway) = gateway();
    let traefik = traefik_with(&folder, gateway.address(), &app().await, "Upgrade: websocket");
    eventually("router", async || send(traefik.get("/", "")).await.status() != 404).await;
    changes_to_websockets_only(&traefik, &folder);
    lets_through_who_has_a_token(&traefik, &folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traefik_does_not_wait_for_long_for_a_gateway_that_says_nothing() {
    let (folder, _gateway) = gateway();
    let (_silent, address) = silent();
    let traefik = traefik(&folder, &address, &app().await);
    let mut answer = (404, Duration::ZERO);
    eventually("router", async || {
        answer = while_it_is_silent(&traefik, &folder).await;
        answer.0 != 404
    })
    .await;
    let (status, took) = answer;
    assert!(status == 500 && took < Duration::from_secs(60), "{status} {took:?}");
}
