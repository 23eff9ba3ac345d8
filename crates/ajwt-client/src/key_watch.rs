use std::{
    collections::HashMap,
    convert::Infallible,
    error::Error as StdError,
    fs, iter, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use ajwt_core::Timestamp;
use aws_lc_rs::digest;

use crate::{
    KeyFile, KeyFileError, KeyRing, clock,
    key_ring::{DatedKey, Inner},
};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// How long a key that was announced is published beside the one that took its place, at least.
const MIN_GRACE: Duration = Duration::from_secs(5 * 60);

/// Files of a folder that are read: as many keys of a user as a server looks at.
const MAX_FILES: usize = 32;

/// How long a file that gave no key is left alone while it stays the same; after each failure twice as long.
const MIN_PAUSE: Duration = Duration::from_secs(5);

const MAX_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Reads keys again when their files change.
///
/// The path of the [`KeyFile`] is a file, or a folder: then every file in it whose name ends in
/// `.key` is a key, and the last name in the order of bytes is the newest (`2026-11.key` after
/// `2026-10.key`); at most the 32 newest are read. Names that begin with a full stop are left out.
///
/// Files are read every 5 s by a thread of its own, which ends with the last clone of the ring. What
/// counts is what the path leads to, so that symbolic links that are swapped, as in Kubernetes
/// secrets, are seen. A file that can no longer be used leaves its key in use and is reported in the
/// log, once; a file that is gone from a folder takes its key with it, but never the last one.
///
/// What cannot be decrypted is tried again after 5 s, then after pauses twice as long, up to 5 min: each time the
/// password may be asked for. A file that has changed is tried at the next look, and [`KeyRing::reload`] tries all.
///
/// ```no_run
/// use std::time::Duration;
/// use ajwt_client::{KeyFile, KeyWatch, RequestSigner};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = KeyFile::new("/etc/billing/keys").allow_open_permissions();
/// let keys = KeyWatch::new(folder).announce_for(Duration::from_secs(10 * 60)).start()?;
/// let signer = RequestSigner::new("billing", keys)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KeyWatch {
    file: KeyFile,
    every: Duration,
    announce: Duration,
}

impl KeyWatch {
    /// Of this file or folder.
    #[must_use]
    pub const fn new(file: KeyFile) -> Self {
        Self { file, every: DEFAULT_INTERVAL, announce: Duration::ZERO }
    }

    /// Looks at the files this often. Default: 5 s; at least 10 ms.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = interval.max(MIN_INTERVAL);
        self
    }

    /// Lets a key sign only once its file is this old; until then it is published beside the one before, also
    /// where it took that one's place in the same file (until a restart: only files of a folder outlast one).
    /// There the replaced key stays published for a quarter of this longer, and for 5 minutes at least, while
    /// its last tokens are on their way. A key that is put back there while it is published has not to wait
    /// again; one that comes later is announced anew. For callers whose servers read their JWKS: 10 minutes
    /// where ajwt publishes it, 40 where anything else does, or puts another `Cache-Control` in its place
    /// (caches then look every 30 at worst), and where several instances publish one URL longer by what a
    /// roll-out takes. Default: zero, for servers that know the key before it is put here.
    ///
    /// The age counts from when the file was last written or, on Unix, moved, renamed or otherwise changed.
    /// Elsewhere a file that is moved here keeps its age, and so does anywhere one that a symbolic link is turned
    /// to: write it anew, or set its date.
    ///
    /// If all files are younger, as on a fresh volume, the oldest key signs.
    #[must_use]
    pub const fn announce_for(mut self, period: Duration) -> Self {
        self.announce = period;
        self
    }

    /// Reads the keys for the first time and starts to watch.
    ///
    /// # Errors
    /// [`KeyFileError`] if there is no usable key. Beside a usable one, an unusable file is only
    /// reported in the log.
    pub fn start(self) -> Result<KeyRing, KeyFileError> {
        self.start_at(clock::now())
    }

    fn start_at(self, now: Timestamp) -> Result<KeyRing, KeyFileError> {
        let Self { file, every, announce } = self;
        let path = file.path().to_owned();
        let mut files = Files { file, announce, loaded: Vec::new(), changed: false, failed: HashMap::new() };
        let error = files.look(now, Occasion::Asked).err();
        files.changed = false;
        let mut keys = files.keys().into_iter();
        let Some(oldest) = keys.next() else {
            return Err(error.unwrap_or(KeyFileError::EmptyFolder { path }));
        };
        let (here, gone) = mpsc::channel();
        let watched = Watched { files: Mutex::new(files), _here: here };
        let ring = KeyRing::with(oldest, keys.collect(), Some(watched));
        let inner = ring.downgrade();
        thread::Builder::new()
            .name("ajwt-keys".to_owned())
            .spawn(move || watch(&inner, &gone, every))
            .map_err(|source| KeyFileError::Watch { path, source })?;
        Ok(ring)
    }
}

/// Ends with the ring, at once.
fn watch(ring: &Weak<Inner>, gone: &Receiver<Infallible>, every: Duration) {
    while gone.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        let Some(ring) = ring.upgrade() else { return };
        // Failures are in the log already. A panic, of what is asked for a password, must not end the watch.
        if catch_unwind(AssertUnwindSafe(|| ring.reload(clock::now(), Occasion::Timer))).is_err() {
            tracing::error!("reading the signing keys again ended in a panic; the keys read before stay");
        }
    }
}

/// Why files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// Somebody asks, who may have mended what was wrong elsewhere, as the password: all are tried.
    Asked,
    /// The time has come: what failed is left alone during its pause.
    Timer,
}

/// The files of a ring.
pub(crate) struct Watched {
    files: Mutex<Files>,
    /// When it is dropped, the thread that looks at them ends.
    _here: Sender<Infallible>,
}

impl Watched {
    /// Looks once, and hands on the keys that there are if they have changed.
    pub(crate) fn look(
        &self,
        now: Timestamp,
        occasion: Occasion,
        use_keys: impl FnOnce(Vec<DatedKey>),
    ) -> Result<(), KeyFileError> {
        // A panic elsewhere leaves them whole: what was read is kept in one step.
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let result = files.look(now, occasion);
        if mem::take(&mut files.changed) {
            use_keys(files.keys());
        }
        result
    }
}

struct Files {
    file: KeyFile,
    announce: Duration,
    /// Oldest first.
    loaded: Vec<Loaded>,
    /// Whether `loaded` is another than the ring was told of.
    changed: bool,
    failed: HashMap<PathBuf, Failed>,
}

/// What is wrong with a path, and in the log already.
struct Failed {
    text: String,
    tried: Option<Tried>,
}

/// What a file held that gave no key. To try the same again asks for the password, perhaps a person or a service that
/// locks up after a few wrong ones, and derives a key from it.
struct Tried {
    digest: Box<[u8]>,
    at: Timestamp,
    pause: Duration,
}

impl Tried {
    fn is_in_pause(&self, now: Timestamp) -> bool {
        // A clock that is set back prolongs no pause.
        self.at <= now && now.saturating_duration_since(self.at) < self.pause
    }
}

/// What came of reading a file.
enum Read {
    Key(Loaded),
    Failed {
        error: KeyFileError,
        tried: Option<Tried>,
    },
    /// It is what failed before, in its pause.
    LeftAlone,
}

#[derive(Clone)]
struct Loaded {
    path: PathBuf,
    /// SHA-256 of what the file held.
    digest: Box<[u8]>,
    key: DatedKey,
    /// When it was put back into the file, if another had its place before.
    back_at: Option<Timestamp>,
}

impl PartialEq for Loaded {
    /// What was read of the file; the key follows from it.
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.digest, self.key.from) == (&other.path, &other.digest, other.key.from)
    }
}

impl Files {
    fn keys(&self) -> Vec<DatedKey> {
        self.loaded.iter().map(|loaded| loaded.key.clone()).collect()
    }

    /// Reads what has changed. The first failure is returned, each is reported.
    fn look(&mut self, now: Timestamp, occasion: Occasion) -> Result<(), KeyFileError> {
        let (mut failures, mut left_alone) = (Vec::new(), Vec::new());
        match self.paths() {
            Ok(paths) => {
                let mut loaded = Vec::new();
                for path in paths {
                    // The newest of them is in the file; one before may still have to sign, or be published.
                    let earlier: Vec<_> = self.loaded.iter().filter(|earlier| earlier.path == path).collect();
                    match self.read(&path, &earlier, now, occasion) {
                        Read::Key(key) => {
                            let signs_undue = self.loaded.first();
                            loaded.extend(replaced(&key, &earlier, signs_undue, self.announce, now).cloned());
                            loaded.push(key);
                        }
                        Read::Failed { error, tried } => {
                            loaded.extend(earlier.into_iter().cloned());
                            failures.push((path, error, tried));
                        }
                        Read::LeftAlone => {
                            loaded.extend(earlier.into_iter().cloned());
                            left_alone.push(path);
                        }
                    }
                }
                // With no key nothing works any more; with the last one it may.
                if !loaded.is_empty() && loaded != self.loaded {
                    self.loaded = loaded;
                    self.changed = true;
                }
            }
            Err(error) => failures.push((self.file.path().to_owned(), error, None)),
        }
        self.report(failures, &left_alone)
    }

    /// Oldest first.
    fn paths(&self) -> Result<Vec<PathBuf>, KeyFileError> {
        let root = self.file.path();
        let unreadable = |source| KeyFileError::Unreadable { path: root.into(), source };
        if !fs::metadata(root).map_err(unreadable)?.is_dir() {
            return Ok(vec![root.into()]);
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(root).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if is_key_name(&path) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(KeyFileError::EmptyFolder { path: root.into() });
        }
        paths.sort();
        Ok(paths.split_off(paths.len().saturating_sub(MAX_FILES)))
    }

    fn read(&self, path: &Path, earlier: &[&Loaded], now: Timestamp, occasion: Occasion) -> Read {
        let file = self.file.at(path.into());
        let contents = match file.contents() {
            Ok(contents) => contents,
            Err(error) => return Read::Failed { error, tried: None },
        };
        let digest: Box<[u8]> = digest::digest(&digest::SHA256, &contents.text).as_ref().into();
        let from = match self.announce {
            Duration::ZERO => Timestamp::from_millis(i64::MIN),
            period => contents.dated.saturating_add(period),
        };
        if let Some(known) = earlier.iter().find(|earlier| earlier.digest == digest) {
            // The same key in a file written anew was announced before.
            let key = DatedKey { from: known.key.from.min(from), ..known.key.clone() };
            let is_back = earlier.last().is_some_and(|last| last.digest != digest);
            let back_at = if is_back { Some(now) } else { known.back_at };
            return Read::Key(Loaded { key, back_at, ..Loaded::clone(known) });
        }
        let before = self.failed.get(path).and_then(|failed| failed.tried.as_ref());
        let before = before.filter(|tried| tried.digest == digest);
        if occasion == Occasion::Timer && before.is_some_and(|tried| tried.is_in_pause(now)) {
            return Read::LeftAlone;
        }
        let key = match file.key_of(&contents) {
            Ok(key) => key,
            Err(error) => {
                // Where the password is not there, nobody was asked and nothing derived.
                let is_costly = matches!(error, KeyFileError::Key { .. } | KeyFileError::Password { .. });
                let pause = before.map_or(MIN_PAUSE, |tried| tried.pause.saturating_mul(2).min(MAX_PAUSE));
                return Read::Failed { error, tried: is_costly.then_some(Tried { digest, at: now, pause }) };
            }
        };
        // By `Debug`: in a folder there may be a line end in its name.
        tracing::info!(?path, fingerprint = %key.public_key().fingerprint(), "read a signing key");
        let key = DatedKey { key: Arc::new(key.into()), from };
        Read::Key(Loaded { path: path.into(), digest, key, back_at: None })
    }

    /// Warns of each failure once, for as long as it stays the same, and returns the first.
    fn report(
        &mut self,
        failures: Vec<(PathBuf, KeyFileError, Option<Tried>)>,
        left_alone: &[PathBuf],
    ) -> Result<(), KeyFileError> {
        let stays = left_alone.iter().filter_map(|path| self.failed.remove_entry(path));
        let mut failed: HashMap<_, _> = stays.collect();
        let mut first = Ok(());
        for (path, error, tried) in failures {
            let text = with_sources(&error);
            if self.failed.get(&path).is_none_or(|before| before.text != text) {
                tracing::warn!(?path, error = text, "a key file cannot be used; the keys read before stay");
            }
            failed.insert(path, Failed { text, tried });
            first = first.and(Err(error));
        }
        self.failed = failed;
        first
    }
}

/// What is published beside a key that is read from the same file now: it signs until that one may, and after
/// that its tokens are on their way, and signed where others look at the same file a little later.
/// `oldest` of all keys signs while none is due.
fn replaced<'a>(
    key: &Loaded,
    earlier: &[&'a Loaded],
    oldest: Option<&'a Loaded>,
    announce: Duration,
    now: Timestamp,
) -> Option<&'a Loaded> {
    let grace = MIN_GRACE.max(announce / 4);
    // One that is back may have been due long ago, and the other signed until it came.
    let signs_from = key.back_at.map_or(key.key.from, |back_at| back_at.max(key.key.from));
    if signs_from.saturating_add(grace) <= now {
        return None;
    }
    let is_other = |earlier: &&Loaded| earlier.digest != key.digest;
    let signing = earlier.iter().copied().rev().find(|earlier| is_other(earlier) && earlier.key.from <= now);
    // What is not due and is not the oldest never signed.
    signing.or_else(|| oldest.filter(|oldest| oldest.path == key.path).filter(is_other))
}

fn is_key_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(b".key") && !name.starts_with(b".")
}

/// An error, and after it what it comes of.
fn with_sources(error: &dyn StdError) -> String {
    let sources = iter::successors(error.source(), |source| (*source).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

#[cfg(test)]
mod tests;
