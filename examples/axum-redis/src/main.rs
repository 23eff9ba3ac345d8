//! A service on axum:
//!
//! ```sh
//! cargo run -p axum-redis -- accounts.json redis://127.0.0.1:6379 127.0.0.1:8080
//! ```
//!
//! The accounts, each with the newest key first, which are lines of OpenSSH or PEM:
//!
//! ```json
//! [{"name": "guido", "plan": "large", "keys": ["ssh-ed25519 AAAA..", "ssh-ed25519 AAAA.."]},
//!  {"name": "barry", "plan": "small", "keys": ["ssh-rsa AAAA.."]},
//!  {"name": "tim", "plan": "small", "suspended": true, "keys": []}]
//! ```
//!
//! On a new Redis server the answer is 503 for 25 s from the first token on: it cannot be told from one that has lost
//! its data. `RedisNonceBackend::initialise` spares a new service that.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::{error::Error, fs, process::ExitCode, time::Duration};

use axum::Router;
use axum_redis::{Accounts, authenticator, router};
use tokio::{net::TcpListener, sync::oneshot};

/// How long requests may take that run when the program is to stop.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [accounts, redis, address] = arguments.as_slice() else {
        eprintln!("usage: axum-redis ACCOUNTS REDIS ADDRESS");
        return ExitCode::from(2);
    };
    match serve(accounts, redis, address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum-redis: {}", with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Serves until the program is stopped.
async fn serve(accounts: &str, redis: &str, address: &str) -> Result<(), Box<dyn Error>> {
    let accounts = Accounts::from_json(&fs::read_to_string(accounts)?)?;
    let authenticator = authenticator(accounts, redis).await?;
    let listener = TcpListener::bind(address).await?;
    let stopped = stopped()?;
    println!("serving on http://{}", listener.local_addr()?);
    serve_until(stopped, listener, router(authenticator.clone())).await;
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

fn with_sources(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
