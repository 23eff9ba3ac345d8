//! Finding the one PEM block in a text (RFC 7468, headers of RFC 1421), and writing one.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::der;
use crate::KeyError;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

const OWN_LINES: &str = "the BEGIN and END lines must each stand on a line of their own";
const OTHER_BLOCKS: &str =
    "another block stands beside the key, such as a certificate: store the key's on its own";

/// A PEM block, its base64 decoded.
pub(super) struct Block {
    pub(super) label: String,
    /// Names and values of RFC 1421 headers, which only legacy encrypted keys have.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Whether the text means to hold PEM.
pub(super) fn looks_like_pem(text: &[u8]) -> bool {
    text.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes())
}

/// Which half of a key a text must be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Public,
    Private,
}

/// The only block of a text; what stands around it is ignored, UTF-8 or not.
pub(super) fn single_block(text: &[u8], due: Half) -> Result<Block, KeyError> {
    if text.trim_ascii().is_empty() {
        return Err(KeyError::Empty);
    }
    if !looks_like_pem(text) {
        return Err(not_pem(text, due));
    }
    // openssl writes the parameters of an EC or DSA key in a block of their own before it.
    let (parameters, mut keys): (Vec<_>, Vec<_>) = blocks(text)?
        .into_iter()
        .partition(|block| matches!(block.label, "EC PARAMETERS" | "DSA PARAMETERS"));
    match (keys.pop(), keys.len(), parameters.first()) {
        (Some(only), 0, _) => decode(only),
        (Some(last), _, _) => {
            keys.push(last);
            Err(refuse_several(&keys, due))
        }
        (None, _, Some(parameters)) => Err(refuse_label(parameters.label)),
        (None, _, None) => Err(KeyError::Pem(OWN_LINES)),
    }
}

fn refuse_several(blocks: &[RawBlock<'_>], due: Half) -> KeyError {
    let labels = || blocks.iter().map(|block| block.label);
    // Whatever stands beside it, a private key stays what it is.
    if due == Half::Public && labels().any(|label| label.ends_with("PRIVATE KEY")) {
        return KeyError::PrivateKey;
    }
    match (labels().filter(|label| label.ends_with("KEY")).count(), blocks) {
        (0, [first, ..]) => refuse_label(first.label),
        (0 | 1, _) => KeyError::Pem(OTHER_BLOCKS),
        (count, _) => KeyError::SeveralKeys { count },
    }
}

struct RawBlock<'a> {
    label: &'a str,
    lines: Vec<&'a str>,
}

fn blocks(text: &[u8]) -> Result<Vec<RawBlock<'_>>, KeyError> {
    let mut blocks: Vec<RawBlock<'_>> = Vec::new();
    let mut open = false;
    for line in text.split(|byte| *byte == b'\n') {
        // Text around a block may have any encoding; within one, a line that is not UTF-8 is kept
        // as one that is not base64 either.
        let line = std::str::from_utf8(line.trim_ascii()).unwrap_or("?");
        if let Some(label) = between_dashes(line, BEGIN) {
            if open {
                return Err(KeyError::Pem("a BEGIN line stands where an END line is due"));
            }
            open = true;
            blocks.push(RawBlock { label, lines: Vec::new() });
        } else if let Some(label) = between_dashes(line, END) {
            match blocks.last() {
                Some(block) if open && block.label == label => open = false,
                Some(_) if open => return Err(KeyError::Pem("the BEGIN and END lines differ")),
                _ => return Err(KeyError::Pem("an END line stands where a BEGIN line is due")),
            }
        } else if is_squeezed(line) {
            return Err(KeyError::Pem(OWN_LINES));
        } else if let Some(block) = blocks.last_mut().filter(|_| open) {
            block.lines.push(line);
        }
    }
    if open { Err(KeyError::Pem("there is no END line; the text is cut")) } else { Ok(blocks) }
}

/// The label of a BEGIN or END line. A block that stands on one line has none.
fn between_dashes<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    line.strip_prefix(prefix)?.strip_suffix(DASHES).filter(|label| !label.contains(DASHES))
}

/// Whether a line that is no BEGIN line begins a block all the same. To skip it as text around a block would be
/// to take another block for the only one.
fn is_squeezed(line: &str) -> bool {
    line.strip_prefix(BEGIN).is_some_and(|rest| rest.contains(DASHES))
}

fn decode(block: RawBlock<'_>) -> Result<Block, KeyError> {
    let mut headers = Vec::new();
    // Room for it all, so that growing leaves no copy of a secret behind.
    let room = block.lines.iter().map(|line| line.len()).sum();
    let mut base64 = Zeroizing::new(String::with_capacity(room));
    for line in block.lines {
        match line.split_once(':') {
            Some((name, value)) if base64.is_empty() => {
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            _ => base64.extend(line.chars().filter(|c| !c.is_ascii_whitespace())),
        }
    }
    if base64.is_empty() {
        return Err(KeyError::Pem("the block is empty"));
    }
    let body = STANDARD.decode(base64.as_bytes()).map_err(|_| KeyError::Pem("the block is not base64"))?;
    Ok(Block { label: block.label.to_owned(), headers, body: Zeroizing::new(body) })
}

/// What a text without a BEGIN line may be instead.
pub(super) fn not_pem(text: &[u8], due: Half) -> KeyError {
    // A DER SEQUENCE; text that begins with the digit 0 is UTF-8.
    if text.first() == Some(&0x30) && std::str::from_utf8(text).is_err() {
        return der::refuse(text, due);
    }
    let text = text.trim_ascii();
    if text.is_empty() {
        KeyError::Empty
    } else if text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]) {
        foreign("UTF-16 text", "iconv -f UTF-16 -t UTF-8 FILE")
    } else if text.starts_with(b"---- BEGIN SSH2 PUBLIC KEY") {
        match due {
            Half::Public => foreign("an RFC 4716 public key", "ssh-keygen -i -f FILE"),
            Half::Private => KeyError::PublicKey,
        }
    } else if text.starts_with(b"PuTTY-User-Key-File") {
        match due {
            Half::Public => KeyError::PrivateKey,
            Half::Private => foreign("a PuTTY key file", "puttygen FILE -O private-openssh"),
        }
    } else if text.starts_with(b"{") {
        let detail = match due {
            Half::Public => "this is JSON: a JWK is read as such, not as PEM or OpenSSH text",
            Half::Private => "this is JSON: private keys are read from PEM and OpenSSH files only",
        };
        KeyError::malformed("key", detail)
    } else {
        KeyError::NotAKey
    }
}

fn foreign(format: &'static str, hint: &str) -> KeyError {
    KeyError::malformed("key", format_args!("this is {format}; convert it: {hint}"))
}

/// Why a block of this label is not a key.
pub(super) fn refuse_label(label: &str) -> KeyError {
    if label.ends_with("CERTIFICATE") {
        return KeyError::Certificate {
            kind: "an X.509 certificate",
            hint: "take the key out: openssl x509 -in FILE -noout -pubkey",
        };
    }
    KeyError::Label { label: label.chars().take(64).collect() }
}

/// Writes a block: 64 columns, LF, a final LF.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    // Exactly the final size, so that growing leaves no copy of a secret behind.
    let line_ends = base64.len().div_ceil(64);
    let frame = BEGIN.len() + END.len() + 2 * (label.len() + DASHES.len() + 1);
    let mut pem = String::with_capacity(frame + base64.len() + line_ends);
    pem.extend([BEGIN, label, DASHES, "\n"]);
    let mut rest: &str = &base64;
    while !rest.is_empty() {
        let (line, tail) = rest.split_at_checked(64).unwrap_or((rest, ""));
        pem.extend([line, "\n"]);
        rest = tail;
    }
    pem.extend([END, label, DASHES, "\n"]);
    pem
}
