use std::fmt;

use aws_lc_rs::digest;

/// SHA-256 of a public key's SPKI PEM text, in lower-case hex: the `kid` of its tokens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(Box<str>);

impl Fingerprint {
    /// Of the canonical text: 64 columns, LF, a final LF.
    pub(super) fn of_pem(pem: &str) -> Self {
        use std::fmt::Write as _;

        let mut hex = String::with_capacity(64);
        for byte in digest::digest(&digest::SHA256, pem.as_bytes()).as_ref() {
            // Writing to a String does not fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Self(hex.into())
    }

    /// 64 characters of lower-case hex.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", self.0)
    }
}
