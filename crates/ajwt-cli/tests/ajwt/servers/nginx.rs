//! The configuration of docs/gateway.md, in a real nginx, before a plain service.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Router, extract::Request, routing::any};
use reqwest::{Method, RequestBuilder, Response};

use crate::{
    support::{Folder, Gateway, client, eventually, project_file},
    walkthrough::{blocks, free_port},
};

/// nginx in the foreground, as one process, killed when dropped.
pub(super) struct Nginx {
    child: Child,
    url: String,
}

impl Nginx {
    fn start(folder: &Folder, gateway: &str, app: &str) -> Self {
        for _ in 0..20 {
            if let Some(nginx) = Self::start_at(free_port(), folder, gateway, app) {
                return nginx;
            }
        }
        panic!("nginx does not start: {}", folder.read("nginx.log"));
    }

    /// `None` if the port is taken by now.
    fn start_at(port: u16, folder: &Folder, gateway: &str, app: &str) -> Option<Self> {
        let docs = project_file("docs/gateway.md");
        let block = |language: &str| {
            let block = blocks(&docs).into_iter().find(|block| block.language == language);
            block.unwrap_or_else(|| panic!("no block of {language}")).text.to_owned()
        };
        let mut server = block("nginx");
        for (documented, here) in [
            ("listen 80;", format!("listen 127.0.0.1:{port};")),
            ("server 127.0.0.1:8000;", format!("server {app};")),
            ("server 127.0.0.1:4180;", format!("server {gateway};")),
        ] {
            assert!(server.contains(documented), "the documented configuration has no {documented}");
            server = server.replace(documented, &here);
        }
        // The other block belongs into a location that is asked about.
        let redirects = block("nginx-location");
        let (error_page, location) = redirects.trim().split_once('\n').expect("two directives");
        server = server.replacen(
            "proxy_set_header Host",
            &format!("{error_page}\n        proxy_set_header Host"),
            1,
        );
        let end = server.rfind('}').expect("its end");
        server.insert_str(end, location);
        server.insert_str(end, &block("nginx-public"));
        Self::run(port, folder, &server)
    }

    /// Runs this configuration of a server on this port; `None` if the port is taken by now.
    pub(super) fn run(port: u16, folder: &Folder, server: &str) -> Option<Self> {
        let path = folder.path("nginx");
        fs::create_dir_all(&path).expect("a folder");
        let path = path.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {path}/{kind};\n"))
            .collect();
        folder.write(
            "nginx.conf",
            format!(
                "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log stderr;\nevents {{}}\n\
                 http {{\naccess_log off;\n{temporary}{server}}}\n"
            ),
        );
        let log = fs::File::create(folder.path("nginx.log")).expect("a log");
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .find(|path| fs::exists(path).is_ok_and(|is| is));
        let mut command = Command::new(program.unwrap_or("nginx"));
        command.arg("-c").arg(folder.path("nginx.conf")).args(["-e", "stderr"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child
            .unwrap_or_else(|error| panic!("nginx does not start ({error}): apt-get install nginx-light"));
        let mut nginx = Self { child, url: format!("http://127.0.0.1:{port}") };
        for _ in 0..600 {
            if nginx.child.try_wait().expect("its state").is_some() {
                assert!(
                    folder.read("nginx.log").contains("Address already in use"),
                    "{}",
                    folder.read("nginx.log")
                );
                return None;
            }
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(nginx);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("nginx does not answer: {}", folder.read("nginx.log"));
    }

    fn get(&self, path: &str, authorization: &str) -> RequestBuilder {
        client().get(format!("{}{path}", self.url)).header("authorization", authorization)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

/// A service in front of which nginx stands: it says which headers have come, and nothing of ours.
pub(super) async fn app() -> String {
    let echo = |request: Request| async move {
        let (parts, body) = request.into_parts();
        // A service that leaves it unread breaks the connection.
        let body = axum::body::to_bytes(body, 1024 * 1024).await.expect("a body");
        let headers = parts.headers;
        // As CGI, WSGI and PHP see them, to which an underscore is a hyphen.
        let values = |name: &str| {
            let named = headers.iter().filter(|(found, _)| found.as_str().replace('_', "-") == name);
            named.map(|(_, value)| format!("{value:?}")).collect::<Vec<_>>()
        };
        format!(
            "{} {} {} user {:?} key {:?} authorization {:?}",
            parts.method,
            parts.uri,
            body.len(),
            values("x-ajwt-username"),
            values("x-ajwt-key-id").len(),
            values("authorization")
        )
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(echo))).await });
    address
}

struct Service {
    folder: Folder,
    gateway: Gateway,
    nginx: Nginx,
}

async fn service() -> Service {
    let folder = Folder::with_database();
    folder.good("nonce init --nonce sql --database-url sqlite://ajwt.db");
    let gateway = Gateway::start(&folder, "--database-url sqlite://ajwt.db --nonce sql --max-staleness 0");
    let nginx = Nginx::start(&folder, gateway.address(), &app().await);
    Service { folder, gateway, nginx }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_service_once() {
    let Service { folder, gateway: _gateway, nginx } = service().await;
    let token = folder.authorization();
    let request = client()
        .post(format!("{}/orders?a=b", nginx.url))
        .header("authorization", &token)
        .body("x".repeat(20_000));
    let accepted = send(request).await;
    assert_eq!(accepted.status(), 200);
    let seen = accepted.text().await.expect("text");
    assert_eq!(
        seen, "POST /orders?a=b 20000 user [\"\\\"billing\\\"\"] key 1 authorization []",
        "the token goes no further"
    );

    let replayed = send(nginx.get("/orders", &token)).await;
    assert_eq!(replayed.status(), 401);
    assert_eq!(replayed.headers()["www-authenticate"], "JWT");
    for credentials in ["JWT nonsense", "Basic eDp5"] {
        assert_eq!(send(nginx.get("/orders", credentials)).await.status(), 401, "{credentials}");
    }
    let anonymous = send(client().get(format!("{}/orders", nginx.url))).await;
    assert_eq!(anonymous.status(), 401);
    // nginx asks with the client's headers, but always with GET.
    for method in [Method::GET, Method::POST] {
        let grpc = client().request(method, format!("{}/orders", nginx.url));
        assert_eq!(send(grpc.header("content-type", "application/grpc")).await.status(), 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_client_sends_are_stripped() {
    let Service { folder, gateway: _gateway, nginx } = service().await;
    let spoofed = |request: RequestBuilder| {
        let request = request.header("X-Ajwt-Username", "admin").header("x-ajwt-username", "root");
        request.header("X_Ajwt_Username", "admin").header("X-Ajwt-Key-Id", "0").header("X-Ajwt-Key-Id", "1")
    };
    let accepted = send(spoofed(nginx.get("/", &folder.authorization()))).await;
    assert_eq!(accepted.status(), 200);
    let seen = accepted.text().await.expect("text");
    assert!(seen.contains("user [\"\\\"billing\\\"\"] key 1 "), "{seen}");
    assert_eq!(send(spoofed(nginx.get("/", "JWT nonsense"))).await.status(), 401);
    // Where nobody is asked, there is no name.
    let public = send(spoofed(nginx.get("/public/", "JWT nonsense"))).await;
    assert_eq!(public.status(), 200);
    let seen = public.text().await.expect("text");
    assert!(seen.contains("user [] key 0 "), "{seen}");
    // Nor can a client ask the gateway itself.
    assert_eq!(send(nginx.get("/_ajwt", &folder.authorization())).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_down_is_no_access() {
    let Service { folder, gateway, nginx } = service().await;
    assert_eq!(send(nginx.get("/", &folder.authorization())).await.status(), 200);
    drop(gateway);
    let answer = send(nginx.get("/", &folder.authorization())).await;
    assert_eq!(answer.status(), 500);
    assert!(!answer.text().await.expect("text").contains("user"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_no_access() {
    let Service { folder, gateway: _gateway, nginx } = service().await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", folder.path("ajwt.db").display())).await;
    let pool = pool.expect("connected");
    sqlx::query("ALTER TABLE ajwt_nonce RENAME TO gone").execute(&pool).await.expect("renamed");
    assert_eq!(send(nginx.get("/", &folder.authorization())).await.status(), 500);
    sqlx::query("ALTER TABLE gone RENAME TO ajwt_nonce").execute(&pool).await.expect("renamed");
    eventually("access", async || send(nginx.get("/", &folder.authorization())).await.status() == 200).await;
}

/// The page for a service that is down is an internal redirect: it must not ask again, which would
/// make 401 of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_internal_redirect_asks_no_second_time() {
    let folder = Folder::with_database();
    folder.good("nonce init --nonce sql --database-url sqlite://ajwt.db");
    let gateway = Gateway::start(&folder, "--database-url sqlite://ajwt.db --nonce sql");
    let nginx = Nginx::start(&folder, gateway.address(), &format!("127.0.0.1:{}", free_port()));
    let answer = send(nginx.get("/", &folder.authorization())).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.text().await.expect("text"), "the service is down\n");
    assert_eq!(
        send(nginx.get("/", "JWT nonsense")).await.status(),
        401,
        "who is not accepted learns nothing"
    );
}
