//! A service on axum: `axum-redis ACCOUNTS REDIS ADDRESS`, as in
//! `axum-redis accounts.json redis://127.0.0.1:6379 127.0.0.1:8080`.
//!
//! The accounts are a JSON array of objects with `name`, `plan` and `keys`. For 25 s after the start
//! on a new Redis server the answer is 503: it cannot be told from one that has lost its data.
//! `RedisNonceBackend::initialise` spares a new service that.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::{error::Error, fs, process::ExitCode};

use axum_redis::{Accounts, authenticator, router};
use tokio::net::TcpListener;

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
            eprintln!("axum-redis: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the program is interrupted.
async fn serve(accounts: &str, redis: &str, address: &str) -> Result<(), Box<dyn Error>> {
    let accounts = Accounts::from_json(&fs::read_to_string(accounts)?)?;
    let authenticator = authenticator(accounts, redis).await?;
    let listener = TcpListener::bind(address).await?;
    println!("serving on http://{}", listener.local_addr()?);
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, router(authenticator.clone())).with_graceful_shutdown(interrupted).await?;
    authenticator.close().await;
    Ok(())
}
