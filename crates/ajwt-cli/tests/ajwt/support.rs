//! A folder to work in, the program, and the gateway.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use ajwt_core::{Claims, Nonce, PrivateKey, Timestamp, Token, Username};
use ajwt_server::{Clock as _, SystemClock};
use reqwest::{Client, Response, StatusCode};
use tempfile::TempDir;

pub(crate) const AJWT: &str = env!("CARGO_BIN_EXE_ajwt");

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A folder of a test's own, in which the program runs, with nothing of this environment.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// With a database that has the user `billing` and its key in `billing.key`.
    pub(crate) fn with_database() -> Self {
        let folder = Self::new();
        folder.good("migrate --database-url sqlite://ajwt.db");
        folder.with_billing("--database-url sqlite://ajwt.db")
    }

    /// Adds the user `billing`, and its key in `billing.key`, to this database.
    pub(crate) fn with_billing(self, database: &str) -> Self {
        self.good("keygen -o billing.key");
        self.good(&format!("user add billing {database}"));
        self.good(&format!("key add billing billing.key.pub {database}"));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("written");
    }

    /// Writes what nobody else may read.
    pub(crate) fn write_secret(&self, name: &str, text: impl AsRef<[u8]>) {
        self.write(name, text);
        self.set_mode(name, 0o600);
    }

    pub(crate) fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("its mode");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("read")
    }

    /// Names of all there is, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().expect("text")).collect();
        names.sort();
        names
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        command
    }

    /// Runs the program with arguments that have spaces in them.
    pub(crate) fn ajwt(&self, arguments: &[&str]) -> Ran {
        self.ajwt_with(arguments, "")
    }

    pub(crate) fn ajwt_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(AJWT);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        // A program that does not read it has closed it.
        let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("its output");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs words and expects success; what it printed.
    #[track_caller]
    pub(crate) fn good(&self, words: &str) -> String {
        let ran = self.ajwt(&words.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.code, Some(0), "ajwt {words}: {ran:?}");
        ran.out
    }

    /// Runs words and expects one line that says what is wrong, and nothing else.
    #[track_caller]
    pub(crate) fn bad(&self, words: &str) -> String {
        let ran = self.ajwt(&words.split(' ').collect::<Vec<_>>());
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "ajwt {words}: {ran:?}");
        let line = ran.err.strip_prefix("ajwt: ").and_then(|line| line.strip_suffix('\n'));
        let line = line.filter(|line| !line.contains('\n'));
        line.unwrap_or_else(|| panic!("ajwt {words}: not one line: {ran:?}")).to_owned()
    }

    /// The `Authorization` header of a fresh token of `billing`.
    pub(crate) fn authorization(&self) -> String {
        format!("JWT {}", self.good("token --username billing --key billing.key").trim_end())
    }
}

/// The same of a token that is dated so many seconds ahead.
pub(crate) fn authorization_ahead(folder: &Folder, seconds: i64) -> String {
    let key = PrivateKey::from_pem(folder.read("billing.key"), None).expect("a key");
    let date = Timestamp::from_secs(SystemClock::new().now().as_secs() + seconds);
    let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
    let claims = Claims::new(Username::new("billing").expect("a name"), date, nonce);
    format!("JWT {}", Token::sign(&claims, &key).expect("a token").as_str())
}

/// A gateway that runs until it is dropped.
pub(crate) struct Gateway {
    child: Child,
    url: String,
    log: PathBuf,
    client: Client,
}

impl Gateway {
    /// Starts `ajwt gateway` with these words, on a free port.
    pub(crate) fn start(folder: &Folder, words: &str) -> Self {
        Self::of(
            folder.command(AJWT).args(["gateway", "--listen", "127.0.0.1:0"]).args(words.split(' ')),
            folder,
        )
    }

    pub(crate) fn of(command: &mut Command, folder: &Folder) -> Self {
        let file = fs::File::create(folder.path("gateway.log")).expect("a log");
        Self::logging_to(command, folder, file)
    }

    /// As `of`, with its log in another file than the folder's.
    pub(crate) fn logging_to(command: &mut Command, folder: &Folder, file: fs::File) -> Self {
        let log = folder.path("gateway.log");
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("it runs");
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let client = client();
        let url = line.strip_prefix("listening on ").map(|url| url.trim_end().to_owned());
        let mut gateway = Self { child, url: String::new(), log, client };
        gateway.url = url.unwrap_or_else(|| panic!("it says {line:?}: {}", gateway.log()));
        gateway
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("a URL")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("its log")
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.expect("an answer")
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        self.get(path).await.text().await.expect("text")
    }

    /// Asks whether a request with this header is authenticated.
    pub(crate) async fn ask(&self, authorization: &str) -> Response {
        let request = self.client.get(format!("{}/auth", self.url)).header("authorization", authorization);
        request.send().await.expect("an answer")
    }

    pub(crate) async fn status(&self, authorization: &str) -> StatusCode {
        self.ask(authorization).await.status()
    }

    /// As a supervisor ends it.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends a signal, by its name as `kill` takes it.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill runs").success());
    }

    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("its end");
        let mut rest = String::new();
        let _ = self.child.stdout.take().expect("its output").read_to_string(&mut rest);
        (status, self.log())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn client() -> Client {
    Client::builder().no_proxy().tls_certs_only([]).build().expect("a client")
}

/// Tries until it succeeds: for what happens soon, by itself.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("after half a minute there is still no {what}");
}

/// A file of the project.
pub(crate) fn project_file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
