//! Files that a command reads; `-` is standard input.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use ajwt_core::{JwkSet, JwkSetError, KeyError, MAX_JWK_SET_LEN, MAX_PUBLIC_KEY_LEN, PublicKey};
use ajwt_server::NewKey;
use zeroize::Zeroizing;

use crate::{failure::Failure, output, private_key::Access};

/// Whether standard input was read, which has nothing for whoever reads it again.
static STANDARD_WAS_READ: AtomicBool = AtomicBool::new(false);

/// Bytes that a file of certificates may have.
pub(crate) const MAX_CERTIFICATES_LEN: usize = 4 * 1024 * 1024;

/// Reads where it may have to wait, for a disk, the other end of a pipe or somebody at the terminal: on a thread that the
/// end of the program does not wait for, while the caller hears what else there is.
pub(crate) async fn aside<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(read).await?
}

/// Whether a path stands for standard input.
pub(crate) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether a path is that of a pipe, as of a shell's `<(..)`: it can be read once, and has no mode that says who
/// else can.
pub(crate) fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// The mode of a file, which says who else can read it. What is no regular file has none that does.
#[cfg(unix)]
pub(crate) fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;

    if is_standard(path) {
        return None;
    }
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|found| found.mode() & 0o7777)
}

#[cfg(not(unix))]
pub(crate) fn mode(_: &Path) -> Option<u32> {
    None
}

/// Reads a file of at most `max` bytes. It may hold a secret.
pub(crate) fn read(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let from = |source: &mut dyn Read| -> io::Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(max.saturating_add(1)));
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        source.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let read = if is_standard(path) {
        if STANDARD_WAS_READ.swap(true, Ordering::Relaxed) {
            return Err(Failure::new(
                "- is given more than once, and standard input can be read once: name files for the others",
            ));
        }
        from(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| from(&mut file))
    };
    let bytes = read.map_err(Failure::of(format!("{} cannot be read", path.display())))?;
    if bytes.len() > max {
        return Err(Failure::new(format!("{} has more than {max} bytes", path.display())));
    }
    Ok(bytes)
}

/// Reads a public key in PEM, OpenSSH or JWK, and its comment where there is one.
pub(crate) fn public_key(path: &Path) -> Result<NewKey, Failure> {
    let text = read(path, MAX_PUBLIC_KEY_LEN)?;
    let is_json = text.trim_ascii_start().starts_with(b"{");
    let key = if is_json {
        PublicKey::from_jwk(&*text).map(NewKey::of_key).map_err(|error| match JwkSet::from_json(&*text) {
            Ok(_) => Failure::new("this is a JWK Set where one key is due; ajwt key show takes its keys out"),
            Err(_) => error.into(),
        })
    } else {
        NewKey::from_text(&*text).map_err(|error: KeyError| Failure::from(error))
    };
    key.map_err(|failure| Failure::new(format!("{} holds no usable public key: {failure}", path.display())))
}

/// The public keys that a file of any format holds, one at least: several only where it is a JWK Set.
pub(crate) fn public_keys(file: &Path, access: &Access) -> Result<Vec<PublicKey>, Failure> {
    let text = read(file, MAX_JWK_SET_LEN)?;
    let unusable =
        |failure: Failure| Failure::new(format!("{} holds no usable key: {failure}", file.display()));
    if text.trim_ascii_start().starts_with(b"{") {
        return of_json(&text).map_err(unusable);
    }
    match PublicKey::from_text(&*text) {
        Ok((key, _)) => Ok(vec![key]),
        Err(KeyError::PrivateKey) if is_standard(file) || is_pipe(file) => {
            Ok(vec![access.read_text(&text)?.public_key().clone()])
        }
        Err(KeyError::PrivateKey) => Ok(vec![access.read(file)?.public_key().clone()]),
        Err(error) => Err(unusable(error.into())),
    }
}

fn of_json(text: &[u8]) -> Result<Vec<PublicKey>, Failure> {
    let set = match JwkSet::from_json(text) {
        Ok(set) => set,
        // A key by itself.
        Err(JwkSetError::NoKeys) => return Ok(vec![PublicKey::from_jwk(text)?]),
        Err(error) => return Err(error.into()),
    };
    if set.keys().is_empty() {
        return Err(Failure::new(match set.skipped().first() {
            Some(skipped) => format!("none of the set's keys is usable; the first: {}", skipped.reason),
            None => "the key set is empty".to_owned(),
        }));
    }
    for skipped in set.skipped() {
        output::note(&format!(
            "the key with index {} of the set is not usable: {}",
            skipped.index, skipped.reason
        ));
    }
    Ok(set.keys().iter().map(|jwk| jwk.key().clone()).collect())
}
