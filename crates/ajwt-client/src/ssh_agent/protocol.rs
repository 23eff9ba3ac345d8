//! What of the agent's protocol is needed: listing keys and signing (draft-ietf-sshm-ssh-agent).

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

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

const TIMEOUT: Duration = Duration::from_secs(30);

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
pub(super) fn identities(socket: &Path) -> Result<Vec<Identity>, AgentError> {
    let answer = ask(socket, &[REQUEST_IDENTITIES], IDENTITIES_ANSWER)?;
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
) -> Result<Vec<u8>, AgentError> {
    let protocol = || AgentError::Protocol { socket: socket.into() };
    let mut request = vec![SIGN_REQUEST];
    for part in [blob, message] {
        push_string(&mut request, part).ok_or_else(protocol)?;
    }
    request.extend(kind.flags().to_be_bytes());
    let answer = ask(socket, &request, SIGN_RESPONSE)?;
    let signature = || {
        let mut signature = string(&mut answer.as_slice())?;
        let (name, bare) = (string(&mut signature)?, string(&mut signature)?);
        (name == kind.name()).then(|| bare.to_vec())
    };
    signature().ok_or_else(protocol)
}

/// Sends one message and reads its answer, without the type, which must be this one.
fn ask(socket: &Path, message: &[u8], answer_type: u8) -> Result<Vec<u8>, AgentError> {
    let unreachable = |source| AgentError::Unreachable { socket: socket.into(), source };
    let answer = exchange(socket, message).map_err(unreachable)?;
    match answer.split_first() {
        Some((found, rest)) if *found == answer_type => Ok(rest.to_vec()),
        Some((&FAILURE, _)) => Err(AgentError::Refused { socket: socket.into() }),
        _ => Err(AgentError::Protocol { socket: socket.into() }),
    }
}

fn exchange(socket: &Path, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
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
