//! What of the agent's protocol is needed: listing keys and signing (draft-ietf-sshm-ssh-agent).

use std::{
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::AgentError;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Asks for SHA-512 in an RSA signature (RFC 8332), which is what RS512 has.
const RSA_SHA2_512: u32 = 4;

/// Bytes of a message: what OpenSSH's agent allows.
const MAX_MESSAGE_LEN: usize = 256 * 1024;

/// A token is dated before the agent is asked, and servers accept it for 20 s: later than this it would be signed
/// for nothing.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks at whether an agent whose queue is full has room in it.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// How long an agent may take, from connecting to it up to the end of its answer.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    since: Instant,
    period: Duration,
}

impl Limit {
    /// For what was asked for then.
    pub(super) const fn since(asked: Instant) -> Self {
        Self { since: asked, period: TIMEOUT }
    }

    /// What is left, which is more than nothing.
    fn left(self) -> io::Result<Duration> {
        let left = self.period.saturating_sub(self.since.elapsed());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// The signatures that tokens may have.
#[derive(Clone, Copy)]
pub(super) enum Signature {
    Ed25519,
    RsaSha512,
}

impl Signature {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Ed25519 => b"ssh-ed25519",
            Self::RsaSha512 => b"rsa-sha2-512",
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Ed25519 => 0,
            Self::RsaSha512 => RSA_SHA2_512,
        }
    }
}

/// A key that the agent holds.
pub(super) struct Identity {
    /// How the agent names it: its public half as SSH writes it (RFC 4253 section 6.6).
    pub(super) blob: Vec<u8>,
    pub(super) comment: Vec<u8>,
}

/// All keys.
pub(super) fn identities(socket: &Path, limit: Limit) -> Result<Vec<Identity>, AgentError> {
    let answer = ask(socket, &[REQUEST_IDENTITIES], IDENTITIES_ANSWER, limit)?;
    let mut rest = answer.as_slice();
    let mut read = || -> Option<Vec<_>> {
        let count = number(&mut rest)?;
        let identity = |_| {
            let (blob, comment) = (string(&mut rest)?.to_vec(), string(&mut rest)?.to_vec());
            Some(Identity { blob, comment })
        };
        // A count that is too high ends with the message.
        (0..count).map(identity).collect()
    };
    read().ok_or_else(|| AgentError::Protocol { socket: socket.into() })
}

/// The type name that a public half begins with.
pub(super) fn name(mut blob: &[u8]) -> Option<&str> {
    std::str::from_utf8(string(&mut blob)?).ok()
}

/// The bare signature of the key with this public half.
pub(super) fn sign(
    socket: &Path,
    blob: &[u8],
    message: &[u8],
    kind: Signature,
    limit: Limit,
) -> Result<Vec<u8>, AgentError> {
    let protocol = || AgentError::Protocol { socket: socket.into() };
    let mut request = vec![SIGN_REQUEST];
    for part in [blob, message] {
        push_string(&mut request, part).ok_or_else(protocol)?;
    }
    request.extend(kind.flags().to_be_bytes());
    let answer = ask(socket, &request, SIGN_RESPONSE, limit)?;
    let signature = || {
        let mut signature = string(&mut answer.as_slice())?;
        let (name, bare) = (string(&mut signature)?, string(&mut signature)?);
        (name == kind.name()).then(|| bare.to_vec())
    };
    signature().ok_or_else(protocol)
}

/// Sends one message and reads its answer, without the type, which must be this one.
fn ask(socket: &Path, message: &[u8], answer_type: u8, limit: Limit) -> Result<Vec<u8>, AgentError> {
    let unreachable = |source| AgentError::Unreachable { socket: socket.into(), source };
    let answer = exchange(socket, message, limit).map_err(unreachable)?;
    match answer.split_first() {
        Some((found, rest)) if *found == answer_type => Ok(rest.to_vec()),
        Some((&FAILURE, _)) => Err(AgentError::Refused { socket: socket.into() }),
        _ => Err(AgentError::Protocol { socket: socket.into() }),
    }
}

fn exchange(socket: &Path, message: &[u8], limit: Limit) -> io::Result<Vec<u8>> {
    let mut stream = Connection::open(socket, limit)?;
    let mut request = Vec::new();
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, "the message is too long");
    push_string(&mut request, message).ok_or_else(too_long)?;
    stream.write_all(&request)?;
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE_LEN {
        return Err(too_long());
    }
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// A connection to an agent, with one limit over all that is done with it.
struct Connection {
    stream: UnixStream,
    limit: Limit,
}

impl Connection {
    fn open(path: &Path, limit: Limit) -> io::Result<Self> {
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Else it waits for as long as an agent whose queue is full accepts nobody.
        socket.set_nonblocking(true)?;
        while let Err(error) = socket.connect(&address) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            thread::sleep(CONNECT_PAUSE.min(limit.left()?));
        }
        socket.set_nonblocking(false)?;
        Ok(Self { stream: OwnedFd::from(socket).into(), limit })
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.limit.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.limit.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A string of RFC 4251 section 5: a length of four bytes, and that many bytes.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number(rest)?).ok()?;
    let (string, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(string)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}

fn push_string(message: &mut Vec<u8>, string: &[u8]) -> Option<()> {
    message.extend(u32::try_from(string.len()).ok()?.to_be_bytes());
    message.extend(string);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, path::PathBuf, sync::mpsc};

    use ajwt_core::Validation;
    use tempfile::TempDir;

    use super::*;
    use crate::clock;

    const SHORT: Duration = Duration::from_millis(300);

    /// Far more than anything here takes on the busiest machine.
    const LONG: Duration = Duration::from_secs(60);

    /// The error of a signature that an agent does not make. Asked for on a thread of its own, for without the
    /// limit it never comes.
    fn refused(path: &Path, period: Duration) -> AgentError {
        let (path, (sender, receiver)) = (path.to_owned(), mpsc::channel());
        thread::spawn(move || {
            let limit = Limit { since: clock::instant(), period };
            sender.send(sign(&path, b"key", b"message", Signature::Ed25519, limit))
        });
        receiver.recv_timeout(LONG).expect("an end").expect_err("no signature")
    }

    fn socket() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        (folder, path)
    }

    /// Elsewhere than on Linux a full queue refuses at once.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_agent_that_accepts_nobody_is_given_up_and_one_that_is_busy_is_waited_for() {
        let (_folder, path) = socket();
        let address = SockAddr::unix(&path).expect("an address");
        let new = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let agent = new();
        agent.bind(&address).expect("bound");
        agent.listen(0).expect("listening");
        let mut queue = Vec::new();
        let full = loop {
            let waiting = new();
            waiting.set_nonblocking(true).expect("set");
            match waiting.connect(&address) {
                Ok(()) => queue.push(waiting),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let error = refused(&path, SHORT);
        assert!(matches!(error, AgentError::Unreachable { .. }), "{error:?}");

        let agent = UnixListener::from(OwnedFd::from(agent));
        let serving = thread::spawn(move || {
            // So that it is asked for before there is room.
            thread::sleep(SHORT);
            let accept = || agent.accept().expect("a connection").0;
            let _waiting: Vec<_> = queue.iter().map(|_| accept()).collect();
            let mut asking = accept();
            let mut len = [0; 4];
            asking.read_exact(&mut len).expect("a length");
            let mut request = vec![0; u32::from_be_bytes(len) as usize];
            asking.read_exact(&mut request).expect("a request");
            asking.write_all(&[0, 0, 0, 1, FAILURE]).expect("sent");
        });
        let error = refused(&path, LONG);
        assert!(matches!(error, AgentError::Refused { .. }), "{error:?}");
        serving.join().expect("served");
    }

    #[test]
    fn an_agent_is_given_up_while_its_signature_would_be_accepted() {
        let left = Limit::since(clock::instant()).left().expect("a limit");
        let tolerance = Validation::default().tolerance();
        assert!(left <= tolerance * 3 / 4, "{left:?} of {tolerance:?}");
    }

    #[test]
    fn an_agent_that_never_comes_to_an_end_is_given_up() {
        let (_folder, path) = socket();
        let agent = UnixListener::bind(&path).expect("a socket");
        thread::spawn(move || {
            let (mut stream, _) = agent.accept().expect("a connection");
            // A long answer, of which each byte comes in time, until nobody listens.
            stream.write_all(&[0, 0, 0x40, 0]).expect("sent");
            while stream.write_all(&[0]).is_ok() {
                thread::sleep(SHORT / 10);
            }
        });
        let error = refused(&path, SHORT);
        assert!(matches!(error, AgentError::Unreachable { .. }), "{error:?}");
    }
}
