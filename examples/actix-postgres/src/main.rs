//! A service on actix-web whose callers are in PostgreSQL.
//!
//! ```sh
//! export DATABASE_URL=postgres://me@localhost/service
//! cargo run -p actix-postgres -- set-up                      # once: makes the tables
//! cargo run -p actix-postgres -- add-key guido guido.pub     # for each caller
//! cargo run -p actix-postgres -- serve 127.0.0.1:8080        # in as many processes as you like
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod admin;
mod service;

use std::{env, error::Error, process::ExitCode};

const USAGE: &str = "usage: actix-postgres set-up | add-key USERNAME FILE | serve ADDRESS";

#[actix_web::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("actix-postgres: {}", with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let url = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set; it names the database")?;
    match *arguments.as_slice() {
        ["set-up"] => admin::set_up(&url).await,
        ["add-key", username, file] => admin::add_key(&url, username, file).await,
        ["serve", address] => service::serve(&url, address).await,
        _ => Err(USAGE.into()),
    }
}

fn with_sources(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
