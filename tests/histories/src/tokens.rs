//! The callers, who sign.

use std::{fs, path::Path};

use ajwt_core::{Claims, Nonce, PrivateKey, Timestamp, Token, Username};

use crate::{history::TokenId, program};

/// Users with two keys each, so that a token can be signed anew by another key.
#[derive(Debug)]
pub(crate) struct Callers(Vec<(Username, [PrivateKey; 2])>);

impl Callers {
    pub(crate) fn new() -> Self {
        let key = || PrivateKey::generate_ed25519().expect("a key");
        let user = |name: &str| (Username::new(name).expect("a name"), [key(), key()]);
        Self(["guido", "anna"].map(user).into())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn username(&self, user: usize) -> &str {
        self.0[user].0.as_str()
    }

    /// The value of an Authorization header.
    pub(crate) fn sign(&self, token: &TokenId, key: usize) -> String {
        let found = self.0.iter().find(|(username, _)| username.as_str() == token.username);
        let (username, keys) = found.expect("a user");
        let nonce = Nonce::new(token.nonce.as_str()).expect("a nonce");
        let claims = Claims::new(username.clone(), Timestamp::from_secs(token.time), nonce);
        format!("JWT {}", Token::sign(&claims, &keys[key % keys.len()]).expect("signed").as_str())
    }

    /// Writes a file of keys for each user, as `--keys` reads them.
    pub(crate) fn write_key_files(&self, folder: &Path) {
        fs::create_dir_all(folder).expect("a folder");
        for (username, keys) in &self.0 {
            let lines = keys.iter().map(|key| key.public_key().to_openssh("") + "\n");
            let file = folder.join(format!("{}.keys", username.as_str()));
            fs::write(file, lines.collect::<String>()).expect("written");
        }
    }

    /// Registers the users and their keys in a database.
    pub(crate) fn register(&self, folder: &Path, database: &str) {
        for (username, keys) in &self.0 {
            let name = username.as_str();
            program::run(folder, &format!("user add {name} {database}"));
            for (number, key) in keys.iter().enumerate() {
                let file = format!("{name}-{number}.pub");
                fs::write(folder.join(&file), key.public_key().to_openssh("")).expect("written");
                program::run(folder, &format!("key add {name} {file} {database}"));
            }
        }
    }
}
