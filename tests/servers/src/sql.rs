//! PostgreSQL and MariaDB servers: the shared one of `scripts/test`, and ones of a test's own, to
//! be stopped and paused, and their disks filled up.

mod database;
mod process;
mod small_disk;

use std::{
    env, fs, io,
    net::TcpStream,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use ajwt_server::{Clock as _, SystemClock};
pub use database::Database;
use rustix::process::{Pid, Signal, geteuid};
use tempfile::TempDir;

use self::{
    process::{children_of, send, wait_until_stopped},
    small_disk::SmallDisk,
};
use crate::port::free_port;

/// What PostgreSQL says while processes of one that was killed have not noticed it yet.
const STILL_USED: &str = "pre-existing shared memory block";

/// The URL of the server that `scripts/test` started, without a database.
#[must_use]
pub fn shared(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run ./scripts/test, which starts the server that this test needs")
    })
}

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    MySql,
}

/// A server of the test's own on a free port, in a folder of its own. It ends with the test.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    child: Option<Child>,
    folder: TempDir,
    disk: Option<SmallDisk>,
    port: u16,
    user: Option<(u32, u32)>,
    arguments: Vec<String>,
}

impl Server {
    /// Starts one with these arguments besides its usual ones.
    #[must_use]
    pub fn start(kind: Kind, arguments: &[&str]) -> Self {
        Self::start_on(kind, arguments, false)
    }

    /// As `start`, its data on a disk of its own that [`fill`](Self::fill) fills. Only root can.
    #[must_use]
    pub fn start_on_small_disk(kind: Kind, arguments: &[&str]) -> Self {
        Self::start_on(kind, arguments, true)
    }

    fn start_on(kind: Kind, arguments: &[&str], small_disk: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Neither server runs as root.
        let user = geteuid().is_root().then(|| ids_of(kind));
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).expect("given away");
        }
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let disk = small_disk.then(|| SmallDisk::mount(&folder.path().join("disk"), user));
        let mut server = Self { kind, child: None, folder, disk, port: 0, user, arguments };
        server.initialise();
        // Not before, which takes seconds in which others look for ports, too.
        for _ in 0..20 {
            server.port = free_port();
            if server.run() {
                return server;
            }
        }
        panic!("no free port for {kind:?} in 20 attempts");
    }

    /// Its URL, with this database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_at(self.port, database)
    }

    /// As `url`, by way of another port.
    #[must_use]
    pub fn url_at(&self, port: u16, database: &str) -> String {
        match self.kind {
            Kind::Postgres => format!("postgres://postgres@127.0.0.1:{port}/{database}"),
            Kind::MySql => format!("mysql://root@127.0.0.1:{port}/{database}"),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn data(&self) -> PathBuf {
        self.disk.as_ref().map_or(self.folder.path(), |disk| &disk.path).join("data")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = match (&self.disk, self.user) {
            (Some(disk), user) => {
                let (user, group) = user.unwrap_or_default();
                let mut command = disk.command();
                command.args([format!("--setuid={user}"), format!("--setgid={group}")]).arg(program);
                command
            }
            (None, user) => {
                let mut command = Command::new(program);
                if let Some((user, group)) = user {
                    command.uid(user).gid(group);
                }
                command
            }
        };
        // Not /tmp: MariaDB removes temporary tables there when it starts, those of other servers too.
        command.env("TMPDIR", self.folder.path());
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn initialise(&self) {
        let mut command = match self.kind {
            Kind::Postgres => {
                let mut command = self.command(&program("initdb", "postgresql"));
                command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]);
                command.arg("--locale=C").arg("-D").arg(self.data());
                command
            }
            Kind::MySql => {
                let mut command = self.command(&program("mariadb-install-db", "mariadb-server"));
                command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                command.arg(format!("--datadir={}", self.data().display()));
                command
            }
        };
        let output = command.output().expect("run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts it, on the same port and data as before, and waits until it listens.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        for _ in 0..600 {
            if self.run() {
                return;
            }
            if !self.log().contains(STILL_USED) {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{:?} does not start again on port {}: {}", self.kind, self.port, self.log());
    }

    /// Starts it, and waits until it listens. `false` if the port is taken by now, or the data still used.
    fn run(&mut self) -> bool {
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let mut command = match self.kind {
            Kind::Postgres => {
                let mut command = self.command(&program("postgres", "postgresql"));
                command.arg("-D").arg(self.data()).args([
                    "-c",
                    "fsync=off",
                    // Not in /dev/shm, where one that is killed leaves it behind.
                    "-c",
                    "dynamic_shared_memory_type=mmap",
                    "-c",
                    "listen_addresses=127.0.0.1",
                ]);
                command.args(["-c", &format!("port={}", self.port)]);
                command.args(["-c", &format!("unix_socket_directories={}", self.folder.path().display())]);
                command
            }
            Kind::MySql => {
                let mut command = self.command(&program("mariadbd", "mariadb-server"));
                let folder = self.folder.path().display();
                command.args([
                    "--no-defaults",
                    "--bind-address=127.0.0.1",
                    "--innodb-flush-log-at-trx-commit=2",
                ]);
                command.arg(format!("--datadir={}", self.data().display()));
                command.args([format!("--port={}", self.port), format!("--socket={folder}/socket")]);
                command.arg(format!("--pid-file={folder}/pid"));
                command
            }
        };
        let child = command.args(&self.arguments).stdout(log.try_clone().expect("a log")).stderr(log).spawn();
        self.child = Some(child.expect("started"));
        let clock = SystemClock::new();
        let start = clock.monotonic();
        while !self.answers() {
            if self.has_ended() {
                let log = self.log();
                let is_taken = ["Address already in use", STILL_USED].iter().any(|text| log.contains(text));
                assert!(is_taken, "{:?} ended: {log}", self.kind);
                return false;
            }
            let waited = clock.monotonic() - start;
            assert!(waited < Duration::from_secs(60), "{:?} does not start: {}", self.kind, self.log());
            thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// Whether it takes connections, as its log says.
    fn answers(&self) -> bool {
        let ready = match self.kind {
            Kind::Postgres => "database system is ready to accept connections",
            Kind::MySql => "ready for connections",
        };
        self.log().contains(ready) && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// What it wrote since it was started.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Stops it in an orderly way that waits for no client.
    pub fn stop(&mut self) {
        // A fast shutdown of PostgreSQL is SIGINT; MariaDB ends its clients on SIGTERM.
        self.signal(if self.kind == Kind::Postgres { Signal::INT } else { Signal::TERM }, false);
        self.wait();
    }

    /// As a crash does it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL, true);
        self.wait();
    }

    /// It keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP, true);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT, true);
    }

    /// Leaves no byte free on its disk.
    pub fn fill(&self) {
        self.disk.as_ref().expect("a small disk").fill();
    }

    /// Makes room again, and starts the server if it gave up.
    pub fn make_room(&mut self) {
        self.disk.as_ref().expect("a small disk").make_room();
        if self.has_ended() {
            self.start_again();
        }
    }

    /// Ends PostgreSQL as fast as a crash does, and without what a crash leaves behind: shared memory, which outlives
    /// its processes.
    fn quit(&mut self) {
        // One that is paused does not hear it.
        self.resume();
        self.signal(Signal::QUIT, false);
        // It gives its own processes five seconds.
        for _ in 0..1000 {
            if self.has_ended() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn has_ended(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && child.try_wait().expect("waited for").is_some()
        {
            self.child = None;
        }
        self.child.is_none()
    }

    fn wait(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().expect("waited for");
        }
    }

    /// Sends a signal to the server; PostgreSQL has a process for each connection besides.
    fn signal(&self, signal: Signal, with_children: bool) {
        let Some(child) = &self.child else { return };
        let server = Pid::from_child(child);
        if with_children {
            // First, or it makes another meanwhile, which would go on; so may one that it is making just now.
            send(Signal::STOP, server);
            wait_until_stopped(server);
            children_of(server).into_iter().for_each(|process| send(signal, process));
        }
        send(signal, server);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.kind == Kind::Postgres {
            self.quit();
        }
        self.kill();
    }
}

/// The user that the package made for its server.
fn ids_of(kind: Kind) -> (u32, u32) {
    let user = if kind == Kind::Postgres { "postgres" } else { "mysql" };
    (number(Command::new("id").args(["-u", user])), number(Command::new("id").args(["-g", user])))
}

fn number(command: &mut Command) -> u32 {
    let output = command.output().expect("run");
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a number: is the server's package installed?")
}

/// A program of a server, on the path or where Debian or Fedora keeps it.
fn program(name: &str, package: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(["/usr/sbin", "/usr/libexec"].map(PathBuf::from));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(io::Result::ok);
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    // Of PostgreSQL all programs from one version: the newest. What is on the path may be a wrapper.
    folders.splice(0..0, versions.into_iter().rev());
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("there is no {name}: run ./scripts/test, or apt-get install {package}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// By which another one is tried.
    #[test]
    fn a_port_that_is_taken_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        for kind in [Kind::Postgres, Kind::MySql] {
            let mut server = Server::start(kind, &[]);
            server.stop();
            let free = server.port;
            server.port = taken.local_addr().expect("an address").port();
            assert!(!server.run(), "{kind:?} listens on a port of ours");
            server.port = free;
            server.start_again();
        }
    }

    #[test]
    fn a_postgresql_that_is_dropped_leaves_no_shared_memory() {
        // Key, number, mode, size, maker and more.
        let memory = || {
            let table = fs::read_to_string("/proc/sysvipc/shm").expect("the table");
            let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            table.lines().map(columns).collect::<Vec<_>>()
        };
        for is_paused in [false, true] {
            let before = memory();
            let server = Server::start(Kind::Postgres, &[]);
            let maker = server.child.as_ref().expect("it runs").id().to_string();
            // What an earlier process of this number has left is not its own.
            let is_its_own =
                |row: &Vec<String>| row[4] == maker && !before.iter().any(|other| other[1] == row[1]);
            assert!(memory().iter().any(is_its_own), "it shares none");
            if is_paused {
                server.pause();
            }
            drop(server);
            assert!(!memory().iter().any(is_its_own), "paused: {is_paused}");
        }
    }
}
