//! HTTPS: servers whose certificates an authority of the test's own has issued.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_server::{Clock as _, SystemClock};
use ajwt_test_servers::tls::Authority;
use axum::{Router, extract::Request, routing::any};

use crate::support::{AJWT, Folder, Ran};

/// An authority of servers at 127.0.0.1.
fn authority() -> Authority {
    Authority::new("127.0.0.1")
}

/// Runs the program on a system whose authorities are those of this file.
pub(crate) fn on_system_with(authorities: &str, folder: &Folder, words: &str) -> Ran {
    let mut command = folder.command(AJWT);
    command.args(words.split(' ')).env("SSL_CERT_FILE", folder.path(authorities));
    ran_within(Duration::from_secs(60), &mut command)
}

/// Runs a command that must have ended after so long.
#[track_caller]
fn ran_within(limit: Duration, command: &mut Command) -> Ran {
    let clock = SystemClock::new();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    while child.try_wait().expect("its state").is_none() {
        if clock.monotonic() > limit {
            let _ = child.kill();
            panic!("it still runs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    let output = child.wait_with_output().expect("its output");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The one line that says what is wrong.
#[track_caller]
pub(crate) fn complaint(ran: &Ran) -> String {
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
    // Built together with crates that read logs of other libraries, the program shows them too; a log's
    // line begins with the date.
    let is_log = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
    let lines: Vec<_> = ran.err.lines().filter(|line| !is_log(line)).collect();
    let [line] = lines[..] else { panic!("not one line: {ran:?}") };
    line.strip_prefix("ajwt: ").unwrap_or_else(|| panic!("{ran:?}")).to_owned()
}

/// Two authorities in files: that of the servers, and another one.
pub(crate) fn authorities(folder: &Folder) -> Authority {
    let authority = authority();
    folder.write("ca.pem", authority.root_pem());
    folder.write("other.pem", self::authority().root_pem());
    authority
}

async fn echo(request: Request) -> String {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1024 * 1024).await.expect("a body");
    let authorization = parts.headers["authorization"].to_str().expect("text");
    let scheme = authorization.split(' ').next().unwrap_or_default();
    format!("{} {} {scheme} {}\n", parts.method, parts.uri, String::from_utf8_lossy(&body))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_trusts_the_authority_that_is_given_and_no_other() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    let authority = authorities(&folder);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let counted = move |request: Request| {
        count.fetch_add(1, Ordering::SeqCst);
        echo(request)
    };
    let origin = authority.serve(Router::new().fallback(any(counted))).await;
    let request = format!("request GET {origin}/orders --username guido --key a.key");
    let due = "GET /orders JWT \n";

    assert_eq!(folder.good(&format!("{request} --ca ca.pem")), due);
    // The file takes the place of what the system trusts.
    for (system, option) in [("other.pem", ""), ("ca.pem", " --ca other.pem")] {
        let told = complaint(&on_system_with(system, &folder, &format!("{request}{option}")));
        let is_clear = told.starts_with("the request failed: ") && told.contains("invalid peer certificate");
        assert!(is_clear, "{system}{option}: {told}");
    }
    folder.write("empty.pem", "ca.pem was to be here\n");
    let told = folder.bad(&format!("{request} --ca empty.pem"));
    assert_eq!(told, "empty.pem holds no certificates in PEM");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a server that is not trusted gets no token");
    let ran = on_system_with("ca.pem", &folder, &request);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), due, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_come_on_standard_input() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    let origin = authorities(&folder).serve(Router::new().fallback(any(echo))).await;
    let words = format!("request PUT {origin}/ --username guido --key a.key --ca ca.pem -d @-");
    // More than a pipe holds.
    let body = "a line of standard input\n".repeat(10_000);
    let ran = folder.ajwt_with(&words.split(' ').collect::<Vec<_>>(), &body);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out == format!("PUT / JWT {body}\n"), "{} bytes came back", ran.out.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_answered_ends_in_time() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    // One takes connections and says nothing, not even in TLS; the other one has read the request.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_origin = format!("https://{}", silent.local_addr().expect("its address"));
    let never = Router::new().fallback(any(std::future::pending::<String>));
    let never_origin = authorities(&folder).serve(never).await;
    for origin in [silent_origin, never_origin] {
        let words = format!("request GET {origin}/ --username guido --key a.key --ca ca.pem --timeout 1");
        let clock = SystemClock::new();
        // Well before the 30 s that it has by default.
        let ran = ran_within(Duration::from_secs(20), folder.command(AJWT).args(words.split(' ')));
        assert!(clock.monotonic() >= Duration::from_secs(1), "{origin}: {:?}", clock.monotonic());
        let told = complaint(&ran);
        assert!(told.starts_with("the request failed: ") && told.contains("timed out"), "{origin}: {told}");
    }
}
