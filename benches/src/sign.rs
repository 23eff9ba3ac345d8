//! From claims to a header value, beside a bare signature and jsonwebtoken.

use ajwt_core::{Algorithm, Nonce, PrivateKey};
use ajwt_server::{Clock as _, SystemClock};

use crate::{
    callers::{NAME, bare, header, headers, keys},
    measure::{SHORT_ROUNDS, cpu_per_op, in_turn},
    peers::{Claims, JsonWebTokenSigner},
    report::Report,
};

pub(crate) fn run(report: &mut Report) {
    for (name, private, count) in keys() {
        // An RSA signature takes fifty times as long as a check.
        let count = if private.public_key().preferred_algorithm() == Algorithm::EdDsa {
            4 * count
        } else {
            count / 16
        };
        let messages = bare(&headers(&private, count));
        let peer = JsonWebTokenSigner::new(&private);
        let [ours, limit, jsonwebtoken] = in_turn(
            SHORT_ROUNDS,
            [
                &mut |_| cpu_per_op(count, || (0..count).for_each(|_| drop(header(NAME, &private)))),
                &mut |_| {
                    cpu_per_op(count, || {
                        messages.iter().for_each(|bare| bare_signature(&private, bare.message()))
                    })
                },
                &mut |_| {
                    cpu_per_op(count, || {
                        for _ in 0..count {
                            let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
                            let nonce = nonce.as_str().to_owned();
                            let time = SystemClock::new().now().as_secs();
                            let claims = Claims { username: NAME.to_owned(), time, nonce };
                            drop(format!("JWT {}", peer.sign(&claims)));
                        }
                    })
                },
            ],
        );
        let what = format!("{name}: claims to header value");
        report.beside(&what, "ns", &ours, "bare aws-lc-rs signature", &limit);
        report.beside(&what, "ns", &ours, "jsonwebtoken", &jsonwebtoken);
    }
}

/// A signature is aws-lc-rs' own, with the key parsed once.
fn bare_signature(key: &PrivateKey, message: &[u8]) {
    drop(key.sign(key.public_key().preferred_algorithm(), message).expect("signed"));
}
