use ajwt_test_servers::{redis::RedisServer, redis_cluster::RedisCluster};
use async_trait::async_trait;
use tokio::task::block_in_place;

use super::WIDE_CLOCKS;
use crate::{
    gateway::Gateway,
    store::{Store, StoreFault, Terms},
};

const KILLED: StoreFault = StoreFault::blackout("killed").forgets();
const PAUSED: StoreFault = StoreFault::blackout("paused");
const FULL: StoreFault = StoreFault::blackout("full");
const EMPTIED: StoreFault = StoreFault::passing("emptied").forgets();
const CUT_OFF: StoreFault = StoreFault::passing("connections cut off");

const ONE_KILLED: StoreFault = StoreFault::passing("one killed").forgets();
const ONE_PAUSED: StoreFault = StoreFault::passing("one paused");
const ONE_FULL: StoreFault = StoreFault::passing("one full");
const PRIMARY_KILLED: StoreFault = StoreFault::passing("primary killed").forgets();
const ONE_EMPTIED: StoreFault = StoreFault::passing("one emptied").forgets();

/// What a server waits for Redis, in milliseconds.
const PATIENCE: i64 = 240;

/// Where it forgets, servers may be up to 5 s ahead of Redis' own clock, by which its memory is dated.
const CLOSE_CLOCKS: (i64, i64) = (-1_000, 4_000);

/// One server.
#[derive(Debug)]
pub struct Redis {
    server: RedisServer,
    wide_clocks: bool,
}

impl Redis {
    /// Starts one, which keeps an append-only file, without its last writes after a crash, or nothing. With
    /// clocks far apart nothing is done to it by which it forgets.
    #[must_use]
    pub fn start(wide_clocks: bool, append_only: bool) -> Self {
        let arguments: &[&str] =
            if append_only { &["--appendonly", "yes", "--appendfsync", "everysec"] } else { &[] };
        Self { server: block_in_place(|| RedisServer::start(arguments)), wide_clocks }
    }
}

#[async_trait]
impl Store for Redis {
    fn terms(&self) -> Terms {
        Terms::shared(PATIENCE, clocks(self.wide_clocks))
    }

    fn words(&self) -> String {
        format!("--nonce {}", self.server.url())
    }

    fn faults(&self) -> Vec<StoreFault> {
        remembering(self.wide_clocks, vec![KILLED, PAUSED, FULL, EMPTIED, CUT_OFF])
    }

    async fn begin(&mut self, fault: StoreFault, _: &[Gateway]) {
        block_in_place(|| match fault {
            KILLED => self.server.kill(),
            PAUSED => self.server.pause(),
            FULL => self.server.ask("CONFIG SET maxmemory 1"),
            CUT_OFF => cut_off(&self.server),
            _ => self.server.ask("FLUSHALL"),
        });
    }

    async fn end(&mut self, fault: StoreFault, _: &[Gateway]) {
        block_in_place(|| match fault {
            KILLED => self.server.restart(),
            PAUSED => self.server.resume(),
            FULL => self.server.ask("CONFIG SET maxmemory 0"),
            _ => {}
        });
    }
}

/// Three primaries. What is done is done to one of them, the next one each time.
#[derive(Debug)]
pub struct Cluster {
    cluster: RedisCluster,
    wide_clocks: bool,
    turn: usize,
}

impl Cluster {
    /// Starts one. With clocks far apart nothing is done to it by which it forgets.
    #[must_use]
    pub fn start(wide_clocks: bool) -> Self {
        Self { cluster: block_in_place(RedisCluster::start), wide_clocks, turn: 0 }
    }
}

#[async_trait]
impl Store for Cluster {
    fn terms(&self) -> Terms {
        Terms { buckets: 256, ..Terms::shared(PATIENCE, clocks(self.wide_clocks)) }
    }

    fn words(&self) -> String {
        format!("--nonce {} --redis-cluster", self.cluster.urls().join(","))
    }

    fn faults(&self) -> Vec<StoreFault> {
        remembering(self.wide_clocks, vec![ONE_KILLED, ONE_PAUSED, ONE_FULL, ONE_EMPTIED, CUT_OFF])
    }

    async fn begin(&mut self, fault: StoreFault, _: &[Gateway]) {
        self.turn = (self.turn + 1) % self.cluster.servers.len();
        let server = &mut self.cluster.servers[self.turn];
        block_in_place(|| match fault {
            ONE_KILLED => server.kill(),
            ONE_PAUSED => server.pause(),
            ONE_FULL => server.ask("CONFIG SET maxmemory 1"),
            CUT_OFF => cut_off(server),
            _ => server.ask("FLUSHALL"),
        });
    }

    async fn end(&mut self, fault: StoreFault, _: &[Gateway]) {
        let server = &mut self.cluster.servers[self.turn];
        block_in_place(|| match fault {
            ONE_KILLED => server.restart(),
            ONE_PAUSED => server.resume(),
            ONE_FULL => server.ask("CONFIG SET maxmemory 0"),
            _ => {}
        });
    }
}

/// Three primaries with a replica each: one that is killed is away for long enough that its replica takes
/// over, without the last writes.
#[derive(Debug)]
pub struct FailingOver {
    cluster: RedisCluster,
    killed: usize,
}

impl FailingOver {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self { cluster: block_in_place(|| RedisCluster::start_with(6)), killed: 0 }
    }

    /// A primary, each time another.
    fn next_primary(&self) -> usize {
        let count = self.cluster.servers.len();
        let is_primary =
            |server: &usize| self.cluster.servers[*server].info("replication", "role") == "master";
        (1..=count).map(|step| (self.killed + step) % count).find(is_primary).expect("a primary")
    }
}

#[async_trait]
impl Store for FailingOver {
    fn terms(&self) -> Terms {
        Terms { buckets: 256, least: 5_000, ..Terms::shared(PATIENCE, CLOSE_CLOCKS) }
    }

    fn words(&self) -> String {
        format!("--nonce {} --redis-cluster", self.cluster.urls().join(","))
    }

    fn faults(&self) -> Vec<StoreFault> {
        vec![PRIMARY_KILLED, CUT_OFF]
    }

    async fn begin(&mut self, fault: StoreFault, _: &[Gateway]) {
        block_in_place(|| {
            self.killed = self.next_primary();
            let server = &mut self.cluster.servers[self.killed];
            if fault == PRIMARY_KILLED { server.kill() } else { cut_off(server) }
        });
    }

    async fn end(&mut self, fault: StoreFault, _: &[Gateway]) {
        if fault == PRIMARY_KILLED {
            block_in_place(|| self.cluster.servers[self.killed].restart());
        }
    }
}

const fn clocks(wide: bool) -> (i64, i64) {
    if wide { WIDE_CLOCKS } else { CLOSE_CLOCKS }
}

fn remembering(only: bool, faults: Vec<StoreFault>) -> Vec<StoreFault> {
    faults.into_iter().filter(|fault| !(only && fault.forgets)).collect()
}

fn cut_off(server: &RedisServer) {
    // How many there were.
    let _: i64 = server.ask("CLIENT KILL TYPE normal");
}
