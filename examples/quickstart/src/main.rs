//! A service and its caller in one program: `cargo run -p quickstart`.
//!
//! It creates a user with an Ed25519 and an RSA key, calls the service over real HTTP on loopback,
//! and prints what happened, one line each. It exits 0 if all of it was as it should be, else 1.
//! With `--serve PORT` it keeps the service up and prints a ready-made curl line.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::{error::Error, process::ExitCode, time::Duration};

use ajwt_client::RequestSigner;
use ajwt_core::{PrivateKey, RsaKeySize, Timestamp};
use ajwt_server::{Clock as _, SystemClock};
use ajwt_sqlx::SqliteRepository;
use axum::{Router, http::HeaderValue};
use quickstart::{call, register, service};
use reqwest::{Client, header::AUTHORIZATION, redirect::Policy, retry};
use tokio::{net::TcpListener, sync::oneshot};

const USAGE: &str = "usage: quickstart [--serve PORT]";

/// How long requests may take that run when the program is to stop.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match *arguments.as_slice() {
        [] => demonstrate().await,
        ["--serve", port] => match port.parse() {
            Ok(port) => serve(port).await.map(|()| Report::new()),
            Err(_) => return usage_error(&format!("{port:?} is not a port number")),
        },
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Ok(Report::new())
        }
        _ => return usage_error("unknown arguments"),
    };
    exit_code(outcome)
}

fn exit_code(outcome: Result<Report, Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok(Report { as_expected: true }) => ExitCode::SUCCESS,
        Ok(Report { as_expected: false }) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickstart: {}", with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Runs through the cases.
async fn demonstrate() -> Result<Report, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (ed25519, rsa) = (PrivateKey::generate_ed25519()?, PrivateKey::generate_rsa(RsaKeySize::Bits2048)?);
    let repository =
        SqliteRepository::connect(&format!("sqlite://{}", folder.path().join("ajwt.db").display())).await?;
    register(&repository, "guido", &[ed25519.public_key(), rsa.public_key()]).await?;

    let (router, authenticator) = service(repository)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/hello", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let client = Client::builder().no_proxy().redirect(Policy::none()).retry(retry::never()).build()?;
    let (ed25519, rsa) = (RequestSigner::new("guido", ed25519)?, RequestSigner::new("guido", rsa)?);
    let stranger = RequestSigner::new("guido", PrivateKey::generate_ed25519()?)?;
    let now = SystemClock::new().now();
    let old = Timestamp::from_millis(now.as_millis() - 60_000);
    let used = ed25519.authorization()?;

    let mut report = Report::new();
    report.line(200, call(&client, &url, &ed25519).await?.status(), "a token signed with the Ed25519 key");
    report.line(200, call(&client, &url, &rsa).await?.status(), "a token signed with the RSA key");
    report.line(200, send(&client, &url, Some(used.clone())).await?, "a token, sent for the first time");
    report.line(401, send(&client, &url, Some(used)).await?, "the same token again");
    report.line(401, call(&client, &url, &stranger).await?.status(), "a token of an unknown key");
    let expired = ed25519.authorization_at(old)?;
    report.line(401, send(&client, &url, Some(expired)).await?, "a token that is a minute old");
    report.line(401, send(&client, &url, None).await?, "no token");

    server.abort();
    authenticator.close().await;
    if report.as_expected {
        println!("all as it should be");
    }
    Ok(report)
}

async fn send(
    client: &Client,
    url: &str,
    authorization: Option<HeaderValue>,
) -> Result<reqwest::StatusCode, reqwest::Error> {
    let mut request = client.get(url);
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    Ok(request.send().await?.status())
}

/// Whether all went as it should so far.
struct Report {
    as_expected: bool,
}

impl Report {
    const fn new() -> Self {
        Self { as_expected: true }
    }

    fn line(&mut self, expected: u16, status: reqwest::StatusCode, what: &str) {
        println!("{}", self.judge(expected, status, what));
    }

    /// What to print of one case.
    fn judge(&mut self, expected: u16, status: reqwest::StatusCode, what: &str) -> String {
        let verdict = if status.is_success() { "accepted" } else { "refused " };
        let line = format!("{verdict} {}  {what}", status.as_u16());
        if status.as_u16() == expected {
            return line;
        }
        self.as_expected = false;
        format!("{line}: WRONG, it should be {expected}")
    }
}

/// Serves until the program is stopped.
async fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let key = PrivateKey::generate_ed25519()?;
    let repository =
        SqliteRepository::connect(&format!("sqlite://{}", folder.path().join("ajwt.db").display())).await?;
    register(&repository, "guido", &[key.public_key()]).await?;

    let (router, authenticator) = service(repository)?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let url = format!("http://{}/hello", listener.local_addr()?);
    let stopped = stopped()?;
    let signer = RequestSigner::new("guido", key)?;
    println!("serving on {url}; stop with Ctrl-C");
    println!("each line works once and within 20 s; there is a new one every 15 s:");
    let lines = tokio::spawn(async move {
        loop {
            match signer.authorization() {
                Ok(value) => {
                    println!("curl -i -H 'Authorization: {}' {url}", value.to_str().unwrap_or_default());
                }
                Err(error) => eprintln!("quickstart: {}", with_sources(&error)),
            }
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
    });
    serve_until(stopped, listener, router).await;
    lines.abort();
    authenticator.close().await;
    Ok(())
}

/// Serves until the program is to stop, and then for as long as requests run, but no longer than [`GRACE`]: a caller
/// that has sent half a request would keep it for ever.
async fn serve_until(stopped: impl Future<Output = ()>, listener: TcpListener, router: Router) {
    let (stop, told) = oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        let _ = told.await;
    });
    let server = tokio::spawn(server.into_future());
    stopped.await;
    drop(stop);
    let _ = tokio::time::timeout(GRACE, server).await;
}

/// What ends the program: Ctrl-C, or SIGTERM, by which supervisors end it.
#[cfg(unix)]
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// What ends the program: Ctrl-C.
#[cfg(not(unix))]
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

fn usage_error(problem: &str) -> ExitCode {
    eprintln!("quickstart: {problem}\n{USAGE}");
    ExitCode::from(2)
}

fn with_sources(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    /// What is wrong once stays so, and the program says so to who runs it.
    #[test]
    fn an_answer_that_is_not_due_is_told_and_ends_in_failure() {
        for (expected, status, due) in [
            (401, StatusCode::OK, "accepted 200  no token: WRONG, it should be 401"),
            (200, StatusCode::UNAUTHORIZED, "refused  401  no token: WRONG, it should be 200"),
            (401, StatusCode::SERVICE_UNAVAILABLE, "refused  503  no token: WRONG, it should be 401"),
        ] {
            let mut report = Report::new();
            assert_eq!(report.judge(401, StatusCode::UNAUTHORIZED, "no token"), "refused  401  no token");
            assert!(report.as_expected);
            assert_eq!(report.judge(expected, status, "no token"), due);
            assert!(!report.as_expected);
            report.line(200, StatusCode::OK, "a token");
            assert_eq!(exit_code(Ok(report)), ExitCode::FAILURE);
        }
        assert_eq!(exit_code(Ok(Report::new())), ExitCode::SUCCESS);
        assert_eq!(exit_code(Err("no port".into())), ExitCode::FAILURE);
    }
}
