//! 8 processes of 64 tasks each use the same 100,000 nonces: each is accepted once.

use std::{
    env,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use ajwt_redis::{ConnectError, RedisFault, RedisNonceBackend};
use ajwt_server::{NonceBackend as _, NonceOutcome};
use ajwt_test_servers::{redis::RedisServer, redis_cluster::RedisCluster};
use tokio::task::JoinSet;

use crate::{builder, cluster::Backends as _, told};

const PROCESSES: usize = 8;
const TASKS: usize = 64;
const NONCES: usize = 100_000;

/// In the processes that a test starts: where to write what was accepted.
const WORKER: &str = "TEST_WORKER_FILE";
const URLS: &str = "TEST_URLS";
const DATE: &str = "TEST_DATE";

#[tokio::test(flavor = "multi_thread")]
async fn on_one_server() {
    if let Ok(file) = env::var(WORKER) {
        let url = env::var(URLS).expect("the parent sets it");
        return work(patiently(async || builder().connect(&url).await).await, file.into()).await;
    }
    let server = RedisServer::start(&[]);
    let backend = builder().connect(&server.url()).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    race("many_processes::on_one_server", &server.url());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster() {
    if let Ok(file) = env::var(WORKER) {
        let urls = env::var(URLS).expect("the parent sets it");
        let urls: Vec<_> = urls.split(' ').collect();
        return work(patiently(async || builder().connect_cluster(&urls).await).await, file.into()).await;
    }
    let cluster = RedisCluster::start();
    cluster.new_backend(builder()).await;
    race("many_processes::on_a_cluster", &cluster.urls().join(" "));
}

/// The others use both the server and the machine by then.
async fn patiently(connect: impl AsyncFn() -> Result<RedisNonceBackend, ConnectError>) -> RedisNonceBackend {
    for _ in 0..10 {
        match connect().await {
            Err(ConnectError::Server(RedisFault::ConnectTimeout { .. })) => {}
            connected => return connected.expect("connected"),
        }
    }
    panic!("not connected in ten attempts");
}

async fn work(backend: RedisNonceBackend, file: PathBuf) {
    let backend = Arc::new(backend);
    let date: i64 = env::var(DATE).expect("the parent sets it").parse().expect("a number");
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            let mut accepted = Vec::new();
            for number in (task..NONCES).step_by(TASKS) {
                match backend.consume(&nonce(number, date)).await {
                    Ok(NonceOutcome::Fresh) => accepted.push(number.to_string()),
                    Ok(NonceOutcome::Replayed) => {}
                    Err(error) => panic!("{number}: {}", told(&error)),
                }
            }
            accepted
        });
    }
    let accepted = tasks.join_all().await.concat().join("\n");
    std::fs::write(file, accepted).expect("written");
}

fn nonce(number: usize, date: i64) -> ajwt_server::NonceUse {
    let now = crate::use_now("").now();
    // Long enough that a slow machine does not see entries expire.
    let (tolerance, margin) = (std::time::Duration::from_secs(20), std::time::Duration::from_secs(600));
    ajwt_server::testing::nonce_use("guido", date, &format!("{number}"), now, tolerance, margin)
}

fn race(test: &str, urls: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let date = crate::use_now("").time().to_string();
    let file = |process: usize| folder.path().join(process.to_string());
    let mut children = Children(Vec::new());
    for process in 0..PROCESSES {
        let mut command = Command::new(env::current_exe().expect("the program"));
        command.args(["--exact", test, "--test-threads=1"]).env(WORKER, file(process)).env(URLS, urls);
        command.env(DATE, &date).stdout(Stdio::null());
        children.0.push(command.spawn().expect("started"));
    }
    for child in &mut children.0 {
        assert!(child.wait().expect("ended").success(), "a process failed; see above");
    }
    let mut accepted = vec![0_usize; NONCES];
    for process in 0..PROCESSES {
        let text = std::fs::read_to_string(file(process)).expect("what it accepted");
        for number in text.lines() {
            accepted[number.parse::<usize>().expect("a number")] += 1;
        }
    }
    let wrong = accepted.iter().enumerate().filter(|(_, count)| **count != 1).collect::<Vec<_>>();
    assert!(
        wrong.is_empty(),
        "{} of {NONCES} nonces: {:?}",
        wrong.len(),
        wrong.iter().take(10).collect::<Vec<_>>()
    );
}

/// Ended when dropped.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
