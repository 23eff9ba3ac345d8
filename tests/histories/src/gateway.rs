//! Processes of `ajwt gateway`, with clocks of their own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal};

use crate::program;

/// How long one may take to start, while its store comes back.
const ATTEMPTS: usize = 240;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(250);

/// A process that is started, killed, paused and started again.
#[derive(Debug)]
pub struct Gateway {
    folder: PathBuf,
    name: String,
    words: String,
    running: Mutex<Option<Running>>,
    ahead: Mutex<i64>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    url: String,
}

impl Gateway {
    /// Starts one in this folder with these arguments.
    #[must_use]
    pub fn start(folder: &Path, number: usize, words: &str) -> Self {
        let (folder, name, words) = (folder.to_owned(), format!("gateway-{number}"), words.to_owned());
        let gateway = Self { folder, name, words, running: Mutex::default(), ahead: Mutex::default() };
        gateway.set_clock(0);
        gateway.start_again();
        gateway
    }

    /// Starts it, and waits until it listens. Where its store is not back yet, it tries again.
    pub fn start_again(&self) {
        for _ in 0..ATTEMPTS {
            if let Some(running) = self.attempt() {
                *lock(&self.running) = Some(running);
                return;
            }
            thread::sleep(BETWEEN_ATTEMPTS);
        }
        panic!("{} does not start: {}", self.name, self.log());
    }

    fn attempt(&self) -> Option<Running> {
        let log = fs::File::options().append(true).create(true).open(self.log_path()).expect("a log");
        // A file that grows too large is an error for it, not its end.
        let mut command = Command::new("env");
        command.arg("--ignore-signal=XFSZ").arg(format!("LD_PRELOAD={}", program::faketime().display()));
        command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.clock_path().display()));
        command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "RUST_BACKTRACE=0"]);
        command.arg(program::ajwt()).args(["gateway", "--listen", "127.0.0.1:0"]).args(self.words.split(' '));
        let command =
            command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("it runs");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let running = |url: &str| url.trim_end().to_owned();
        if let Some(url) = line.strip_prefix("listening on ").map(running) {
            return Some(Running { child, url });
        }
        ended(child);
        None
    }

    /// Where it listens, unless it is down.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        lock(&self.running).as_ref().map(|running| running.url.clone())
    }

    /// Its process, unless it is down.
    #[must_use]
    pub fn process(&self) -> Option<Pid> {
        lock(&self.running).as_ref().map(|running| Pid::from_child(&running.child))
    }

    /// As a crash does it.
    pub fn kill(&self) {
        if let Some(mut running) = lock(&self.running).take() {
            // One that has ended cannot be killed, which is as well.
            let _ = running.child.kill();
            ended(running.child);
        }
    }

    /// As a supervisor does it: running requests are finished.
    pub fn terminate(&self) {
        if let Some(running) = lock(&self.running).take() {
            program::signal(Pid::from_child(&running.child), Signal::TERM);
            ended(running.child);
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

    fn signal(&self, signal: Signal) {
        if let Some(process) = self.process() {
            program::signal(process, signal);
        }
    }

    /// Sets its time of day so many milliseconds ahead of this machine's, at once.
    pub fn set_clock(&self, ahead: i64) {
        let new = self.folder.join(format!("{}.new-clock", self.name));
        let sign = if ahead < 0 { '-' } else { '+' };
        fs::write(&new, format!("{sign}{}.{:03}\n", ahead.abs() / 1000, ahead.abs() % 1000))
            .expect("written");
        fs::rename(&new, self.clock_path()).expect("renamed");
        *lock(&self.ahead) = ahead;
    }

    /// How far its time of day is ahead of this machine's, in milliseconds.
    #[must_use]
    pub fn ahead(&self) -> i64 {
        *lock(&self.ahead)
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        let mut log = String::new();
        let read = fs::File::open(self.log_path()).and_then(|mut file| file.read_to_string(&mut log));
        read.map(|_| log).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn clock_path(&self) -> PathBuf {
        self.folder.join(format!("{}.clock", self.name))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for it, and removes what libfaketime leaves behind of a process that was killed.
fn ended(mut child: Child) {
    let process = child.id();
    let _ = child.wait();
    for name in [format!("faketime_shm_{process}"), format!("sem.faketime_sem_{process}")] {
        // It was no such process, or it has cleaned up.
        let _ = fs::remove_file(Path::new("/dev/shm").join(name));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
