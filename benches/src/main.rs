//! Measures ajwt beside its peers and limits.
//!
//!     cargo run --release -p ajwt-benches -- [--json] SUITE..
//!
//! Each figure is the median of rounds in which ours and the peer take turns, with the spread from the
//! tenth to the ninetieth percentile, and so is the ratio to the peer in the same round. A report, not a
//! gate: machines are noisy. `timing` compares what a stranger can measure. Suites start the servers
//! that they need, on free ports, and stop them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report goes to the terminal")]

mod bare;
mod callers;
mod changes;
mod django;
mod http;
mod jwks;
mod measure;
mod nonce;
mod peers;
mod postgres;
mod redis;
mod report;
mod scale;
mod sign;
mod store;
mod timing;
mod verify;

use std::{env, process::ExitCode};

use report::Report;

type Suite = fn(&mut Report);

const SUITES: &[(&str, Suite)] = &[
    ("verify", verify::run),
    ("once", verify::run_once),
    ("sign", sign::run),
    ("nonce", nonce::run),
    ("redis", redis::run),
    ("postgres", postgres::run),
    ("store", store::run),
    ("http", http::run),
    ("django", django::run),
    ("scale", scale::run),
    ("jwks", jwks::run),
    ("timing", timing::run),
];

fn main() -> ExitCode {
    if let [_, serve, variant, pem] = env::args().collect::<Vec<_>>().as_slice()
        && serve == http::SERVE
    {
        http::serve(variant, pem);
        return ExitCode::SUCCESS;
    }
    let (flags, names): (Vec<_>, Vec<_>) =
        env::args().skip(1).partition(|argument| argument.starts_with('-'));
    let json = flags == ["--json"];
    let suites: Option<Vec<_>> =
        names.iter().map(|name| SUITES.iter().find(|(known, _)| known == name)).collect();
    let Some(suites) = suites.filter(|suites| !suites.is_empty() && (json || flags.is_empty())) else {
        let known: Vec<_> = SUITES.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: ajwt-benches [--json] SUITE..\nsuites: {}", known.join(" "));
        return ExitCode::from(2);
    };
    let mut report = Report::default();
    for (name, run) in suites {
        report.suite(name);
        run(&mut report);
    }
    if json {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_table());
    }
    ExitCode::SUCCESS
}
