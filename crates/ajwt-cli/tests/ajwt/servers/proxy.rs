//! Proxies that others wrote, between a client and a plain service: what each of them must do.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use ajwt_test_servers::port::free_port;
use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse as _,
    routing::any,
};
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

    /// The head of the answer to a GET whose target, and what follows it, is sent as it stands here.
    fn head(&self, target: &str, headers: &str) -> String {
        let address = self.url.strip_prefix("http://").expect("a URL");
        let mut connection = TcpStream::connect(address).expect("connected");
        connection.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let request = format!("GET {target} HTTP/1.1\r\nHost: orders.example\r\n{headers}\r\n");
        connection.write_all(request.as_bytes()).expect("sent");
        let lines = BufReader::new(connection).lines().map_while(Result::ok);
        let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        let head = head.join("\n").to_lowercase();
        assert!(head.starts_with("http/1.1 "), "{target} {headers}: {head}");
        head
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
        if let Some(protocol) = protocol(&parts.headers) {
            let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, &protocol)];
            return (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
        }
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
        .into_response()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(echo))).await });
    address
}

/// The protocol that the service speaks from now on, if it is asked to: whatever the client likes.
fn protocol(headers: &HeaderMap) -> Option<String> {
    let all = |name| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(", ").to_lowercase()
    };
    let protocol = all(header::UPGRADE);
    // Without a key it is not the beginning of a WebSocket (RFC 6455 section 4.2.1).
    let is_begun = protocol != "websocket" || headers.contains_key("sec-websocket-key");
    (all(header::CONNECTION).contains("upgrade") && !protocol.is_empty() && is_begun).then_some(protocol)
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

/// Where nobody is asked there is no name, however the client spells those that it sends, and no token, which is
/// still good there.
pub(super) async fn names_nobody_where_nobody_is_asked(proxy: &Proxy) {
    for names in spellings().chunks(AT_ONCE) {
        let public = send(spoofed(proxy.get("/public/", "JWT token"), names)).await;
        assert_eq!(public.status(), 200, "{names:?}");
        let seen = public.text().await.expect("text");
        assert!(seen.contains("user [] key 0 authorization []"), "{names:?}: {seen}");
    }
}

/// A path that leads out of where nobody is asked is asked about, if the proxy takes it at all.
pub(super) fn asks_about_paths_that_lead_out(proxy: &Proxy) {
    assert!(proxy.head("/public/x", "").starts_with("http/1.1 200 "));
    for path in
        ["/public/../orders", "/public/%2e%2e/orders", "/public/.%2E/orders?a=b", "/public/x/../../orders"]
    {
        for target in [path.to_owned(), format!("http://orders.example{path}")] {
            let answer = proxy.head(&target, "");
            assert!(["401", "400"].contains(&&answer[9..12]), "{target}: {answer}");
        }
    }
}

/// What a client may ask a connection to change to.
const PROTOCOLS: [&str; 7] = [
    "h2c",
    "H2C",
    "other",
    "websocket, h2c",
    "h2c\r\nUpgrade: websocket",
    "websocket\r\nUpgrade: h2c",
    "websocket",
];

/// In a connection that has changed to another protocol nobody asks any more.
pub(super) fn changes_no_protocol(proxy: &Proxy, folder: &Folder) {
    for (protocol, answer) in changes(proxy, folder) {
        assert!(["200", "400", "403"].contains(&&answer[9..12]), "{protocol}: {answer}");
    }
}

/// Of all protocols only the one that carries no further requests.
pub(super) fn changes_to_websockets_only(proxy: &Proxy, folder: &Folder) {
    for (protocol, answer) in changes(proxy, folder) {
        let websocket = answer.starts_with("http/1.1 101 ") && answer.contains("upgrade: websocket");
        assert!(websocket || protocol != "websocket", "{protocol}: {answer}");
        assert!(websocket || ["200", "400", "403"].contains(&&answer[9..12]), "{protocol}: {answer}");
        assert!(!answer.contains("h2c") && !answer.contains("other"), "{protocol}: {answer}");
    }
}

/// What is answered to whoever asks for each, where the gateway is asked.
fn changes(proxy: &Proxy, folder: &Folder) -> Vec<(&'static str, String)> {
    let of = |protocol| {
        let authorization = folder.authorization();
        let headers = format!(
            "Authorization: {authorization}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
             HTTP2-Settings: AAMAAABk\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        (protocol, proxy.head("/", &headers))
    };
    PROTOCOLS.into_iter().map(of).collect()
}

/// What stands in the gateway's place, takes connections and says nothing, for as long as it is kept.
pub(super) fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    (listener, address)
}

/// The status of the answer where the gateway says nothing, and how long it took.
pub(super) async fn while_it_is_silent(proxy: &Proxy, folder: &Folder) -> (u16, Duration) {
    let asked = tokio::time::Instant::now();
    let answer = send(proxy.get("/", &folder.authorization()).timeout(Duration::from_secs(90))).await;
    (answer.status().as_u16(), asked.elapsed())
}

/// In the place of a gateway: it answers the first request of each connection as that does, and loses the answer
/// to the second.
pub(super) fn losing_the_second(gateway: &str) -> String {
    let (listener, address) = silent();
    let gateway = gateway.to_owned();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, gateway) = (connection.expect("a connection"), gateway.clone());
            thread::spawn(move || {
                for is_answered in [true, false] {
                    let question = head(&mut connection);
                    if question.is_empty() {
                        return;
                    }
                    let mut asked = TcpStream::connect(&gateway).expect("connected");
                    asked.write_all(&question).expect("passed on");
                    let answer = head(&mut asked);
                    if is_answered {
                        let _ = connection.write_all(&answer);
                    }
                }
            });
        }
    });
    address
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

/// Requests of a test. Those that run into a server that fails are each second one.
pub(super) const REQUESTS: usize = 6;

/// A request or an answer up to its body, of which there is none.
pub(super) fn head(connection: &mut TcpStream) -> Vec<u8> {
    until(connection, b"\r\n\r\n")
}

/// What comes up to these bytes, and they.
pub(super) fn until(connection: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let (mut received, mut bytes) = (Vec::new(), [0; 1024]);
    while !received.ends_with(end) {
        match connection.read(&mut bytes) {
            Ok(count @ 1..) => received.extend(&bytes[..count]),
            _ => break,
        }
    }
    received
}

pub(super) async fn has_decided_once_each(gateway: &Gateway) {
    let metrics = gateway.text("/metrics").await;
    let due = format!("ajwt_authentications_total{{outcome=\"accepted\",reason=\"accepted\"}} {REQUESTS}");
    assert!(metrics.lines().any(|line| line == due), "{metrics}");
    let due = "ajwt_authentications_total{outcome=\"refused\",reason=\"replayed\"} 0";
    assert!(metrics.lines().any(|line| line == due), "{metrics}");
}
