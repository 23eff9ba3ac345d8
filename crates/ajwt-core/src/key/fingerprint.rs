use std::{fmt, io::Write as _};

use aws_lc_rs::digest;

/// SHA-256 of a public key's SPKI PEM text, in lower-case hex: the `kid` of its tokens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 64]);

impl Fingerprint {
    /// Of the canonical text: 64 columns, LF, a final LF.
    pub(super) fn of_pem(pem: &str) -> Self {
        let mut hex = [0; 64];
        let mut rest = hex.as_mut_slice();
        for byte in digest::digest(&digest::SHA256, pem.as_bytes()).as_ref() {
            // Two digits of each of 32 bytes: they fit.
            let _ = write!(rest, "{byte:02x}");
        }
        Self(hex)
    }

    /// 64 characters of lower-case hex.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Digits are ASCII.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
