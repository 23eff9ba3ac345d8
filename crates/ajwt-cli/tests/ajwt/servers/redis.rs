//! Used nonces in Redis: one server, Sentinel, a cluster.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{Folder, Gateway, eventually};

/// A server of a test's own, killed when dropped.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    fn start(folder: &Folder, arguments: &[&str]) -> Self {
        for _ in 0..20 {
            let port = free_port();
            let mut command = Command::new("redis-server");
            command.args(arguments).args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]);
            command.arg(folder.path(".")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().unwrap_or_else(|error| {
                panic!("redis-server does not start ({error}): apt-get install redis-server redis-tools")
            });
            let mut redis = Self { child, port };
            if redis.is_up() {
                return redis;
            }
        }
        panic!("no redis-server comes up");
    }

    /// A server of this kind that keeps nothing on the disk.
    fn in_memory(folder: &Folder, arguments: &[&str]) -> Self {
        Self::start(folder, &[&["--save", "", "--appendonly", "no"], arguments].concat())
    }

    /// Until it answers; or it has ended, since the port was taken.
    fn is_up(&mut self) -> bool {
        for _ in 0..600 {
            if self.ask("PING").contains("PONG") {
                return true;
            }
            if self.child.try_wait().expect("its state").is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("redis-server does not answer");
    }

    fn ask(&self, command: &str) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(command.split(' ')).output();
        String::from_utf8_lossy(&output.expect("redis-cli runs").stdout).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Below the ports that the system gives out; the bus of a cluster has the one 10000 above.
fn free_port() -> u16 {
    let begin = u16::try_from(std::process::id() % 1000).expect("small") * 19;
    let is_free = |port: &u16| {
        [*port, port + 10_000].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
    };
    let mut ports = (0..11_000).map(|next| 11_000 + (begin + next) % 11_000);
    ports.find(is_free).expect("a free port")
}

/// Marks the store as new, and sees a token accepted once by two gateways.
async fn a_token_works_once(folder: &Folder, nonce: &str) -> (Gateway, Gateway) {
    folder.good(&format!("nonce init {nonce}"));
    let words = format!("--database-url sqlite://ajwt.db {nonce}");
    let gateways = (Gateway::start(folder, &words), Gateway::start(folder, &words));
    let token = folder.authorization();
    assert_eq!(gateways.0.status(&token).await, 200, "at once, since the store is new: {}", gateways.0.log());
    assert_eq!(gateways.1.status(&token).await, 401);
    assert_eq!(gateways.0.text("/readyz").await, "ready\n");
    gateways
}

#[tokio::test]
async fn one_server() {
    let folder = Folder::with_database();
    let redis = Redis::in_memory(&folder, &[]);
    let nonce = format!("--nonce redis://127.0.0.1:{} --redis-prefix test", redis.port);
    let (gateway, _other) = a_token_works_once(&folder, &nonce).await;
    assert!(redis.ask("EXISTS test/since").contains('1'), "under its prefix");
    folder.good(&format!("nonce init {nonce}"));

    drop(redis);
    assert_eq!(gateway.status(&folder.authorization()).await, 503);
    eventually("word of it", async || {
        gateway.text("/readyz").await.contains("the nonce store does not answer")
    })
    .await;
    assert!(gateway.text("/metrics").await.contains("ajwt_nonce_store_up 0"));
    let told = folder.bad(&format!("nonce init {nonce}"));
    assert!(told.starts_with("cannot connect to the Redis server 127.0.0.1:"), "{told}");
}

/// A store that was not marked as new, and has been used: nobody may say that it is.
#[tokio::test]
async fn a_store_in_use_is_not_new() {
    let folder = Folder::with_database();
    let redis = Redis::in_memory(&folder, &[]);
    let nonce = format!("--nonce redis://127.0.0.1:{}", redis.port);
    let gateway = Gateway::start(&folder, &format!("--database-url sqlite://ajwt.db {nonce}"));
    assert_eq!(gateway.status(&folder.authorization()).await, 503);
    assert_eq!(
        folder.bad(&format!("nonce init {nonce}")),
        "the store is not new (in use, restarted, or marked in part), and no mark that was there was changed"
    );
}

#[tokio::test]
async fn a_cluster() {
    let folder = Folder::with_database();
    let redis = Redis::in_memory(&folder, &["--cluster-enabled", "yes"]);
    assert!(redis.ask("CLUSTER ADDSLOTSRANGE 0 16383").contains("OK"));
    for _ in 0..600 {
        if redis.ask("CLUSTER INFO").contains("cluster_state:ok") {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let told = folder.bad(&format!("nonce init --nonce {url}"));
    assert!(told.contains("runs in mode cluster, not standalone"), "{told}");
    a_token_works_once(&folder, &format!("--nonce {url},{url} --redis-cluster")).await;
}

#[tokio::test]
async fn a_primary_that_sentinels_name() {
    let folder = Folder::with_database();
    let redis = Redis::in_memory(&folder, &[]);
    folder.write("sentinel.conf", format!("sentinel monitor orders 127.0.0.1 {} 1\n", redis.port));
    let configuration = folder.path("sentinel.conf");
    let sentinel = Redis::start(&folder, &[configuration.to_str().expect("text"), "--sentinel"]);
    let nonce = format!(
        "--nonce redis://orders --redis-sentinel redis://127.0.0.1:1,redis://127.0.0.1:{}",
        sentinel.port
    );
    a_token_works_once(&folder, &nonce).await;
}
