//! Proxies that others wrote, between a client and a plain service: what each of them must do.

use std::{
    fs::File,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ajwt_test_servers::port::free_port;
use axum::{Router, extract::Request, routing::any};
use reqwest::{Method, RequestBuilder, Response};

use crate::{
    support::{Folder, Gateway, client, eventually, project_file},
    walkthrough::blocks,
};

/// A proxy that runs until it is dropped.
pub(super) struct Proxy {
    child: Child,
    url: String,
}

impl Proxy {
    /// Starts what `command` sets up for a port, and for another one where that is taken by then.
    pub(super) fn start(folder: &Folder, command: impl Fn(u16) -> Command) -> Self {
        for _ in 0..20 {
            let port = free_port();
            if let Some(proxy) = Self::at(port, folder, command(port)) {
                return proxy;
            }
        }
        panic!("each port is taken: {}", folder.read("proxy.log"));
    }

    /// `None` if the port is taken.
    pub(super) fn at(port: u16, folder: &Folder, mut command: Command) -> Option<Self> {
        let log = File::create(folder.path("proxy.log")).expect("a log");
        let output = log.try_clone().expect("a log");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(log).spawn();
        let child =
            child.unwrap_or_else(|error| panic!("{command:?} does not start ({error}): run ./scripts/test"));
        let mut proxy = Self { child, url: format!("http://127.0.0.1:{port}") };
        for _ in 0..2400 {
            if proxy.child.try_wait().expect("its state").is_some() {
                let log = folder.read("proxy.log");
                assert!(log.to_lowercase().contains("address already in use"), "{log}");
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(proxy);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("{command:?} does not answer: {}", folder.read("proxy.log"));
    }

    pub(super) fn request(&self, method: Method, path: &str, authorization: Option<&str>) -> RequestBuilder {
        // The host that the documented configurations are for.
        let request =
            client().request(method, format!("{}{path}", self.url)).header("host", "orders.example");
        match authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    pub(super) fn get(&self, path: &str, authorization: &str) -> RequestBuilder {
        self.request(Method::GET, path, Some(authorization))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that `./scripts/test` has put beside the Python that it names in `AJWT_PYTHON`.
pub(super) fn installed(program: &str) -> String {
    let python = std::env::var("AJWT_PYTHON").expect("AJWT_PYTHON is not set: run ./scripts/test");
    Path::new(&python).with_file_name(program).display().to_string()
}

pub(super) async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

/// The block of docs/gateway.md that begins so, with what is here in the place of what it says.
pub(super) fn documented<const N: usize>(info: &str, here: [(&str, String); N]) -> String {
    let docs = project_file("docs/gateway.md");
    let (language, name) = info.split_once(' ').unwrap_or((info, ""));
    let block = blocks(&docs).into_iter().find(|block| (block.language, block.name) == (language, name));
    let block = block.unwrap_or_else(|| panic!("no block {info}")).text.to_owned();
    here.into_iter().fold(block, |block, (documented, here)| {
        assert!(block.contains(documented), "the documented configuration has no {documented}");
        block.replace(documented, &here)
    })
}

/// A service in front of which a proxy stands: it says which headers have come, and nothing of ours.
pub(super) async fn app() -> String {
    let echo = |request: Request| async move {
        let (parts, body) = request.into_parts();
        // A service that leaves it unread breaks the connection.
        let body = axum::body::to_bytes(body, 1024 * 1024).await.expect("a body");
        let headers = parts.headers;
        let values = |name: &str| {
            let named = headers.iter().filter(|(found, _)| variable(found.as_str()) == name);
            named.map(|(_, value)| format!("{value:?}")).collect::<Vec<_>>()
        };
        format!(
            "{} {} {} user {:?} key {:?} authorization {:?}",
            parts.method,
            parts.uri,
            body.len(),
            values("x_ajwt_username"),
            values("x_ajwt_key_id").len(),
            values("authorization")
        )
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(echo))).await });
    address
}

/// A header's name as lighttpd hands it on, which takes more characters for the same than CGI, WSGI and PHP do.
fn variable(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

/// A gateway on a database, and the folder of both.
pub(super) fn gateway() -> (Folder, Gateway) {
    let folder = Folder::with_database();
    folder.good("nonce init --nonce sql --database-url sqlite://ajwt.db");
    let gateway = Gateway::start(&folder, "--database-url sqlite://ajwt.db --nonce sql --max-staleness 0");
    (folder, gateway)
}

/// A token opens the service once, under the name of its user, whatever names the client sends.
pub(super) async fn lets_through_who_has_a_token(proxy: &Proxy, folder: &Folder) {
    let token = folder.authorization();
    let accepted =
        send(proxy.request(Method::POST, "/orders?a=b", Some(&token)).body("x".repeat(20_000))).await;
    assert_eq!(accepted.status(), 200);
    let seen = accepted.text().await.expect("text");
    let due = "POST /orders?a=b 20000 user [\"\\\"billing\\\"\"] key 1 authorization []";
    assert_eq!(seen, due, "the token goes no further");

    let replayed = send(proxy.get("/orders?a=b", &token)).await;
    assert_eq!(replayed.status(), 401);
    assert_eq!(replayed.headers()["www-authenticate"], "JWT");
    for (method, authorization) in refused(&token) {
        let request = proxy.request(method.clone(), "/orders?a=b", authorization);
        assert_eq!(send(request).await.status(), 401, "{method} {authorization:?}");
        // In gRPC each answer is 200; Envoy makes one of its own, UNAUTHENTICATED.
        let grpc = proxy.request(method.clone(), "/orders?a=b", authorization);
        let grpc = send(grpc.header("content-type", "application/grpc")).await;
        let told = grpc.headers().get("grpc-status").is_some_and(|status| status == "16");
        assert!(grpc.status() == if told { 200 } else { 401 }, "gRPC {method} {authorization:?}: {grpc:?}");
        assert!(!grpc.text().await.expect("text").contains("user"));
    }

    // Names that a client sends are not the service's to see.
    let spoofed = proxy.get("/", &folder.authorization());
    let spoofed = spoofed.header("X-Ajwt-Username", "admin").header("x-ajwt-username", "root");
    let spoofed = send(spoofed.header("X-Ajwt-Key-Id", "0").header("X-Ajwt-Key-Id", "1")).await;
    let seen = spoofed.text().await.expect("text");
    assert!(seen.contains("user [\"\\\"billing\\\"\"] key 1 "), "{seen}");
    for names in spellings().chunks(AT_ONCE) {
        let spoofed = send(self::spoofed(proxy.get("/", &folder.authorization()), names)).await;
        assert_eq!(spoofed.status(), 200, "{names:?}");
        let seen = spoofed.text().await.expect("text");
        assert!(seen.contains("user [\"\\\"billing\\\"\"] key 1 "), "{names:?}: {seen}");
    }
}

/// What must not be let through where this token is used up.
fn refused(used: &str) -> impl Iterator<Item = (Method, Option<&str>)> {
    let credentials = [None, Some("JWT nonsense"), Some("Basic eDp5"), Some(used)];
    let methods = [Method::GET, Method::POST].into_iter();
    methods.flat_map(move |method| credentials.map(|credentials| (method.clone(), credentials)))
}

/// Where nobody is asked there is no name, however the client spells those that it sends.
pub(super) async fn names_nobody_where_nobody_is_asked(proxy: &Proxy) {
    for names in spellings().chunks(AT_ONCE) {
        let public = send(spoofed(proxy.request(Method::GET, "/public/", None), names)).await;
        assert_eq!(public.status(), 200, "{names:?}");
        let seen = public.text().await.expect("text");
        assert!(seen.contains("user [] key 0 "), "{names:?}: {seen}");
    }
}

/// What a header's name may have beside letters and digits (RFC 9110 section 5.6.2).
const SEPARATORS: &str = "!#$%&'*+-.^_`|~";

/// How many headers of a client's own go into one request: proxies and services take a hundred.
const AT_ONCE: usize = 45;

/// Names that are the gateway's to a service that takes each of these characters for a hyphen.
fn spellings() -> Vec<String> {
    let pairs = SEPARATORS.chars().flat_map(|one| SEPARATORS.chars().map(move |two| (one, two)));
    let names = pairs
        .flat_map(|(one, two)| [format!("X{one}Ajwt{two}Username"), format!("X{one}AJWT{two}Key{one}Id")]);
    names.collect()
}

/// A request whose sender calls himself admin by each of these headers.
fn spoofed(request: RequestBuilder, names: &[String]) -> RequestBuilder {
    names.iter().fold(request, |request, name| request.header(name.as_str(), "admin"))
}

/// What the service sees where the client calls the gateway's answers headers of this connection only (RFC 9110
/// section 7.6.1), so that the proxy may take them out.
pub(super) async fn names_of_the_connection(proxy: &Proxy, folder: &Folder) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    for connection in ["X-Ajwt-Username", "close, x-ajwt-username , X-AJWT-KEY-ID"] {
        let stripped = proxy.get("/", &folder.authorization()).header("connection", connection);
        let stripped = send(stripped).await;
        answers.push((stripped.status().as_u16(), stripped.text().await.expect("text")));
    }
    answers
}

/// The status of the answer while the gateway's database has no place for nonces.
pub(super) async fn status_without_nonces(proxy: &Proxy, folder: &Folder) -> u16 {
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", folder.path("ajwt.db").display())).await;
    let pool = pool.expect("connected");
    sqlx::query("ALTER TABLE ajwt_nonce RENAME TO gone").execute(&pool).await.expect("renamed");
    let refused = send(proxy.get("/", &folder.authorization())).await;
    sqlx::query("ALTER TABLE gone RENAME TO ajwt_nonce").execute(&pool).await.expect("renamed");
    eventually("access", async || send(proxy.get("/", &folder.authorization())).await.status() == 200).await;
    let status = refused.status().as_u16();
    let seen = refused.text().await.expect("text");
    assert!(!seen.contains("user"), "{seen}");
    status
}
