use std::{
    collections::HashMap,
    error::Error,
    iter,
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use redis::{ConnectionAddr, ConnectionInfo, Value};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    RedisFault,
    claims::Terms,
    demands::{Demands, Mode},
    keyspace::slot_of,
    link::{Address, CONNECT_TIMEOUT, Dial, ask, connect, name_of, text},
    sentinel::at,
    server::Server,
    sync::{lock, read, write},
};

/// Between two looks at where the slots are.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// For one server to tell where the slots are.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// A look that has not gone on to another server for so long is on a runtime that does not run any more.
const STUCK: Duration = Duration::from_secs(2);

/// Between two lines of one text in the log.
pub(crate) const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Which server serves which bucket.
///
/// Why not the redis crate's cluster client: it repeats commands after a broken connection (a
/// repeated SET NX meets its own entry), and hides which process answered.
pub(crate) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    demands: Arc<Demands>,
    terms: Arc<Terms>,
    map: RwLock<Arc<Map>>,
    look: Mutex<Look>,
    turn: AtomicUsize,
}

/// The last look at where the slots are, which may be under way.
struct Look {
    /// When it began, went on to another server, or ended.
    went_on: Instant,
    looking: Option<JoinHandle<()>>,
    told: Told,
}

/// What was said in the log of late, and when: while a cluster is down there are up to ten looks a second. Several
/// texts, since each look ends at another server.
#[derive(Default)]
struct Told(Vec<(String, Instant)>);

#[derive(Default)]
struct Map {
    primaries: HashMap<String, Primary>,
    slots: Vec<(u16, u16, Arc<Server>)>,
}

struct Primary {
    info: ConnectionInfo,
    server: Arc<Server>,
}

impl Cluster {
    /// Finds the primaries and connects to them. One that cannot be reached serves its share once it can be: each
    /// connection is checked when it is made.
    pub(crate) async fn connect(
        seeds: Vec<ConnectionInfo>,
        demands: Arc<Demands>,
        terms: Arc<Terms>,
    ) -> Result<Arc<Self>, RedisFault> {
        let map = RwLock::default();
        let look = Mutex::new(Look { went_on: Instant::now(), looking: None, told: Told::default() });
        let seeds = with_settings_of_first(seeds);
        let cluster = Arc::new(Self { seeds, demands, terms, map, look, turn: AtomicUsize::new(0) });
        cluster.refresh().await?;
        let map = cluster.map();
        let connecting = map.primaries.values().map(|primary| primary.server.connect());
        let (mut is_reached, mut away) = (false, Vec::new());
        for connected in join_all(connecting).await {
            match connected {
                Ok(()) => is_reached = true,
                Err(fault) if fault.may_pass() => away.push(fault),
                Err(fault) => return Err(fault),
            }
        }
        if !is_reached && let Some(fault) = away.pop() {
            return Err(fault);
        }
        for fault in away {
            tracing::warn!(
                error = &fault as &dyn Error,
                "a primary of the Redis cluster cannot be reached; tokens of its buckets are refused until it can be"
            );
        }
        Ok(cluster)
    }

    /// The server of a bucket.
    pub(crate) fn server(self: &Arc<Self>, bucket: u8) -> Result<Arc<Server>, RedisFault> {
        let slot = slot_of(bucket);
        let map = self.map();
        map.owner(slot).cloned().ok_or_else(|| {
            self.refresh_soon();
            RedisFault::SlotNotServed { slot }
        })
    }

    /// The buckets of a server.
    pub(crate) fn buckets_of(&self, server: &Arc<Server>) -> Vec<u8> {
        let map = self.map();
        let is_its =
            |bucket: &u8| map.owner(slot_of(*bucket)).is_some_and(|owner| Arc::ptr_eq(owner, server));
        (0..=u8::MAX).filter(is_its).collect()
    }

    /// Looks in the background where the slots are by now, unless somebody does.
    pub(crate) fn refresh_soon(self: &Arc<Self>) {
        let mut look = self.look();
        if look.is_under_way() {
            return;
        }
        if let Some(stuck) = look.looking.take() {
            // It must not go on one day, with what it knew then.
            stuck.abort();
        }
        let (cluster, due) = (Arc::clone(self), look.went_on + REFRESH_PAUSE);
        look.went_on = Instant::now();
        look.looking = Some(tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            let fault = cluster.refresh().await.err();
            let to_tell = cluster.look().end(fault, Instant::now());
            if let Some(fault) = to_tell {
                tracing::warn!(
                    error = &fault as &dyn Error,
                    "where the slots of the Redis cluster are is not known"
                );
            }
        }));
    }

    fn look(&self) -> MutexGuard<'_, Look> {
        lock(&self.look)
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&read(&self.map))
    }

    /// Asks one server after the other, beginning with another one each time.
    async fn refresh(self: &Arc<Self>) -> Result<(), RedisFault> {
        let map = self.map();
        let mut infos: Vec<_> = map.primaries.values().map(|primary| primary.info.clone()).collect();
        infos.extend(self.seeds.iter().cloned());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(infos.len()).unwrap_or_default();
        infos.rotate_left(turn);
        let mut last = RedisFault::SlotNotServed { slot: 0 };
        for info in infos {
            self.look().went_on = Instant::now();
            let server = name_of(&info);
            let asked = timeout(REFRESH_TIMEOUT, self.ask(&info)).await;
            match asked.unwrap_or(Err(RedisFault::ConnectTimeout { server })) {
                Ok(ranges) => {
                    let new = Arc::new(self.new_map(&map, ranges));
                    *write(&self.map) = new;
                    return Ok(());
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    async fn ask(&self, info: &ConnectionInfo) -> Result<Vec<(u16, u16, ConnectionInfo)>, RedisFault> {
        let mut connection = connect(info.clone()).await?;
        let mut question = redis::pipe();
        question.cmd("CLUSTER").arg("SLOTS");
        let answers = ask(&mut connection, Instant::now() + CONNECT_TIMEOUT, question).await?;
        let ranges = match answers.as_slice() {
            [Value::ServerError(error)] if error.code() == "ERR" => {
                let (server, found) = (name_of(info), Mode::Standalone.name().to_owned());
                return Err(RedisFault::WrongMode { server, found, wanted: Mode::Cluster.name() });
            }
            [Value::ServerError(error)] => return Err(RedisFault::refused(error.code())),
            // One that left the cluster, or has not joined it yet. The others may know.
            [Value::Array(ranges)] if ranges.is_empty() => return Err(RedisFault::SlotNotServed { slot: 0 }),
            [Value::Array(ranges)] => ranges,
            _ => return Err(RedisFault::UnexpectedReply { command: "CLUSTER SLOTS" }),
        };
        let settings = self.seeds.first().unwrap_or(info);
        let ranges: Option<Vec<_>> = ranges.iter().map(|range| range_of(range, info, settings)).collect();
        ranges.ok_or(RedisFault::UnexpectedReply { command: "CLUSTER SLOTS" })
    }

    /// Servers that stay keep their connections.
    fn new_map(self: &Arc<Self>, old: &Map, ranges: Vec<(u16, u16, ConnectionInfo)>) -> Map {
        let mut new = Map::default();
        for (first, last, info) in ranges {
            let name = name_of(&info);
            let primary = new.primaries.entry(name.clone()).or_insert_with(|| {
                let known = old.primaries.get(&name).map(|primary| Arc::clone(&primary.server));
                let server = known.unwrap_or_else(|| self.dial(info.clone()));
                Primary { info, server }
            });
            new.slots.push((first, last, Arc::clone(&primary.server)));
        }
        new
    }

    fn dial(self: &Arc<Self>, info: ConnectionInfo) -> Arc<Server> {
        let address = Address::Server(Box::new(info));
        let dial = Dial { address, demands: Arc::clone(&self.demands) };
        Server::new(dial, &self.terms, Arc::downgrade(self))
    }
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Arc<Server>> {
        let range = self.slots.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        range.map(|(.., server)| server)
    }
}

impl Look {
    fn is_under_way(&self) -> bool {
        self.went_on.elapsed() < STUCK && self.looking.as_ref().is_some_and(|looking| !looking.is_finished())
    }

    /// It ended now. The fault, if it is to be told.
    fn end(&mut self, fault: Option<RedisFault>, now: Instant) -> Option<RedisFault> {
        self.went_on = now;
        if fault.is_none() {
            self.told = Told::default();
        }
        fault.filter(|fault| self.told.is_due(fault, now))
    }
}

impl Told {
    /// Whether to say this now, which is as good as said then.
    fn is_due(&mut self, fault: &RedisFault, now: Instant) -> bool {
        self.0.retain(|(_, told)| now.saturating_duration_since(*told) < TOLD_AGAIN);
        let text = with_causes(fault);
        let is_due = self.0.iter().all(|(told, _)| *told != text);
        if is_due {
            self.0.push((text, now));
        }
        is_due
    }
}

fn with_causes(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |error| (**error).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The same servers with the user, password and TLS of the first.
fn with_settings_of_first(seeds: Vec<ConnectionInfo>) -> Vec<ConnectionInfo> {
    let Some(first) = seeds.first().cloned() else { return seeds };
    let like_first = |seed: ConnectionInfo| match seed.addr().clone() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            at(first.clone(), host, port)
        }
        // A socket of this host.
        other => first.clone().set_addr(other),
    };
    seeds.into_iter().map(like_first).collect()
}

/// `[first, last, [host, port, ..], replicas ..]`. A host that is not told is the one that was asked; the
/// user, password and TLS are those of the settings.
fn range_of(
    range: &Value,
    asked: &ConnectionInfo,
    settings: &ConnectionInfo,
) -> Option<(u16, u16, ConnectionInfo)> {
    let Value::Array(range) = range else { return None };
    let [first, last, Value::Array(primary), ..] = range.as_slice() else { return None };
    let [host, port, ..] = primary.as_slice() else { return None };
    let number = |value: &Value| match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let host = match text(host) {
        "" | "?" => match asked.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => return None,
        },
        host => host.to_owned(),
    };
    Some((number(first)?, number(last)?, at(settings.clone(), host, number(port)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_told_once_a_minute_and_anew_after_a_success() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut look = Look { went_on: begin, looking: None, told: Told::default() };
        let mut is_told = |slot: Option<u16>, seconds| {
            let fault = slot.map(|slot| RedisFault::SlotNotServed { slot });
            look.end(fault, at(seconds)).is_some()
        };
        assert!(is_told(Some(1), 0));
        assert!(!is_told(Some(1), 1));
        assert!(is_told(Some(2), 2), "another text");
        assert!(!is_told(Some(1), 59) && !is_told(Some(2), 59), "one after the other, again and again");
        assert!(is_told(Some(1), 60));
        assert!(!is_told(Some(2), 61) && is_told(Some(2), 62));
        assert!(!is_told(None, 63), "there is nothing to tell");
        assert!(is_told(Some(2), 64), "after a success");
    }
}
