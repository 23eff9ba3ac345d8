//! A Redis cluster.

use std::process::Command;

use ajwt_test_support::until_blocking;

use crate::redis::RedisServer;

/// What the servers of a cluster are started with.
pub const ARGUMENTS: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];

/// Servers of a cluster, killed when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// Primaries, and replicas where there are more than three.
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// Three primaries.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(3)
    }

    /// Three primaries, and a replica of each for each further three.
    #[must_use]
    pub fn start_with(count: usize) -> Self {
        let servers = (0..count).map(|_| RedisServer::start(&ARGUMENTS)).collect();
        Self::of(servers, |server| server.port().to_string(), &[])
    }

    /// Joins servers that run, at the ports told and with these options of `redis-cli`.
    #[must_use]
    pub fn of(servers: Vec<RedisServer>, port: impl Fn(&RedisServer) -> String, options: &[&str]) -> Self {
        let replicas = (servers.len() / 3 - 1).to_string();
        let addresses: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", port(server))).collect();
        let created = Command::new("redis-cli")
            .args(options)
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", &replicas, "--cluster-yes"])
            .output()
            .unwrap_or_else(|error| {
                panic!("redis-cli does not start ({error}): apt-get install redis-tools")
            });
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        let cluster = Self { servers };
        until_blocking("the cluster is up", || {
            let up = |server: &RedisServer| server.ask::<String>("CLUSTER INFO").contains("cluster_state:ok");
            cluster.servers.iter().all(up)
        });
        cluster
    }

    /// As clients are told of them.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::url).collect()
    }
}
