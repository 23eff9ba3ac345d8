//! A Redis server.

pub mod tls;

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::{FromRedisValue, RedisResult};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::port::free_port;

/// A Redis server of a test's own, killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    folder: TempDir,
    arguments: Vec<String>,
    port: u16,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one with these arguments besides its usual ones, which keep nothing on the disk.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        for _ in 0..20 {
            if let Some(server) = Self::start_at(free_port(), arguments) {
                return server;
            }
        }
        panic!("no free port for redis-server in 20 attempts");
    }

    /// `None` if the port is taken by now.
    fn start_at(port: u16, arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { folder, arguments, port, child: None };
        server.run().then_some(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// As clients are told of it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, again on the same port and folder.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "redis-server does not start again on port {}: {}", self.port, self.log());
    }

    /// As a crash: nothing is written.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    /// It keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The answer to a command whose words have no spaces in them.
    pub fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// As `ask`.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub fn try_ask<T: FromRedisValue>(&self, command: &str) -> RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(10))?;
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut connection)
    }

    /// A field of INFO.
    #[must_use]
    pub fn info(&self, section: &str, field: &str) -> String {
        let info: String = self.ask(&format!("INFO {section}"));
        let value = info.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == field);
        value.unwrap_or_else(|| panic!("INFO {section} has no {field}")).1.to_owned()
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("signalled");
    }

    fn run(&mut self) -> bool {
        let log = File::options().append(true).create(true).open(self.log_path()).expect("a log");
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        if self.arguments.first().is_some_and(|argument| argument == "--sentinel") {
            command.arg(self.folder().join("sentinel.conf"));
            std::fs::write(self.folder().join("sentinel.conf"), "").expect("written");
        }
        command
            .args(["--port", &port, "--bind", "127.0.0.1", "--daemonize", "no", "--dir"])
            .arg(self.folder());
        if !self.arguments.iter().any(|argument| argument == "--sentinel") {
            command.args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
        }
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("redis-server does not start ({error}): apt-get install redis-server redis-tools")
        });
        self.child = Some(child);
        for _ in 0..600 {
            match self.try_ask::<redis::Value>("PING") {
                Ok(_) => return true,
                Err(error) if error.code() == Some("NOAUTH") => return true,
                Err(_) => {}
            }
            if self.child.as_mut().expect("it was started").try_wait().expect("its state").is_some() {
                self.child = None;
                let log = self.log();
                assert!(log.contains("Address already in use"), "redis-server ended: {log}");
                return false;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("redis-server does not answer: {}", self.log());
    }

    fn log_path(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        let mut log = String::new();
        let read = File::open(self.log_path()).and_then(|mut file| file.read_to_string(&mut log));
        read.map(|_| log).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
