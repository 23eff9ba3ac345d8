//! Claims through one connection, beside `redis-benchmark` sending the same SET.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use ajwt_redis::RedisNonceBackend;
use ajwt_server::{Clock as _, NonceBackend as _, NonceOutcome, SystemClock, testing::nonce_use};
use ajwt_test_servers::redis::RedisServer;
use tokio::task::JoinSet;

use crate::{measure::cpu_per_op, report::Report};

const ROUNDS: usize = 5;
const TASKS: [u64; 3] = [1, 16, 256];

pub(crate) fn run(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let server = RedisServer::start(&[]);
    let backend = runtime.block_on(connect(&server.url()));
    let memory = memory_of(&server, || runtime.block_on(claims(&backend, 256, 1 << 17, "memory")));
    report.alone("memory of a live nonce", "bytes", &[memory]);
    let count = 200_000;
    let before = cpu_of(&server);
    let ours = cpu_per_op(count, || runtime.block_on(claims(&backend, 256, count as u64, "cpu")));
    let servers = (cpu_of(&server) - before) * 1e9 / count as f64;
    report.alone("CPU of a claim, 256 tasks: ours", "ns", &[ours]);
    report.alone("CPU of a claim, 256 tasks: Redis", "ns", &[servers]);
    for tasks in TASKS {
        let count = if tasks == 1 { 20_000 } else { 200_000 };
        let (mut ours, mut one_set, mut set_and_get) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let label = format!("{tasks} {round}");
            ours.push(rate(count, || runtime.block_on(claims(&backend, tasks, count, &label))));
            one_set.push(benchmark(&server, tasks, count, 1));
            set_and_get.push(benchmark(&server, tasks, count, 2));
            server.ask::<()>("FLUSHALL");
            assert!(runtime.block_on(backend.initialise()).expect("new"));
        }
        let what = format!("claims, {tasks} tasks on one connection");
        report.beside(&what, "/s", &ours, &format!("redis-benchmark -c 1 -P {tasks}, SET NX PX"), &one_set);
        report.beside(&what, "/s", &ours, "the same, SET NX PX and GET", &set_and_get);
    }
}

async fn connect(url: &str) -> Arc<RedisNonceBackend> {
    let builder = RedisNonceBackend::builder("orders:production").timeout(Duration::from_secs(10));
    let backend = builder.connect(url).await.expect("connected");
    assert!(backend.initialise().await.expect("new"));
    Arc::new(backend)
}

async fn claims(backend: &Arc<RedisNonceBackend>, tasks: u64, count: u64, label: &str) {
    let mut running = JoinSet::new();
    let now = SystemClock::new().now();
    for task in 0..tasks {
        let (backend, label) = (Arc::clone(backend), label.to_owned());
        running.spawn(async move {
            let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
            for number in (task..count).step_by(usize::try_from(tasks).expect("few")) {
                let nonce = format!("{label} {number}");
                let nonce = nonce_use("guido", now.as_secs(), &nonce, now, tolerance, margin);
                let outcome = backend.consume(&nonce).await.expect("an answer");
                assert_eq!(outcome, NonceOutcome::Fresh);
            }
        });
    }
    running.join_all().await;
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
fn rate(count: u64, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Commands a second of `redis-benchmark` on one connection, as many in flight as we have tasks.
/// With `commands` 2 the command is SET and GET by turns, and the rate that of the pairs.
fn benchmark(server: &RedisServer, in_flight: u64, count: u64, commands: u64) -> f64 {
    // A key as long as ours: 18 characters of prefix and 16 bytes.
    let set = ["SET", "orders:production/____rand_int__", "1", "NX", "PX", "100001"];
    let get = ["GET", "orders:production/since"];
    let run = |arguments: &[&str]| {
        let output = Command::new("redis-benchmark")
            .args([
                "-p",
                &server.port().to_string(),
                "-c",
                "1",
                "-P",
                &in_flight.to_string(),
                "-n",
                &count.to_string(),
            ])
            .args(["-r", "1000000000", "--csv"])
            .args(arguments)
            .output()
            .unwrap_or_else(|error| {
                panic!("redis-benchmark does not start ({error}): apt-get install redis-tools")
            });
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate = text.lines().last().and_then(|line| line.rsplit("\",\"").nth(6).map(str::to_owned));
        rate.and_then(|rate| rate.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("redis-benchmark says {text:?}"))
    };
    let sets = run(&set);
    if commands == 1 {
        return sets;
    }
    1.0 / (1.0 / sets + 1.0 / run(&get))
}

fn memory_of(server: &RedisServer, fill: impl FnOnce()) -> f64 {
    let before = number(server, "memory", "used_memory");
    fill();
    (number(server, "memory", "used_memory") - before) / f64::from(1 << 17)
}

/// Seconds, user and system.
fn cpu_of(server: &RedisServer) -> f64 {
    number(server, "cpu", "used_cpu_user") + number(server, "cpu", "used_cpu_sys")
}

fn number(server: &RedisServer, section: &str, field: &str) -> f64 {
    server.info(section, field).trim().parse().expect("a number")
}
