use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_server::{GoesOn, NonceUse};
use futures_util::future;
use redis::{Pipeline, Value};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    RedisFault,
    keyspace::Keyspace,
    mark::{self, Memory},
    server::{Server, Turn},
    sync::lock,
};

/// In one pipeline. Its answers come all together: with more of them the first would wait for the last.
const MOST: usize = 256;

/// In how many parts those under way go, so that the server has one while the next is made: with all in one each side
/// would wait for the other. Behind WAIT it is the connections that are few, and all go in one.
const PARTS: usize = 3;

/// Fewer are not worth the task that sends them.
const LEAST: usize = 2;

/// How long a batch is open to others. If it is not sent by then, its runtime may have stalled.
const OPEN: Duration = Duration::from_millis(10);

/// What is asked about each nonce.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) keyspace: Keyspace,
    /// How many replicas must have a nonce before it counts.
    pub(crate) replicas: Option<u32>,
}

/// The answer to a SET and a look at the mark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) fresh: bool,
    pub(crate) memory: Memory,
    pub(crate) acknowledged: Option<i64>,
}

/// The claims of nonces at one server. One that comes while others are under way is sent together with some of
/// those that come at the same time, in one pipeline with one look at the mark for all of them.
#[derive(Debug)]
pub(crate) struct Claims {
    terms: Arc<Terms>,
    under_way: Arc<AtomicUsize>,
    batch: Mutex<Option<Batch>>,
}

/// Claims that are not sent yet.
#[derive(Debug)]
struct Batch {
    /// The deadline of the first.
    deadline: Instant,
    /// Closed when they are sent, or their runtime ends.
    join: mpsc::Sender<(Nonce, Waiting)>,
    /// Dropped when no more can join.
    _open: oneshot::Sender<Infallible>,
}

#[derive(Debug)]
struct Nonce {
    key: Vec<u8>,
    bucket: u8,
    lifetime: u64,
    deadline: Instant,
}

/// Whoever waits for the answer to a claim, or has given it up.
#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Result<Claim, RedisFault>>,
    _under_way: UnderWay,
}

impl Claims {
    pub(crate) fn new(terms: Arc<Terms>) -> Self {
        Self { terms, under_way: Arc::default(), batch: Mutex::new(None) }
    }

    /// Claims a nonce of a bucket of this server's.
    pub(crate) async fn claim(
        &self,
        server: &Arc<Server>,
        nonce: &NonceUse,
        bucket: u8,
        deadline: Instant,
    ) -> Result<Claim, RedisFault> {
        // An entry counts through the last millisecond of its lifetime; Redis drops it when it begins.
        let lifetime = u64::try_from(nonce.lifetime().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let nonce = Nonce { key: self.terms.keyspace.nonce(nonce.key()), bucket, lifetime, deadline };
        let (alone, under_way) = UnderWay::begin(&self.under_way);
        if alone {
            let (server, terms) = (Arc::clone(server), Arc::clone(&self.terms));
            return GoesOn::new(claim_one(server, terms, nonce, under_way)).await;
        }
        let (answer, answered) = oneshot::channel();
        self.join((nonce, Waiting { answer, _under_way: under_way }), server);
        // Not by the batch's own deadline alone: the runtime that it is on may stall, or end.
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(gone)) => server.follow(Err(RedisFault::Lost { source: Arc::new(gone) })),
            Err(_) => server.follow(Err(RedisFault::TimedOut)),
        }
    }

    /// Into the batch that is not sent yet, else into one that it begins. A batch is sent by a task of its
    /// own: that one of its requests is given up must not cost the others their answers.
    fn join(&self, mut claim: (Nonce, Waiting), server: &Arc<Server>) {
        let deadline = claim.0.deadline;
        let mut batch = lock(&self.batch);
        // All requests have the same timeout, so comparing deadlines compares starts.
        if let Some(Batch { join, .. }) =
            batch.as_ref().filter(|batch| deadline.saturating_duration_since(batch.deadline) <= OPEN)
        {
            match join.try_send(claim) {
                Ok(()) if join.capacity() > 0 => return,
                Ok(()) => {
                    let full = batch.take();
                    drop(batch);
                    return drop(full);
                }
                Err(refused) => claim = refused.into_inner(),
            }
        }
        let parts = if self.terms.replicas.is_some() { 1 } else { PARTS };
        let part = self.under_way.load(Ordering::Relaxed) / parts;
        let (join, joined) = mpsc::channel(part.clamp(LEAST, MOST));
        // It has room for it.
        let _ = join.try_send(claim);
        let (open, full) = oneshot::channel();
        let old = batch.replace(Batch { deadline, join, _open: open });
        drop(batch);
        drop(old);
        tokio::spawn(send(Arc::clone(server), Arc::clone(&self.terms), deadline, joined, full));
    }
}

/// A claim that has begun and not ended, though its request may have been given up.
#[derive(Debug)]
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    /// Whether it is the only one, and what ends it.
    fn begin(count: &Arc<AtomicUsize>) -> (bool, Self) {
        (count.fetch_add(1, Ordering::Relaxed) == 0, Self(Arc::clone(count)))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Goes on though its request is given up, as those of a batch do: only its answer, or that there is none in time,
/// shows whether its connection still works, when another claim may have it, and whether its bucket is at another
/// server by now.
async fn claim_one(
    server: Arc<Server>,
    terms: Arc<Terms>,
    nonce: Nonce,
    _under_way: UnderWay,
) -> Result<Claim, RedisFault> {
    let turn = server.turn(nonce.deadline).await;
    let mut claims = claim_all(&server, turn, &terms, &[nonce]).await?;
    claims.pop().unwrap_or(Err(RedisFault::UnexpectedReply { command: "SET" }))
}

async fn send(
    server: Arc<Server>,
    terms: Arc<Terms>,
    deadline: Instant,
    mut joined: mpsc::Receiver<(Nonce, Waiting)>,
    full: oneshot::Receiver<Infallible>,
) {
    // Tasks that are ready to run may be about to claim, too, and so may others until there is a connection.
    future::select(full, pin!(tokio::task::yield_now())).await;
    let turn = server.turn(deadline).await;
    joined.close();
    let mut batch = Vec::with_capacity(joined.len());
    while joined.recv_many(&mut batch, MOST).await > 0 {}
    let (nonces, waiting): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let claims = claim_all(&server, turn, &terms, &nonces).await;
    // Whoever does not wait any more needs no answer.
    match claims {
        Ok(claims) => waiting.into_iter().zip(claims).for_each(|(waiting, claim)| {
            let _ = waiting.answer.send(claim);
        }),
        Err(fault) => waiting.into_iter().for_each(|waiting| {
            let _ = waiting.answer.send(Err(fault.clone()));
        }),
    }
}

/// As many answers as nonces, in their order.
async fn claim_all(
    server: &Server,
    turn: Result<Turn<'_>, RedisFault>,
    terms: &Terms,
    nonces: &[Nonce],
) -> Result<Vec<Result<Claim, RedisFault>>, RedisFault> {
    let claims = match turn {
        Ok(turn) => ask_all(&turn, terms, nonces).await,
        Err(fault) => Err(fault),
    };
    server.follow(claims).map(|claims| claims.into_iter().map(|claim| server.follow(claim)).collect())
}

async fn ask_all(
    turn: &Turn<'_>,
    terms: &Terms,
    nonces: &[Nonce],
) -> Result<Vec<Result<Claim, RedisFault>>, RedisFault> {
    let Some(deadline) = nonces.iter().map(|nonce| nonce.deadline).max() else { return Ok(Vec::new()) };
    // Nobody waits any more: nothing is used up, and the connection is not at fault.
    if deadline <= Instant::now() {
        return Err(RedisFault::TimedOut);
    }
    let marks = Marks::of(nonces, &terms.keyspace);
    let commands = |_: Option<&str>| commands(nonces, &marks, terms.replicas, deadline);
    let read = |values: &[Value], run_id: Option<&str>| read(values, run_id, nonces, &marks, terms.replicas);
    let is_at_once = turn.is_at_once();
    let claims = turn.ask(deadline, None, commands, read).await?;
    let is_in_doubt = |claim: &Result<Claim, RedisFault>| match claim {
        // After a wait the replicas had little time.
        Ok(Claim { acknowledged: Some(acknowledged), .. }) => {
            is_at_once && terms.replicas.is_some_and(|wanted| *acknowledged < i64::from(wanted))
        }
        Ok(_) => false,
        Err(fault) => fault.leaves_in_doubt(),
    };
    if claims.iter().any(is_in_doubt) {
        turn.doubt();
    }
    Ok(claims)
}

/// The keys of the marks of a batch, each once.
struct Marks(Vec<(u8, String)>);

impl Marks {
    fn of(nonces: &[Nonce], keyspace: &Keyspace) -> Self {
        let mut buckets: Vec<_> = nonces.iter().map(|nonce| nonce.bucket).collect();
        buckets.sort_unstable();
        buckets.dedup();
        Self(buckets.into_iter().map(|bucket| (bucket, keyspace.since(bucket))).collect())
    }

    fn index_of(&self, bucket: u8) -> Option<usize> {
        self.0.binary_search_by_key(&bucket, |(bucket, _)| *bucket).ok()
    }
}

fn commands(nonces: &[Nonce], marks: &Marks, replicas: Option<u32>, deadline: Instant) -> Pipeline {
    let mut commands = redis::pipe();
    for Nonce { key, lifetime, .. } in nonces {
        commands.cmd("SET").arg(key).arg(1).arg("NX").arg("PX").arg(lifetime);
    }
    // After the SETs: had the server been emptied between one and this, the mark would be gone.
    for (_, key) in &marks.0 {
        commands.cmd("GET").arg(key);
    }
    if let Some(wanted) = replicas {
        // Of the time that is left now that there is a connection, a fifth is for the way.
        let patience = deadline.saturating_duration_since(Instant::now()) * 4 / 5;
        let patience = u64::try_from(patience.as_millis()).unwrap_or(1).max(1);
        commands.cmd("WAIT").arg(wanted).arg(patience);
    }
    commands
}

/// An answer for each claim, unless the connection is good for none.
fn read(
    values: &[Value],
    run_id: Option<&str>,
    nonces: &[Nonce],
    marks: &Marks,
    replicas: Option<u32>,
) -> Result<Vec<Result<Claim, RedisFault>>, RedisFault> {
    let (sets, rest) = values.split_at_checked(nonces.len()).unwrap_or_default();
    let (memories, waits) = rest.split_at_checked(marks.0.len()).unwrap_or_default();
    let memories: Vec<_> =
        memories.iter().zip(&marks.0).map(|(value, (_, key))| mark::read(value, run_id, key)).collect();
    let acknowledged = match (waits, replicas) {
        ([], None) => Ok(None),
        ([Value::Int(acknowledged)], Some(_)) => Ok(Some(*acknowledged)),
        ([Value::ServerError(error)], Some(_)) => Err(RedisFault::refused(error.code())),
        _ => Err(RedisFault::UnexpectedReply { command: "WAIT" }),
    };
    let claims = nonces.iter().enumerate().map(|(index, nonce)| {
        // The SET's error first: a server that is no primary any more says so there, and WAIT fails on
        // it without saying why.
        let fresh = match sets.get(index) {
            Some(Value::Okay) => true,
            Some(Value::Nil) => false,
            Some(Value::ServerError(error)) => return Err(RedisFault::refused(error.code())),
            _ => return Err(RedisFault::UnexpectedReply { command: "SET" }),
        };
        let memory = marks.index_of(nonce.bucket).and_then(|index| memories.get(index)).cloned();
        let memory = memory.unwrap_or(Err(RedisFault::UnexpectedReply { command: "GET" }))?;
        Ok(Claim { fresh, memory, acknowledged: acknowledged.clone()? })
    });
    let claims: Vec<_> = claims.collect();
    let mut faults = claims.iter().filter_map(|claim| claim.as_ref().err());
    match faults.find(|fault| fault.ends_connection()) {
        Some(fault) => Err(fault.clone()),
        None => Ok(claims),
    }
}
