//! One file of the folder.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use ajwt_core::{ClaimError, Username};
use thiserror::Error;

use crate::{
    AdminError, AuthorizedKeysError, KeySource, NewKey, StoredKey, TrustedUrl, User, authorized_keys,
    error::with_sources,
    user::{MAX_KEYS, MAX_TRUSTS},
};

/// Bytes that a file may have: more than 32 keys with long comments.
const MAX_LEN: u64 = 1024 * 1024;

/// A file that is looked at, by its name within the folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileName(String);

/// What a file says of a user.
pub(super) enum Content {
    /// Newest first.
    Keys(Username, Vec<StoredKey>),
    Urls(Username, Vec<TrustedUrl>),
}

/// Why a file cannot be used.
#[derive(Clone, Debug, Error)]
pub(super) enum FileProblem {
    #[error("it cannot be read: {0}")]
    Unreadable(Arc<io::Error>),
    #[error("it is no file")]
    NotAFile,
    #[error("its mode is {mode:04o}, so every account of this host may add keys: chmod o-w it")]
    Mode { mode: u32 },
    #[error("it has more than {MAX_LEN} bytes")]
    TooLong,
    #[error("its name is none of a user: {0}")]
    Name(ClaimError),
    #[error("{}", with_sources(.0))]
    Keys(AuthorizedKeysError),
    #[error("it holds {0} keys; at most {MAX_KEYS} of a user are looked at")]
    TooManyKeys(usize),
    #[error("it holds {0} URLs; at most {MAX_TRUSTS} of a user count")]
    TooManyUrls(usize),
    #[error("line {line}: {problem}")]
    Url { line: usize, problem: String },
}

/// The files of the folder that count. Names that are not UTF-8 are none of a user.
pub(super) fn list(folder: &Path) -> io::Result<Vec<FileName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let is_hidden = name.starts_with('.');
        if !is_hidden && (name.ends_with(".keys") || name.ends_with(".jwks")) {
            names.push(FileName(name));
        }
    }
    Ok(names)
}

impl FileName {
    pub(super) fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    pub(super) fn read(&self, folder: &Path) -> Result<Vec<u8>, FileProblem> {
        let unreadable = |error: io::Error| FileProblem::Unreadable(Arc::new(error));
        let path = folder.join(self.as_path());
        // Before it is opened, for opening a pipe would wait for its other end; and what was opened, for it may
        // be another one by now.
        check(&fs::metadata(&path).map_err(unreadable)?)?;
        let file = File::open(path).map_err(unreadable)?;
        check(&file.metadata().map_err(unreadable)?)?;
        let mut bytes = Vec::new();
        file.take(MAX_LEN.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len <= MAX_LEN) {
            Ok(bytes)
        } else {
            Err(FileProblem::TooLong)
        }
    }

    pub(super) fn parse(&self, bytes: &[u8]) -> Result<Content, FileProblem> {
        let username = |name| Username::from_percent_encoded(name).map_err(FileProblem::Name);
        if let Some(name) = self.0.strip_suffix(".keys") {
            let username = username(name)?;
            let keys = NewKey::from_authorized_keys(bytes).map_err(FileProblem::Keys)?;
            if keys.len() > MAX_KEYS {
                return Err(FileProblem::TooManyKeys(keys.len()));
            }
            let stored = |key: &NewKey| StoredKey::new(key.key().clone(), KeySource::Unrecorded);
            let keys = keys.iter().rev().map(stored);
            return Ok(Content::Keys(username, keys.collect()));
        }
        let username = username(self.0.strip_suffix(".jwks").unwrap_or(&self.0))?;
        let urls = authorized_keys::lines(bytes).map(|(line, url)| {
            let url = String::from_utf8_lossy(url);
            let refused = |error: AdminError| FileProblem::Url { line, problem: error.to_string() };
            AdminError::check_trust_url(&url).map_err(refused)?;
            Ok(TrustedUrl::unrecorded(url))
        });
        let urls = urls.collect::<Result<Vec<_>, _>>()?;
        if urls.len() > MAX_TRUSTS {
            return Err(FileProblem::TooManyUrls(urls.len()));
        }
        Ok(Content::Urls(username, urls))
    }
}

impl Content {
    pub(super) const fn username(&self) -> &Username {
        match self {
            Self::Keys(username, _) | Self::Urls(username, _) => username,
        }
    }

    pub(super) fn add_to(&self, user: User) -> User {
        match self {
            Self::Keys(_, keys) => user.with_stored_keys(keys.clone()),
            Self::Urls(_, urls) => user.with_jwks_urls(urls.clone()),
        }
    }
}

/// The mode of a folder to which every account of the host may add files. Volumes of Kubernetes have such a mode
/// although nobody can write to them, so it is nothing to refuse.
#[cfg(unix)]
pub(super) fn mode_open_to_all(folder: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;

    let mode = fs::metadata(folder).ok()?.mode() & 0o7777;
    (mode & 0o002 != 0).then_some(mode)
}

#[cfg(not(unix))]
pub(super) const fn mode_open_to_all(_: &Path) -> Option<u32> {
    None
}

#[cfg(unix)]
fn check(metadata: &Metadata) -> Result<(), FileProblem> {
    use std::os::unix::fs::MetadataExt as _;

    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        return Err(FileProblem::NotAFile);
    }
    if mode & 0o002 != 0 { Err(FileProblem::Mode { mode }) } else { Ok(()) }
}

#[cfg(not(unix))]
fn check(metadata: &Metadata) -> Result<(), FileProblem> {
    if metadata.is_file() { Ok(()) } else { Err(FileProblem::NotAFile) }
}
