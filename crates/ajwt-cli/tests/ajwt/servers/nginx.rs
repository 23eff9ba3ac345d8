//! The configuration of docs/gateway.md, in a real nginx, before a plain service.

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use ajwt_test_servers::port::free_port;
use reqwest::RequestBuilder;

use super::proxy::{
    Proxy, REQUESTS, app, asks_about_paths_that_lead_out, changes_no_protocol, changes_to_websockets_only,
    documented, gateway, has_decided_once_each, head, lets_through_who_has_a_token,
    names_nobody_where_nobody_is_asked, send, silent, status_without_nonces, until, while_it_is_silent,
};
use crate::support::{Folder, Gateway};

/// The documented configuration, all of its parts.
fn nginx(folder: &Folder, gateway: &str, app: &str) -> Proxy {
    Proxy::start(folder, |port| {
        let mut server = documented(
            "nginx",
            [
                ("listen 80;", format!("listen 127.0.0.1:{port};")),
                ("server 127.0.0.1:8000;", format!("server {app};")),
                ("server 127.0.0.1:4180;", format!("server {gateway};")),
            ],
        );
        // The other block belongs into a location that is asked about.
        let redirects = documented("nginx-location", []);
        let (error_page, location) = redirects.trim().split_once('\n').expect("two directives");
        server = server.replacen(
            "proxy_set_header Host",
            &format!("{error_page}\n        proxy_set_header Host"),
            1,
        );
        let end = server.rfind('}').expect("its end");
        server.insert_str(end, location);
        server.insert_str(end, &documented("nginx-public", []));
        command(folder, &server)
    })
}

/// nginx in the foreground, as one process, with these servers.
pub(super) fn command(folder: &Folder, servers: &str) -> Command {
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
             http {{\naccess_log off;\n{temporary}{servers}}}\n"
        ),
    );
    let program =
        ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| fs::exists(path).is_ok_and(|is| is));
    let mut command = folder.command(program.unwrap_or("nginx"));
    command.arg("-c").arg(folder.path("nginx.conf")).args(["-e", "stderr"]);
    command
}

struct Service {
    folder: Folder,
    gateway: Gateway,
    nginx: Proxy,
}

async fn service() -> Service {
    let (folder, gateway) = gateway();
    let nginx = nginx(&folder, gateway.address(), &app().await);
    Service { folder, gateway, nginx }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_service_once() {
    let Service { folder, gateway: _gateway, nginx } = service().await;
    lets_through_who_has_a_token(&nginx, &folder).await;
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
    names_nobody_where_nobody_is_asked(&nginx).await;
    // Nor can a client ask the gateway itself.
    assert_eq!(send(nginx.get("/_ajwt", &folder.authorization())).await.status(), 404);
}

/// The last record of a FastCGI request without a body: an empty one of its input.
const END_OF_FASTCGI: &[u8] = &[1, 5, 0, 1, 0, 0, 0, 0];

/// To a FastCGI program the names are parameters, each with its value right behind it.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_client_sends_are_no_parameters() {
    let (folder, gateway) = gateway();
    let (sender, requests) = mpsc::channel();
    let (program, _) = closing(move |request| {
        let _ = sender.send(until(request, END_OF_FASTCGI));
    });
    let pass = format!("{}fastcgi_pass app;", documented("nginx-fastcgi", []));
    let nginx = Proxy::start(&folder, |port| {
        let server = documented(
            "nginx",
            [
                ("listen 80;", format!("listen 127.0.0.1:{port};")),
                ("server 127.0.0.1:8000;", format!("server {program};")),
                ("server 127.0.0.1:4180;", format!("server {};", gateway.address())),
                ("proxy_pass http://app;", pass.clone()),
            ],
        );
        command(&folder, &server)
    });
    let request = nginx.get("/", &folder.authorization()).header("X-Ajwt-Username", "admin");
    let request = request.header("X_Ajwt_Username", "admin").header("X.Ajwt.Username", "admin");
    let answer = send(request.header("X-Ajwt-Key-Id", "admin")).await;
    assert_eq!(answer.status(), 502, "the program answers nothing");
    let seen = requests.recv().expect("a request").escape_ascii().to_string();
    assert!(seen.contains("HTTP_X_AJWT_USERNAMEbilling"), "{seen}");
    assert_eq!(seen.matches("HTTP_X_AJWT_KEY_ID").count(), 1, "{seen}");
    assert!(!seen.contains("admin") && !seen.contains("HTTP_AUTHORIZATION"), "{seen}");
}

/// By gRPC the names are headers, which `proxy_set_header` does not set.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_client_sends_are_stripped_from_grpc() {
    let (folder, gateway) = gateway();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let service = listener.local_addr().expect("an address");
    let (sender, requests) = mpsc::channel();
    let answering = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("nginx");
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let _ = sender.send(request.headers().clone());
            let _ = respond.send_response(axum::http::Response::new(()), true);
        }
    });
    let set = documented("nginx-grpc", []);
    let nginx = Proxy::start(&folder, |port| {
        let server = documented(
            "nginx",
            [
                ("listen 80;", format!("listen 127.0.0.1:{port};")),
                ("server 127.0.0.1:8000;", format!("server {service};")),
                ("server 127.0.0.1:4180;", format!("server {};", gateway.address())),
                ("proxy_pass http://app;", format!("{set}grpc_pass grpc://app;")),
            ],
        );
        command(&folder, &server)
    });
    let request = nginx.get("/", &folder.authorization()).header("X-Ajwt-Username", "admin");
    let request = request.header("X_Ajwt_Username", "admin").header("X.Ajwt.Username", "admin");
    let answer = send(request.header("X-Ajwt-Key-Id", "admin")).await;
    assert_eq!(answer.status(), 200);
    let seen = requests.recv().expect("a request");
    assert_eq!(seen.get_all("x-ajwt-username").iter().collect::<Vec<_>>(), ["billing"]);
    assert_eq!(seen.get_all("x-ajwt-key-id").iter().count(), 1);
    assert!(!seen.values().any(|value| value == "admin") && !seen.contains_key("authorization"), "{seen:?}");
    answering.abort();
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
async fn a_gateway_that_says_nothing_is_no_access() {
    let (folder, _gateway) = gateway();
    let (_silent, address) = silent();
    let nginx = nginx(&folder, &address, &app().await);
    let (status, took) = while_it_is_silent(&nginx, &folder).await;
    assert!(status == 500 && took < Duration::from_secs(20), "{status} {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_lead_out_of_a_public_one_are_asked_about() {
    let Service { folder: _folder, gateway: _gateway, nginx } = service().await;
    asks_about_paths_that_lead_out(&nginx);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_changes_its_protocol_to_a_websocket_at_most() {
    let Service { folder, gateway, nginx } = service().await;
    changes_no_protocol(&nginx, &folder);
    drop(nginx);
    let app = app().await;
    let nginx = Proxy::start(&folder, |port| {
        let headers = documented("nginx-websocket-location", []);
        let server = documented(
            "nginx",
            [
                ("listen 80;", format!("listen 127.0.0.1:{port};")),
                ("server 127.0.0.1:8000;", format!("server {app};")),
                ("server 127.0.0.1:4180;", format!("server {};", gateway.address())),
                ("proxy_pass http://app;", format!("{headers}proxy_pass http://app;")),
            ],
        );
        command(&folder, &format!("{}{server}", documented("nginx-websocket", [])))
    });
    changes_to_websockets_only(&nginx, &folder);
    lets_through_who_has_a_token(&nginx, &folder).await;
}

/// A cache for all of the server, of whatever is answered, is none of the gateway's answers.
#[tokio::test(flavor = "multi_thread")]
async fn no_cache_keeps_what_the_gateway_says() {
    let (folder, gateway) = gateway();
    let app = app().await;
    let nginx = Proxy::start(&folder, |port| {
        let server = documented(
            "nginx",
            [
                ("listen 80;", format!("listen 127.0.0.1:{port};")),
                ("server 127.0.0.1:8000;", format!("server {app};")),
                ("server 127.0.0.1:4180;", format!("server {};", gateway.address())),
            ],
        );
        let cache = folder.path("nginx/cache");
        let cache = format!(
            "proxy_cache_path {} keys_zone=all:1m;\nproxy_cache all;\nproxy_cache_valid any 1m;\n\
             proxy_ignore_headers Cache-Control Expires;\n",
            cache.display()
        );
        command(&folder, &format!("{cache}{server}"))
    });
    let ask = async |path: &str, authorization: &str| {
        let answer = send(nginx.get(path, authorization)).await;
        (answer.status().as_u16(), answer.text().await.expect("text").contains("billing"))
    };
    assert_eq!(ask("/a", &folder.authorization()).await, (200, true));
    assert_eq!(ask("/b", "JWT nonsense").await, (401, false));
    assert_eq!(ask("/c", &folder.authorization()).await, (200, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_no_access() {
    let Service { folder, gateway: _gateway, nginx } = service().await;
    assert_eq!(status_without_nonces(&nginx, &folder).await, 500);
}

/// The page for a service that is down is an internal redirect: it must not ask again, which would
/// make 401 of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_internal_redirect_asks_no_second_time() {
    let (folder, gateway) = gateway();
    let nginx = nginx(&folder, gateway.address(), &format!("127.0.0.1:{}", free_port()));
    let answer = send(nginx.get("/", &folder.authorization())).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.text().await.expect("text"), "the service is down\n");
    assert_eq!(
        send(nginx.get("/", "JWT nonsense")).await.status(),
        401,
        "who is not accepted learns nothing"
    );
}

/// nginx would ask the other gateway, which knows the token by then. Either may be the first to be asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_loses_its_answer_is_asked_once() {
    let (folder, gateway) = gateway();
    let address = gateway.address().to_owned();
    let (losing, asked) = closing(move |question| {
        let mut gateway = TcpStream::connect(&address).expect("connected");
        gateway.write_all(&head(question)).expect("passed on");
        let answer = head(&mut gateway);
        assert!(answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    });
    let nginx = nginx(&folder, &before(&losing, gateway.address()), &app().await);
    let mut statuses = Vec::new();
    for _ in 0..REQUESTS {
        statuses.push(send(nginx.get("/", &folder.authorization())).await.status().as_u16());
    }
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    let lost = asked.load(Ordering::SeqCst);
    assert!(lost > 0, "{statuses:?}");
    assert_eq!((count(500), count(200)), (lost, REQUESTS - lost), "{statuses:?}");
    has_decided_once_each(&gateway).await;
}

/// The service's own retries come after the question.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_the_service_asks_no_second_time() {
    let (folder, gateway) = gateway();
    let (broken, tried) = closing(|request| {
        head(request);
    });
    let nginx = nginx(&folder, gateway.address(), &before(&broken, &app().await));
    for _ in 0..REQUESTS {
        let answer = send(nginx.get("/", &folder.authorization())).await;
        assert_eq!(answer.status(), 200);
        let seen = answer.text().await.expect("text");
        assert!(seen.contains("user [\"\\\"billing\\\"\"] key 1 "), "{seen}");
    }
    assert!(tried.load(Ordering::SeqCst) > 0, "none was tried again");
    has_decided_once_each(&gateway).await;
}

/// What stands after `server` where there are two of them, and the first is kept though it fails.
fn before(first: &str, second: &str) -> String {
    format!("{first} max_fails=0;\n    server {second}")
}

/// Where something answers nobody: it does this with each connection, and closes it. And how many came.
fn closing(does: impl Fn(&mut TcpStream) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let came = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&came);
    thread::spawn(move || {
        for connection in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            does(&mut connection.expect("a connection"));
        }
    });
    (address, came)
}
