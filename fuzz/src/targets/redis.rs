use std::{
    error::Error as _,
    fs,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ajwt_core::Timestamp;
use ajwt_redis::{ConnectError, RedisFault, RedisNonceBackend, RedisNonceBackendBuilder};
use ajwt_server::{NonceBackend as _, NonceError, NonceOutcome, NonceUse, testing};
use redis::{AsyncConnectionConfig, Parser, RedisConnectionInfo, Value, aio::MultiplexedConnection};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixListener,
    runtime::Runtime,
};

use crate::{engine::paused_runtime, fixed};

/// Stands between the answers to the three batches of commands: the checks of a new connection, the SET
/// with the GET of the mark, and the EVAL that writes a mark.
pub(crate) const SEPARATOR: u8 = 0xff;

/// To the checks, where the fuzzer gives none.
pub(crate) const GOOD_CHECKS: &str = "*2\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n$62\r\n# Server\r\nredis_mode:standalone\r\nrun_id:5f0e5f0e5f0e5f0e5f0e\r\n\r\n";

/// Of an answer, so that it arrives in one piece.
const MAX_ANSWER: usize = 4096;

/// What a server at the other end of a connection answers, over memory: a nonce is fresh if that is what it
/// said, of a memory that is whole, and never otherwise.
pub fn redis_reply(data: &[u8]) {
    thread_local!(static RUNTIME: Runtime = paused_runtime());

    let Some(answers) = Answers::parse(data) else { return };
    let (ours, theirs) = tokio::io::duplex(16 * MAX_ANSWER);
    let found = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let server = tokio::spawn(serve(theirs, answers.clone()));
            let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let connected = MultiplexedConnection::new_with_config(&settings, ours, config).await;
            let (connection, driver) = connected.expect("there is no greeting");
            let driver = tokio::spawn(driver);
            let found = consume(builder().timeout(PAUSED).over(connection).await).await;
            driver.abort();
            server.abort();
            found
        })
    });
    answers.check(found, false);
}

/// The same over a socket that the backend connects to, so that it knows the process at the other end.
pub fn redis_server(data: &[u8]) {
    thread_local!(static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all().build().expect("a runtime"));
    static NUMBER: AtomicU64 = AtomicU64::new(0);

    let Some(answers) = Answers::parse(data) else { return };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ajwt-fuzz-{}-{number}", std::process::id()));
    let found = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let listener = UnixListener::bind(&path).expect("a socket");
            let server = tokio::spawn({
                let answers = answers.clone();
                async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve(stream, answers.clone()));
                    }
                }
            });
            let connected =
                builder().timeout(REAL).connect(&format!("redis+unix://{}", path.display())).await;
            let found = consume(connected).await;
            server.abort();
            found
        })
    });
    fs::remove_file(&path).expect("the socket's file");
    answers.check(found, true);
}

/// How long the backend waits where time is made to pass.
const PAUSED: Duration = Duration::from_secs(2);

/// The same where it passes by itself: many answers are incomplete, and each of them is waited for.
const REAL: Duration = Duration::from_millis(100);

fn builder() -> RedisNonceBackendBuilder {
    RedisNonceBackend::builder("fuzz")
}

/// Of a token dated now.
static NONCE: LazyLock<NonceUse> = LazyLock::new(|| {
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    testing::nonce_use(fixed::USERNAME, fixed::NOW, "nonce", fixed::now(), tolerance, margin)
});

/// `None`: nothing can be said, since the machine took too long.
async fn consume(backend: Result<RedisNonceBackend, ConnectError>) -> Option<Result<NonceOutcome, ()>> {
    let is_late =
        |fault: &RedisFault| matches!(fault, RedisFault::ConnectTimeout { .. } | RedisFault::TimedOut);
    let backend = match backend {
        Ok(backend) => backend,
        Err(ConnectError::Server(fault)) if is_late(&fault) => return None,
        Err(error) => {
            crate::check_error(&error);
            return Some(Err(()));
        }
    };
    match backend.consume(&NONCE).await {
        Ok(outcome) => Some(Ok(outcome)),
        Err(NonceError::Store(error)) if error.source().is_none() => None,
        Err(error) => {
            crate::check_error(&error);
            Some(Err(()))
        }
    }
}

#[derive(Clone)]
struct Answers {
    checks: Vec<u8>,
    claim: Vec<u8>,
    mark: Vec<u8>,
}

impl Answers {
    fn parse(data: &[u8]) -> Option<Self> {
        let mut parts = data.splitn(3, |byte| *byte == SEPARATOR).map(<[u8]>::to_vec);
        let mut next = || parts.next().unwrap_or_default();
        let mut answers = Self { checks: next(), claim: next(), mark: next() };
        if answers.checks.is_empty() {
            answers.checks = GOOD_CHECKS.into();
        }
        let all = [&answers.checks, &answers.claim, &answers.mark];
        all.iter().all(|answer| answer.len() <= MAX_ANSWER).then_some(answers)
    }

    fn check(&self, found: Option<Result<NonceOutcome, ()>>, knows_process: bool) {
        let Some(found) = found else { return };
        if found.is_ok() {
            // Whatever else it said, it said this.
            let part = if found == Ok(NonceOutcome::Fresh) { "+OK\r\n" } else { "\r\n" };
            assert!(self.claim.windows(part.len()).any(|window| window == part.as_bytes()));
        }
        let (Some(checks), Some(claim)) = (exactly(&self.checks, 3), exactly(&self.claim, 2)) else { return };
        if checks.iter().chain(&claim).any(is_out_of_band) {
            return;
        }
        // Whether it was connected to at all is not modelled.
        let run_id = match found {
            Err(()) if !is_plain(&self.checks) => return,
            _ if knows_process => run_id(&checks[2]),
            _ => None,
        };
        let due = due(&claim[0], &claim[1], run_id.as_deref());
        assert_eq!(found.ok(), due, "{checks:?} {claim:?}");
    }
}

fn is_plain(checks: &[u8]) -> bool {
    checks == GOOD_CHECKS.as_bytes()
}

/// What the answers to SET and GET mean, or `None` where nothing is to be believed.
fn due(set: &Value, mark: &Value, run_id: Option<&str>) -> Option<NonceOutcome> {
    let outcome = match set {
        Value::Okay => NonceOutcome::Fresh,
        Value::Nil => NonceOutcome::Replayed,
        _ => return None,
    };
    let Value::BulkString(mark) = mark else { return None };
    let (since, process) = std::str::from_utf8(mark).ok()?.split_once(' ')?;
    let since = i128::from(since.parse::<i64>().ok()?);
    let is_whole = since + 25_000 < i128::from(Timestamp::from_secs(fixed::NOW).as_millis());
    (is_whole && run_id.is_none_or(|run_id| run_id == process)).then_some(outcome)
}

fn run_id(info: &Value) -> Option<String> {
    let text = match info {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text,
        _ => return None,
    };
    let line = text.lines().find(|line| line.split(':').next() == Some("run_id") && line.contains(':'))?;
    line.split_once(':').map(|(_, run_id)| run_id.trim().to_owned())
}

/// What a connection takes for no answer to a command.
fn is_out_of_band(value: &Value) -> bool {
    matches!(value, Value::Push { .. } | Value::Attribute { .. })
}

/// The values of bytes that are so many and nothing else.
fn exactly(bytes: &[u8], count: usize) -> Option<Vec<Value>> {
    let found = values(bytes);
    let (_, cut) = bytes.split_last()?;
    (found.len() == count && values(cut).len() + 1 == count).then_some(found)
}

fn values(bytes: &[u8]) -> Vec<Value> {
    let (mut parser, mut reader) = (Parser::new(), bytes);
    std::iter::from_fn(|| parser.parse_value(&mut reader).ok()).take(16).collect()
}

/// Answers each batch when its last command is there, and hangs up after an answer that is not whole.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: Answers) {
    let mut received = Vec::new();
    loop {
        match stream.read_buf(&mut received).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while let Some(name) = next_command(&mut received) {
            let (answer, count) = match name.as_slice() {
                b"CLIENT" => (b"+OK\r\n".as_slice(), 1),
                b"INFO" => (answers.checks.as_slice(), 3),
                b"GET" => (answers.claim.as_slice(), 2),
                b"EVAL" => (answers.mark.as_slice(), 1),
                _ => continue,
            };
            let replies = values(answer).iter().filter(|value| !is_out_of_band(value)).count();
            if stream.write_all(answer).await.is_err() || replies < count {
                return;
            }
        }
    }
}

/// Takes the first command off: an array of bulk strings, of which the name is returned.
fn next_command(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut rest = received.as_slice();
    let mut number = |prefix: u8| {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let (line, after) = rest.split_at(end);
        assert_eq!(line.first(), Some(&prefix), "the client sends commands");
        let number: usize = std::str::from_utf8(&line[1..]).expect("a number").parse().expect("a number");
        rest = &after[2..];
        if prefix == b'*' {
            return Some((number, Vec::new()));
        }
        let bytes = rest.get(..number)?.to_vec();
        rest = rest.get(number + 2..)?;
        Some((number, bytes))
    };
    let (count, _) = number(b'*')?;
    let words = (0..count).map(|_| number(b'$').map(|(_, word)| word)).collect::<Option<Vec<_>>>()?;
    let used = received.len() - rest.len();
    received.drain(..used);
    words.into_iter().next()
}
