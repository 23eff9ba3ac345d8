//! The program `ajwt`: keys and tokens, users in a database, and a gateway for services in any
//! language. docs/cli.md and docs/gateway.md tell how to use it.

#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

mod audit;
mod cli;
mod database;
mod explain;
mod failure;
mod gateway;
mod input;
mod jwks;
mod key;
mod keygen;
mod manual;
mod migrate;
mod nonce;
mod output;
mod private_key;
mod request;
mod terminal;
mod time;
mod token;
mod token_rules;
mod trust;
mod user;

use std::process::ExitCode;

use tracing::Level;
use tracing_subscriber::{
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{cli::Command, failure::Failure};

/// The exit code after Ctrl-C where it cannot end the program as a signal: what a shell has for that.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let ended = cli::parse().and_then(run);
    match ended {
        Ok(code) => code,
        Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Interrupted) => {
            terminal::end_by_interrupt();
            ExitCode::from(INTERRUPTED)
        }
        Err(failure) => {
            output::note(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    let level = match &command {
        Command::Gateway(gateway) => gateway.log_level(),
        _ => LevelFilter::WARN,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        // It would tell of a line that cannot be written by a panic, and with the disk that the log is on
        // requests would go without an answer.
        .log_internal_errors(false)
        .finish()
        .with(filter_fn(|event| is_logged(event.target(), *event.level())))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(command.run());
    // What was stopped may still be asking for a passphrase.
    terminal::restore();
    // A thread that waits for a passphrase or a disk must not keep the program.
    runtime.shutdown_background();
    ended
}

/// All but what the verifier of certificates writes of one that it refuses: whole names that a server has chosen, with
/// their line ends, and without the URL. Whoever asked has the error, and tells it. Its warnings are of this host's own
/// root certificates.
fn is_logged(target: &str, level: Level) -> bool {
    !(target.starts_with("rustls_platform_verifier") && level == Level::ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_logged_but_what_the_verifier_of_certificates_writes_of_those_that_it_refuses() {
        for (target, level, due) in [
            ("rustls_platform_verifier::verification::others", Level::ERROR, false),
            ("rustls_platform_verifier", Level::ERROR, false),
            ("rustls_platform_verifier::verification::others", Level::WARN, true),
            ("ajwt_jwks::report", Level::ERROR, true),
            ("rustls::client", Level::ERROR, true),
        ] {
            assert_eq!(is_logged(target, level), due, "{target} {level}");
        }
    }
}
