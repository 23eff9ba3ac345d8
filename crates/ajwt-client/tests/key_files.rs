//! Reading key files, in every format.

use std::{fs, path::Path, sync::Arc};

use ajwt_client::{KeyFile, KeyFileError, RequestSigner};
use ajwt_core::{KeyError, PrivateKey};
use ajwt_server::{Authenticator, MemoryNonceBackend, MemoryRepository, User};
use ajwt_vectors::{Report, ensure};

#[cfg(unix)]
#[test]
fn key_files_that_others_can_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ajwt.key");
    let key = PrivateKey::generate_ed25519().expect("a key");
    fs::write(&path, key.to_pem().expect("pem").as_bytes()).expect("written");
    for (mode, is_fine) in
        [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false), (0o601, false)]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        let read = KeyFile::new(&path).read();
        match read {
            Ok(read) => assert!(is_fine && read.public_key() == key.public_key(), "{mode:o}"),
            Err(KeyFileError::OpenPermissions { mode: found, .. }) => {
                assert!(!is_fine && found == mode, "{mode:o}")
            }
            Err(error) => panic!("{mode:o}: {error}"),
        }
        let allowed = KeyFile::new(&path).allow_open_permissions().read().expect("allowed");
        assert_eq!(allowed.public_key(), key.public_key());
    }
    let error = KeyFile::new(&path).read().expect_err("mode 0601").to_string();
    assert!(error.contains("0601") && error.contains("chmod 600") && error.contains("ajwt.key"), "{error}");
}

#[test]
fn key_files_may_be_encrypted_and_errors_name_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ajwt.key");
    let missing = KeyFile::new(&path).read().expect_err("no file");
    assert!(matches!(missing, KeyFileError::Unreadable { .. }) && missing.to_string().contains("ajwt.key"));

    let key = PrivateKey::generate_ed25519().expect("a key");
    fs::write(&path, key.to_encrypted_pem(b"correct horse").expect("pem").as_bytes()).expect("written");
    let file = || KeyFile::new(&path).allow_open_permissions();
    let source = |file: KeyFile| match file.read() {
        Err(KeyFileError::Key { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(source(file()), KeyError::PasswordMissing);
    assert_eq!(source(file().password("wrong")), KeyError::PasswordWrong);
    let read = file().password("correct horse").read().expect("a key");
    assert_eq!(read.public_key(), key.public_key());
    assert!(!format!("{:?}", file().password("correct horse")).contains("horse"));

    fs::write(&path, vec![b'a'; 10 << 20]).expect("written");
    assert!(matches!(source(file()), KeyError::TooLong { .. }));
}

#[test]
fn passwords_come_from_where_they_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, password) = (folder.path().join("ajwt.key"), folder.path().join("password"));
    let key = PrivateKey::generate_ed25519().expect("a key");
    let file = || KeyFile::new(&path).allow_open_permissions();
    let is_read = |file: KeyFile| file.read().expect("a key").public_key() == key.public_key();
    let callback = || file().password_from(|| Ok(b"correct horse\n".to_vec()));

    // Nobody is asked for the password of a key that is not encrypted.
    fs::write(&path, key.to_pem().expect("pem").as_bytes()).expect("written");
    assert!(is_read(file().password_from(|| panic!("asked"))));
    assert!(is_read(file().password_file("/nowhere")));
    assert!(is_read(file().password_env("AJWT_NO_SUCH_VARIABLE")));

    fs::write(&path, key.to_encrypted_pem(b"correct horse\n").expect("pem").as_bytes()).expect("written");
    assert!(is_read(callback()));
    fs::write(&path, key.to_encrypted_pem(b"correct horse").expect("pem").as_bytes()).expect("written");
    assert!(matches!(callback().read(), Err(KeyFileError::Key { source: KeyError::PasswordWrong, .. })));
    let error = file().password_from(|| Err("the vault is sealed".into())).read().expect_err("no password");
    let source = std::error::Error::source(&error).expect("a source").to_string();
    assert!(matches!(error, KeyFileError::Password { .. }) && source == "the vault is sealed");

    for text in ["correct horse", "correct horse\n", "correct horse\r\n"] {
        fs::write(&password, text).expect("written");
        assert!(is_read(file().password_file(&password)), "{text:?}");
    }
    for text in ["correct horse\n\n", " correct horse", "correct horse "] {
        fs::write(&password, text).expect("written");
        let read = file().password_file(&password).read();
        assert!(matches!(read, Err(KeyFileError::Key { source: KeyError::PasswordWrong, .. })), "{text:?}");
    }
    fs::write(&password, "x".repeat(4097)).expect("written");
    let read = file().password_file(&password).read();
    assert!(matches!(read, Err(KeyFileError::PasswordLength { max: 4096, .. })), "{read:?}");
    let read = file().password_file(folder.path().join("nowhere")).read();
    assert!(matches!(read, Err(KeyFileError::Unreadable { path, .. }) if path.ends_with("nowhere")));

    let error = file().password_env("AJWT_NO_SUCH_VARIABLE").read().expect_err("not set").to_string();
    assert!(error.contains("ajwt.key") && error.contains("AJWT_NO_SUCH_VARIABLE"), "{error}");
    // The value of a variable that every test process has, whatever it is.
    let value = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    fs::write(&path, key.to_encrypted_pem(value.as_bytes()).expect("pem").as_bytes()).expect("written");
    assert!(is_read(file().password_env("CARGO_MANIFEST_DIR")));
}

#[cfg(unix)]
#[test]
fn password_files_that_others_can_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let (path, password) = (folder.path().join("ajwt.key"), folder.path().join("password"));
    let key = PrivateKey::generate_ed25519().expect("a key");
    fs::write(&path, key.to_encrypted_pem(b"correct horse").expect("pem").as_bytes()).expect("written");
    fs::write(&password, "correct horse").expect("written");
    let chmod = |path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    chmod(&path, 0o600);
    chmod(&password, 0o644);
    let read = KeyFile::new(&path).password_file(&password).read();
    assert!(
        matches!(&read, Err(KeyFileError::OpenPermissions { path, mode: 0o644 }) if *path == password),
        "{read:?}"
    );
    chmod(&password, 0o600);
    assert!(KeyFile::new(&path).password_file(&password).read().is_ok());
}

/// Every private key file of the manifests that is to be accepted signs a token that a server accepts.
#[tokio::test]
async fn every_key_file_signs_a_token_that_the_server_accepts() {
    let Some(root) = ajwt_vectors::root("every_key_file_signs_a_token_that_the_server_accepts") else {
        return;
    };
    let mut report = Report::new();
    for folder in ajwt_vectors::folders_with(&root, "manifest.json") {
        let manifest = ajwt_vectors::json(&folder.join("manifest.json"));
        for entry in manifest.as_array().expect("a manifest is an array") {
            let is_private = entry["as"].as_str().is_some_and(|form| form.starts_with("private"));
            if entry["ajwt"] != "accept" || !is_private {
                continue;
            }
            let path = folder.join(ajwt_vectors::str(entry, "file"));
            let outcome = signs(&path, entry["password"].as_str()).await;
            report.case(path.display().to_string(), || outcome);
        }
    }
    report.finish("key files that sign");
}

async fn signs(path: &Path, password: Option<&str>) -> Result<(), String> {
    let mut file = KeyFile::new(path).allow_open_permissions();
    if let Some(password) = password {
        file = file.password(password);
    }
    let key = file.read().map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))?;
    let user = User::new("guido").with_keys([key.public_key().clone()]);
    let nonces = Arc::new(MemoryNonceBackend::new(10));
    let authenticator = Authenticator::builder(Arc::new(MemoryRepository::new([user])), nonces).build();
    let authenticator = authenticator.map_err(|error| error.to_string())?;
    let signer = RequestSigner::new("guido", key).map_err(|error| error.to_string())?;
    let header = signer.authorization_async().await.map_err(|error| error.to_string())?;
    let accepted = authenticator.authenticate([header.as_bytes()]).await;
    ensure!(accepted.is_ok(), "refused: {:?}", accepted.err());
    let again = authenticator.authenticate([header.as_bytes()]).await;
    ensure!(again.is_err(), "accepted twice");
    Ok(())
}
