use ajwt_server::NonceKey;

use crate::ConnectError;

/// Of the 32 bytes of a nonce's key; these are what memory is spent on. Among a billion live nonces
/// two share the 16 with a chance below one in 10^20, and then the later token is refused, not
/// accepted.
const KEY_BYTES: usize = 16;

const SLOTS: u16 = 16384;

/// The names of the keys in Redis.
///
/// The prefix cannot hold `/` or braces: no prefix can reach into the keys of another, and the
/// first braces in a key are the hash tag.
#[derive(Debug)]
pub(crate) struct Keyspace {
    prefix: String,
    clustered: bool,
}

impl Keyspace {
    pub(crate) fn new(prefix: &str, clustered: bool) -> Result<Self, ConnectError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if (1..=64).contains(&prefix.len()) && prefix.bytes().all(allowed) {
            return Ok(Self { prefix: prefix.to_owned(), clustered });
        }
        Err(ConnectError::Prefix { found: prefix.chars().take(80).collect() })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// On a cluster 256 buckets, each of which lies on one server, whole, with its own mark.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = u8> + use<> {
        0..=if self.clustered { u8::MAX } else { 0 }
    }

    pub(crate) fn bucket_of(&self, key: &NonceKey) -> u8 {
        if self.clustered { key.as_bytes().last().copied().unwrap_or_default() } else { 0 }
    }

    /// Where a nonce is remembered.
    pub(crate) fn nonce(&self, key: &NonceKey) -> Vec<u8> {
        let mut name = self.bucket(self.bucket_of(key)).into_bytes();
        name.reserve_exact(KEY_BYTES);
        name.extend(key.as_bytes().iter().take(KEY_BYTES));
        name
    }

    /// Where it is kept since when a bucket's memory is whole.
    pub(crate) fn since(&self, bucket: u8) -> String {
        self.bucket(bucket) + "since"
    }

    fn bucket(&self, bucket: u8) -> String {
        let Self { prefix, clustered } = self;
        if *clustered { format!("{prefix}/{{{bucket:02x}}}") } else { format!("{prefix}/") }
    }
}

/// The hash slot of a bucket's tag (Redis cluster specification, "Hash tags").
pub(crate) fn slot_of(bucket: u8) -> u16 {
    crc16(format!("{bucket:02x}").as_bytes()) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn buckets_spread_over_the_slots() {
        for (first, last) in [(0, 5460), (5461, 10922), (10923, 16383)] {
            let count = (0..=u8::MAX).filter(|bucket| (first..=last).contains(&slot_of(*bucket))).count();
            assert!((70..=100).contains(&count), "slots {first} to {last} have {count} of 256 buckets");
        }
    }

    #[test]
    fn a_prefix_keeps_to_itself() {
        for bad in ["", "a/b", "a{b", "a}b", "a b", "a\n", "\u{e9}", &"x".repeat(65)] {
            assert!(Keyspace::new(bad, false).is_err(), "{bad:?}");
        }
        for good in ["a", "shop:prod", "A-z_0.9", &"x".repeat(64)] {
            assert!(Keyspace::new(good, true).is_ok(), "{good:?}");
        }
    }
}
