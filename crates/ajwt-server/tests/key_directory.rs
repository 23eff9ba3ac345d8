//! Users and keys in the files of a folder.

use std::{
    fs,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use ajwt_core::{Claims, Nonce, PrivateKey, Token, Username};
use ajwt_server::{
    Authenticator, Clock as _, Freshness, KeyDirectory, KeySource, KeyedUser as _, MemoryNonceBackend,
    Reason, SystemClock, User, UserRepository as _,
};
use ajwt_test_support::{Level, Log, until};
use tempfile::TempDir;

/// Files are read on threads of their own, so the log is that of the process.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    log.listen_to_all_threads(Level::INFO);
    log
});

/// The lines of the log about a file.
fn logged(path: &Path) -> Vec<String> {
    let path = format!("{path:?}");
    let path = path.trim_matches('"');
    LOG.text().lines().filter(|line| line.contains(path)).map(str::to_owned).collect()
}

fn folder() -> TempDir {
    LazyLock::force(&LOG);
    tempfile::tempdir().expect("a folder")
}

fn key() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

fn line(key: &PrivateKey) -> String {
    key.public_key().to_openssh("of a test") + "\n"
}

fn write(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) {
    fs::write(folder.path().join(name), text).expect("written");
}

async fn find(directory: &KeyDirectory, username: &str) -> Option<Arc<User>> {
    let found = directory.find_by_username(username, Freshness::Current).await.expect("read");
    found.map(|found| Arc::clone(found.user()))
}

/// Whether the directory gives the user these keys, newest first; no keys are no user.
async fn has(directory: &KeyDirectory, username: &str, keys: &[&PrivateKey]) -> bool {
    let found = find(directory, username).await;
    let found: Vec<_> = found.iter().flat_map(|user| user.keys()).map(|key| key.key()).collect();
    found == keys.iter().map(|key| key.public_key()).collect::<Vec<_>>()
}

#[tokio::test]
async fn callers_authenticate_with_keys_in_files() {
    let (folder, key) = (folder(), key());
    write(&folder, "caf%C3%A9.keys", line(&key));
    let directory = KeyDirectory::open(folder.path()).await.expect("opened");
    let nonces = Arc::new(MemoryNonceBackend::default());
    let authenticator =
        Authenticator::builder(Arc::new(directory), nonces).build().expect("an authenticator");
    let authenticate = async |username: &str| {
        let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
        let claims = Claims::new(Username::new(username).expect("a name"), SystemClock::new().now(), nonce);
        let header = format!("JWT {}", Token::sign(&claims, &key).expect("signed").as_str());
        let outcome = authenticator.authenticate([header.as_bytes()]).await;
        outcome.map(|accepted| accepted.user().username().to_owned()).map_err(|rejection| rejection.reason())
    };
    assert_eq!(authenticate("caf\u{e9}").await, Ok("caf\u{e9}".to_owned()));
    assert_eq!(authenticate("cafe\u{301}").await, Err(Reason::UnknownUser));
    assert_eq!(authenticate("caf%C3%A9").await, Err(Reason::UnknownUser));
    assert_eq!(authenticate("../caf\u{e9}").await, Err(Reason::UnknownUser));
}

#[tokio::test]
async fn a_user_has_the_keys_and_urls_of_both_files() {
    let (folder, old, new) = (folder(), key(), key());
    write(&folder, "guido.keys", format!("# two\n{}\n{}", line(&old), line(&new)));
    write(&folder, "guido.jwks", "# one\nhttps://a.example/jwks.json\n");
    write(&folder, "amelie.jwks", "https://b.example/jwks.json");
    for name in [".guido.keys", "guido.keys~", "README", "guido"] {
        write(&folder, name, "no key");
    }
    let directory = KeyDirectory::open(folder.path()).await.expect("opened");
    assert!(has(&directory, "guido", &[&new, &old]).await, "the newest first");
    let urls = async |name| {
        let user = find(&directory, name).await.expect("a user");
        user.jwks_urls().iter().map(|url| url.url().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(urls("guido").await, ["https://a.example/jwks.json"]);
    assert_eq!(urls("amelie").await, ["https://b.example/jwks.json"]);
    assert!(find(&directory, "amelie").await.expect("a user").keys().is_empty());
    // There are no rows, and none of a database beside it may be written to.
    let guido = find(&directory, "guido").await.expect("a user");
    let sources = guido.keys().iter().map(|key| key.source());
    let sources: Vec<_> = sources.chain(guido.jwks_urls().iter().map(|url| url.source())).collect();
    assert_eq!(sources, [KeySource::Unrecorded; 3]);
    assert_eq!(logged(folder.path()), [""; 0], "other files are not looked at");
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_one_and_is_told_once() {
    let (folder, first, second) = (folder(), key(), key());
    write(&folder, "guido.keys", line(&first));
    write(&folder, "amelie.keys", line(&second));
    write(&folder, "bad.keys", "no key");
    let directory = KeyDirectory::open(folder.path()).await.expect("opened");
    assert!(find(&directory, "bad").await.is_none(), "nothing good was there before");
    let told = logged(&folder.path().join("bad.keys"));
    assert!(told.len() == 1 && told[0].contains("ERROR"), "{told:?}");
    assert!(told[0].contains("no earlier content") && !told[0].contains("stays in force"), "{told:?}");

    let (file, many) = (folder.path().join("guido.keys"), line(&second).repeat(33));
    let with_option = format!("no-pty {}", line(&second));
    let large = format!("#{}", "x".repeat(1024 * 1024));
    for (bad, problem) in [
        ("ssh-ed25519 AAAA\n", "line 1 holds no usable key: malformed OpenSSH public key"),
        (&with_option, "line 1 has the option"),
        (&many, "it holds 33 keys; at most 32"),
        (&large, "it has more than 1048576 bytes"),
    ] {
        let before = logged(&file).len();
        write(&folder, "guido.keys", bad);
        for _ in 0..3 {
            directory.reload().await.expect("read");
        }
        assert!(has(&directory, "guido", &[&first]).await, "{problem}");
        let told = logged(&file).split_off(before);
        assert!(told.len() == 1 && told[0].contains(problem), "{problem}: {told:?}");
        assert!(told[0].contains("WARN") && told[0].contains("stays in force"), "{told:?}");
    }

    write(&folder, "guido.keys", line(&second) + &line(&first));
    directory.reload().await.expect("read");
    assert!(has(&directory, "guido", &[&first, &second]).await, "it is good again");
    assert!(has(&directory, "amelie", &[&second]).await, "the other files count meanwhile");

    fs::remove_file(&file).expect("removed");
    directory.reload().await.expect("read");
    assert!(find(&directory, "guido").await.is_none(), "a file that is gone is no bad file");
}

#[tokio::test]
async fn names_and_urls_that_cannot_be_used_are_told() {
    let (folder, key) = (folder(), key());
    let many: String = (0..33).map(|number| format!("https://a.example/{number}\n")).collect();
    for (name, text, problem) in [
        ("caf\u{e9}.keys", line(&key), "it is spelled caf%C3%A9"),
        ("%67uido.keys", line(&key), "it is spelled guido"),
        ("guido+1.keys", line(&key), "it is spelled guido%2B1"),
        ("caf%E9.keys", line(&key), "not the percent-encoding of a username"),
        ("a%0Ab.keys", line(&key), "control character U+000A"),
        ("a\nb.keys", line(&key), "control character U+000A"),
        ("guido.jwks", "\nftp://a.example\n".to_owned(), "is not usable as the URL of a key set"),
        ("guido.jwks", many, "it holds 33 URLs; at most 32"),
    ] {
        write(&folder, name, text);
        let directory = KeyDirectory::open(folder.path()).await.expect("opened");
        let told = logged(&folder.path().join(name));
        assert!(told.last().is_some_and(|told| told.contains(problem)), "{name}: {told:?}");
        assert!(find(&directory, "guido").await.is_none(), "{name}");
        assert!(find(&directory, "caf\u{e9}").await.is_none(), "{name}");
        fs::remove_file(folder.path().join(name)).expect("removed");
    }
}

#[tokio::test]
async fn a_folder_that_is_gone_changes_nothing() {
    let (outer, key) = (folder(), key());
    let path = outer.path().join("keys");
    let error = KeyDirectory::open(&path).await.expect_err("there is none");
    assert_eq!(error.to_string(), format!("the folder of keys {} cannot be read", path.display()));

    fs::create_dir(&path).expect("a folder");
    fs::write(path.join("guido.keys"), line(&key)).expect("written");
    let directory = KeyDirectory::open(&path).await.expect("opened");
    fs::rename(&path, outer.path().join("elsewhere")).expect("moved");
    directory.reload().await.expect_err("there is none");
    until("the log tells of it", async || !logged(&path).is_empty()).await;
    assert!(has(&directory, "guido", &[&key]).await);

    fs::rename(outer.path().join("elsewhere"), &path).expect("moved");
    fs::remove_file(path.join("guido.keys")).expect("removed");
    directory.reload().await.expect("read");
    assert!(find(&directory, "guido").await.is_none());
}

/// A key may have been taken out of it.
#[tokio::test(start_paused = true)]
async fn a_folder_that_is_gone_for_a_minute_serves_nobody_until_it_is_there() {
    let (outer, key) = (folder(), key());
    let path = outer.path().join("keys");
    fs::create_dir(&path).expect("a folder");
    fs::write(path.join("guido.keys"), line(&key)).expect("written");
    let directory = KeyDirectory::open(&path).await.expect("opened");
    fs::rename(&path, outer.path().join("elsewhere")).expect("moved");
    tokio::time::sleep(Duration::from_secs(55)).await;
    assert!(has(&directory, "guido", &[&key]).await);
    tokio::time::sleep(Duration::from_secs(10)).await;
    for name in ["guido", "nobody"] {
        let found = directory.find_by_username(name, Freshness::Current).await;
        assert!(found.is_err(), "{name}");
    }
    fs::rename(outer.path().join("elsewhere"), &path).expect("moved");
    directory.reload().await.expect("read");
    assert!(has(&directory, "guido", &[&key]).await);
}

#[tokio::test]
async fn a_change_is_noticed_by_itself() {
    let (folder, first, second) = (folder(), key(), key());
    write(&folder, "guido.keys", line(&first));
    let directory = KeyDirectory::open(folder.path()).await.expect("opened");
    assert!(has(&directory, "guido", &[&first]).await);
    write(&folder, "new", line(&second));
    fs::rename(folder.path().join("new"), folder.path().join("guido.keys")).expect("renamed");
    // A second is usual.
    until("the change is noticed", async || has(&directory, "guido", &[&second]).await).await;
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[tokio::test]
    async fn a_file_that_everybody_may_write_to_is_refused() {
        let (folder, key) = (folder(), key());
        write(&folder, "guido.keys", line(&key));
        let path = folder.path().join("guido.keys");
        let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        set_mode(0o646);
        let directory = KeyDirectory::open(folder.path()).await.expect("opened");
        assert!(find(&directory, "guido").await.is_none());
        let told = logged(&path);
        assert!(told.iter().any(|line| line.contains("its mode is 0646")), "{told:?}");
        set_mode(0o644);
        directory.reload().await.expect("read");
        assert!(has(&directory, "guido", &[&key]).await);
    }

    #[tokio::test]
    async fn a_folder_that_everybody_may_add_to_is_told() {
        for (mode, is_told) in [(0o777, true), (0o1777, true), (0o775, false)] {
            let folder = folder();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("set");
            let _directory = KeyDirectory::open(folder.path()).await.expect("opened");
            let told = logged(folder.path());
            assert_eq!(
                told.iter().any(|told| told.contains(&format!("mode is {mode:04o}"))),
                is_told,
                "{told:?}"
            );
        }
    }

    /// As Kubernetes puts a ConfigMap into a folder.
    #[tokio::test]
    async fn files_may_be_links_that_are_swapped() {
        let (folder, first, second) = (folder(), key(), key());
        for (version, key) in [("..1", &first), ("..2", &second)] {
            fs::create_dir(folder.path().join(version)).expect("a folder");
            fs::write(folder.path().join(version).join("guido.keys"), line(key)).expect("written");
        }
        let link = |to: &str, name: &str| symlink(to, folder.path().join(name)).expect("a link");
        link("..1", "..data");
        link("..data/guido.keys", "guido.keys");
        let directory = KeyDirectory::open(folder.path()).await.expect("opened");
        assert!(has(&directory, "guido", &[&first]).await);
        link("..2", "..new");
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).expect("renamed");
        directory.reload().await.expect("read");
        assert!(has(&directory, "guido", &[&second]).await);
        // A link to nothing is a file that cannot be read, and no file that is gone.
        fs::remove_file(folder.path().join("..data")).expect("removed");
        directory.reload().await.expect("read");
        assert!(has(&directory, "guido", &[&second]).await);
    }

    /// Opening a pipe would wait for ever.
    #[tokio::test]
    async fn a_pipe_holds_nothing_up() {
        let (folder, key) = (folder(), key());
        write(&folder, "guido.keys", line(&key));
        let made = std::process::Command::new("mkfifo").arg(folder.path().join("pipe.keys")).status();
        assert!(made.expect("mkfifo runs").success());
        let directory = KeyDirectory::open(folder.path()).await.expect("opened");
        assert!(has(&directory, "guido", &[&key]).await);
    }
}

/// As where it is opened before the server's own runtime is made.
#[test]
fn a_folder_is_looked_at_on_another_runtime_when_its_own_has_ended() {
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().expect("a runtime")
    };
    // Before and after requests are 503, as nobody has looked for a minute.
    for pause in [5, 90] {
        let (folder, first, second, third) = (folder(), key(), key(), key());
        write(&folder, "guido.keys", line(&first));
        let directory = runtime().block_on(KeyDirectory::open(folder.path())).expect("opened");
        write(&folder, "guido.keys", line(&second));
        runtime().block_on(async {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            assert!(has(&directory, "guido", &[&second]).await, "after {pause} s");
            write(&folder, "guido.keys", line(&third));
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(has(&directory, "guido", &[&third]).await, "after {pause} s");
        });
    }
}
