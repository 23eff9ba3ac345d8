use std::{num::NonZeroU64, path::PathBuf, sync::Arc, time::Duration};

use ajwt_redis::{ConnectError, RedisFault, RedisNonceBackend, RedisNonceBackendBuilder};
use ajwt_server::{MemoryNonceBackend, NonceBackend, StartRule};
use clap::{Args, Subcommand};

use crate::{
    database::{Database, DatabaseOptions},
    failure::Failure,
    input, output,
};

/// For one answer of Redis: no request waits for it, and a cluster that is marked in part stays so.
const MARKING_TIMEOUT: Duration = Duration::from_secs(5);

/// What the keys in Redis begin with where nothing else is said.
const REDIS_PREFIX: &str = "ajwt";

/// Sets up where used nonces are kept.
#[derive(Args)]
pub(crate) struct Nonce {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Marks a store as new: your word that no token was ever used with it. Once, when a service is set
    /// up: without it the first tokens are answered with 503 for 25 s
    Init {
        #[command(flatten)]
        store: NonceOptions,
        #[command(flatten)]
        database: DatabaseOptions,
    },
}

/// Where used nonces are kept.
#[derive(Args, Clone)]
pub(crate) struct NonceOptions {
    /// Where used nonces are kept: memory (of one process), sql (the database), or a Redis server,
    /// redis://USER:PASSWORD@HOST:PORT or redis://HOST, rediss:// with TLS
    #[arg(long, env = "AJWT_NONCE", value_name = "STORE")]
    nonce: Option<String>,
    /// How many used nonces there is room for in memory, at about 20 bytes each: those of 140 s. A million
    /// by default
    #[arg(long, env = "AJWT_MEMORY_CAPACITY", value_name = "NUMBER")]
    memory_capacity: Option<NonZeroU64>,
    /// With memory, after a start: answers with 503, for the tolerance and --server-skew (5 s by default),
    /// what may have been used before it. No token works twice then, even of callers whose clocks are ahead
    #[arg(long, env = "AJWT_MEMORY_STRICT_START")]
    memory_strict_start: bool,
    /// What the keys in Redis begin with: each service and environment has its own. It is ajwt by default
    #[arg(long, env = "AJWT_REDIS_PREFIX", value_name = "PREFIX")]
    redis_prefix: Option<String>,
    /// The Sentinels, separated by commas; --nonce then has the primary's name in place of the host
    #[arg(long, env = "AJWT_REDIS_SENTINEL", value_name = "URLS", value_delimiter = ',')]
    redis_sentinel: Vec<String>,
    /// A cluster: --nonce lists some of its servers, separated by commas
    #[arg(long, env = "AJWT_REDIS_CLUSTER")]
    redis_cluster: bool,
    /// How many replicas must have a nonce before its token counts. None by default
    #[arg(long, env = "AJWT_REDIS_WAIT_FOR_REPLICAS", value_name = "NUMBER")]
    redis_wait_for_replicas: Option<u32>,
    /// Your word that Redis loses no write when it restarts or fails over: these then cost no outage
    #[arg(long, env = "AJWT_REDIS_TRUST_PERSISTENCE")]
    redis_trust_persistence: bool,
    /// Trusts the certificates of this PEM file for rediss://, in place of the system's. It is read at the start:
    /// restart after it was renewed, before the old ones end
    #[arg(long, env = "AJWT_REDIS_CA", value_name = "FILE")]
    redis_ca: Option<PathBuf>,
}

/// What `--nonce` names.
#[derive(Clone, Copy)]
pub(crate) enum Store<'a> {
    Memory,
    Sql,
    Redis(&'a str),
}

impl NonceOptions {
    pub(crate) fn store(&self) -> Result<Store<'_>, Failure> {
        let store = match self.nonce.as_deref() {
            None => {
                return Err(Failure::new(
                    "no nonce store: give --nonce or set AJWT_NONCE: memory, sql or redis://HOST",
                ));
            }
            Some("memory") => Store::Memory,
            Some("sql") => Store::Sql,
            Some(url) if url.starts_with("redis://") || url.starts_with("rediss://") => Store::Redis(url),
            // Not shown: it may hold a password.
            Some(_) => {
                return Err(Failure::new("--nonce is none of memory, sql, redis://HOST and rediss://HOST"));
            }
        };
        // Not by clap, to which a flag that its variable takes back is given.
        if self.redis_cluster && !self.redis_sentinel.is_empty() {
            return Err(Failure::new(
                "--redis-cluster and --redis-sentinel are for different servers: give one",
            ));
        }
        // Whoever gives options of another store believes that nonces are kept there.
        if !matches!(store, Store::Memory) && (self.memory_capacity.is_some() || self.memory_strict_start) {
            return Err(Failure::new("--memory-capacity and --memory-strict-start are for --nonce memory"));
        }
        let useless = self.of_redis();
        if matches!(store, Store::Redis(_)) || useless.is_empty() {
            return Ok(store);
        }
        let variable = |option: &&str| format!("AJWT_{}", option.to_uppercase().replace('-', "_"));
        let variables = useless.iter().map(variable).collect::<Vec<_>>().join(", ");
        Err(Failure::new(format!(
            "--nonce names no Redis server, which alone takes --{}: remove it from the command line, the variables \
             ({variables}) or the file of --config",
            useless.join(", --")
        )))
    }

    /// The options that are given and are for Redis only.
    fn of_redis(&self) -> Vec<&'static str> {
        let options = [
            ("redis-prefix", self.redis_prefix.is_some()),
            ("redis-sentinel", !self.redis_sentinel.is_empty()),
            ("redis-cluster", self.redis_cluster),
            ("redis-wait-for-replicas", self.redis_wait_for_replicas.is_some()),
            ("redis-trust-persistence", self.redis_trust_persistence),
            ("redis-ca", self.redis_ca.is_some()),
        ];
        options.into_iter().filter_map(|(name, is_given)| is_given.then_some(name)).collect()
    }

    fn redis(&self) -> RedisNonceBackendBuilder {
        RedisNonceBackend::builder(self.redis_prefix.as_deref().unwrap_or(REDIS_PREFIX))
    }

    /// Opens the store for a service. The clocks of servers that share it are no further apart than this, where it is
    /// said.
    pub(crate) async fn open(
        &self,
        database: Option<&Database>,
        server_skew: Option<Duration>,
    ) -> Result<Arc<dyn NonceBackend>, Failure> {
        let start_rule = match server_skew {
            Some(server_skew) => StartRule::Strict { server_skew },
            None => StartRule::default(),
        };
        match (self.store()?, database) {
            (Store::Memory, _) if server_skew.is_some() && !self.memory_strict_start => Err(Failure::new(
                "--server-skew has no effect with --nonce memory unless --memory-strict-start is given, too",
            )),
            (Store::Memory, _) => {
                tracing::warn!(
                    "--nonce memory serves one process only: a second one would accept each token once more"
                );
                Ok(Arc::new(self.memory(start_rule)))
            }
            (Store::Sql, Some(database)) => database.nonces(start_rule).await,
            (Store::Sql, None) => Err(Failure::new(
                "--nonce sql needs a database, and --keys has none: give --nonce memory or redis://HOST, or \
                 --database-url in place of --keys",
            )),
            (Store::Redis(url), _) => {
                let builder = match server_skew {
                    Some(server_skew) => self.redis().server_skew(server_skew),
                    None => self.redis(),
                };
                Ok(Arc::new(self.connect(url, builder).await?))
            }
        }
    }

    fn memory(&self, start_rule: StartRule) -> MemoryNonceBackend {
        let memory = match self.memory_capacity {
            Some(capacity) => MemoryNonceBackend::new(capacity.get()),
            None => MemoryNonceBackend::default(),
        };
        if self.memory_strict_start { memory.with_start_rule(start_rule) } else { memory }
    }

    async fn connect(
        &self,
        url: &str,
        mut builder: RedisNonceBackendBuilder,
    ) -> Result<RedisNonceBackend, Failure> {
        builder = builder.wait_for_replicas(self.redis_wait_for_replicas.unwrap_or_default());
        if self.redis_trust_persistence {
            builder = builder.trust_persistence();
        }
        if let Some(path) = self.redis_ca.clone() {
            let pem = input::aside(move || input::read(&path, input::MAX_CERTIFICATES_LEN)).await?;
            builder = builder.root_certificates_pem(pem.to_vec());
        }
        let connected = if self.redis_cluster {
            builder.connect_cluster(&url.split(',').collect::<Vec<_>>()).await
        } else if self.redis_sentinel.is_empty() {
            builder.connect(url).await
        } else {
            let sentinels: Vec<&str> = self.redis_sentinel.iter().map(String::as_str).collect();
            builder.connect_sentinel(&sentinels, url).await
        };
        connected.map_err(redis_failure)
    }
}

/// What to do about a server that is not as it must be, by options of this program in place of methods.
fn redis_failure(error: ConnectError) -> Failure {
    let ConnectError::Server(fault) = &error else { return error.into() };
    match fault {
        RedisFault::WrongMode { server, found, wanted } => {
            let advice = match (found.as_str(), *wanted) {
                ("cluster", _) => "give --redis-cluster",
                ("sentinel", _) => {
                    "name the Sentinels by --redis-sentinel, and by --nonce redis://NAME what they call the primary"
                }
                (_, "cluster") => "leave out --redis-cluster",
                _ => "give another --nonce",
            };
            Failure::new(format!("{server} runs in mode {found}, not {wanted}: {advice}"))
        }
        RedisFault::NoRunId { server } => Failure::new(format!(
            "the Redis server {server} does not tell its run_id: grant INFO (ACL: +info), or vouch for its persistence \
             and failover with --redis-trust-persistence"
        )),
        RedisFault::Evicts { server, policy, maxmemory } => Failure::new(format!(
            "the Redis server {server} may evict nonces (maxmemory {maxmemory}, maxmemory-policy {policy}), and used \
             tokens would work again: set maxmemory-policy noeviction, or give another --nonce"
        )),
        _ => error.into(),
    }
}

impl Nonce {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let Action::Init { store, database } = &self.action;
        let is_new = match store.store()? {
            Store::Memory => {
                return Err(Failure::new("memory needs no marking: its store is new at each start"));
            }
            Store::Sql => {
                let database = database.open().await?;
                let is_new = database.initialise_nonces().await?;
                database.close().await;
                is_new
            }
            Store::Redis(url) => {
                store.connect(url, store.redis().timeout(MARKING_TIMEOUT)).await?.initialise().await?
            }
        };
        if !is_new {
            return Err(Failure::new(
                "the store is not new (in use, restarted, or marked in part), and no mark that was there was changed",
            ));
        }
        output::note("the store is marked as new");
        Ok(())
    }
}
