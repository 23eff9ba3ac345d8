//! Several keys, and keys whose files change. When one begins to sign is in `src/key_watch/tests.rs`.

use std::{fs, path::Path, time::Duration};

use ajwt_client::{KeyFile, KeyFileError, KeyRing, KeyRingError, KeyWatch, RequestSigner};
use ajwt_core::{KeyError, PrivateKey, PublicKey, RsaKeySize};
use ajwt_test_support::{Level, Log, until_blocking};

/// So seldom that in a test it is never due.
const SELDOM: Duration = Duration::from_secs(24 * 3600);

fn key() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

/// Writes a new key; returns its public half.
fn write_key(path: &Path) -> PublicKey {
    let key = key();
    fs::write(path, key.to_pem().expect("pem").as_bytes()).expect("written");
    key.public_key().clone()
}

fn watch(path: impl AsRef<Path>) -> KeyWatch {
    KeyWatch::new(KeyFile::new(path.as_ref()).allow_open_permissions()).every(SELDOM)
}

fn signing(keys: &KeyRing) -> PublicKey {
    RequestSigner::new("guido", keys.clone()).expect("a signer").public_key()
}

#[test]
fn the_newest_key_signs_and_all_are_published() {
    let (one, two, three) = (key(), key(), PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key"));
    let public = [&one, &two, &three].map(|key| key.public_key().clone());
    let keys = KeyRing::new(one);
    let signer = RequestSigner::new("guido", keys.clone()).expect("a signer");
    assert_eq!(signer.public_key(), public[0]);
    assert_eq!(keys.remove(public[0].fingerprint()), Err(KeyRingError::LastKey));

    // Announced, it is published and does not sign.
    keys.announce(public[1].clone());
    assert_eq!((signer.public_key(), keys.public_keys()), (public[0].clone(), public[..2].to_vec()));
    assert_eq!(keys.remove(public[0].fingerprint()), Err(KeyRingError::LastKey));
    keys.add(two);
    assert_eq!((signer.public_key(), keys.public_keys()), (public[1].clone(), public[..2].to_vec()));
    keys.add(three);
    assert_eq!((signer.public_key(), keys.public_keys()), (public[2].clone(), public.to_vec()));
    let published: Vec<_> = keys.jwk_set().keys().iter().map(|jwk| jwk.key().clone()).collect();
    assert_eq!(published, public);

    // The newest goes, and the one before signs again.
    keys.remove(public[2].fingerprint()).expect("two are left");
    assert_eq!(signer.public_key(), public[1]);
    keys.remove(public[0].fingerprint()).expect("one is left");
    assert_eq!(keys.public_keys(), [public[1].clone()]);
    keys.remove(public[0].fingerprint()).expect("nothing happens");
    let header = signer.authorization().expect("a token");
    assert!(header.to_str().expect("ascii").starts_with("JWT "));
    assert!(!format!("{keys:?} {signer:?}").contains("PRIVATE"));
}

#[test]
fn a_file_that_changes_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ajwt.key");
    let first = write_key(&path);
    let keys = watch(&path).start().expect("a ring");
    assert_eq!(keys.public_keys(), [first]);
    let second = write_key(&path);
    keys.reload().expect("read");
    assert_eq!(keys.public_keys(), std::slice::from_ref(&second));
    assert_eq!(signing(&keys), second);

    // Keys that were added last for as long as the file stays the same.
    keys.add(key());
    keys.reload().expect("read");
    assert_eq!(keys.public_keys().len(), 2);
    let third = write_key(&path);
    keys.reload().expect("read");
    assert_eq!(keys.public_keys(), [third]);
}

/// The thread, not a call: with nothing else to see it by than that it has happened.
#[test]
fn a_file_is_looked_at_in_the_background_and_the_thread_ends_with_the_ring() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ajwt.key");
    write_key(&path);
    let keys = watch(&path).every(Duration::from_millis(10)).start().expect("a ring");
    for _ in 0..3 {
        let next = write_key(&path);
        until_blocking("the next key signs", || signing(&keys) == next);
    }
    #[cfg(target_os = "linux")]
    {
        let is_watching = || {
            let tasks = fs::read_dir("/proc/self/task").expect("threads");
            tasks.flatten().any(|task| {
                fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "ajwt-keys")
            })
        };
        // Other tests of this process have threads of that name, which end as well.
        assert!(is_watching());
        drop(keys);
        until_blocking("nobody watches", || !is_watching());
    }
}

/// As the kubelet does: the files are links through a link that is swapped.
#[cfg(unix)]
#[test]
fn swapped_symlinks_are_seen() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let write = |version: &str| {
        fs::create_dir(at(version)).expect("a folder");
        write_key(&at(version).join("ajwt.key"))
    };
    let first = write("..2026_11_01");
    symlink("..2026_11_01", at("..data")).expect("a link");
    symlink("..data/ajwt.key", at("ajwt.key")).expect("a link");
    let (one, all) =
        (watch(at("ajwt.key")).start().expect("a ring"), watch(folder.path()).start().expect("a ring"));
    assert_eq!((one.public_keys(), all.public_keys()), (vec![first.clone()], vec![first]));

    let second = write("..2026_11_02");
    symlink("..2026_11_02", at("..data_tmp")).expect("a link");
    fs::rename(at("..data_tmp"), at("..data")).expect("swapped");
    fs::remove_dir_all(at("..2026_11_01")).expect("removed");
    for keys in [one, all] {
        keys.reload().expect("read");
        assert_eq!(keys.public_keys(), std::slice::from_ref(&second));
    }
}

#[test]
fn a_bad_new_file_keeps_the_old_key_and_is_reported_once() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ajwt.key");
    let first = write_key(&path);
    let keys = watch(&path).start().expect("a ring");
    let warnings = || log.count("WARN", "ajwt.key");

    let good = fs::read(&path).expect("a file");
    fs::write(&path, &good[..good.len() / 2]).expect("half of it");
    for _ in 0..3 {
        let error = keys.reload().expect_err("no key");
        assert!(matches!(error, KeyFileError::Key { source: KeyError::Pem(_), .. }), "{error:?}");
        assert_eq!(signing(&keys), first);
    }
    assert_eq!(warnings(), 1, "{}", log.text());
    fs::remove_file(&path).expect("removed");
    for _ in 0..3 {
        assert!(matches!(keys.reload(), Err(KeyFileError::Unreadable { .. })));
        assert_eq!(signing(&keys), first);
    }
    assert_eq!(warnings(), 2, "{}", log.text());
    // Good again, and bad again: another warning.
    let second = write_key(&path);
    keys.reload().expect("read");
    assert_eq!(signing(&keys), second);
    fs::write(&path, "hello").expect("written");
    assert!(keys.reload().is_err());
    assert_eq!((warnings(), signing(&keys)), (3, second));
    assert!(!log.text().contains("PRIVATE"), "{}", log.text());
}

#[test]
fn the_last_name_in_a_folder_signs_and_a_bad_file_spoils_no_other() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let start = || watch(folder.path()).start();
    assert!(matches!(start(), Err(KeyFileError::EmptyFolder { .. })));
    for ignored in ["README", "2027-01.pub", ".2027-02.key", "2027-03.key~"] {
        fs::write(at(ignored), "not a key").expect("written");
    }
    assert!(matches!(start(), Err(KeyFileError::EmptyFolder { .. })));
    fs::write(at("2026-12.key"), "not a key").expect("written");
    assert!(matches!(start(), Err(KeyFileError::Key { .. })));

    let october = write_key(&at("2026-10.key"));
    let keys = start().expect("one is good");
    assert_eq!(log.count("WARN", "2026-12.key"), 2, "one each start: {}", log.text());
    assert_eq!(keys.public_keys(), std::slice::from_ref(&october));
    let november = write_key(&at("2026-11.key"));
    assert!(keys.reload().is_err(), "the bad one is told");
    assert_eq!(keys.public_keys(), [october, november.clone()]);
    assert_eq!(signing(&keys), november);
    let december = write_key(&at("2026-12.key"));
    fs::remove_file(at("2026-10.key")).expect("removed");
    keys.reload().expect("all are good");
    assert_eq!((keys.public_keys(), signing(&keys)), (vec![november, december.clone()], december.clone()));

    // Where a file goes bad, its key stays, beside the others.
    let good = fs::read(at("2026-12.key")).expect("a file");
    fs::write(at("2026-12.key"), "not a key").expect("written");
    assert!(keys.reload().is_err());
    assert_eq!((keys.public_keys().len(), signing(&keys)), (2, december.clone()));
    fs::write(at("2026-12.key"), good).expect("written");
    keys.reload().expect("all are good");

    // The last key stays, whatever becomes of the folder.
    fs::remove_file(at("2026-11.key")).expect("removed");
    keys.reload().expect("all are good");
    fs::remove_file(at("2026-12.key")).expect("removed");
    assert!(matches!(keys.reload(), Err(KeyFileError::EmptyFolder { .. })));
    assert_eq!(keys.public_keys(), std::slice::from_ref(&december));
    fs::remove_dir_all(folder.path()).expect("removed");
    assert!(matches!(keys.reload(), Err(KeyFileError::Unreadable { .. })));
    assert_eq!(keys.public_keys(), [december]);
}

/// Whoever may put a file into the folder chooses its name.
#[cfg(unix)]
#[test]
fn the_name_of_a_key_file_begins_no_line_of_the_log() {
    let log = Log::default();
    let _listening = log.listen(Level::INFO);
    let folder = tempfile::tempdir().expect("a folder");
    write_key(&folder.path().join("a\n1.key"));
    fs::write(folder.path().join("a\n2.key"), "not a key").expect("written");
    let _keys = watch(folder.path()).start().expect("one is good");
    assert_eq!(log.count("INFO", r"a\n1.key"), 1, "{}", log.text());
    assert_eq!(log.count("WARN", r"a\n2.key"), 1, "{}", log.text());
}

#[test]
fn of_many_files_the_newest_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let written: Vec<_> =
        (10..50).map(|month| write_key(&folder.path().join(format!("{month}.key")))).collect();
    let keys = watch(folder.path()).start().expect("a ring");
    assert_eq!(keys.public_keys(), written[written.len() - 32..]);
}

/// What asks for a password is the application's, and may panic.
#[test]
fn a_panic_does_not_end_the_watch() {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ajwt.key");
    let write = || {
        let key = key();
        fs::write(&path, key.to_encrypted_pem(b"horse").expect("pem").as_bytes()).expect("written");
        key.public_key().clone()
    };
    write();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let file = KeyFile::new(&path).allow_open_permissions().password_from(move || {
        assert_ne!(count.fetch_add(1, Ordering::SeqCst), 1, "the second time");
        Ok(b"horse".to_vec())
    });
    let keys = KeyWatch::new(file).every(Duration::from_millis(10)).start().expect("a ring");
    let second = write();
    until_blocking("the second key signs", || signing(&keys) == second);
    assert!(asked.load(Ordering::SeqCst) > 2);
}

#[test]
fn a_password_is_asked_for_again_when_the_file_changes() {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ajwt.key");
    let write =
        || fs::write(&path, key().to_encrypted_pem(b"horse").expect("pem").as_bytes()).expect("written");
    write();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let file = KeyFile::new(&path).allow_open_permissions().password_from(move || {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(b"horse".to_vec())
    });
    let keys = KeyWatch::new(file).every(SELDOM).start().expect("a ring");
    keys.reload().expect("read");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "an unchanged file is not decrypted again");
    write();
    keys.reload().expect("read");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
