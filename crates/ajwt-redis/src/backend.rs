mod builder;

use std::{fmt, slice, sync::Arc, time::Duration};

use ajwt_core::Timestamp;
use ajwt_server::{NonceBackend, NonceError, NonceOutcome, NonceUse, StartRule};
use async_trait::async_trait;
use redis::{Pipeline, Value};
use tokio::time::Instant;

pub use self::builder::RedisNonceBackendBuilder;
use crate::{
    RedisFault,
    claims::Terms,
    cluster::Cluster,
    mark::{self, Memory},
    server::Server,
};

/// Writes a mark, unless there is one that counts: of the process ARGV[2], or of any where that is not
/// known. It is dated by the server's clock or ARGV[1], whichever is later, when it is written: however
/// long the command was on its way, it never says that the memory is whole for longer than it is. Where
/// ARGV[1] is later by more than ARGV[3], it writes none and returns by how much: all would refuse tokens
/// until that date.
const BEGIN_MEMORY: &str = "
local found = redis.call('GET', KEYS[1])
if found and (ARGV[2] == '-' or string.sub(found, -#ARGV[2] - 1) == ' ' .. ARGV[2]) then return found end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ahead = tonumber(ARGV[1]) - now
if ahead > tonumber(ARGV[3]) then return ahead end
local mark = string.format('%.0f %s', now + math.max(ahead, 0), ARGV[2])
redis.call('SET', KEYS[1], mark)
return mark";

/// By how much a process's clock may be ahead of the Redis server's where it dates a mark, in milliseconds:
/// the margin that is usual for the difference between clocks.
const MOST_AHEAD: u32 = 60_000;

/// Used nonces in Redis: for the processes of many hosts.
///
/// A nonce is one `SET key 1 NX PX lifetime`, sent once and never repeated. What is not known for
/// sure (no answer within the timeout, a broken connection, any error) is an error; the backend
/// works again by itself once the server does. Nonces of requests that come at the same time are
/// sent together, a third of those under way and up to 256 in one round trip; each has its own answer.
///
/// # A server that forgot
///
/// Another command in each round trip, after the SETs, reads the *mark*: since when the memory
/// is whole, and which server process (`run_id`) has been keeping it. If the mark is missing or of
/// another process, a new one is written and the strict [`StartRule`] applies from then on: tokens
/// that may have been used before are answered with [`NonceError::MayHaveBeenUsed`], for the
/// tolerance and the server skew (25 s by default). This covers
///
/// - a server that is empty: new, restarted without a file, `FLUSHALL`, `FLUSHDB`;
/// - a server that was **restarted** from a snapshot or an append-only file, whose last writes may
///   be missing, and a backup put back that way;
/// - a **failover** by Sentinel or in a cluster: the replica has the mark, but another `run_id`, and
///   may lack the last writes;
/// - each server of a cluster by itself, since each of its buckets has its own mark. The request that notices has all
///   buckets of that server marked, so that the outage is one, and not another one for each bucket.
///
/// A process whose clock is more than 60 s ahead of the Redis server's writes no mark, which would have all
/// tokens refused until that date: it answers [`RedisFault::ClockAhead`] until another process has written one.
///
/// So each restart and each failover costs that outage. Who has `appendfsync always`, or waits for
/// replicas, may vouch for it with
/// [`trust_persistence`](RedisNonceBackendBuilder::trust_persistence); then only an emptied server
/// is noticed.
///
#[doc = concat!(
    "What is not noticed, as two primaries at once, is [listed](",
    env!("CARGO_PKG_REPOSITORY"),
    "/blob/main/docs/security.md#replay-store-and-fault)."
)]
///
/// ```no_run
/// # async fn example(users: std::sync::Arc<ajwt_server::MemoryRepository>) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use ajwt_redis::RedisNonceBackend;
/// use ajwt_server::Authenticator;
///
/// let nonces = RedisNonceBackend::builder("orders:production").connect("redis://10.0.0.5").await?;
/// let authenticator = Authenticator::builder(users, Arc::new(nonces)).build()?;
/// # Ok(())
/// # }
/// ```
pub struct RedisNonceBackend {
    terms: Arc<Terms>,
    servers: Servers,
    timeout: Duration,
    start_rule: StartRule,
}

enum Servers {
    One(Arc<Server>),
    Cluster(Arc<Cluster>),
}

impl RedisNonceBackend {
    /// Begins with the prefix of all keys, which tells apart the applications and environments on
    /// one server: two with the same prefix share their nonces. 1 to 64 of the characters
    /// `A-Z a-z 0-9 . _ : -`.
    pub fn builder(prefix: &str) -> RedisNonceBackendBuilder {
        RedisNonceBackendBuilder::new(prefix)
    }

    /// Marks a server, or all of a cluster, as new: no token was ever used under this prefix, so
    /// none need be refused. Without it a new server refuses tokens for 25 s, as one that lost its
    /// data would. This is the operator's word; nothing checks it but that there is no mark yet. Give
    /// it once, when a service is set up, never at its start: each loss of data would go unnoticed.
    ///
    /// `true`: it is so marked now, by this call or an earlier one. `false`: it is not new, and nothing was
    /// changed. It is in use, or it was restarted or failed over since it was marked (and is not under
    /// [`trust_persistence`](RedisNonceBackendBuilder::trust_persistence)), or only some of a cluster's 256
    /// buckets have a mark. The others do not get one, since they may have lost it with their data: after a
    /// call that was cut off, the tokens of the buckets that it left out are refused for 25 s.
    ///
    /// If the first token comes while this runs, it is `false` too, and what was marked by then stays so.
    ///
    /// # Errors
    /// [`RedisFault`]: a server failed. Some buckets of a cluster may be marked by then.
    pub async fn initialise(&self) -> Result<bool, RedisFault> {
        let mut marks = Vec::new();
        for bucket in self.terms.keyspace.buckets() {
            marks.push(self.read_mark(bucket).await?);
        }
        if marks.iter().all(|mark| *mark == Memory::NEW) {
            return Ok(true);
        }
        if marks.iter().any(|mark| *mark != Memory::Missing) {
            return Ok(false);
        }
        for bucket in self.terms.keyspace.buckets() {
            if self.write_mark(bucket).await? != Memory::NEW {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a bucket's mark says.
    async fn read_mark(&self, bucket: u8) -> Result<Memory, RedisFault> {
        let key = self.terms.keyspace.since(bucket);
        let commands = |_: Option<&str>| {
            let mut commands = redis::pipe();
            commands.cmd("GET").arg(&key);
            commands
        };
        let read = |values: &[Value], run_id: Option<&str>| match values {
            [found] => mark::read(found, run_id, &key),
            _ => Err(RedisFault::UnexpectedReply { command: "GET" }),
        };
        self.ask(bucket, Instant::now(), commands, read).await
    }

    /// Marks a bucket as new, unless it has a mark. What its mark says then.
    async fn write_mark(&self, bucket: u8) -> Result<Memory, RedisFault> {
        let key = self.terms.keyspace.since(bucket);
        let commands = |run_id: Option<&str>| {
            let mut commands = redis::pipe();
            commands.cmd("SET").arg(&key).arg(mark::of_new_store(run_id)).arg("NX");
            commands.cmd("GET").arg(&key);
            commands
        };
        let read = |values: &[Value], run_id: Option<&str>| match values {
            [Value::Okay | Value::Nil, found] => mark::read(found, run_id, &key),
            [Value::ServerError(error), _] => Err(RedisFault::refused(error.code())),
            _ => Err(RedisFault::UnexpectedReply { command: "SET" }),
        };
        self.ask(bucket, Instant::now(), commands, read).await
    }

    /// Writes a new mark, unless somebody just did, for a request that began then, by its clock. Since when the memory
    /// is whole.
    async fn begin_memory(
        &self,
        bucket: u8,
        now: Timestamp,
        began: Instant,
    ) -> Result<Timestamp, RedisFault> {
        let server = self.server(bucket)?;
        let key = self.terms.keyspace.since(bucket);
        // It is that late by now: tokens that are dated since then may have been used.
        let by_now = || now.saturating_add(began.elapsed());
        let commands = |run_id: Option<&str>| begin(slice::from_ref(&key), by_now(), run_id);
        let read = |values: &[Value], run_id: Option<&str>| match values {
            [Value::Int(ahead @ 1..)] => {
                Err(RedisFault::ClockAhead { ahead: Duration::from_millis(ahead.unsigned_abs()) })
            }
            [found] => mark::read(found, run_id, &key),
            _ => Err(RedisFault::UnexpectedReply { command: "EVAL" }),
        };
        let memory = server.ask(began + self.timeout, began, commands, read).await?;
        // Not before: whoever cannot write a mark says why in an error, for each request.
        if self.begin_others(bucket, &server, now, began) && server.is_to_be_told() {
            tracing::warn!(
                prefix = self.terms.keyspace.prefix(),
                bucket,
                "the Redis server is new, was emptied, restarted or failed over; tokens from before are refused \
                 until they expire"
            );
        }
        match memory {
            Memory::Since(since) => Ok(since),
            // Deleted again meanwhile: the next request writes it.
            Memory::Missing | Memory::OfAnotherProcess => Ok(by_now()),
        }
    }

    /// Begins to mark, in the background, the other buckets of a server that forgot. Else each would be noticed by its
    /// own next request, and refuse tokens from then on. `false` where that was done since the request began, so that
    /// nothing new was noticed.
    fn begin_others(&self, bucket: u8, server: &Arc<Server>, now: Timestamp, began: Instant) -> bool {
        let Servers::Cluster(cluster) = &self.servers else { return true };
        let deadline = Instant::now() + self.timeout;
        if !server.begin_marking(began, deadline) {
            return false;
        }
        let others = cluster.buckets_of(server).into_iter().filter(|other| *other != bucket);
        let keys = others.map(|other| self.terms.keyspace.since(other)).collect();
        tokio::spawn(begin_all(Arc::clone(server), keys, now, began, deadline));
        true
    }

    /// Asks the server of a bucket on behalf of a request that began then.
    async fn ask<T>(
        &self,
        bucket: u8,
        began: Instant,
        commands: impl FnOnce(Option<&str>) -> Pipeline,
        read: impl FnOnce(&[Value], Option<&str>) -> Result<T, RedisFault>,
    ) -> Result<T, RedisFault> {
        self.server(bucket)?.ask(began + self.timeout, began, commands, read).await
    }

    fn server(&self, bucket: u8) -> Result<Arc<Server>, RedisFault> {
        match &self.servers {
            Servers::One(server) => Ok(Arc::clone(server)),
            Servers::Cluster(cluster) => cluster.server(bucket),
        }
    }
}

#[async_trait]
impl NonceBackend for RedisNonceBackend {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        let bucket = self.terms.keyspace.bucket_of(nonce.key());
        let began = Instant::now();
        let claim = self.server(bucket)?.claim(nonce, bucket, began + self.timeout).await?;
        match claim.memory {
            Memory::Since(since) => self.start_rule.check(nonce, since)?,
            Memory::Missing | Memory::OfAnotherProcess => {
                // What the SET said is worth nothing: the entry that it did not find may be lost.
                let since = self.begin_memory(bucket, nonce.now(), began).await?;
                return Err(NonceError::MayHaveBeenUsed { since });
            }
        }
        if !claim.fresh {
            return Ok(NonceOutcome::Replayed);
        }
        match (self.terms.replicas, claim.acknowledged) {
            (Some(wanted), Some(acknowledged)) if acknowledged < i64::from(wanted) => {
                Err(RedisFault::NotReplicated { wanted, acknowledged }.into())
            }
            (Some(_), None) => Err(RedisFault::UnexpectedReply { command: "WAIT" }.into()),
            _ => Ok(NonceOutcome::Fresh),
        }
    }
}

impl fmt::Debug for RedisNonceBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisNonceBackend")
            .field("prefix", &self.terms.keyspace.prefix())
            .field("cluster", &matches!(self.servers, Servers::Cluster(_)))
            .field("timeout", &self.timeout)
            .field("start_rule", &self.start_rule)
            .field("replicas", &self.terms.replicas)
            .finish_non_exhaustive()
    }
}

/// Writes these marks, unless they count.
fn begin(keys: &[String], now: Timestamp, run_id: Option<&str>) -> Pipeline {
    let mut commands = redis::pipe();
    for key in keys {
        commands.cmd("EVAL").arg(BEGIN_MEMORY).arg(1).arg(key);
        commands.arg(now.as_millis()).arg(run_id.unwrap_or(mark::NOBODY)).arg(MOST_AHEAD);
    }
    commands
}

/// As if a request of each of these buckets came now, for one that began then, by its clock. Where it fails, as for a
/// slot that is at another server by now, the bucket's next request finds out by itself.
async fn begin_all(
    server: Arc<Server>,
    keys: Vec<String>,
    now: Timestamp,
    began: Instant,
    deadline: Instant,
) {
    // A server may have no other bucket, and the driver takes no question without a command.
    if !keys.is_empty() {
        let now = now.saturating_add(began.elapsed());
        let commands = |run_id: Option<&str>| begin(&keys, now, run_id);
        let read = |_: &[Value], _: Option<&str>| Ok(());
        let _ = server.ask(deadline, Instant::now(), commands, read).await;
    }
    server.end_marking(deadline);
}
