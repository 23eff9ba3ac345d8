//! The configuration of docs/gateway.md, in a real Caddy, before a plain service.

use super::proxy::{
    Proxy, app, documented, gateway, lets_through_who_has_a_token, names_nobody_where_nobody_is_asked,
    names_of_the_connection, send, status_without_nonces,
};
use crate::support::Folder;

fn caddy(folder: &Folder, gateway: &str, app: &str) -> Proxy {
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
        folder.write("Caddyfile", format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}"));
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
    for (status, seen) in names_of_the_connection(&caddy, &folder).await {
        assert!(status == 400 && !seen.contains("user"), "{status} {seen}");
    }

    assert_eq!(status_without_nonces(&caddy, &folder).await, 503);
    drop(gateway);
    assert_eq!(send(caddy.get("/", &folder.authorization())).await.status(), 502);
}
