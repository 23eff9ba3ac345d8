//! The configuration of docs/gateway.md, in a real Caddy, before a plain service.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::{Method, RequestBuilder, Response};

use super::nginx::app;
use crate::{
    support::{Folder, Gateway, client, project_file},
    walkthrough::{blocks, free_port},
};

/// Killed when dropped.
struct Caddy {
    child: Child,
    url: String,
}

impl Caddy {
    fn start(folder: &Folder, gateway: &str, app: &str) -> Self {
        let docs = project_file("docs/gateway.md");
        let block = blocks(&docs).into_iter().find(|block| block.language == "caddyfile");
        for _ in 0..20 {
            let port = free_port();
            let mut site = block.as_ref().expect("a block").text.to_owned();
            for (documented, here) in [
                (":80 {", format!("http://127.0.0.1:{port} {{")),
                ("reverse_proxy 127.0.0.1:8000", format!("reverse_proxy {app}")),
                ("forward_auth 127.0.0.1:4180", format!("forward_auth {gateway}")),
            ] {
                assert!(site.contains(documented), "the documented configuration has no {documented}");
                site = site.replace(documented, &here);
            }
            folder.write("Caddyfile", format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}"));
            if let Some(caddy) = Self::start_at(port, folder) {
                return caddy;
            }
        }
        panic!("Caddy does not start: {}", folder.read("caddy.log"));
    }

    /// `None` if the port is taken by now.
    fn start_at(port: u16, folder: &Folder) -> Option<Self> {
        let log = fs::File::create(folder.path("caddy.log")).expect("a log");
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.path("Caddyfile"));
        // Where it keeps what it wants to find again.
        command.envs(["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"].map(|name| (name, folder.path("caddy"))));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child =
            child.unwrap_or_else(|error| panic!("Caddy does not start ({error}): apt-get install caddy"));
        let mut caddy = Self { child, url: format!("http://127.0.0.1:{port}") };
        for _ in 0..600 {
            if caddy.child.try_wait().expect("its state").is_some() {
                let log = folder.read("caddy.log");
                assert!(log.contains("address already in use"), "{log}");
                return None;
            }
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(caddy);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("Caddy does not answer: {}", folder.read("caddy.log"));
    }

    fn request(&self, method: Method, authorization: Option<&str>) -> RequestBuilder {
        let request = client().request(method, format!("{}/orders?a=b", self.url));
        match authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_lets_through_who_has_a_token_under_its_own_name() {
    let folder = Folder::with_database();
    folder.good("nonce init --nonce sql --database-url sqlite://ajwt.db");
    let gateway = Gateway::start(&folder, "--database-url sqlite://ajwt.db --nonce sql --max-staleness 0");
    let caddy = Caddy::start(&folder, gateway.address(), &app().await);

    let token = folder.authorization();
    let accepted = send(caddy.request(Method::POST, Some(&token)).body("x".repeat(20_000))).await;
    assert_eq!(accepted.status(), 200);
    let seen = accepted.text().await.expect("text");
    let due = "POST /orders?a=b 20000 user [\"\\\"billing\\\"\"] key 1 authorization []";
    assert_eq!(seen, due, "the token goes no further");

    let replayed = send(caddy.request(Method::GET, Some(&token))).await;
    assert_eq!(replayed.status(), 401);
    assert_eq!(replayed.headers()["www-authenticate"], "JWT");
    for method in [Method::GET, Method::POST] {
        for authorization in [None, Some("JWT nonsense"), Some(&*token)] {
            let request = caddy.request(method.clone(), authorization);
            let grpc = send(request.header("content-type", "application/grpc")).await;
            assert_eq!(grpc.status(), 401, "{method} {authorization:?}");
        }
    }

    // Names that a client sends are not the service's to see.
    let spoofed = caddy.request(Method::GET, Some(&folder.authorization()));
    let spoofed = spoofed.header("X-Ajwt-Username", "admin").header("x-ajwt-username", "root");
    let spoofed = ["X_Ajwt_Username", "X_AJWT-Username", "x-ajwt_username", "X_Ajwt_Key_Id", "X-Ajwt-Key_Id"]
        .into_iter()
        .fold(spoofed, |spoofed, name| spoofed.header(name, "admin"));
    let seen = send(spoofed.header("X-Ajwt-Key-Id", "0")).await.text().await.expect("text");
    assert!(seen.contains("user [\"\\\"billing\\\"\"] key 1 "), "{seen}");

    // Nor can it have the proxy take the right ones out again, as of one connection only.
    for connection in ["X-Ajwt-Username", "close, x-ajwt-username , X-AJWT-KEY-ID"] {
        let stripped = caddy.request(Method::GET, Some(&folder.authorization()));
        let stripped = send(stripped.header("connection", connection)).await;
        let status = stripped.status();
        let seen = stripped.text().await.expect("text");
        assert!(status == 400 && !seen.contains("user"), "{connection}: {status} {seen}");
    }

    drop(gateway);
    assert_eq!(send(caddy.request(Method::GET, Some(&folder.authorization()))).await.status(), 502);
}
