//! The stores of one process pass the suites that every implementation runs; broken ones do not.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    env, fs, io,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use ajwt_core::{PrivateKey, Timestamp};
use ajwt_server::{
    CachedUserRepository, Found, Freshness, InsecureNoReplayProtection, KeySource, KeyedUser as _,
    MemoryNonceBackend, MemoryRepository, NoRevision, NonceBackend, NonceError, NonceKey, NonceOutcome,
    NonceUse, PublicKeyRepository, RepositoryError, RevisionSource, StartRule, StoredKey, UsageRecorder as _,
    UsageStore, User, UserCacheOptions, UserKeys, UserRepository, testing,
};
use async_trait::async_trait;

/// And one that has just started, under the strict rule: at once, since most of the suite is waiting for lifetimes.
#[tokio::test(flavor = "multi_thread")]
async fn memory_nonce_backend() {
    let strict = MemoryNonceBackend::new(1000).with_start_rule(StartRule::default());
    tokio::join!(
        testing::nonce_backend(Arc::new(MemoryNonceBackend::default())),
        testing::nonce_backend(Arc::new(strict))
    );
}

#[tokio::test]
async fn memory_repository() {
    let repository = MemoryRepository::new([]);
    testing::key_admin(&repository).await;
    testing::user_repository(&repository, &repository).await;
    testing::trusted_urls(&repository, &repository).await;
    testing::usage(&repository, &repository).await;
}

/// A file for each nonce, made only where there is none: atomic across processes.
#[derive(Debug)]
struct Files(PathBuf);

#[async_trait]
impl NonceBackend for Files {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        let name: String = nonce.key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        match fs::File::create_new(self.0.join(name)) {
            Ok(_) => Ok(NonceOutcome::Fresh),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(NonceOutcome::Replayed),
            Err(error) => Err(RepositoryError::new("making a file", error).into()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_share_a_folder_share_the_nonces() {
    let (_kept, folder) = match env::var("AJWT_TEST_FOLDER") {
        Ok(folder) if testing::is_worker() => (None, PathBuf::from(folder)),
        _ => {
            let made = tempfile::tempdir().expect("a folder");
            let folder = made.path().to_owned();
            (Some(made), folder)
        }
    };
    let var = folder.to_str().expect("a folder with a name in UTF-8").to_owned();
    testing::nonce_backend_across_processes(
        "processes_that_share_a_folder_share_the_nonces",
        &[("AJWT_TEST_FOLDER", &var)],
        async { Arc::new(Files(folder.clone())) as Arc<dyn NonceBackend> },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_with_a_memory_each_are_found_out() {
    let suite =
        testing::nonce_backend_across_processes("processes_with_a_memory_each_are_found_out", &[], async {
            Arc::new(MemoryNonceBackend::default()) as Arc<dyn NonceBackend>
        });
    if testing::is_worker() {
        return suite.await;
    }
    let told = findings(suite).await;
    assert!(told.contains("200 of 200 rounds") && told.contains("4 uses were Fresh"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_fails_is_found_out() {
    let suite = testing::nonce_backend_across_processes("a_process_that_fails_is_found_out", &[], async {
        panic!("this worker fails on purpose")
    });
    if testing::is_worker() {
        return suite.await;
    }
    let told = findings(suite).await;
    assert!(told.contains("ended early"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_remembers_nothing_is_found_out() {
    let told = findings(testing::nonce_backend(Arc::new(InsecureNoReplayProtection))).await;
    for finding in
        ["a second use is Fresh", "round 199: of 64 simultaneous uses 64 are Fresh", "to live for 3s"]
    {
        assert!(told.contains(finding), "no {finding:?} in {told}");
    }
}

/// Broken in one way or another.
#[derive(Debug)]
struct Broken {
    fault: Fault,
    used: Mutex<HashMap<NonceKey, tokio::time::Instant>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Looks first, notes later.
    CheckThenRecord,
    ForgetsTooSoon,
    /// As a unique index over the date alone would be.
    ConfusesKeys,
    /// The store refuses some of many simultaneous uses.
    FailsUnderLoad,
    /// Whatever the use says.
    FixedTtl,
    /// With the token's window on its own clock, without the margin.
    ExpiresByDate,
    /// To whole seconds.
    RoundsDown,
    /// As if no other authenticator had it.
    ForgetsWhenClosed,
}

#[async_trait]
impl NonceBackend for Broken {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        let now = tokio::time::Instant::now();
        let ttl = match self.fault {
            Fault::ForgetsTooSoon => Duration::from_millis(2500),
            Fault::FixedTtl => Duration::from_secs(4),
            Fault::ExpiresByDate => {
                let ahead = nonce.time() * 1000 + 1000 - nonce.now().as_millis();
                Duration::from_millis(u64::try_from(ahead).unwrap_or(0))
            }
            Fault::RoundsDown => Duration::from_secs(nonce.lifetime().as_secs()),
            _ => Duration::from_secs(60),
        };
        let key = match self.fault {
            Fault::ConfusesKeys => *testing::nonce_use("", nonce.time(), "", nonce.now(), ttl, ttl).key(),
            _ => *nonce.key(),
        };
        if self.fault == Fault::FailsUnderLoad {
            let Ok(mut used) = self.used.try_lock() else {
                return Err(RepositoryError::new("locking", "it is busy").into());
            };
            std::thread::sleep(Duration::from_millis(1));
            return Ok(outcome(used.insert(key, now).is_none()));
        }
        let known = self.used.lock().expect("lock").get(&key).is_some_and(|at| now.duration_since(*at) < ttl);
        if known {
            return Ok(NonceOutcome::Replayed);
        }
        if self.fault == Fault::CheckThenRecord {
            tokio::task::yield_now().await;
            self.used.lock().expect("lock").insert(key, now);
            return Ok(NonceOutcome::Fresh);
        }
        let last = self.used.lock().expect("lock").insert(key, now);
        Ok(outcome(last.is_none_or(|at| now.duration_since(at) >= ttl)))
    }

    async fn close(&self) {
        if self.fault == Fault::ForgetsWhenClosed {
            self.used.lock().expect("lock").clear();
        }
    }
}

fn outcome(is_fresh: bool) -> NonceOutcome {
    if is_fresh { NonceOutcome::Fresh } else { NonceOutcome::Replayed }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_backends_are_found_out() {
    let cases = [
        (Fault::CheckThenRecord, "simultaneous uses"),
        (Fault::ForgetsTooSoon, "an entry is to live for 3s"),
        (Fault::FixedTtl, "an entry is to live for 9.5s"),
        (Fault::ExpiresByDate, "an entry is to live for 9.5s"),
        (Fault::RoundsDown, "an entry is to live for 3.7s"),
        (Fault::ConfusesKeys, "nonce ..\"one\" is Replayed, not Fresh"),
        (Fault::FailsUnderLoad, "locking failed: it is busy"),
        (Fault::ForgetsWhenClosed, "once closed, a second use is Fresh, not Replayed"),
    ];
    let mut suites = tokio::task::JoinSet::new();
    for (fault, finding) in cases {
        let backend = Broken { fault, used: Mutex::default() };
        suites.spawn(
            async move { (fault, finding, findings(testing::nonce_backend(Arc::new(backend))).await) },
        );
    }
    let mut failures = Vec::new();
    for (fault, finding, told) in suites.join_all().await {
        if !told.contains(finding) {
            failures.push(format!("{fault:?}: no {finding:?} in {told}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A cache that does not say so.
#[derive(Debug)]
struct Liar {
    store: MemoryRepository,
    first: Mutex<HashMap<String, Option<Found<User>>>>,
    keeps_nobody: bool,
}

#[async_trait]
impl UserRepository for Liar {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        freshness: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        let found = self.store.find_by_username(username, freshness).await?;
        let mut first = self.first.lock().expect("lock");
        let first = first.entry(username.to_owned()).or_insert_with(|| found.clone());
        let is_kept = first.is_none() == self.keeps_nobody;
        Ok(if freshness == Freshness::MayBeCached && is_kept { first.clone() } else { found })
    }
}

#[tokio::test]
async fn caches_of_users_that_do_not_say_so_are_found_out() {
    for (keeps_nobody, finding) in [
        (false, "a user that was made so is active, as read for one who takes it from a cache: Some(true)"),
        (true, "a user that was added is active, as read for one who takes it from a cache: None"),
    ] {
        let liar = Liar { store: MemoryRepository::new([]), first: Mutex::default(), keeps_nobody };
        // It was asked for before it was there.
        assert!(
            liar.find_by_username("suite-active", Freshness::MayBeCached).await.expect("memory").is_none()
        );
        if !keeps_nobody {
            liar.first.lock().expect("lock").clear();
        }
        let told = findings(testing::user_repository(&liar.store, &liar)).await;
        assert!(told.contains(finding), "{told}");
    }
}

#[tokio::test]
async fn cached_user_repository() {
    let store = Arc::new(MemoryRepository::new([]));
    let options = UserCacheOptions::default();
    let cached = CachedUserRepository::new(Arc::clone(&store) as _, Arc::new(NoRevision), options);
    testing::user_repository(&*store, &cached).await;
    assert_eq!(NoRevision.revision().await.expect("no store to fail"), None);
}

/// A number that rises when what is read of the suite's user is another than the last time.
#[derive(Debug)]
struct Versioned {
    store: MemoryRepository,
    last: Mutex<(String, i64)>,
    fault: Option<RevisionFault>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum RevisionFault {
    /// As a trigger on the wrong columns would.
    MissesExpiry,
    MissesTrusts,
    /// In a statement of its own, before a change.
    ReadBeforeTheUser,
}

impl Versioned {
    async fn read(&self) -> (Option<Found<User>>, i64) {
        let found = self.store.find_by_username("suite-revision", Freshness::Current).await.expect("memory");
        let user = found.as_ref().map(|found| found.user());
        let keys: Vec<_> = user.iter().flat_map(|user| user.keys()).collect();
        let keys = match self.fault {
            Some(RevisionFault::MissesExpiry) => {
                format!("{:?}", keys.iter().map(|key| key.source()).collect::<Vec<_>>())
            }
            _ => format!("{keys:?}"),
        };
        let trusts: Vec<_> = user.iter().flat_map(|user| user.jwks_urls()).collect();
        let trusts = if self.fault == Some(RevisionFault::MissesTrusts) { vec![] } else { trusts };
        let state = format!("{:?} {keys} {trusts:?}", user.map(|user| user.is_active()));
        let mut last = self.last.lock().expect("lock");
        if last.0 != state {
            *last = (state, last.1 + 1);
        }
        (found, last.1)
    }
}

#[async_trait]
impl RevisionSource for Versioned {
    async fn revision(&self) -> Result<Option<i64>, RepositoryError> {
        Ok(Some(self.read().await.1))
    }
}

#[async_trait]
impl UserRepository for Versioned {
    type User = User;

    async fn find_by_username(&self, _: &str, _: Freshness) -> Result<Option<Found<User>>, RepositoryError> {
        let (found, revision) = self.read().await;
        let is_early = self.fault == Some(RevisionFault::ReadBeforeTheUser);
        Ok(found.map(|found| found.with_revision(Some(revision - i64::from(is_early)))))
    }
}

#[tokio::test]
async fn broken_revisions_are_found_out() {
    for (fault, finding) in [
        (None, None),
        (Some(RevisionFault::MissesExpiry), Some("setting a key's expiry: the revision was")),
        (Some(RevisionFault::MissesTrusts), Some("adding a trust: the revision was")),
        (Some(RevisionFault::ReadBeforeTheUser), Some("the user that is read carries")),
    ] {
        let versioned = Versioned { store: MemoryRepository::new([]), last: Mutex::default(), fault };
        let suite = testing::revision_source(&versioned.store, &versioned, &versioned);
        match finding {
            None => suite.await,
            Some(finding) => {
                let told = findings(suite).await;
                assert!(told.contains(finding), "{fault:?}: {told}");
            }
        }
    }
}

#[tokio::test]
async fn user_keys() {
    let users = users_with_their_keys();
    testing::public_key_repository(&UserKeys, &users).await;
}

/// Two users, one of them with three keys.
fn users_with_their_keys() -> [(User, Vec<StoredKey>); 2] {
    let with_keys = |name, count| {
        let key = || PrivateKey::generate_ed25519().expect("a key").public_key().clone();
        let user = User::new(name).with_keys((0..count).map(|_| key()));
        let due = user.keys().to_vec();
        (user, due)
    };
    [with_keys("guido", 3), with_keys("ada", 1)]
}

/// The keys of two users, found in one wrong way or another.
#[derive(Debug)]
struct MixedUp {
    of_all: Vec<StoredKey>,
    last_of_kid: Mutex<HashMap<String, Vec<StoredKey>>>,
    fault: KeyFault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum KeyFault {
    LooksUpGlobally,
    CachesByKidAlone,
    ReturnsSomethingForNobody,
    OldestFirst,
    ForgetsTheNamed,
    Repeats,
}

#[async_trait]
impl PublicKeyRepository<User> for MixedUp {
    async fn candidates<'a>(
        &'a self,
        user: Option<&'a User>,
        key_id: Option<&str>,
    ) -> Result<Cow<'a, [StoredKey]>, RepositoryError> {
        let mut keys = user.map_or(Vec::new(), |user| user.keys().to_vec());
        match self.fault {
            KeyFault::LooksUpGlobally if user.is_some() => {
                let named = self.of_all.iter().filter(|key| Some(key.key_id()) == key_id);
                keys = named.cloned().collect();
            }
            KeyFault::CachesByKidAlone if user.is_some() => {
                let mut cached = self.last_of_kid.lock().expect("a lock");
                keys = cached.entry(format!("{key_id:?}")).or_insert(keys).clone();
            }
            KeyFault::ReturnsSomethingForNobody if user.is_none() => {
                keys.extend(self.of_all.first().cloned())
            }
            KeyFault::OldestFirst => keys.reverse(),
            KeyFault::ForgetsTheNamed => keys.retain(|key| Some(key.key_id()) != key_id),
            KeyFault::Repeats => keys.extend(keys.first().cloned()),
            _ => {}
        }
        Ok(Cow::Owned(keys))
    }
}

#[tokio::test]
async fn mixed_up_keys_are_found_out() {
    let users = users_with_their_keys();
    for (fault, finding) in [
        (KeyFault::LooksUpGlobally, "is not due"),
        (KeyFault::CachesByKidAlone, "is not due"),
        (KeyFault::ReturnsSomethingForNobody, "asked for None and the kid None"),
        (KeyFault::OldestFirst, "is not due, or not there"),
        (KeyFault::ForgetsTheNamed, "lacks"),
        (KeyFault::Repeats, "is not due, or not there"),
    ] {
        let of_all = users.iter().flat_map(|(_, due)| due.clone()).collect();
        let keys = MixedUp { of_all, last_of_kid: Mutex::default(), fault };
        let told = findings(testing::public_key_repository(&keys, &users)).await;
        assert!(told.contains(finding), "{fault:?}: {told}");
    }
}

/// Writes uses to memory.
#[derive(Debug)]
struct Uses {
    store: MemoryRepository,
    /// As a statement that joins rows and uses may.
    takes_the_first_of_each: bool,
}

#[async_trait]
impl UsageStore for Uses {
    async fn write(&self, uses: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError> {
        let mut written = HashSet::new();
        for (source, at) in uses {
            if written.insert(*source) || !self.takes_the_first_of_each {
                self.store.record(*source, *at);
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_store_that_writes_any_use_of_several_is_found_out() {
    let uses = |takes_the_first_of_each| Uses { store: MemoryRepository::new([]), takes_the_first_of_each };
    let right = uses(false);
    testing::usage_store(&right.store, &right).await;
    let wrong = uses(true);
    let told = findings(testing::usage_store(&wrong.store, &wrong)).await;
    assert!(told.contains("with the newest last: the key was last used at"), "{told}");
    assert!(!told.contains("with the newest first"), "{told}");
}

/// What a suite panics with.
async fn findings(suite: impl Future<Output = ()>) -> String {
    let mut suite = std::pin::pin!(suite);
    let panic = std::future::poll_fn(|context| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| suite.as_mut().poll(context)));
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
    .expect_err("the suite finds nothing");
    *panic.downcast::<String>().expect("a message")
}
