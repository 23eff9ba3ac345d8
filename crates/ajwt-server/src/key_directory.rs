use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use thiserror::Error;
use tokio::{task::JoinHandle, time::Instant};

use self::file::{Content, FileName};
use crate::{
    Found, Freshness, KeyedUser as _, RepositoryError, TrustedUrls, User, UserRepository,
    sync::{lock, read, write},
    turn,
};

mod file;

/// Between two looks at the folder.
const INTERVAL: Duration = Duration::from_secs(1);

/// So old the last look is only where the folder cannot be read, or where nobody looks any more.
const OVERDUE: Duration = Duration::from_secs(3);

/// How long what the folder held serves while it cannot be read.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Users and keys in the files of a folder: for services whose callers are configured, without a
/// database.
///
/// | file | holds |
/// |---|---|
/// | `NAME.keys` | the user's keys in the format of `authorized_keys`, the newest last, at most 32 |
/// | `NAME.jwks` | URLs of key sets that are trusted for the user, one a line; a line that begins with `#` is a comment |
///
/// `NAME` is the user's name, percent-encoded but for `A-Z a-z 0-9 . _ ~ @ -`
/// ([`Username::to_percent_encoded`](ajwt_core::Username::to_percent_encoded)). Files with other
/// endings, and those whose names begin with a dot (so those of users whose names do), are not looked at.
///
/// The folder is looked at once a second. What cannot be used (a bad line, a file that cannot be
/// read or, on Unix, that every account of the host may write to) leaves the file's last good content in
/// force, also a key that the same change took out, with a warning in the log that says what is
/// wrong; where there was none, as at a start, the user has none of its keys, and that is an error in the
/// log. A file that is gone ends its keys at once. Where files are links, as Kubernetes mounts them, remove the
/// link itself: one that leads to nothing any more is a file that cannot be read, and its last good content
/// stays in force. A folder that cannot be read leaves all as it was for a minute, after which requests are
/// answered with 503: a key may have been taken out of it. On other
/// systems than Unix the folder's permissions decide who may write to its files; nothing looks at those. Write
/// a new file beside the old one and rename it, as to every file that is read while it changes. No use of these
/// keys is recorded ([`KeySource::Unrecorded`](crate::KeySource::Unrecorded)): there is no row to note it at.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use ajwt_server::{Authenticator, KeyDirectory, MemoryNonceBackend};
///
/// let users = KeyDirectory::open("/etc/orders/callers").await?;
/// let nonces = MemoryNonceBackend::default();
/// let authenticator = Authenticator::builder(Arc::new(users), Arc::new(nonces)).build()?;
/// # Ok(())
/// # }
/// ```
pub struct KeyDirectory {
    shared: Arc<Shared>,
    watcher: tokio::sync::Mutex<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    looked: RwLock<Looked>,
    /// What was found at the last look.
    seen: Mutex<Seen>,
}

/// What the engine reads. Made anew by each look, so that no request waits for the disk.
struct Looked {
    users: HashMap<Box<str>, Arc<User>>,
    /// When the look began.
    at: Instant,
}

#[derive(Default)]
struct Seen {
    files: BTreeMap<FileName, SeenFile>,
}

#[derive(Default)]
struct SeenFile {
    bytes: Option<Vec<u8>>,
    content: Option<Content>,
    problem: Option<String>,
}

impl KeyDirectory {
    /// Reads a folder, and looks at it every second from then on.
    ///
    /// # Errors
    /// [`KeyDirectoryError`] if the folder cannot be read. A file in it that cannot be used is an
    /// error in the log, no more.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, KeyDirectoryError> {
        let path = path.into();
        let looked = Looked { users: HashMap::new(), at: Instant::now() };
        let shared = Arc::new(Shared { path, looked: RwLock::new(looked), seen: Mutex::default() });
        look(&shared).await?;
        if let Some(mode) = file::mode_open_to_all(&shared.path) {
            let path = &shared.path;
            tracing::warn!(
                ?path,
                "the folder's mode is {mode:04o}: unless it is mounted read-only, every account of this host may add users"
            );
        }
        let watcher = tokio::spawn(watch(Arc::clone(&shared)));
        Ok(Self { shared, watcher: tokio::sync::Mutex::new(watcher) })
    }

    /// Looks at the folder now.
    ///
    /// # Errors
    /// [`KeyDirectoryError`] if it cannot be read; all is as it was.
    pub async fn reload(&self) -> Result<(), KeyDirectoryError> {
        look(&self.shared).await
    }

    /// Looks at the folder, and does so again from now on, on this runtime, if the one that did it has ended. Whoever
    /// comes meanwhile waits for what comes of it.
    async fn watch_again(&self) {
        let mut watcher = self.watcher.lock().await;
        if watcher.is_finished() {
            // What comes of it shows in how old the last look is.
            let _ = look(&self.shared).await;
            *watcher = tokio::spawn(watch(Arc::clone(&self.shared)));
        }
    }
}

impl Drop for KeyDirectory {
    fn drop(&mut self) {
        self.watcher.get_mut().abort();
    }
}

impl fmt::Debug for KeyDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyDirectory").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl UserRepository for KeyDirectory {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        let age = read(&self.shared.looked).at.elapsed();
        if age > OVERDUE {
            self.watch_again().await;
        }
        let looked = read(&self.shared.looked);
        if looked.at.elapsed() > MAX_AGE {
            return Err(RepositoryError::new(
                "reading the folder of keys",
                "it has not been read for a minute",
            ));
        }
        Ok(looked.users.get(username).cloned().map(Found::current))
    }
}

#[async_trait]
impl TrustedUrls for KeyDirectory {
    async fn all(&self) -> Result<Vec<Box<str>>, RepositoryError> {
        let looked = read(&self.shared.looked);
        let urls: BTreeSet<_> =
            looked.users.values().flat_map(|user| user.jwks_urls()).map(|url| url.url()).collect();
        Ok(urls.into_iter().map(Into::into).collect())
    }
}

async fn watch(shared: Arc<Shared>) {
    let mut told = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        turn::run("looking at the folder of keys", look_and_tell(&shared, &mut told)).await;
    }
}

/// What was told is not told again.
async fn look_and_tell(shared: &Arc<Shared>, told: &mut Option<String>) {
    let problem = look(shared).await.err().map(|error| error.source.to_string());
    if let Some(problem) = problem.as_deref().filter(|_| problem != *told) {
        tracing::error!(
            path = ?shared.path,
            problem,
            "the folder of keys cannot be read; its last content stays in force for a minute, then the answer is 503"
        );
    }
    *told = problem;
}

/// Reading files blocks, so it has a thread of its own.
async fn look(shared: &Arc<Shared>) -> Result<(), KeyDirectoryError> {
    let looking = Arc::clone(shared);
    let looked = tokio::task::spawn_blocking(move || looking.look()).await;
    looked
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| KeyDirectoryError { path: shared.path.clone(), source })
}

impl Shared {
    fn look(&self) -> io::Result<()> {
        let mut seen = lock(&self.seen);
        let at = Instant::now();
        seen.update(&self.path, &file::list(&self.path)?);
        *write(&self.looked) = Looked { users: seen.users(), at };
        Ok(())
    }
}

impl Seen {
    fn update(&mut self, folder: &Path, names: &[FileName]) {
        let listed: BTreeSet<_> = names.iter().collect();
        self.files.retain(|name, _| listed.contains(name));
        for name in names {
            let seen = self.files.entry(name.clone()).or_default();
            let read = name.read(folder);
            if read.is_ok() && read.as_ref().ok() == seen.bytes.as_ref() {
                continue;
            }
            let content = read.as_ref().map_err(Clone::clone).and_then(|bytes| name.parse(bytes));
            let problem = content.as_ref().err().map(ToString::to_string);
            if let Some(problem) = problem.as_deref().filter(|_| problem != seen.problem) {
                // By `Debug`: there may be a line end in its name.
                let file = folder.join(name.as_path());
                if seen.content.is_some() {
                    tracing::warn!(
                        ?file,
                        problem,
                        "a file of keys cannot be used; its last good content stays in force"
                    );
                } else {
                    tracing::error!(
                        ?file,
                        problem,
                        "a file of keys cannot be used; there is no earlier content: the user has none of its keys"
                    );
                }
            }
            seen.problem = problem;
            seen.bytes = read.ok();
            if let Ok(content) = content {
                seen.content = Some(content);
            }
        }
    }

    /// The users that the files make together.
    fn users(&self) -> HashMap<Box<str>, Arc<User>> {
        let mut users: HashMap<Box<str>, User> = HashMap::new();
        for content in self.files.values().filter_map(|file| file.content.as_ref()) {
            let name = content.username().as_str();
            let user = users.remove(name).unwrap_or_else(|| User::new(name));
            users.insert(name.into(), content.add_to(user));
        }
        users.into_iter().map(|(name, user)| (name, Arc::new(user))).collect()
    }
}

/// The folder cannot be read.
#[derive(Debug, Error)]
#[error("the folder of keys {} cannot be read", path.display())]
#[non_exhaustive]
pub struct KeyDirectoryError {
    /// The folder.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}
