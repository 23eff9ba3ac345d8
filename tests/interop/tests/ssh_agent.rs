//! Keys in a real ssh-agent of OpenSSH, which each test starts for itself.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use ajwt_client::{AgentError, KeyRing, RequestSigner, SigningError, SshAgent};
use ajwt_core::{Algorithm, KeyType, PrivateKey, PublicKey, RsaKeySize, UntrustedToken};
use ajwt_server::{Authenticator, MemoryNonceBackend, MemoryRepository, User};
use ajwt_test_support::until_blocking;
use tempfile::TempDir;

/// An agent that ends when this is dropped.
struct Agent {
    process: Child,
    folder: TempDir,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let process = spawn_agent(&folder.path().join("socket"));
        let agent = Self { process, folder };
        agent.wait_until_it_answers();
        agent
    }

    fn wait_until_it_answers(&self) {
        until_blocking("the agent answers", || self.client().keys().is_ok());
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn client(&self) -> SshAgent {
        SshAgent::at(self.socket())
    }

    fn ssh_add(&self, arguments: &[&str], file: Option<&Path>) {
        let mut command = Command::new("ssh-add");
        let command = command.arg("-q").args(arguments).args(file).env("SSH_AUTH_SOCK", self.socket());
        // For ssh-add -x: it asks for a password by running this.
        let askpass = self.folder.path().join("askpass");
        fs::write(&askpass, "#!/bin/sh\necho horse\n").expect("written");
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700)).expect("chmod");
        let command = command.env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force");
        let output = command.stdin(Stdio::null()).output().expect("ssh-add of openssh-client runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Puts a key in.
    fn add(&self, key: &PrivateKey, comment: &str, arguments: &[&str]) {
        let file = self.folder.path().join("key");
        fs::write(&file, key.to_openssh(comment).expect("a file").as_bytes()).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
        self.ssh_add(arguments, Some(&file));
        fs::remove_file(file).expect("removed");
    }

    fn restart(&mut self) {
        self.stop();
        let _ = fs::remove_file(self.socket());
        self.process = spawn_agent(&self.socket());
        self.wait_until_it_answers();
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

/// In the foreground, so that it is our child.
fn spawn_agent(socket: &Path) -> Child {
    let mut command = Command::new("ssh-agent");
    let command = command.args(["-D", "-a"]).arg(socket).stdout(Stdio::null());
    command.spawn().expect("ssh-agent of openssh-client runs")
}

fn server(keys: impl IntoIterator<Item = PublicKey>) -> Authenticator {
    let users = MemoryRepository::new([User::new("guido").with_keys(keys)]);
    let nonces = MemoryNonceBackend::default();
    Authenticator::builder(Arc::new(users), Arc::new(nonces)).build().expect("an authenticator")
}

#[tokio::test]
async fn its_keys_sign_tokens_that_the_server_accepts() {
    let agent = Agent::start();
    assert!(agent.client().keys().expect("none").is_empty());
    let keys = [
        PrivateKey::generate_ed25519().expect("a key"),
        PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key"),
        PrivateKey::generate_rsa(RsaKeySize::Bits3072).expect("a key"),
    ];
    for (number, key) in keys.iter().enumerate() {
        agent.add(key, &format!("key {number}"), &[]);
    }
    let server = server(keys.iter().map(|key| key.public_key().clone()));
    let found = agent.client().keys().expect("three");
    assert_eq!(found.len(), keys.len());
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(found[number].public_key(), key.public_key());
        assert_eq!(found[number].comment(), format!("key {number}"));
        let key = agent.client().key(key.public_key()).expect("it is there");
        let algorithm = match key.public_key().key_type() {
            KeyType::Ed25519 => Algorithm::EdDsa,
            KeyType::Rsa { .. } => Algorithm::Rs512,
            other => panic!("a key of another type: {other}"),
        };
        let signer = RequestSigner::new("guido", key).expect("a signer");
        for value in [signer.authorization(), signer.authorization_async().await] {
            let value = value.expect("a token");
            let token = value.to_str().expect("ascii").strip_prefix("JWT ").expect("the scheme").to_owned();
            assert_eq!(UntrustedToken::parse(&token).expect("a token").algorithm(), algorithm);
            server.authenticate([value.as_bytes()]).await.expect("accepted");
        }
    }
}

#[test]
fn what_it_holds_beside_is_left_out() {
    let agent = Agent::start();
    let file = agent.folder.path().join("ecdsa");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ecdsa", "-N", "", "-f"]).arg(&file).status();
    assert!(made.expect("ssh-keygen runs").success());
    agent.ssh_add(&[], Some(&file));
    assert!(agent.client().keys().expect("an answer").is_empty());
    let missing = PrivateKey::generate_ed25519().expect("a key").public_key().clone();
    let error = agent.client().key(&missing).expect_err("not there");
    assert!(matches!(error, AgentError::UnknownKey { .. }), "{error:?}");
    assert!(error.to_string().contains(&missing.to_openssh("")), "{error}");
}

#[test]
fn an_agent_that_refuses_or_is_gone_is_an_error_until_it_is_back() {
    let mut agent = Agent::start();
    let key = PrivateKey::generate_ed25519().expect("a key");
    agent.add(&key, "", &[]);
    let held = agent.client().key(key.public_key()).expect("a key");
    let keys = KeyRing::new(held);
    let signer = RequestSigner::new("guido", keys.clone()).expect("a signer");
    signer.authorization().expect("a token");
    assert_eq!(keys.public_keys(), [key.public_key().clone()]);

    let refused = || match signer.authorization() {
        Err(SigningError::Agent(error)) => error,
        other => panic!("{other:?}"),
    };
    agent.ssh_add(&["-x"], None);
    assert!(matches!(refused(), AgentError::Refused { .. }), "locked");
    agent.ssh_add(&["-X"], None);
    signer.authorization().expect("unlocked");
    agent.ssh_add(&["-D"], None);
    assert!(matches!(refused(), AgentError::Refused { .. }), "without keys");
    agent.stop();
    let gone = refused();
    assert!(matches!(gone, AgentError::Unreachable { .. }), "{gone:?}");
    assert!(gone.to_string().contains("socket"), "{gone}");
    agent.restart();
    agent.add(&key, "", &[]);
    signer.authorization().expect("it is back");
}

/// What answers is not an agent, or a hostile one.
#[test]
fn nonsense_is_refused() {
    use std::io::{Read as _, Write as _};

    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let answers: [(&[u8], bool); 8] = [
        (b"", false),
        (b"HTTP/1.1 400 Bad Request\r\n", false),
        (b"\xff\xff\xff\xff\x0c", false),
        (b"\0\0\0\0", true),
        (b"\0\0\0\x01\x0e", true),
        (b"\0\0\0\x05\x0c\xff\xff\xff\xff", true),
        (b"\0\0\0\x09\x0c\0\0\0\x01\xff\xff\xff\xff", true),
        (b"\0\0\0\x0d\x0c\0\0\0\x01\0\0\0\0\0\0\0\x01", true),
    ];
    let serving = std::thread::spawn(move || {
        for (answer, _) in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 5];
            stream.read_exact(&mut request).expect("a request");
            assert_eq!(request, *b"\0\0\0\x01\x0b");
            stream.write_all(answer).expect("sent");
        }
    });
    for (answer, is_framed) in answers {
        let error = SshAgent::at(&socket).keys().expect_err("nonsense");
        assert_eq!(matches!(error, AgentError::Protocol { .. }), is_framed, "{answer:?}: {error:?}");
        assert_eq!(matches!(error, AgentError::Unreachable { .. }), !is_framed, "{answer:?}: {error:?}");
    }
    serving.join().expect("served");
}

/// OpenSSH's agent sends RSA signatures in full length; others leave leading zeros out, which one
/// signature in 256 has. This one is asked until it did.
#[test]
fn signatures_without_their_leading_zeros_are_completed() {
    use std::{
        io::{Read as _, Write as _},
        sync::atomic::{AtomicBool, Ordering},
    };

    use base64::{Engine as _, engine::general_purpose::STANDARD};

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
    }

    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let key = PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key");
    let public = key.public_key().clone();
    let line = public.to_openssh("");
    let blob = STANDARD.decode(line.split(' ').nth(1).expect("base64")).expect("base64");
    let was_short = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&was_short);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut len = [0; 4];
            stream.read_exact(&mut len).expect("a length");
            let mut request = vec![0; u32::from_be_bytes(len) as usize];
            stream.read_exact(&mut request).expect("a request");
            let answer = if request[0] == 11 {
                [&[12, 0, 0, 0, 1], string(&blob).as_slice(), &string(b"")].concat()
            } else {
                // The type, the key, the message, four bytes of flags.
                let message = &request[1 + 4 + blob.len() + 4..request.len() - 4];
                let signature = key.sign(Algorithm::Rs512, message).expect("a signature");
                let zeros = signature.iter().take_while(|byte| **byte == 0).count();
                noted.fetch_or(zeros > 0, Ordering::SeqCst);
                let signature = [string(b"rsa-sha2-512"), string(&signature[zeros..])].concat();
                [&[14], string(&signature).as_slice()].concat()
            };
            stream.write_all(&string(&answer)).expect("sent");
        }
    });
    let server = server([public.clone()]);
    let signer =
        RequestSigner::new("guido", SshAgent::at(&socket).key(&public).expect("a key")).expect("a signer");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    while !was_short.load(Ordering::SeqCst) {
        let value = signer.authorization().expect("a token");
        runtime.block_on(server.authenticate([value.as_bytes()])).expect("accepted");
    }
}
