//! What must not be told, and whether a text tells it.

use std::collections::{HashMap, HashSet};

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Characters of a secret that make a leak.
const GRAM: usize = 16;

/// Characters of a secret that is looked for as a whole.
const SHORTEST: usize = 7;

/// Bytes of a secret that make a leak where they stand as a list of numbers.
const NUMBERS: usize = 8;

/// Texts of which no sixteen characters in a row may be seen, and short ones that may not be seen whole.
#[derive(Default)]
pub(crate) struct Secrets {
    grams: HashSet<[u8; GRAM]>,
    /// By how they begin.
    short: HashMap<[u8; SHORTEST], HashSet<Vec<u8>>>,
    published: HashSet<[u8; GRAM]>,
}

impl Secrets {
    /// A token, a part of one, a line of a key file, a password.
    pub(crate) fn add(&mut self, secret: &str) {
        let bytes = secret.as_bytes();
        if bytes.len() < GRAM {
            // What is shorter, or little more than one character over and over, stands anywhere.
            if let Some(start) = bytes.first_chunk()
                && distinct(bytes) >= 3
            {
                self.short.entry(*start).or_default().insert(bytes.to_vec());
            }
            return;
        }
        let grams = bytes.array_windows::<GRAM>();
        self.grams.extend(grams.filter(|gram| distinct(*gram) >= 6));
    }

    /// Bytes in each way in which they are printed: hex, base64, and the list that a derived `Debug` makes.
    pub(crate) fn add_bytes(&mut self, secret: &[u8]) {
        self.add(&secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        // In base64 it depends on what stands before, and at the end on what follows.
        for skipped in 0..3 {
            let rest = secret.get(skipped..).unwrap_or_default();
            self.add(&BASE64_STANDARD.encode(rest.get(..rest.len() / 3 * 3).unwrap_or_default()));
        }
        for numbers in secret.windows(NUMBERS) {
            let list = numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            self.grams.extend(list.as_bytes().first_chunk::<GRAM>().filter(|gram| distinct(*gram) >= 6));
        }
    }

    /// A text that anybody may see: what stands in it too is no secret, as the first bytes of all keys.
    pub(crate) fn publish(&mut self, public: &str) {
        self.published.extend(public.as_bytes().array_windows::<GRAM>());
    }

    pub(crate) fn len(&self) -> usize {
        self.grams.len() + self.short.values().map(HashSet::len).sum::<usize>()
    }

    /// The first piece of a secret that stands in the text.
    pub(crate) fn find(&self, text: &str) -> Option<String> {
        let bytes = text.as_bytes();
        let is_secret = |gram: &&[u8; GRAM]| self.grams.contains(*gram) && !self.published.contains(*gram);
        let long = bytes.array_windows::<GRAM>().find(is_secret).map(|gram| &gram[..]);
        let short = || {
            bytes.array_windows::<SHORTEST>().enumerate().find_map(|(at, start)| {
                let secrets = self.short.get(start)?;
                secrets.iter().find(|secret| bytes[at..].starts_with(secret)).map(Vec::as_slice)
            })
        };
        long.or_else(short).map(|found| String::from_utf8_lossy(found).into_owned())
    }
}

fn distinct(bytes: &[u8]) -> usize {
    let mut seen = [false; 256];
    bytes.iter().filter(|byte| !std::mem::replace(&mut seen[usize::from(**byte)], true)).count()
}
