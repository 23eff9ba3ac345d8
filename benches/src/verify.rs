//! Full verification in memory, beside a bare signature check and other libraries.

use std::sync::Arc;

use ajwt_server::Authenticator;

use crate::{
    bare::parsed,
    callers::{NAME, authenticate, bare, builder, headers, keys, users, wait_for_the_next_second},
    measure::{SHORT_ROUNDS, cpu_per_op, in_turn, less, runtime},
    peers,
    report::Report,
};

pub(crate) fn run(report: &mut Report) {
    for (name, private, count) in keys() {
        let key = private.public_key();
        let plain = builder(users(key)).build().expect("built");
        let by_table = builder(users(key)).hot_keys(8).build().expect("built");
        wait_for_the_next_second();
        let headers = headers(&private, count * SHORT_ROUNDS);
        let (bare, parsed) = (bare(&headers), parsed(key));
        let headers = |round: usize| &headers[round * count..][..count];
        let bare = |round: usize| &bare[round * count..][..count];
        let runtime = runtime();
        let ours = |authenticator: &Authenticator, round| {
            cpu_per_op(count, || runtime.block_on(authenticate(authenticator, headers(round))))
        };
        let token = |header: &'_ String| header[4..].to_owned();
        let (jsonwebtoken, jwt_simple) = (peers::JsonWebToken::new(key), peers::JwtSimple::new(key));
        let [full, hot, limit, jsonwebtoken, jwt_simple] = in_turn(
            SHORT_ROUNDS,
            [
                &mut |round| ours(&plain, round),
                &mut |round| ours(&by_table, round),
                &mut |round| cpu_per_op(count, || bare(round).iter().for_each(|bare| bare.check(&parsed))),
                &mut |round| {
                    let tokens: Vec<_> = headers(round).iter().map(token).collect();
                    cpu_per_op(count, || tokens.iter().for_each(|token| jsonwebtoken.verify(token)))
                },
                &mut |round| {
                    // It is slow, and a part of them is enough.
                    let tokens: Vec<_> = headers(round).iter().take(count / 4).map(token).collect();
                    cpu_per_op(tokens.len(), || tokens.iter().for_each(|token| jwt_simple.verify(token)))
                },
            ],
        );
        let what = format!("{name}: full verification");
        report.beside(&what, "ns", &full, "bare aws-lc-rs check", &limit);
        report.beside(&what, "ns", &full, "jsonwebtoken, no nonce", &jsonwebtoken);
        report.beside(&what, "ns", &full, "jwt-simple (pure Rust), no nonce", &jwt_simple);
        report.alone(&format!("{name}: all but the check"), "ns", &less(&full, &limit));
        if name == "Ed25519" {
            report.beside("Ed25519: one hot key, with its table", "ns", &hot, "bare aws-lc-rs check", &limit);
        }
    }
    many_keys(report, 64, "Ed25519: 64 keys in turn, tables for 8");
    many_keys(report, 2000, "Ed25519: 2,000 keys in turn, tables allowed and none hot enough");
}

/// Ed25519 tokens once and the bare checks of as many, for a profiler.
pub(crate) fn run_once(report: &mut Report) {
    let private = crate::callers::ed25519();
    let authenticator = builder(users(private.public_key())).build().expect("built");
    wait_for_the_next_second();
    let headers = headers(&private, 2000);
    let (bare, parsed) = (bare(&headers), parsed(private.public_key()));
    let runtime = runtime();
    let once = cpu_per_op(headers.len(), || runtime.block_on(authenticate(&authenticator, &headers)));
    let checks = cpu_per_op(bare.len(), || bare.iter().for_each(|bare| bare.check(&parsed)));
    report.beside("Ed25519: full verification, once", "ns", &[once], "bare aws-lc-rs check", &[checks]);
}

/// So many Ed25519 keys in turn, of which eight can have a table.
fn many_keys(report: &mut Report, keys: usize, what: &str) {
    const COUNT: usize = 128;
    /// In which each of 64 keys is used often enough for a table.
    const WARM_UP: usize = 40;

    let privates: Vec<_> = (0..keys).map(|_| crate::callers::ed25519()).collect();
    let users = privates.iter().enumerate().map(|(number, private)| {
        ajwt_server::User::new(format!("{NAME}{number}")).with_keys([private.public_key().clone()])
    });
    let users = Arc::new(ajwt_server::MemoryRepository::new(users));
    let plain = builder(users.clone()).build().expect("built");
    let by_table = builder(users).hot_keys(8).build().expect("built");
    wait_for_the_next_second();
    let header =
        |number: usize| crate::callers::header(&format!("{NAME}{}", number % keys), &privates[number % keys]);
    let headers: Vec<_> = (0..COUNT * (WARM_UP + 2 * SHORT_ROUNDS)).map(header).collect();
    let runtime = runtime();
    let run = |authenticator: &Authenticator, round: usize| {
        let headers = &headers[round * COUNT..][..COUNT];
        cpu_per_op(COUNT, || runtime.block_on(authenticate(authenticator, headers)))
    };
    // Tokens of its own for each, or the second would find them in the caches.
    let [of_plain, of_table] = [WARM_UP, WARM_UP + SHORT_ROUNDS];
    for round in 0..WARM_UP {
        run(&by_table, round);
    }
    let [plain, by_table] = in_turn(
        SHORT_ROUNDS,
        [&mut |round| run(&plain, of_plain + round), &mut |round| run(&by_table, of_table + round)],
    );
    report.beside(what, "ns", &by_table, "the same without tables", &plain);
}
