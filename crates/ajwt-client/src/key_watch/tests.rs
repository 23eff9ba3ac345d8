//! When a key begins to sign. No hours pass: the files are looked at as if they had.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use ajwt_core::{PrivateKey, PublicKey};
use tempfile::TempDir;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// A folder that is looked at ten hours from now: by then its files can be some hours old, which are still to
/// come, for nobody can set back when a file was last changed.
struct Folder {
    folder: TempDir,
    now: Timestamp,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, now: clock::now().saturating_add(10 * HOUR) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a new key into a file of this age; returns its public half.
    fn write_key(&self, name: &str, age: Duration) -> PublicKey {
        let key = write_key(&self.at(name));
        self.set_age(name, age);
        key
    }

    fn write(&self, name: &str, text: &[u8], age: Duration) {
        fs::write(self.at(name), text).expect("written");
        self.set_age(name, age);
    }

    fn set_age(&self, name: &str, age: Duration) {
        date(&self.at(name), self.now.saturating_sub(age));
    }
}

fn write_key(path: &Path) -> PublicKey {
    let key = PrivateKey::generate_ed25519().expect("a key");
    fs::write(path, key.to_pem().expect("pem").as_bytes()).expect("written");
    key.public_key().clone()
}

fn date(path: &Path, date: Timestamp) {
    let file = File::options().write(true).open(path).expect("a file");
    file.set_modified(date.to_system_time().expect("a date")).expect("dated");
}

/// Looks at the files when it is told to only.
fn start(path: &Path, announce: Duration, now: Timestamp) -> KeyRing {
    let watch = KeyWatch::new(KeyFile::new(path).allow_open_permissions()).every(24 * HOUR);
    watch.announce_for(announce).start_at(now).expect("a ring")
}

/// Looks at the files at this time.
fn look(keys: &KeyRing, now: Timestamp) -> Result<(), KeyFileError> {
    keys.downgrade().upgrade().expect("a ring").reload(now, Occasion::Asked)
}

/// As [`look`], because the time has come.
fn look_by_timer(keys: &KeyRing, now: Timestamp) -> Result<(), KeyFileError> {
    keys.downgrade().upgrade().expect("a ring").reload(now, Occasion::Timer)
}

fn signing(keys: &KeyRing, now: Timestamp) -> PublicKey {
    keys.signing_key(now).public_key().clone()
}

/// Unless told otherwise, and never without a pause.
#[test]
fn files_are_read_every_five_seconds() {
    let watch = KeyWatch::new(KeyFile::new("current.key"));
    assert_eq!(watch.every, 5 * SECOND);
    assert_eq!(watch.every(Duration::ZERO).every, Duration::from_millis(10));
}

#[test]
fn a_key_is_published_before_it_signs() {
    let folder = Folder::new();
    let now = folder.now;
    let start = || start(folder.folder.path(), 2 * HOUR, now);
    let old = folder.write_key("1.key", Duration::ZERO);
    // Alone, it signs however new it is.
    assert_eq!(signing(&start(), now), old);
    folder.set_age("1.key", 3 * HOUR);
    let keys = start();
    let new = folder.write_key("2.key", HOUR);
    for keys in [&keys, &start()] {
        look(keys, now).expect("read");
        assert_eq!(keys.public_keys(), [old.clone(), new.clone()]);
        assert_eq!(signing(keys, now), old);
    }
    // All of them new, as on a fresh volume: the oldest.
    folder.set_age("1.key", HOUR);
    assert_eq!(signing(&start(), now), old);
    folder.set_age("2.key", 3 * HOUR);
    for keys in [&keys, &start()] {
        look(keys, now).expect("read");
        assert_eq!(signing(keys, now), new);
    }
    // A key that has signed goes on when its file is written anew.
    folder.set_age("2.key", Duration::ZERO);
    look(&keys, now).expect("read");
    assert_eq!(signing(&keys, now), new);
}

/// As [`a_key_is_published_before_it_signs`], where a new key takes the place of the old one in its file.
#[test]
fn a_key_in_the_same_file_is_published_before_it_signs() {
    let folder = Folder::new();
    let now = folder.now;
    let path = folder.at("current.key");
    let old = folder.write_key("current.key", 3 * HOUR);
    let text = fs::read(&path).expect("read");
    for watched in [path.as_path(), folder.folder.path()] {
        folder.write("current.key", &text, 3 * HOUR);
        let keys = start(watched, 2 * HOUR, now);
        let look_and_find = |published: &[&PublicKey], signs: &PublicKey| {
            look(&keys, now).expect("read");
            assert_eq!(keys.public_keys().iter().collect::<Vec<_>>(), published);
            assert_eq!(signing(&keys, now), *signs);
        };
        let abandoned = folder.write_key("current.key", Duration::ZERO);
        look_and_find(&[&old, &abandoned], &old);
        let new = folder.write_key("current.key", Duration::ZERO);
        look_and_find(&[&old, &new], &old);
        // Taken back, and put there again.
        let newer = fs::read(&path).expect("read");
        folder.write("current.key", &text, Duration::ZERO);
        look_and_find(&[&old], &old);
        folder.write("current.key", &newer, Duration::ZERO);
        look_and_find(&[&old, &new], &old);
        folder.write("current.key", b"no key", Duration::ZERO);
        look(&keys, now).expect_err("no key");
        assert_eq!((keys.public_keys(), signing(&keys, now)), (vec![old.clone(), new.clone()], old.clone()));

        let last = folder.write_key("current.key", 3 * HOUR);
        look_and_find(&[&last], &last);
    }
}

/// Two keys that take each other's place in one file.
#[test]
fn a_key_that_comes_back_signs_at_once_only_if_it_is_still_published() {
    let folder = Folder::new();
    let path = folder.at("current.key");
    let at = |minute: u32| folder.now.saturating_add(minute * MINUTE);
    let one = folder.write_key("current.key", Duration::ZERO);
    let text_of_one = fs::read(&path).expect("read");
    let keys = start(&path, 10 * MINUTE, at(0));
    let two = write_key(&path);
    let text_of_two = fs::read(&path).expect("read");
    let put = |text: &[u8], minute: u32| {
        fs::write(&path, text).expect("written");
        date(&path, at(minute));
    };
    let look_and_find = |minute: u32, published: &[&PublicKey], signs: &PublicKey| {
        look(&keys, at(minute)).expect("read");
        assert_eq!(keys.public_keys().iter().collect::<Vec<_>>(), published, "minute {minute}");
        assert_eq!(signing(&keys, at(minute)), *signs, "minute {minute}");
    };

    // Neither is due, and the first signs as the oldest. When it is back, the other is nowhere any more.
    put(&text_of_two, 1);
    look_and_find(1, &[&one, &two], &one);
    put(&text_of_one, 2);
    for minute in [2, 9, 10, 12] {
        look_and_find(minute, &[&one], &one);
    }
    // That it was published for a minute does not count.
    put(&text_of_two, 13);
    for (minute, signs) in [(13, &one), (22, &one), (23, &two), (27, &two)] {
        look_and_find(minute, &[&one, &two], signs);
    }
    // After the grace the first is dropped, and servers forget it.
    look_and_find(28, &[&two], &two);
    put(&text_of_one, 30);
    for (minute, signs) in [(30, &two), (39, &two), (40, &one), (44, &one)] {
        look_and_find(minute, &[&two, &one], signs);
    }
    look_and_find(45, &[&one], &one);

    // Back while it is published it signs at once, and the other goes on being published, however old the file
    // is: a link may have been turned back to it.
    put(&text_of_two, 50);
    look_and_find(50, &[&one, &two], &one);
    look_and_find(60, &[&one, &two], &two);
    put(&text_of_one, 0);
    for minute in [64, 65, 68] {
        look_and_find(minute, &[&two, &one], &one);
    }
    // Written anew, as by something that does so every minute, it keeps the other for no longer.
    put(&text_of_one, 68);
    look_and_find(69, &[&one], &one);
}

/// Beside a key that signs it is published alone, and never signs.
#[test]
fn a_key_of_a_folder_that_is_replaced_before_it_is_due_is_dropped() {
    let folder = Folder::new();
    let at = |minute: u32| folder.now.saturating_add(minute * MINUTE);
    let signing_key = folder.write_key("a.key", HOUR);
    let wrong = folder.write_key("b.key", Duration::ZERO);
    let keys = start(folder.folder.path(), 10 * MINUTE, at(0));
    assert_eq!(keys.public_keys(), [signing_key.clone(), wrong]);
    let right = write_key(&folder.at("b.key"));
    date(&folder.at("b.key"), at(9));
    for (minute, signs) in [(9, &signing_key), (10, &signing_key), (18, &signing_key), (19, &right)] {
        look(&keys, at(minute)).expect("read");
        assert_eq!(keys.public_keys(), [signing_key.clone(), right.clone()], "minute {minute}");
        assert_eq!(signing(&keys, at(minute)), *signs, "minute {minute}");
    }
}

/// A key that signs before it is due, for there is no other, gives way to one that is due.
#[test]
fn a_key_of_an_older_file_does_not_sign_before_it_is_due() {
    let folder = Folder::new();
    let path = folder.at("current.key");
    let at = |minute: u32| folder.now.saturating_add(minute * MINUTE);
    let newer = folder.write_key("current.key", Duration::ZERO);
    let keys = start(&path, 10 * MINUTE, at(0));
    let older = folder.write_key("current.key", 5 * MINUTE);
    for (minute, signs) in [(1, &newer), (4, &newer), (5, &older), (9, &older)] {
        look(&keys, at(minute)).expect("read");
        assert_eq!(keys.public_keys(), [newer.clone(), older.clone()], "minute {minute}");
        assert_eq!(signing(&keys, at(minute)), *signs, "minute {minute}");
    }
    look(&keys, at(10)).expect("read");
    assert_eq!(keys.public_keys(), [older]);
}

/// Its last tokens are on their way, and other processes that look at the file still sign with it.
#[test]
fn a_replaced_key_is_published_for_a_while_after_the_new_one_began_to_sign() {
    for (announce, grace) in [(2 * HOUR, HOUR / 2), (HOUR / 15, HOUR / 12)] {
        let folder = Folder::new();
        let now = folder.now;
        let path = folder.at("current.key");
        let old = folder.write_key("current.key", 3 * HOUR);
        let keys = start(&path, announce, now.saturating_sub(HOUR / 2));
        let new = folder.write_key("current.key", announce + 5 * SECOND);
        for (passed, is_published) in
            [(Duration::ZERO, true), (grace - 6 * SECOND, true), (grace - 5 * SECOND, false)]
        {
            let now = now.saturating_add(passed);
            look(&keys, now).expect("read");
            assert_eq!(signing(&keys, now), new, "{announce:?} {passed:?}");
            assert_eq!(keys.public_keys().contains(&old), is_published, "{announce:?} {passed:?}");
        }
        assert_eq!(keys.public_keys(), [new]);
    }
}

/// Made long ago, and unknown to whoever reads the JWKS until it is here.
#[cfg(unix)]
#[test]
fn a_key_that_is_moved_in_signs_no_sooner_than_one_that_is_written_here() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let now = clock::now();
    let announce = 2 * HOUR;
    let old = write_key(&folder.at("1.key"));
    let keys = start(folder.folder.path(), announce, now);
    let new = write_key(&elsewhere.at("2.key"));
    date(&elsewhere.at("2.key"), now.saturating_sub(3 * HOUR));
    fs::rename(elsewhere.at("2.key"), folder.at("2.key")).expect("moved");
    let restarted = start(folder.folder.path(), announce, now);
    for keys in [&keys, &restarted] {
        look(keys, now).expect("read");
        assert_eq!(keys.public_keys(), [old.clone(), new.clone()]);
        assert_eq!(signing(keys, now), old);
        assert_eq!(signing(keys, now.saturating_add(announce - HOUR)), old);
        // Moved by a machine that may be busy.
        assert_eq!(signing(keys, now.saturating_add(announce + HOUR)), new);
    }
}

/// Each time somebody may be asked for the password, and a key is derived from it.
#[test]
fn what_cannot_be_decrypted_is_tried_again_after_pauses_that_grow() {
    let folder = Folder::new();
    let path = folder.at("current.key");
    let at = |second: u32| folder.now.saturating_add(second * SECOND);
    let write = |password: &[u8]| {
        let key = PrivateKey::generate_ed25519().expect("a key");
        fs::write(&path, key.to_encrypted_pem(password).expect("pem").as_bytes()).expect("written");
        key.public_key().clone()
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let file = KeyFile::new(&path).allow_open_permissions().password_from(move || {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(b"horse".to_vec())
    });
    // How often since it was asked last.
    let asked = || asked.swap(0, Ordering::SeqCst);
    let first = write(b"horse");
    let keys = KeyWatch::new(file).every(24 * HOUR).start_at(at(0)).expect("a ring");
    assert_eq!(asked(), 1);

    write(b"battery");
    let mut tried = Vec::new();
    for second in 0..1300 {
        // During the pause it is no news.
        let _ = look_by_timer(&keys, at(second));
        if asked() > 0 {
            tried.push(second);
        }
    }
    assert_eq!(tried, [0, 5, 15, 35, 75, 155, 315, 615, 915, 1215]);
    assert_eq!(signing(&keys, at(1300)), first);
    // Nor does the pause hold up who asks, or whose clock was set back.
    let error = look(&keys, at(1300)).expect_err("another password");
    assert!(matches!(error, KeyFileError::Key { .. }), "{error:?}");
    assert_eq!(asked(), 1);
    look_by_timer(&keys, at(1000)).expect_err("another password");
    assert_eq!(asked(), 1);

    // Another content is tried at once, and the pause begins anew.
    write(b"staple");
    for (second, due) in [(1001, 1), (1002, 0), (1005, 0), (1006, 1)] {
        let _ = look_by_timer(&keys, at(second));
        assert_eq!(asked(), due, "{second}");
    }
    let second = write(b"horse");
    look_by_timer(&keys, at(1007)).expect("read");
    assert_eq!((asked(), signing(&keys, at(1007))), (1, second));
}

/// Its key stays as that of one that fails, and the others go on.
#[test]
fn a_file_that_is_left_alone_keeps_its_key_and_spoils_no_other() {
    let folder = Folder::new();
    let at = |second: u32| folder.now.saturating_add(second * SECOND);
    let one = folder.write_key("1.key", HOUR);
    let two = folder.write_key("2.key", HOUR);
    let keys = start(folder.folder.path(), Duration::ZERO, at(0));
    folder.write("2.key", b"no key", HOUR);
    assert!(look_by_timer(&keys, at(1)).is_err());
    assert!(look_by_timer(&keys, at(2)).is_ok(), "it is left alone");
    assert_eq!((keys.public_keys(), signing(&keys, at(2))), (vec![one, two.clone()], two.clone()));
    let three = folder.write_key("3.key", HOUR);
    fs::remove_file(folder.at("1.key")).expect("removed");
    assert!(look_by_timer(&keys, at(3)).is_ok());
    assert_eq!((keys.public_keys(), signing(&keys, at(3))), (vec![two, three.clone()], three));
    // Its pause is over.
    assert!(look_by_timer(&keys, at(6)).is_err());
}
