//! Fuzz targets: plain functions that take bytes and panic where a claim does not hold. What each claims
//! is its documentation. libFuzzer calls them, and so do the tests, with the seeds.

use std::{error::Error, fs, path::Path};

mod engine;
mod fixed;
mod json;
mod model;
mod script;
mod seeds;
mod targets;

pub use targets::{
    authorized_keys::authorized_keys,
    claims::claims,
    header_value::header_value,
    jwk_set::jwk_set,
    mutated_token::mutated_token,
    private_key::{private_key_der, private_key_text},
    public_key::{public_key_der, public_key_text},
    redis::{redis_reply, redis_server},
    token::token,
    url_policy::url_policy,
    verification::verification,
};

/// What an error tells is short, and says nothing to a terminal.
fn check_error(error: &dyn Error) {
    for error in std::iter::successors(Some(error), |error| (*error).source()) {
        let told = error.to_string();
        assert!(!told.is_empty() && told.len() < 1000, "{told}");
        assert!(!told.contains(|c: char| c.is_control() || c == '\u{202e}'), "{told:?}");
    }
}

/// A target, by the name of its fuzzer.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Panics where the target's claim does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made of the test vectors and fixtures.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// The names of the folders of inputs that once failed.
///
/// # Panics
/// If they cannot be listed.
#[must_use]
pub fn regression_folders() -> Vec<String> {
    let folders =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")).expect("the folders");
    folders.map(|folder| folder.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

impl Target {
    /// Inputs that once failed, from `regressions/TARGET`.
    ///
    /// # Panics
    /// If one cannot be read.
    #[must_use]
    pub fn regressions(&self) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(self.name);
        let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
        files.map(|file| fs::read(file.expect("an entry").path()).expect("a file")).collect()
    }
}

/// All of them.
pub const TARGETS: [Target; 14] = [
    Target { name: "authorized_keys", run: authorized_keys, seeds: seeds::authorized_keys },
    Target { name: "claims", run: claims, seeds: seeds::claims },
    Target { name: "header_value", run: header_value, seeds: seeds::header_values },
    Target { name: "jwk_set", run: jwk_set, seeds: seeds::jwk_sets },
    Target { name: "mutated_token", run: mutated_token, seeds: seeds::mutations },
    Target { name: "private_key_der", run: private_key_der, seeds: seeds::private_keys_der },
    Target { name: "private_key_text", run: private_key_text, seeds: seeds::private_keys },
    Target { name: "public_key_der", run: public_key_der, seeds: seeds::public_keys_der },
    Target { name: "public_key_text", run: public_key_text, seeds: seeds::public_keys },
    Target { name: "redis_reply", run: redis_reply, seeds: seeds::redis_answers },
    Target { name: "redis_server", run: redis_server, seeds: seeds::redis_answers },
    Target { name: "token", run: token, seeds: seeds::tokens },
    Target { name: "url_policy", run: url_policy, seeds: seeds::urls },
    Target { name: "verification", run: verification, seeds: seeds::verifications },
];
