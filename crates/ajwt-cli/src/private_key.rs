//! Private keys and the passphrases that they are encrypted with.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use ajwt_client::{KeyFile, KeyFileError};
use ajwt_core::{KeyError, MAX_PRIVATE_KEY_LEN, PrivateKey};
use clap::Args;
use zeroize::Zeroizing;

use crate::{failure::Failure, input, terminal};

/// Bytes that a passphrase may have.
const MAX_PASSPHRASE_LEN: usize = 4096;

/// The private key that a command signs with.
#[derive(Args)]
pub(crate) struct SigningKey {
    /// The file of the private key: PKCS#8, PKCS#1 or OpenSSH, encrypted or not
    #[arg(long, env = "AJWT_KEY", value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    access: Access,
}

/// What reading a private key, or making one, may need. The passphrase itself is no argument: other accounts see those
/// of programs.
#[derive(Args, Clone)]
pub(crate) struct Access {
    /// A file whose first line is the passphrase; without it the terminal is asked
    #[arg(long, env = "AJWT_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    // That of the file, once it was read: several keys may need it, and standard input or a pipe can be read once. Not
    // shared with clones: it is wiped with whichever has read it.
    #[arg(skip)]
    passphrase: OnceLock<Zeroizing<Vec<u8>>>,
    /// Reads files of keys and passphrases that others may read, as mounted Kubernetes secrets are
    #[arg(long, env = "AJWT_ALLOW_OPEN_PERMISSIONS")]
    allow_open_permissions: bool,
}

impl SigningKey {
    pub(crate) fn read(&self) -> Result<PrivateKey, Failure> {
        self.access.read(&self.key)
    }
}

impl Access {
    pub(crate) fn read(&self, path: &Path) -> Result<PrivateKey, Failure> {
        if input::is_pipe(path) {
            return self.read_text(&input::read(path, MAX_PRIVATE_KEY_LEN)?);
        }
        let file = || {
            let file = KeyFile::new(path);
            if self.allow_open_permissions { file.allow_open_permissions() } else { file }
        };
        match file().read() {
            Err(KeyFileError::Key { source: KeyError::PasswordMissing, .. }) => {
                let passphrase = self.passphrase_of(&path.display().to_string())?;
                file().password(passphrase.as_slice()).read().map_err(key_failure)
            }
            read => read.map_err(key_failure),
        }
    }

    /// Reads the text of a key that has no file.
    pub(crate) fn read_text(&self, text: &[u8]) -> Result<PrivateKey, Failure> {
        match PrivateKey::from_pem(text, None) {
            Err(KeyError::PasswordMissing) => {
                let passphrase = self.passphrase_of("the key")?;
                Ok(PrivateKey::from_pem(text, Some(&passphrase))?)
            }
            read => Ok(read?),
        }
    }

    fn passphrase_of(&self, key: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        match self.passphrase()? {
            Some(passphrase) => Ok(passphrase),
            None => terminal::ask(&format!("passphrase of {key}: ")),
        }
    }

    /// The passphrase of the file, if one was given.
    fn passphrase(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let Some(path) = &self.passphrase_file else { return Ok(None) };
        if let Some(passphrase) = self.passphrase.get() {
            return Ok(Some(passphrase.clone()));
        }
        if let Some(mode) = input::mode(path)
            && mode & 0o077 != 0
            && !self.allow_open_permissions
        {
            return Err(Failure::new(format!(
                "the passphrase file {path} has mode {mode:04o}, so others can read it: chmod 600 {path}, or give \
                 --allow-open-permissions where that is meant (Kubernetes secrets)",
                path = path.display()
            )));
        }
        let text = input::read(path, MAX_PASSPHRASE_LEN)?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let passphrase = line.strip_suffix(b"\r").unwrap_or(line);
        if passphrase.is_empty() {
            return Err(Failure::new(format!(
                "the first line of {} is empty where a passphrase is due",
                path.display()
            )));
        }
        let passphrase = Zeroizing::new(passphrase.to_vec());
        Ok(Some(self.passphrase.get_or_init(|| passphrase).clone()))
    }

    /// The passphrase of a new key: of the file, else what the terminal answers twice. `None`: it is
    /// not to be encrypted.
    pub(crate) fn of_new_key(&self, may_ask: bool) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        if let Some(passphrase) = self.passphrase()? {
            return Ok(Some(passphrase));
        }
        if !may_ask || !io::stdin().is_terminal() {
            return Ok(None);
        }
        let passphrase = terminal::ask("passphrase of the new key (empty for none): ")?;
        if passphrase.is_empty() {
            return Ok(None);
        }
        if terminal::ask("the same again: ")? != passphrase {
            return Err(Failure::new("the passphrases differ; no key was made"));
        }
        Ok(Some(passphrase))
    }
}

/// The library's hint is to a method; here it is an option.
fn key_failure(error: KeyFileError) -> Failure {
    match error {
        KeyFileError::OpenPermissions { path, mode } => Failure::new(format!(
            "the key file {path} has mode {mode:04o}, so others can use the key: chmod 600 {path}, or give \
             --allow-open-permissions where that is meant (Kubernetes secrets)",
            path = path.display()
        )),
        error => error.into(),
    }
}
