//! Several processes that use one nonce store.

use std::{
    env,
    future::Future,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::nonce_backend::{Run, race};
use crate::{NonceBackend, NonceOutcome, sync::lock};

/// Set in the processes that a test starts: `<seed> <time>`.
const WORKER: &str = "AJWT_TESTING_WORKER";

/// What the lines begin with that are meant for the parent; the test harness writes some too.
const MARK: &str = "ajwt-worker:";

const PROCESSES: usize = 4;
const TASKS: usize = 4;
const ROUNDS: usize = 200;

/// After this long the processes are ended.
const DEADLINE: Duration = Duration::from_secs(120);

/// Whether this process is one that
/// [`nonce_backend_across_processes`] started: skip what the parent has set up.
#[must_use]
pub fn is_worker() -> bool {
    env::var_os(WORKER).is_some()
}

/// What a [`NonceBackend`] whose store is shared must do: of the uses by four processes of four
/// tasks each, exactly one is `Fresh`, over 200 rounds that all begin together.
///
/// Call it in a test of its own. It runs the test's program again, as `test` alone (its path as
/// the harness prints it) and with `vars` in the environment; there this same call makes `backend`
/// and is told by the parent when to use which nonce. In the parent `backend` is never polled.
///
/// ```no_run
/// # use std::{env, sync::Arc};
/// # use ajwt_server::{InsecureNoReplayProtection, NonceBackend, testing};
/// # async fn create_database() -> String { String::new() }
/// # async fn connect(_: String) -> Arc<dyn NonceBackend> { Arc::new(InsecureNoReplayProtection) }
/// // #[tokio::test(flavor = "multi_thread")]
/// async fn processes_share_the_nonces() {
///     let url = match env::var("TEST_URL") {
///         Ok(url) if testing::is_worker() => url,
///         _ => create_database().await,
///     };
///     testing::nonce_backend_across_processes(
///         "processes_share_the_nonces",
///         &[("TEST_URL", &url)],
///         connect(url.clone()),
///     )
///     .await;
/// }
/// ```
///
/// # Panics
/// With what went wrong: in which rounds how many were `Fresh`, or how a process ended.
pub async fn nonce_backend_across_processes(
    test: &str,
    vars: &[(&str, &str)],
    backend: impl Future<Output = Arc<dyn NonceBackend>>,
) {
    if let Ok(run) = env::var(WORKER) {
        return work(&run, backend.await).await;
    }
    let children = Arc::new(Children::default());
    let workers = children.start(test, vars).unwrap_or_else(|error| panic!("starting {test} again: {error}"));
    let tallying = tokio::task::spawn_blocking(move || tally(workers));
    let Ok(tallied) = tokio::time::timeout(DEADLINE, tallying).await else {
        panic!("{test}: the processes did not end within {DEADLINE:?}");
    };
    let wrong = tallied
        .map_err(|error| error.to_string())
        .and_then(|tallied| tallied.map_err(|error| error.to_string()))
        .unwrap_or_else(|error| panic!("{test}: a process that it started failed: {error}"));
    assert!(
        wrong.is_empty(),
        "{test}: {} of {ROUNDS} rounds over {PROCESSES} processes went wrong:\n  {}",
        wrong.len(),
        wrong.join("\n  ")
    );
}

/// A round for each line that comes in, its result on a line that goes out.
#[allow(clippy::print_stdout, reason = "standard output is the way to the parent")]
async fn work(run: &str, backend: Arc<dyn NonceBackend>) {
    let run = run.split_once(' ').and_then(|(seed, time)| Some((seed.parse().ok()?, time.parse().ok()?)));
    let (seed, time) = run.unwrap_or_else(|| panic!("{WORKER} is not of this version"));
    let run = Run::joined(seed, time);
    println!("{MARK} ready");
    for round in 0..ROUNDS {
        let told = tokio::task::spawn_blocking(|| io::stdin().lock().read_line(&mut String::new())).await;
        if !matches!(told, Ok(Ok(1..))) {
            panic!("the parent is gone");
        }
        let answers = race(&backend, &run, &format!("process race {round}"), TASKS).await;
        let fresh = answers.iter().filter(|answer| matches!(answer, Ok(NonceOutcome::Fresh))).count();
        match answers.iter().find_map(|answer| answer.as_ref().err()) {
            Some(error) => println!("{MARK} {fresh} {}", super::with_sources(error).replace('\n', " ")),
            None => println!("{MARK} {fresh}"),
        }
    }
    backend.close().await;
}

/// Ended, whatever happens, when dropped.
#[derive(Default)]
struct Children(Mutex<Vec<Child>>);

struct Worker {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Children {
    fn start(&self, test: &str, vars: &[(&str, &str)]) -> io::Result<Vec<Worker>> {
        let (seed, time) = Run::seed_and_time();
        let program = env::current_exe()?;
        let mut workers = Vec::new();
        for _ in 0..PROCESSES {
            let mut child = Command::new(&program)
                .args(["--exact", test, "--nocapture", "--test-threads=1"])
                .envs(vars.iter().copied())
                .env(WORKER, format!("{seed} {time}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let pipes = child.stdin.take().zip(child.stdout.take());
            lock(&self.0).push(child);
            let (stdin, stdout) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
            workers.push(Worker { stdin, stdout: BufReader::new(stdout) });
        }
        Ok(workers)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut *lock(&self.0) {
            // One that has ended cannot be killed, which is as well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Leads the rounds; returns those that went wrong.
fn tally(mut workers: Vec<Worker>) -> io::Result<Vec<String>> {
    for worker in &mut workers {
        worker.message()?;
    }
    let mut wrong = Vec::new();
    for round in 0..ROUNDS {
        for worker in &mut workers {
            worker.stdin.write_all(b"\n")?;
        }
        let results = workers.iter_mut().map(Worker::message).collect::<io::Result<Vec<_>>>()?;
        let mut fresh = 0;
        let mut errors = Vec::new();
        for result in &results {
            let (count, error) = result.split_once(' ').unwrap_or((result, ""));
            fresh += count.parse::<usize>().map_err(io::Error::other)?;
            errors.extend((!error.is_empty()).then_some(error));
        }
        if fresh != 1 || !errors.is_empty() {
            wrong.push(format!("round {round}: {fresh} uses were Fresh, not 1; errors: {errors:?}"));
        }
    }
    for Worker { stdin, mut stdout } in workers {
        drop(stdin);
        io::copy(&mut stdout, &mut io::sink())?;
    }
    Ok(wrong)
}

impl Worker {
    fn message(&mut self) -> io::Result<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended early; see its output"));
            }
            // The harness writes the test's name on the same line.
            if let Some((_, message)) = line.split_once(MARK) {
                return Ok(message.trim().to_owned());
            }
        }
    }
}
