//! The gateway by itself: what it answers, and its end.

mod configuration;
mod connections;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use reqwest::Method;

use crate::{
    support::{Folder, Gateway, client, eventually, project_file},
    walkthrough::{Server, Shell},
};

const SQL: &str = "--database-url sqlite://ajwt.db --nonce sql";

fn service() -> Folder {
    let folder = Folder::with_database();
    folder.good("nonce init --nonce sql --database-url sqlite://ajwt.db");
    folder
}

#[tokio::test]
async fn a_token_is_accepted_once_and_names_its_user() {
    let folder = service();
    let gateway = Gateway::start(&folder, SQL);
    let token = folder.authorization();
    let accepted = gateway.ask(&token).await;
    assert_eq!(accepted.status(), 200);
    let header = |name: &str| accepted.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("x-ajwt-username"), "billing");
    assert_eq!(header("x-ajwt-key-id"), folder.good("key show billing.key --format fingerprint").trim_end());
    assert_eq!(header("cache-control"), "no-store");

    let replayed = gateway.ask(&token).await;
    assert_eq!(replayed.status(), 401);
    assert_eq!(replayed.headers()["www-authenticate"], "JWT");
    assert_eq!(replayed.headers()["cache-control"], "no-store");
    for name in ["x-ajwt-username", "x-ajwt-key-id"] {
        assert!(!replayed.headers().contains_key(name));
    }
    assert_eq!(gateway.status("JWT nonsense").await, 401);
    assert_eq!(gateway.get("/auth").await.status(), 401);
    let twice = client().get(format!("{}/auth", gateway.url()));
    let twice = twice.header("authorization", folder.authorization()).header("authorization", "Basic eDp5");
    assert_eq!(twice.send().await.expect("an answer").status(), 401);
}

/// Envoy appends the path and keeps the method; other proxies send what they like.
#[tokio::test]
async fn all_below_auth_is_asked_in_any_method() {
    let folder = service();
    let gateway = Gateway::start(&folder, SQL);
    for (method, path) in [
        ("GET", "/auth"),
        ("POST", "/auth/"),
        ("DELETE", "/auth/orders/7?sort=up"),
        ("OPTIONS", "/auth//a/%2e%2e/%ff"),
        ("HEAD", "/auth/healthz"),
        ("PROPFIND", "/auth/auth"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let ask = async |authorization: &str| {
            let request = client().request(method.clone(), format!("{}{path}", gateway.url()));
            let answer = request.header("authorization", authorization).body("a body").send().await;
            answer.expect("an answer").status()
        };
        assert_eq!(ask(&folder.authorization()).await, 200, "{method} {path}");
        assert_eq!(ask("JWT nonsense").await, 401, "{method} {path}");
    }
    for path in ["/", "/authx", "/Auth", "/auth%2f", "/orders"] {
        assert_eq!(gateway.get(path).await.status(), 404, "{path}");
    }
}

/// A proxy passes the client's content type on, and a rejection of gRPC has status 200: yes, to a proxy.
#[tokio::test]
async fn a_refusal_is_no_200_whatever_the_content_type() {
    let folder = service();
    let gateway = Gateway::start(&folder, &format!("{SQL} --max-staleness 0"));
    let used = folder.authorization();
    assert_eq!(gateway.status(&used).await, 200);
    let ask = async |method: &Method, content_type: &str, authorization: Option<&str>| {
        let mut request = client().request(method.clone(), format!("{}/auth", gateway.url()));
        request = request.header("content-type", content_type);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let answer = request.send().await.expect("an answer");
        assert!(!answer.headers().contains_key("grpc-status"), "{answer:?}");
        answer.status().as_u16()
    };
    let asked = [Method::GET, Method::POST]
        .map(|method| ["application/grpc", "Application/gRPC+proto"].map(|of| (method.clone(), of)));
    let asked = asked.as_flattened();
    for (method, content_type) in asked {
        for authorization in [None, Some("JWT nonsense"), Some("Basic eDp5"), Some(&*used)] {
            let status = ask(method, content_type, authorization).await;
            assert_eq!(status, 401, "{method} {content_type} {authorization:?}");
        }
        assert_eq!(ask(method, content_type, Some(&folder.authorization())).await, 200);
    }
    let metrics = gateway.text("/metrics").await;
    assert!(
        metrics.lines().any(|line| line == "ajwt_gateway_decision_seconds_count{outcome=\"accepted\"} 5"),
        "{metrics}"
    );

    let admin = sqlx::SqlitePool::connect_lazy(&format!("sqlite://{}", folder.path("ajwt.db").display()));
    let lose = sqlx::query("ALTER TABLE ajwt_nonce RENAME TO gone");
    lose.execute(&admin.expect("a pool")).await.expect("renamed");
    for (method, content_type) in asked {
        assert_eq!(ask(method, content_type, Some(&folder.authorization())).await, 503);
    }
}

#[tokio::test]
async fn no_two_users_have_the_same_header() {
    let folder = service();
    let gateway = Gateway::start(&folder, SQL);
    for (name, header) in [
        ("caf\u{e9} /%", "caf%C3%A9%20%2F%25"),
        ("caf%C3%A9", "caf%25C3%25A9"),
        ("A.b_c~d@e+f-0", "A.b_c~d@e%2Bf-0"),
        (&"\u{1f600}".repeat(150), &"%F0%9F%98%80".repeat(150)),
    ] {
        let database = ["--database-url", "sqlite://ajwt.db"];
        for arguments in [["user", "add", name].as_slice(), &["key", "add", name, "billing.key.pub"]] {
            let ran = folder.ajwt(&[arguments, &database].concat());
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        let token = folder.ajwt(&["token", "--username", name, "--key", "billing.key"]).out;
        let answer = gateway.ask(&format!("JWT {}", token.trim_end())).await;
        assert_eq!(answer.headers()["x-ajwt-username"], *header, "{name}");
        // Many services decode it as a part of a form, where a plus is a space.
        let form = reqwest::Url::parse(&format!("http://a/?name={header}")).expect("a URL");
        assert_eq!(form.query_pairs().next().map(|(_, decoded)| decoded).as_deref(), Some(name));
    }
}

#[tokio::test]
async fn an_operator_sees_how_it_is() {
    let folder = service();
    folder.good("keygen -o own.key");
    let gateway = Gateway::start(&folder, &format!("{SQL} --publish-key own.key,billing.key.pub"));
    assert_eq!(gateway.text("/healthz").await, "ok\n");
    assert_eq!(gateway.text("/readyz").await, "ready\n");

    let published = gateway.get("/.well-known/jwks.json").await;
    assert!(published.headers().contains_key("etag"));
    folder.write("jwks", published.text().await.expect("text"));
    let keys = [folder.read("own.key.pub"), folder.read("billing.key.pub")].concat();
    assert_eq!(folder.good("key show jwks"), keys);

    // What comes with its first event has not grown, to an alert.
    let metrics = gateway.text("/metrics").await;
    for labels in [
        "outcome=\"accepted\",reason=\"accepted\"",
        "outcome=\"unavailable\",reason=\"nonce_store_unavailable\"",
        "outcome=\"given_up\",reason=\"store_unavailable\"",
    ] {
        let due = format!("ajwt_authentications_total{{{labels}}} 0");
        assert!(metrics.lines().any(|found| found == due), "no {due} in:\n{metrics}");
    }
    let token = folder.authorization();
    gateway.status(&token).await;
    gateway.status(&token).await;
    assert_eq!(gateway.get("/auth").await.status(), 401);
    let metrics = gateway.text("/metrics").await;
    for line in [
        "ajwt_authentications_total{outcome=\"accepted\",reason=\"accepted\"} 1",
        "ajwt_authentications_total{outcome=\"refused\",reason=\"replayed\"} 1",
        "ajwt_authentications_total{outcome=\"no_credentials\",reason=\"no_credentials\"} 1",
        "ajwt_gateway_decision_seconds_count{outcome=\"accepted\"} 1",
        // A request without a token among them.
        "ajwt_gateway_decision_seconds_bucket{outcome=\"refused\",le=\"+Inf\"} 2",
        "ajwt_nonce_store_up 1",
        "# TYPE ajwt_nonce_store_seconds histogram",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in:\n{metrics}");
    }
    assert!(!metrics.contains("billing"), "{metrics}");
}

#[tokio::test]
async fn a_store_that_is_gone_is_503_and_not_ready() {
    let folder = service();
    let gateway = Gateway::start(&folder, &format!("{SQL} --max-staleness 0"));
    assert_eq!(gateway.text("/readyz").await, "ready\n");
    let admin = sqlx::SqlitePool::connect_lazy(&format!("sqlite://{}", folder.path("ajwt.db").display()));
    let admin = admin.expect("a pool");
    let rename = async |from: &str, to: &str| {
        let sql = sqlx::AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
        sqlx::query(sql).execute(&admin).await.expect("renamed");
    };

    rename("ajwt_nonce", "gone").await;
    assert_eq!(gateway.status(&folder.authorization()).await, 503);
    eventually("word of the nonce store", async || {
        let answer = gateway.get("/readyz").await;
        answer.status() == 503
            && answer.text().await.expect("text").contains("the nonce store does not answer")
    })
    .await;
    assert!(gateway.text("/metrics").await.contains("ajwt_nonce_store_up 0"));
    rename("gone", "ajwt_nonce").await;
    assert_eq!(gateway.status(&folder.authorization()).await, 200, "it comes back by itself");

    rename("ajwt_public_key", "gone").await;
    assert_eq!(gateway.status(&folder.authorization()).await, 503);
    eventually("word of the user store", async || {
        let answer = gateway.get("/readyz").await;
        answer.status() == 503
            && answer.text().await.expect("text").contains("the user store does not answer")
    })
    .await;
    assert_eq!(gateway.text("/healthz").await, "ok\n", "the process itself is well");
}

/// Without `nonce init`: the table may stand in the place of one that was lost.
#[tokio::test]
async fn a_nonce_store_that_was_just_made_is_told() {
    let folder = Folder::with_database();
    let gateway = Gateway::start(&folder, SQL);
    assert_eq!(gateway.status(&folder.authorization()).await, 503);
    assert_eq!(gateway.text("/readyz").await, "not ready: the nonce store was just started; this passes\n");
}

#[tokio::test]
async fn it_finishes_what_runs_and_notes_the_last_use() {
    let folder = service();
    let gateway = Gateway::start(&folder, SQL);
    assert_eq!(gateway.status(&folder.authorization()).await, 200);
    let last_use = || {
        let list = folder.good("key list billing --json --database-url sqlite://ajwt.db");
        serde_json::from_str::<serde_json::Value>(&list).expect("JSON")[0]["last_used_on"].clone()
    };
    assert!(last_use().is_null(), "it is not written yet");

    // A request of which half is there when it is told to stop.
    let mut slow = TcpStream::connect(gateway.address()).expect("connected");
    write!(slow, "GET /auth HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n", folder.authorization())
        .expect("written");
    gateway.terminate();
    eventually("word of stopping", async || gateway.log().contains("stopping")).await;
    write!(slow, "Connection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    let read = slow.read_to_string(&mut answer);
    assert!(read.is_ok() && answer.starts_with("HTTP/1.1 200 OK"), "{answer}");

    let (status, log) = gateway.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
    assert!(last_use().is_string(), "it is written");
    assert!(!log.contains("ey"), "no token in the log: {log}");
}

/// A terminal that is closed, or a supervisor that has no other signal.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hang_up_is_a_stop() {
    let folder = service();
    let gateway = that_hears_hang_ups(&folder);
    assert_eq!(gateway.status(&folder.authorization()).await, 200);
    gateway.signal("-HUP");
    let (status, log) = gateway.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
    let list = folder.good("key list billing --json --database-url sqlite://ajwt.db");
    let keys: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert!(keys[0]["last_used_on"].is_string(), "{list}");
}

/// A gateway that takes a hang-up for one, even where these tests run under `nohup`.
#[cfg(target_os = "linux")]
fn that_hears_hang_ups(folder: &Folder) -> Gateway {
    let mut command = folder.command("env");
    command.args(["--default-signal=HUP", crate::support::AJWT, "gateway", "--listen", "127.0.0.1:0"]);
    Gateway::of(command.args(SQL.split(' ')), folder)
}

/// It is to outlive the terminal that it was started on.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hang_up_under_nohup_is_none() {
    let folder = service();
    let mut command = folder.command("nohup");
    command.args([crate::support::AJWT, "gateway", "--listen", "127.0.0.1:0"]).args(SQL.split(' '));
    let gateway = Gateway::of(&mut command, &folder);
    for _ in 0..10 {
        gateway.signal("-HUP");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(gateway.status("JWT nonsense").await, 401, "{}", gateway.log());
    }
    gateway.terminate();
    assert_eq!(gateway.wait().0.code(), Some(0));
}

#[tokio::test]
async fn users_may_be_files() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("callers")).expect("a folder");
    folder.good("keygen -o billing.key");
    let docs = project_file("docs/gateway.md");
    let documented = docs.lines().find(|line| line.ends_with("/billing.keys")).expect("the page's command");
    let mut shell = Shell::new(&folder).with("/etc/orders/callers", "callers");
    shell.run(documented);
    let gateway = Gateway::start(&folder, "--keys callers --nonce memory");
    assert!(gateway.log().contains("--nonce memory serves one process only"), "{}", gateway.log());
    let token = folder.authorization();
    assert_eq!(gateway.status(&token).await, 200);
    assert_eq!(gateway.status(&token).await, 401);
    assert_eq!(gateway.text("/readyz").await, "ready\n");

    folder.write("callers/billing.keys", folder.read("billing.key.pub"));
    eventually("warning", async || gateway.log().contains("a file of keys cannot be used")).await;
    assert!(gateway.log().contains("ajwt key show FILE --format openssh makes it one"), "{}", gateway.log());
    assert_eq!(gateway.status(&folder.authorization()).await, 200, "the last good one stays");
    std::fs::remove_file(folder.path("callers/billing.keys")).expect("removed");
    eventually("refusal", async || gateway.status(&folder.authorization()).await == 401).await;

    // What was good before is not known to another process.
    drop(gateway);
    folder.write("callers/billing.keys", folder.read("billing.key.pub"));
    let other = Gateway::start(&folder, "--keys callers --nonce memory");
    assert_eq!(other.status(&folder.authorization()).await, 401, "{}", other.log());
    let look = docs.lines().find(|line| line.starts_with("timeout ")).expect("the page's look");
    // Where it cannot listen, so that it ends at once.
    let look = look.replace("127.0.0.1:0", "192.0.2.1:1");
    let told = shell.run(&format!("{look} 2>&1 || true"));
    assert!(told.contains("a file of keys cannot be used") && told.contains("billing.keys"), "{told}");
}

/// The disk that the log is on is full.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_that_cannot_be_written_ends_no_request() {
    let folder = service();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut command = folder.command(crate::support::AJWT);
    command.args(["gateway", "--listen", "127.0.0.1:0", "--log-level", "debug"]).args(SQL.split(' '));
    let gateway = Gateway::logging_to(&mut command, &folder, full);
    assert_eq!(gateway.status("JWT nonsense").await, 401);
    assert_eq!(gateway.status(&folder.authorization()).await, 200);
}

/// So is the one that its output is on.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_output_that_cannot_be_written_keeps_nothing_from_starting() {
    let folder = service();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let log = folder.path("gateway.log");
    let mut command = folder.command(crate::support::AJWT);
    command.args(["gateway", "--listen", "127.0.0.1:0"]).args(SQL.split(' ')).stdout(full);
    let file = std::fs::File::create(&log).expect("a log");
    let mut gateway = Server(command.stderr(file).spawn().expect("it runs"));
    eventually("word of where it listens", async || {
        assert!(gateway.0.try_wait().expect("its state").is_none(), "it has ended");
        let told = std::fs::read_to_string(&log).expect("its log");
        let Some((_, address)) = told.split_once("listening on http://") else { return false };
        let Some((address, _)) = address.split_once(',') else { return false };
        tokio::net::TcpStream::connect(address).await.is_ok()
    })
    .await;
}

/// What it waits for must not keep it from ending: here a key set that does not come.
#[tokio::test]
async fn it_ends_when_it_is_told_to_before_it_listens() {
    let folder = service();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}/jwks.json", silent.local_addr().expect("an address"));
    folder.good(&format!("trust add billing {url} --no-fetch --database-url sqlite://ajwt.db"));
    for signal in ["-TERM", "-INT"] {
        let mut command = folder.command(crate::support::AJWT);
        command.args(["gateway", "--listen", "127.0.0.1:0", "--jwks-allow-network", "127.0.0.0/8"]);
        let log = std::fs::File::create(folder.path("gateway.log")).expect("a log");
        let gateway = Server(command.args(SQL.split(' ')).stderr(log).spawn().expect("it runs"));
        let (_connection, _) = silent.accept().await.expect("it fetches");
        assert_eq!(ends_on(gateway, signal).await, Some(0), "{signal}");
        // Before the fetch has: what came first its log says, however long a busy machine takes.
        let log = folder.read("gateway.log");
        let is_before = log.contains("stopped before it listened") && !log.contains("not fetched");
        assert!(is_before, "{signal}: {log}");
    }
}

/// Sends this signal, and waits for the end; with which code.
async fn ends_on(mut gateway: Server, signal: &str) -> Option<i32> {
    let id = gateway.0.id().to_string();
    assert!(Command::new("kill").args([signal, &id]).status().expect("kill runs").success());
    let mut status = None;
    eventually("end", async || {
        status = gateway.0.try_wait().expect("its state");
        status.is_some()
    })
    .await;
    status.and_then(|status| status.code())
}

/// Nor must a disk that does not answer. Here it is a pipe into which nobody writes.
#[tokio::test]
async fn it_ends_when_it_is_told_to_while_it_reads_a_file() {
    let folder = service();
    folder.write_secret("passphrase", "correct horse");
    folder.good("keygen -o own.key --passphrase-file passphrase");
    assert!(folder.command("mkfifo").arg("pipe").status().expect("mkfifo runs").success());
    for options in [
        "--nonce sql --publish-key pipe",
        "--nonce sql --publish-key own.key --passphrase-file pipe",
        "--nonce sql --jwks-ca pipe",
        "--nonce rediss://127.0.0.1:1 --redis-ca pipe",
    ] {
        let mut command = folder.command(crate::support::AJWT);
        command.args(["gateway", "--listen", "127.0.0.1:0", "--database-url", "sqlite://ajwt.db"]);
        let log = std::fs::File::create(folder.path("gateway.log")).expect("a log");
        let gateway = Server(command.args(options.split(' ')).stderr(log).spawn().expect("it runs"));
        let (send, opened) = std::sync::mpsc::channel();
        let pipe = folder.path("pipe");
        // This waits until the other end is opened, too.
        std::thread::spawn(move || send.send(std::fs::File::options().write(true).open(pipe)));
        let _writer = opened.recv_timeout(Duration::from_secs(60)).expect("it reads").expect("opened");

        let code = ends_on(gateway, "-TERM").await;
        let log = folder.read("gateway.log");
        assert_eq!(code, Some(0), "{options}: {log}");
        assert!(log.contains("stopped before it listened"), "{options}: {log}");
    }
}
