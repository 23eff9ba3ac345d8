//! Databases of the servers that all tests share.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use ajwt_server::{Clock as _, SystemClock};

use super::{Kind, program, shared};

/// In seconds; the machine may be busy.
const TIME_TO_COME: u32 = 120;

/// In seconds: no test hangs at what another connection does not let go of.
const TIME_TO_GO: u32 = 10;

/// A database of a test's own on the server that `scripts/test` started, removed when dropped.
///
/// The server's own client makes and removes it: a drop may be within a runtime, where
/// none can be waited for.
#[derive(Debug)]
pub struct Database {
    kind: Kind,
    client: PathBuf,
    server: String,
    name: String,
}

impl Database {
    /// A new one without tables, on the server whose URL this variable has.
    #[must_use]
    pub fn create(variable: &str) -> Self {
        Self::create_with(variable, "")
    }

    /// As `create`, with these options of `CREATE DATABASE`.
    #[must_use]
    pub fn create_with(variable: &str, options: &str) -> Self {
        let server = shared(variable);
        let (kind, client) = if server.starts_with("mysql:") {
            (Kind::MySql, program("mariadb", "mariadb-client"))
        } else {
            (Kind::Postgres, program("psql", "postgresql-client"))
        };
        let database = Self { kind, client, server, name: new_name() };
        let create = format!("CREATE DATABASE {} {options}", database.name);
        let output = database.run(database.maintenance(), &create, TIME_TO_COME).output().expect("run");
        assert!(output.status.success(), "{create}: {}", String::from_utf8_lossy(&output.stderr));
        database
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    fn maintenance(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "postgres",
            Kind::MySql => "mysql",
        }
    }

    /// The client, which runs these statements in this database and has so many seconds for it.
    fn run(&self, database: &str, sql: &str, seconds: u32) -> Command {
        let mut command = Command::new("timeout");
        command.arg("--kill-after=1").arg(seconds.to_string()).arg(&self.client);
        match self.kind {
            Kind::Postgres => {
                command.args(["--no-psqlrc", "--quiet", "--command", sql]);
                command.arg(format!("{}/{database}", self.server));
            }
            Kind::MySql => {
                let address = self.server.trim_start_matches("mysql://");
                let (user, address) = address.split_once('@').unwrap_or(("root", address));
                let (host, port) = address.split_once(':').unwrap_or((address, "3306"));
                // The first of them has to be: no file of whoever runs the tests is read.
                command.args([
                    "--no-defaults",
                    "--skip-ssl",
                    "--protocol=TCP",
                    "--host",
                    host,
                    "--port",
                    port,
                ]);
                command.args(["--user", user, "--execute", sql, database]);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = match self.kind {
            // What a test has spawned is still connected.
            Kind::Postgres => format!("DROP DATABASE {} WITH (FORCE)", self.name),
            // Connections do not keep it; their transactions do.
            Kind::MySql => format!("SET SESSION lock_wait_timeout = 5; DROP DATABASE {}", self.name),
        };
        // One that stays goes with its server.
        let _ = self.run(self.maintenance(), &drop, TIME_TO_GO).stderr(Stdio::null()).status();
    }
}

/// A name that no other database of a server has.
fn new_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (millis, number) = (SystemClock::new().now().as_millis(), NUMBER.fetch_add(1, Ordering::Relaxed));
    format!("ajwt_test_{millis}_{}_{number}", std::process::id())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};

    use super::*;

    #[test]
    fn it_is_there_until_it_is_dropped() {
        for variable in ["AJWT_TEST_POSTGRES", "AJWT_TEST_MYSQL"] {
            let (database, other) = (Database::create(variable), Database::create(variable));
            let name = database.name.clone();
            let is_there =
                || other.run(&name, "SELECT 1", TIME_TO_COME).output().expect("run").status.success();
            assert!(is_there(), "{variable}");
            drop(database);
            assert!(!is_there(), "{variable}");
        }
    }

    #[test]
    fn a_connection_does_not_keep_it() {
        let (database, other) =
            (Database::create("AJWT_TEST_POSTGRES"), Database::create("AJWT_TEST_POSTGRES"));
        let mut connected = Command::new(&database.client);
        connected.args(["--no-psqlrc", &database.url()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut connected = connected.stderr(Stdio::null()).spawn().expect("started");
        let mut input = connected.stdin.take().expect("its input");
        input.write_all(b"SELECT 1;\n").expect("written");
        let mut line = String::new();
        BufReader::new(connected.stdout.take().expect("its output")).read_line(&mut line).expect("read");
        assert!(!line.is_empty(), "not connected");

        let name = database.name.clone();
        drop(database);
        let looked = other.run(&name, "SELECT 1", TIME_TO_COME).output().expect("run");
        assert!(!looked.status.success());
        drop(input);
        connected.wait().expect("ended");
    }
}
