//! `keygen` and `key show`.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, process::Stdio};

use ajwt_core::{PrivateKey, PublicKey};
use serde_json::Value;

use crate::support::{AJWT, Folder, project_file};

fn mode(folder: &Folder, name: &str) -> u32 {
    fs::metadata(folder.path(name)).expect("a file").permissions().mode() & 0o7777
}

#[test]
fn a_key_has_two_files_that_are_never_overwritten() {
    let folder = Folder::new();
    let fingerprint = folder.good("keygen -o a.key");
    assert_eq!(folder.names(), ["a.key", "a.key.pub"]);
    // Whatever the umask leaves of 0644.
    let other = Folder::new();
    other.write("file", "");
    let public = mode(&other, "file") & 0o644;
    assert_eq!((mode(&folder, "a.key"), mode(&folder, "a.key.pub")), (0o600, public));
    let key = PrivateKey::from_pem(folder.read("a.key"), None).expect("a key");
    assert_eq!(key.public_key().to_pem(), folder.read("a.key.pub"));
    assert_eq!(fingerprint.trim_end(), key.public_key().fingerprint().as_str());

    let before = folder.read("a.key");
    assert_eq!(
        folder.bad("keygen -o a.key"),
        "a.key is there already and is not overwritten; give another name"
    );
    fs::remove_file(folder.path("a.key")).expect("removed");
    assert_eq!(
        folder.bad("keygen -o a.key"),
        "a.key.pub is there already and is not overwritten; give another name"
    );
    assert_eq!(folder.names(), ["a.key.pub"], "one without the other is not written");
    folder.write("a.key", before);

    let told = folder.bad("keygen -o nowhere/a.key");
    assert!(told.starts_with("nowhere/a.key cannot be written: "), "{told}");
    assert_eq!(folder.names(), ["a.key", "a.key.pub"]);
}

/// All of them find no file when they look; making an RSA key then takes them differently long.
#[test]
fn of_many_at_once_one_has_the_files() {
    let folder = Folder::new();
    let commands = (0..6).map(|_| {
        let mut command = folder.command(AJWT);
        command.args(["keygen", "--type", "rsa", "--bits", "2048", "-o", "a.key"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs")
    });
    let commands: Vec<_> = commands.collect();
    let outputs = commands.into_iter().map(|command| command.wait_with_output().expect("its end"));
    let winners: Vec<_> = outputs.filter(|output| output.status.success()).collect();
    assert_eq!(winners.len(), 1);
    let fingerprint = String::from_utf8(winners[0].stdout.clone()).expect("text");
    for name in ["a.key", "a.key.pub"] {
        assert_eq!(folder.good(&format!("key show {name} --format fingerprint")), fingerprint, "{name}");
    }
    assert_eq!(folder.names(), ["a.key", "a.key.pub"]);
}

#[test]
fn a_link_to_nowhere_is_not_written_through() {
    let folder = Folder::new();
    std::os::unix::fs::symlink("elsewhere", folder.path("a.key")).expect("a link");
    folder.bad("keygen -o a.key");
    assert_eq!(folder.names(), ["a.key"]);
}

#[test]
fn without_a_file_both_halves_are_printed() {
    let folder = Folder::new();
    let printed = folder.good("keygen");
    let (private, public) = printed.split_at(printed.find("-----BEGIN PUBLIC").expect("a public key"));
    let key = PrivateKey::from_pem(private, None).expect("a private key");
    assert_eq!(key.public_key(), &PublicKey::from_pem(public).expect("a public key"));
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn types_formats_and_passphrases() {
    let folder = Folder::new();
    folder.write_secret("passphrase", "correct horse\nanother line\n");
    for (number, (options, starts, public)) in [
        ("--type rsa --bits 2048", "-----BEGIN PRIVATE KEY", "-----BEGIN PUBLIC KEY"),
        ("--format openssh", "-----BEGIN OPENSSH PRIVATE KEY", "ssh-ed25519 "),
        ("--passphrase-file passphrase", "-----BEGIN ENCRYPTED PRIVATE KEY", "-----BEGIN PUBLIC KEY"),
        ("--format openssh --passphrase-file passphrase", "-----BEGIN OPENSSH PRIVATE KEY", "ssh-ed25519 "),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{number}.key");
        folder.good(&format!("keygen {options} -o {name}"));
        assert!(folder.read(&name).starts_with(starts), "{options}");
        assert!(folder.read(&format!("{name}.pub")).starts_with(public), "{options}");
        if options.contains("passphrase") {
            let key = PrivateKey::from_pem(folder.read(&name), Some(b"correct horse"));
            assert!(key.is_ok(), "{options}: {key:?}");
            folder.write_secret("wrong", "incorrect horse");
            let told = folder.bad(&format!("key show {name} --passphrase-file wrong"));
            assert!(told.contains("the password is wrong"), "{told}");
        }
        let shown =
            folder.good(&format!("key show {name} --passphrase-file passphrase --format fingerprint"));
        assert_eq!(shown, folder.good(&format!("key show {name}.pub --format fingerprint")));
    }
    folder.write_secret("empty", "\n");
    assert_eq!(
        folder.bad("keygen -o e.key --passphrase-file empty"),
        "the first line of empty is empty where a passphrase is due"
    );
}

/// As a key that others may read.
#[test]
fn a_passphrase_that_others_may_read_is_refused() {
    let folder = Folder::new();
    folder.write_secret("passphrase", "correct horse");
    folder.good("keygen -o a.key --passphrase-file passphrase");
    for mode in [0o640, 0o604] {
        folder.set_mode("passphrase", mode);
        for words in ["key show a.key", "keygen -o b.key"] {
            assert_eq!(
                folder.bad(&format!("{words} --passphrase-file passphrase")),
                format!(
                    "the passphrase file passphrase has mode 0{mode:o}, so others can read it: chmod 600 passphrase, or \
                     give --allow-open-permissions where that is meant (Kubernetes secrets)"
                )
            );
        }
    }
    folder.good("key show a.key --passphrase-file passphrase --allow-open-permissions");
    folder.good("keygen -o b.key --passphrase-file passphrase --allow-open-permissions");
    // As of `pass show`: a pipe has no mode that says who reads it.
    let script = "\"$0\" key show a.key --passphrase-file <(cat passphrase)";
    let output = folder.command("bash").args(["-c", script, AJWT]).output().expect("bash runs");
    assert_eq!(output.stdout, folder.read("a.key.pub").into_bytes(), "{output:?}");
}

/// To hide it would mend nothing.
#[test]
fn what_is_no_private_key_is_told_before_its_mode() {
    let folder = Folder::new();
    folder.good("keygen --format openssh -o a.key");
    folder.good("keygen --type rsa --bits 2048 -o b.key");
    fs::create_dir(folder.path("keys")).expect("a folder");
    folder.write("text", "hello");
    for (name, mode, told) in [
        (
            "a.key.pub",
            0o644,
            "the key file a.key.pub holds no usable key: this is a public key where a private one is due",
        ),
        (
            "b.key.pub",
            0o640,
            "the key file b.key.pub holds no usable key: this is a public key where a private one is due",
        ),
        ("keys", 0o755, "the file keys cannot be read: is a directory"),
        ("text", 0o644, "the key file text has mode 0644, so others can use the key: chmod 600 text"),
        ("a.key", 0o644, "the key file a.key has mode 0644, so others can use the key: chmod 600 a.key"),
    ] {
        folder.set_mode(name, mode);
        let found = folder.bad(&format!("token --username guido --key {name}"));
        assert!(found.starts_with(told), "{name}: {found}");
    }
}

/// The fixtures of the core's tests hold each key in every format.
#[test]
fn a_key_of_any_format_is_shown() {
    let folder = Folder::new();
    folder.write_secret("passphrase", "correct horse");
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../ajwt-core/tests/fixtures");
    let mut shown = BTreeMap::new();
    for fixture in fs::read_dir(fixtures).expect("fixtures") {
        let mut name = fixture.expect("a fixture").file_name().into_string().expect("text");
        let mut text = project_file(&format!("crates/ajwt-core/tests/fixtures/{name}"));
        if name == "python.json" {
            // A JWK as the Python library writes it.
            let python: Value = serde_json::from_str(&text).expect("JSON");
            (name, text) = ("rsa.jwk.public".to_owned(), python["tokens"][0]["jwk"].to_string());
        }
        let (key, _) = name.split_once('.').expect("the key's name");
        folder.write(&name, text);
        fs::set_permissions(folder.path(&name), fs::Permissions::from_mode(0o600)).expect("its mode");
        let pem = folder.good(&format!("key show {name} --passphrase-file passphrase"));
        let piped = ["key", "show", "-", "--passphrase-file", "passphrase"];
        assert_eq!(folder.ajwt_with(&piped, &folder.read(&name)).out, pem, "{name}, piped");
        // As of `gpg --decrypt`: a pipe can be read once.
        let substituted = |words: &str| {
            let script = format!("\"$0\" {words} --passphrase-file passphrase");
            let output = folder.command("bash").args(["-c", &script, AJWT]).output().expect("bash runs");
            String::from_utf8(output.stdout).expect("text")
        };
        assert_eq!(substituted(&format!("key show <(cat {name})")), pem, "{name}, substituted");
        if name.ends_with(".private") {
            let token = substituted(&format!("token --username guido --key <(cat {name})"));
            assert!(token.starts_with("ey"), "{name}: {token}");
        }
        let (first, number) = shown.entry(key.to_owned()).or_insert((pem.clone(), 0));
        assert_eq!(*first, pem, "{name}");
        *number += 1;
    }
    assert_eq!(shown.len(), 3);
    assert!(shown.values().all(|(_, number)| *number >= 3), "{shown:?}");
}

#[test]
fn a_key_is_shown_in_each_format() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    let pem = folder.read("a.key.pub");
    for format in ["pem", "openssh", "jwk", "jwks"] {
        folder.write("shown", folder.good(&format!("key show a.key --format {format}")));
        assert_eq!(folder.good("key show shown"), pem, "{format}");
    }
    let key = PublicKey::from_pem(pem).expect("a key");
    assert_eq!(folder.good("key show a.key --format fingerprint").trim_end(), key.fingerprint().as_str());
}

#[test]
fn what_is_no_key_is_told() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    fs::set_permissions(folder.path("a.key"), fs::Permissions::from_mode(0o640)).expect("its mode");
    folder.write("text", "hello\n");
    folder.write("json", "{\"kty\":\"EC\"}");
    folder.write("private", "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AA\",\"d\":\"AA\"}");
    folder.write("large", "x".repeat(2_000_000));
    folder.write("empty", "{\"keys\":[]}");
    folder.write("unusable", "{\"keys\":[{\"kty\":\"EC\"},{\"kty\":\"oct\",\"k\":\"AA\"}]}");
    folder.write("many", format!("{{\"keys\":[{}]}}", ["{}"; 101].join(",")));
    for (file, told) in [
        ("nothing", "nothing cannot be read: No such file or directory (os error 2)"),
        (".", ". cannot be read: Is a directory (os error 21)"),
        (
            "text",
            "text holds no usable key: no key found: expected a PEM block (-----BEGIN ...-----) or a line that begins with ssh-ed25519 or ssh-rsa",
        ),
        (
            "json",
            "json holds no usable key: keys with kty \"EC\" are not supported; RSA and OKP with Ed25519 are",
        ),
        (
            "private",
            "private holds no usable key: member \"d\" belongs to a private or symmetric key; publish the public half only",
        ),
        ("large", "large has more than 1048576 bytes"),
        ("empty", "empty holds no usable key: the key set is empty"),
        ("many", "many holds no usable key: the set has more than 100 keys"),
        (
            "unusable",
            "unusable holds no usable key: none of the set's keys is usable; the first: keys with kty \"EC\" are not supported; RSA and OKP with Ed25519 are",
        ),
        (
            "a.key",
            "the key file a.key has mode 0640, so others can use the key: chmod 600 a.key, or give --allow-open-permissions where that is meant (Kubernetes secrets)",
        ),
    ] {
        assert_eq!(folder.bad(&format!("key show {file}")), told);
        // Without a key it would leave the signature unchecked, and accept the token.
        assert_eq!(folder.bad(&format!("explain token --key {file}")), told);
    }
    folder.good("key show a.key --allow-open-permissions");
}
