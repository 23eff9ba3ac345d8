use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use ajwt_core::PrivateKey;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use super::service::Kind;
use crate::{
    callers::{ed25519, header},
    http::pin_to_the_second_core,
};

/// Requests before the first one that counts.
const WARM_UP: usize = 2000;

/// Forms of tokens that are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Ed25519,
    Rsa2048,
}

/// What half of the requests are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) kind: Kind,
    pub(super) form: Form,
}

/// A stranger who measures.
pub(super) struct Observer {
    connection: TcpStream,
    key: PrivateKey,
    answer: Vec<u8>,
    /// Bytes of an answer: all are alike.
    answer_len: usize,
    /// Users of which each is asked for once.
    asked: u64,
}

impl Observer {
    pub(super) fn new(port: u16) -> Self {
        pin_to_the_second_core();
        let connection = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        connection.set_nodelay(true).expect("set");
        let mut observer =
            Self { connection, key: ed25519(), answer: vec![0; 4096], answer_len: 0, asked: 0 };
        let request = observer.request(Class { kind: Kind::Unknown, form: Form::Ed25519 }, 0);
        observer.connection.write_all(&request).expect("sent");
        // One packet: it is short.
        observer.answer_len = observer.connection.read(&mut observer.answer).expect("answered");
        observer.check();
        observer
    }

    /// Microseconds of so many requests of each class, in random turns.
    pub(super) fn compare(&mut self, classes: [Class; 2], samples: usize) -> [Vec<f64>; 2] {
        let mut times = [const { Vec::new() }; 2];
        let mut before = WARM_UP;
        while times.iter().any(|times: &Vec<f64>| times.len() < samples) {
            let mut random = [0; 5];
            getrandom::fill(&mut random).expect("random bytes");
            let [side, number @ ..] = random;
            let side = usize::from(side & 1);
            let class = classes[side];
            let number = match class.kind {
                Kind::Once => {
                    self.asked += 1;
                    self.asked
                }
                kind => u64::from(u32::from_le_bytes(number)) % kind.users(),
            };
            assert!(number < class.kind.users(), "there are no more users to ask for");
            let request = self.request(class, number);
            let time = self.ask(&request);
            match before.checked_sub(1) {
                Some(left) => before = left,
                // The last ones of the class that is ahead are dropped: turns stay random.
                None if times[side].len() < samples => times[side].push(time),
                None => {}
            }
        }
        times
    }

    fn request(&self, class: Class, number: u64) -> Vec<u8> {
        let name = class.kind.name(number);
        let header = match class.form {
            Form::Ed25519 => header(&name, &self.key),
            Form::Rsa2048 => of_rsa(&header(&name, &self.key)),
        };
        format!("GET /hello HTTP/1.1\r\nHost: localhost\r\nAuthorization: {header}\r\n\r\n").into_bytes()
    }

    #[allow(clippy::disallowed_methods, reason = "it measures")]
    fn ask(&mut self, request: &[u8]) -> f64 {
        let begun = Instant::now();
        self.connection.write_all(request).expect("sent");
        self.connection.read_exact(&mut self.answer[..self.answer_len]).expect("answered");
        let time = begun.elapsed().as_nanos() as f64 / 1000.0;
        self.check();
        time
    }

    fn check(&self) {
        let answer = String::from_utf8_lossy(&self.answer[..self.answer_len]);
        assert!(answer.starts_with("HTTP/1.1 401") && answer.ends_with("unauthorized\n"), "{answer}");
    }
}

/// The claims of a token in one of RS512, with a number that nobody signed with.
fn of_rsa(header: &str) -> String {
    let claims = header.split('.').nth(1).expect("a token");
    let mut signature = [0; 256];
    getrandom::fill(&mut signature).expect("random bytes");
    // Less than any modulus.
    signature[0] = 0;
    let kid = "0".repeat(64);
    let head = format!(r#"{{"typ":"JWT","alg":"RS512","kid":"{kid}"}}"#);
    let [head, signature] = [head.as_bytes(), &signature].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    format!("JWT {head}.{claims}.{signature}")
}
