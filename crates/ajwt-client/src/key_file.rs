use std::{
    env,
    error::Error as StdError,
    ffi::OsString,
    fmt,
    fs::{File, Metadata},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use ajwt_core::{KeyError, MAX_PRIVATE_KEY_LEN, PrivateKey, PublicKey, Timestamp};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes that a password file may have.
const MAX_PASSWORD_LEN: usize = 4096;

/// A private key in a file, in any format of [`PrivateKey::from_pem`].
///
/// On Unix a file that others may read or write (mode bits in 0o077) is refused. Where the key is
/// encrypted, its password is given, or looked up each time it is needed.
///
/// ```no_run
/// use ajwt_client::{KeyFile, RequestSigner};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = KeyFile::new("/etc/billing/ajwt.key").password_env("BILLING_KEY_PASSWORD").read()?;
/// let signer = RequestSigner::new("billing", key)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct KeyFile {
    path: PathBuf,
    password: Option<Password>,
    allow_open_permissions: bool,
}

/// Where the password comes from.
#[derive(Clone)]
enum Password {
    Given(Arc<Zeroizing<Vec<u8>>>),
    Variable(OsString),
    File(PathBuf),
    Callback(Callback),
}

type Callback = Arc<dyn Fn() -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> + Send + Sync>;

impl KeyFile {
    /// The file at this path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), password: None, allow_open_permissions: false }
    }

    /// Decrypts the key with this password.
    #[must_use]
    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        self.password = Some(Password::Given(Arc::new(Zeroizing::new(password.into()))));
        self
    }

    /// Decrypts the key with the value of this environment variable.
    #[must_use]
    pub fn password_env(mut self, variable: impl Into<OsString>) -> Self {
        self.password = Some(Password::Variable(variable.into()));
        self
    }

    /// Decrypts the key with what this file holds, without the line end that it may end in. Its
    /// permissions are held to what the key file's are; it has at most 4 KiB.
    #[must_use]
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password = Some(Password::File(path.into()));
        self
    }

    /// Decrypts the key with what this returns: asked only where the key is encrypted, and each
    /// time that it is read.
    #[must_use]
    pub fn password_from(
        mut self,
        callback: impl Fn() -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        self.password = Some(Password::Callback(Arc::new(callback)));
        self
    }

    /// Reads the file whatever its permissions, as mounted Kubernetes secrets need.
    #[must_use]
    pub const fn allow_open_permissions(mut self) -> Self {
        self.allow_open_permissions = true;
        self
    }

    /// Reads and checks the key.
    ///
    /// # Errors
    /// [`KeyFileError`], which names the file.
    pub fn read(&self) -> Result<PrivateKey, KeyFileError> {
        let contents = self.contents()?;
        self.key_of(&contents)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Another file, read in the same way.
    pub(crate) fn at(&self, path: PathBuf) -> Self {
        Self { path, ..self.clone() }
    }

    pub(crate) fn contents(&self) -> Result<Contents, KeyFileError> {
        match self.read_file(&self.path, MAX_PRIVATE_KEY_LEN) {
            // To hide it would be of no use.
            Err(KeyFileError::OpenPermissions { .. }) if self.holds_public_key() => {
                Err(KeyFileError::Key { path: self.path.clone(), source: KeyError::PublicKey })
            }
            read => read,
        }
    }

    /// Whether others may read the file with good reason. Not of a pipe, which can be read once.
    fn holds_public_key(&self) -> bool {
        let read = || self.clone().allow_open_permissions().read_file(&self.path, MAX_PRIVATE_KEY_LEN);
        self.path.is_file() && read().is_ok_and(|read| PublicKey::from_text(read.text.as_slice()).is_ok())
    }

    pub(crate) fn key_of(&self, contents: &Contents) -> Result<PrivateKey, KeyFileError> {
        let load = |password| PrivateKey::from_pem(contents.text.as_slice(), password);
        let unusable = |source| KeyFileError::Key { path: self.path.clone(), source };
        match (load(None), &self.password) {
            // Only now is the password asked for.
            (Err(KeyError::PasswordMissing), Some(password)) => {
                load(Some(&self.look_up(password)?)).map_err(unusable)
            }
            (loaded, _) => loaded.map_err(unusable),
        }
    }

    fn look_up(&self, password: &Password) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        match password {
            Password::Given(password) => Ok(Zeroizing::clone(password)),
            Password::Variable(name) => match env::var_os(name) {
                Some(value) => Ok(Zeroizing::new(value.into_encoded_bytes())),
                None => Err(KeyFileError::PasswordVariable {
                    path: self.path.clone(),
                    variable: name.to_string_lossy().into(),
                }),
            },
            Password::File(path) => {
                let mut text = self.read_file(path, MAX_PASSWORD_LEN)?.text;
                if text.len() > MAX_PASSWORD_LEN {
                    return Err(KeyFileError::PasswordLength { path: path.clone(), max: MAX_PASSWORD_LEN });
                }
                for line_end in [b'\n', b'\r'] {
                    if text.last() == Some(&line_end) {
                        text.pop();
                    }
                }
                Ok(text)
            }
            Password::Callback(callback) => callback()
                .map(Zeroizing::new)
                .map_err(|source| KeyFileError::Password { path: self.path.clone(), source }),
        }
    }

    /// At most one byte more than `max`, which is enough to see that it is too long.
    fn read_file(&self, path: &Path, max: usize) -> Result<Contents, KeyFileError> {
        let unreadable = |source| KeyFileError::Unreadable { path: path.into(), source };
        let file = File::open(path).map_err(unreadable)?;
        // The open file is asked, not the path: nobody can swap it in between.
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            // Whatever its mode, which is another one than that of a file.
            return Err(unreadable(io::ErrorKind::IsADirectory.into()));
        }
        self.check_permissions(path, &metadata)?;
        let dated = date(&metadata).map_err(unreadable)?;
        // Room for it all, so that growing leaves no copy behind.
        let mut text = Zeroizing::new(Vec::with_capacity(max.saturating_add(1)));
        file.take((max as u64).saturating_add(1)).read_to_end(&mut text).map_err(unreadable)?;
        Ok(Contents { text, dated })
    }

    #[cfg(unix)]
    fn check_permissions(&self, path: &Path, metadata: &Metadata) -> Result<(), KeyFileError> {
        use std::os::unix::fs::MetadataExt as _;

        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 && !self.allow_open_permissions {
            return Err(KeyFileError::OpenPermissions { path: path.into(), mode });
        }
        Ok(())
    }

    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps, reason = "one signature on all platforms")]
    fn check_permissions(&self, _: &Path, _: &Metadata) -> Result<(), KeyFileError> {
        Ok(())
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// When a file came to be what and where it is. The date of its text alone is kept when it is moved or copied.
#[cfg(unix)]
fn date(metadata: &Metadata) -> io::Result<Timestamp> {
    use std::os::unix::fs::MetadataExt as _;

    // By the text's date too: a file system may have no other, and whoever writes the file may set it ahead.
    let written = Timestamp::from(metadata.modified()?);
    Ok(written.max(Timestamp::from_secs(metadata.ctime())))
}

#[cfg(not(unix))]
fn date(metadata: &Metadata) -> io::Result<Timestamp> {
    metadata.modified().map(Timestamp::from)
}

/// What a file held when it was read.
pub(crate) struct Contents {
    pub(crate) text: Zeroizing<Vec<u8>>,
    /// Since when the file is as it is.
    pub(crate) dated: Timestamp,
}

/// Why a key file gave no key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("the file {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others may read or write it.
    #[error("the file {} has mode {mode:04o}, so others can use the secret in it: chmod 600 it, or allow open permissions where that is meant (Kubernetes secrets)", path.display())]
    OpenPermissions {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// It holds no usable key.
    #[error("the key file {} holds no usable key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What was found.
        source: KeyError,
    },
    /// The folder holds no key file.
    #[error("the folder {} holds no file whose name ends in .key", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The key is encrypted, and the environment variable of its password is not set.
    #[error("the key file {} is encrypted, and the environment variable {variable} of its password is not set", path.display())]
    PasswordVariable {
        /// The key file.
        path: PathBuf,
        /// The variable.
        variable: Box<str>,
    },
    /// The password file is longer than a password is.
    #[error("the password file {} has more than {max} bytes", path.display())]
    PasswordLength {
        /// The password file.
        path: PathBuf,
        /// Bytes allowed.
        max: usize,
    },
    /// The callback gave no password.
    #[error("no password was given for the key file {}", path.display())]
    Password {
        /// The key file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// No thread could be started to look at the file again.
    #[error("no thread could be started to watch {}", path.display())]
    Watch {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
