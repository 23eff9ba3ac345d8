//! Long inputs: the time to read one grows no faster than its length.

use std::time::Duration;

use ajwt_core::{JwkError, JwkSet, KeyError, PrivateKey, PublicKey, UntrustedToken};
use ajwt_vectors::{Report, ensure, timed};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// How often a run is timed.
const RUNS: usize = 30;

/// For a token of any content.
const ENOUGH: Duration = Duration::from_millis(50);

/// Makes a text of about so many bytes.
type Shape = fn(usize) -> String;

/// Shapes of text that are dear to careless readers, of a length.
const SHAPES: [(&str, Shape); 10] = [
    ("brackets", |len| "[".repeat(len)),
    ("objects", |len| r#"{"a":"#.repeat(len / 5)),
    ("closed brackets", |len| format!("{}{}", "[".repeat(len / 2), "]".repeat(len / 2))),
    ("members", |len| object_of(len, |at| format!(r#""m{at}":1"#))),
    ("one member again and again", |len| object_of(len, |_| r#""m":1"#.to_owned())),
    ("a string", |len| format!(r#"{{"m":"{}"}}"#, "x".repeat(len))),
    ("escapes", |len| format!(r#"{{"m":"{}"}}"#, "\\u0041".repeat(len / 6))),
    ("a number", |len| format!(r#"{{"m":{}}}"#, "9".repeat(len))),
    ("keys", |len| format!(r#"{{"keys":[{}]}}"#, vec![r#"{"kty":"RSA"}"#; len / 14].join(","))),
    ("members of a key", |len| format!(r#"{{"keys":[{}]}}"#, object_of(len, |at| format!(r#""m{at}":1"#)))),
];

fn object_of(len: usize, member: impl Fn(usize) -> String) -> String {
    let mut text = String::from("{");
    for at in 0.. {
        if text.len() >= len {
            break;
        }
        if at > 0 {
            text.push(',');
        }
        text.push_str(&member(at));
    }
    text.push('}');
    text
}

#[test]
fn time_grows_no_faster_than_length() {
    const LEN: usize = 120_000;
    /// Of one key: four times as long is within the 16 KiB that it may have.
    const KEY_LEN: usize = 4000;
    const SLACK: Duration = Duration::from_millis(5);
    const KEY_SLACK: Duration = Duration::from_micros(500);
    let mut report = Report::new();
    for (name, shape) in SHAPES {
        report.case(format!("JWK set of {name}"), || {
            grows_linearly(shape, LEN, SLACK, |text| drop(JwkSet::from_json(text)))
        });
        report.case(format!("JWK of {name}"), || {
            grows_linearly(shape, KEY_LEN, KEY_SLACK, |text| {
                let read = PublicKey::from_jwk(text);
                assert!(
                    !matches!(read, Err(JwkError::Key(KeyError::TooLong { .. }))),
                    "it is not read at all"
                );
            })
        });
        report.case(format!("token of {name}"), || {
            let text = URL_SAFE_NO_PAD.encode(shape(5000));
            let signature = "A".repeat(86);
            let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA"}"#);
            for token in [format!("{text}.e30.{signature}"), format!("{header}.{text}.{signature}")] {
                let took = least(ENOUGH, || drop(UntrustedToken::parse(&token)));
                ensure!(took < ENOUGH, "took {took:?}");
            }
            Ok(())
        });
    }
    let key_shapes: [(&str, Shape); 5] = [
        ("BEGIN lines", |len| "-----BEGIN PUBLIC KEY-----\n".repeat(len / 27)),
        ("blocks", |len| "-----BEGIN A-----\nAAAA\n-----END A-----\n".repeat(len / 40)),
        ("headers", |len| format!("-----BEGIN A-----\n{}-----END A-----\n", "a: b\n".repeat(len / 5))),
        ("dashes", |len| "-".repeat(len)),
        ("OpenSSH lines", |len| "ssh-rsa A\n".repeat(len / 10)),
    ];
    for (name, shape) in key_shapes {
        report.case(format!("public key of {name}"), || {
            grows_linearly(shape, KEY_LEN, KEY_SLACK, |text| drop(PublicKey::from_text(text)))
        });
        report.case(format!("private key of {name}"), || {
            grows_linearly(shape, 15_000, SLACK, |text| drop(PrivateKey::from_pem(text, None)))
        });
    }
    report.finish("long inputs");
}

/// Four times the length takes far less than sixteen times the time, and a length of itself little. The slack is
/// for what a run takes of any length.
fn grows_linearly(shape: Shape, len: usize, slack: Duration, run: impl Fn(&str)) -> Result<(), String> {
    let (short, long) = (shape(len), shape(4 * len));
    let (mut of_short, mut of_long) = (Duration::MAX, Duration::MAX);
    // Of several runs: what else the machine does only adds to each of them.
    for _ in 0..RUNS {
        of_short = of_short.min(timed(|| run(&short)).1);
        of_long = of_long.min(timed(|| run(&long)).1);
        let is_linear = of_long <= of_short * 10 + slack;
        if is_linear && of_long < Duration::from_secs(2) {
            return Ok(());
        }
    }
    Err(format!("{of_short:?}, and {of_long:?} for four times the length, {} bytes", 4 * len))
}

/// The time of the fastest of several runs, or of the first that is fast enough.
fn least(enough: Duration, run: impl Fn()) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        least = least.min(timed(&run).1);
        if least < enough {
            break;
        }
    }
    least
}
