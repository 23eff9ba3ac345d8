use std::{
    fmt,
    sync::{Arc, Mutex, Weak},
};

use ajwt_server::NonceUse;
use futures_util::future::BoxFuture;
use redis::{Pipeline, Value, aio::ConnectionLike};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use crate::{
    RedisFault,
    claims::{Claim, Claims, Terms},
    cluster::{Cluster, TOLD_AGAIN},
    link::{Dial, Link, ask},
    sync::lock,
};

/// Connections to one server for batches that wait for its replicas.
const LANES: usize = 32;

/// One server.
pub(crate) struct Server {
    way: Way,
    claims: Claims,
    /// Which it is of, if it is of any.
    cluster: Weak<Cluster>,
    /// Requests that began by then need not have the marks of its buckets written: that is under way, at most until
    /// then, or was over then.
    marked: Mutex<Option<Instant>>,
    /// When the log was told that it forgot.
    told: Mutex<Option<Instant>>,
}

/// The way to it.
enum Way {
    /// One connection for all.
    Shared(Link),
    /// A connection for one batch at a time: WAIT holds up whatever comes after it.
    Lanes(Lanes),
    /// The application's own connection.
    Given(Given),
}

impl Server {
    pub(crate) fn new(dial: Dial, terms: &Arc<Terms>, cluster: Weak<Cluster>) -> Arc<Self> {
        let dial = Arc::new(dial);
        let waits = terms.replicas.is_some();
        let way =
            if waits { Way::Lanes(Lanes::new(&dial)) } else { Way::Shared(Link::new(dial, Arc::default())) };
        Self::reached(way, terms, cluster)
    }

    pub(crate) fn over(
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
        terms: &Arc<Terms>,
    ) -> Arc<Self> {
        Self::reached(Way::Given(Given::new(connection)), terms, Weak::new())
    }

    fn reached(way: Way, terms: &Arc<Terms>, cluster: Weak<Cluster>) -> Arc<Self> {
        let claims = Claims::new(Arc::clone(terms));
        Arc::new(Self { way, claims, cluster, marked: Mutex::default(), told: Mutex::default() })
    }

    pub(crate) async fn connect(&self) -> Result<(), RedisFault> {
        match &self.way {
            Way::Shared(link) => link.connect().await,
            Way::Lanes(lanes) => lanes.connect().await,
            Way::Given(_) => Ok(()),
        }
    }

    /// Claims a nonce, in one round trip with others that come at the same time.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        nonce: &NonceUse,
        bucket: u8,
        deadline: Instant,
    ) -> Result<Claim, RedisFault> {
        self.claims.claim(self, nonce, bucket, deadline).await
    }

    /// As [`Link::ask`], for a request that began then and may have had another answer since.
    pub(crate) async fn ask<T>(
        &self,
        deadline: Instant,
        began: Instant,
        commands: impl FnOnce(Option<&str>) -> Pipeline,
        read: impl FnOnce(&[Value], Option<&str>) -> Result<T, RedisFault>,
    ) -> Result<T, RedisFault> {
        let answer = match self.turn(deadline).await {
            Ok(turn) => turn.ask(deadline, Some(began), commands, read).await,
            Err(fault) => Err(fault),
        };
        self.follow(answer)
    }

    /// After an answer that says that another server of the cluster may have what was asked for by now: has it look
    /// where.
    pub(crate) fn follow<T>(&self, answer: Result<T, RedisFault>) -> Result<T, RedisFault> {
        if answer.as_ref().is_err_and(RedisFault::may_have_moved)
            && let Some(cluster) = self.cluster.upgrade()
        {
            cluster.refresh_soon();
        }
        answer
    }

    /// Whether the marks of its buckets are to be written, until this deadline, for a request that began then.
    pub(crate) fn begin_marking(&self, began: Instant, deadline: Instant) -> bool {
        let mut marked = lock(&self.marked);
        if marked.is_some_and(|marked| began <= marked) {
            return false;
        }
        *marked = Some(deadline);
        true
    }

    /// Whoever began it with this deadline is done. If its runtime ended or stalls, the deadline ends it.
    pub(crate) fn end_marking(&self, deadline: Instant) {
        let mut marked = lock(&self.marked);
        if *marked == Some(deadline) {
            *marked = Some(Instant::now());
        }
    }

    /// Whether to tell the log that it forgot: neither for each request that was under way, nor for each one where two
    /// servers take turns behind one address.
    pub(crate) fn is_to_be_told(&self) -> bool {
        let mut told = lock(&self.told);
        if told.is_some_and(|told| told.elapsed() < TOLD_AGAIN) {
            return false;
        }
        *told = Some(Instant::now());
        true
    }

    /// Waits until something can be sent.
    pub(crate) async fn turn(&self, deadline: Instant) -> Result<Turn<'_>, RedisFault> {
        Ok(match &self.way {
            Way::Shared(link) => Turn::Shared(link),
            Way::Lanes(lanes) => {
                Turn::Lane(timeout_at(deadline, lanes.take()).await.map_err(|_| RedisFault::TimedOut)??)
            }
            Way::Given(given) => Turn::Given(given),
        })
    }
}

/// The way to a server, for one pipeline.
pub(crate) enum Turn<'a> {
    Shared(&'a Link),
    Lane(Lane<'a>),
    Given(&'a Given),
}

impl Turn<'_> {
    /// As [`Link::ask`].
    pub(crate) async fn ask<T>(
        &self,
        deadline: Instant,
        waiting: Option<Instant>,
        commands: impl FnOnce(Option<&str>) -> Pipeline,
        read: impl FnOnce(&[Value], Option<&str>) -> Result<T, RedisFault>,
    ) -> Result<T, RedisFault> {
        match self {
            Self::Shared(link) => link.ask(deadline, waiting, commands, read).await,
            Self::Lane(lane) => lane.link.ask(deadline, waiting.or(lane.waiting), commands, read).await,
            Self::Given(given) => read(&given.0(deadline, commands(None)).await?, None),
        }
    }

    /// Whether what is asked goes out now, with all of its time left.
    pub(crate) fn is_at_once(&self) -> bool {
        match self {
            Self::Lane(lane) => lane.waiting.is_none() && lane.link.is_connected(),
            Self::Shared(_) | Self::Given(_) => true,
        }
    }

    /// After an answer as of a primary that another one took over from: it takes no writes, or too few replicas have a
    /// nonce.
    pub(crate) fn doubt(&self) {
        match self {
            Self::Shared(link) => link.doubt(),
            Self::Lane(lane) => lane.link.doubt(),
            // Whoever gave it makes it anew.
            Self::Given(_) => {}
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.way {
            Way::Shared(_) => "Shared(..)",
            Way::Lanes(_) => "Lanes(..)",
            Way::Given(_) => "Given(..)",
        })
    }
}

type Asking = BoxFuture<'static, Result<Vec<Value>, RedisFault>>;

/// A connection of any type that can be cloned.
pub(crate) struct Given(Box<dyn Fn(Instant, Pipeline) -> Asking + Send + Sync>);

impl Given {
    fn new(connection: impl ConnectionLike + Clone + Send + Sync + 'static) -> Self {
        Self(Box::new(move |deadline, commands| {
            let mut connection = connection.clone();
            Box::pin(async move { ask(&mut connection, deadline, commands).await })
        }))
    }
}

struct Lanes {
    free: Mutex<Vec<Arc<Link>>>,
    permits: Semaphore,
}

/// A connection that nobody else has meanwhile.
pub(crate) struct Lane<'a> {
    lanes: &'a Lanes,
    link: Arc<Link>,
    /// Since when it was waited for, if it was not free.
    waiting: Option<Instant>,
    _permit: SemaphorePermit<'a>,
}

impl Lanes {
    fn new(dial: &Arc<Dial>) -> Self {
        let losses = Arc::default();
        let free = (0..LANES).map(|_| Arc::new(Link::new(Arc::clone(dial), Arc::clone(&losses)))).collect();
        Self { free: Mutex::new(free), permits: Semaphore::new(LANES) }
    }

    async fn connect(&self) -> Result<(), RedisFault> {
        let links = lock(&self.free).clone();
        for link in links {
            link.connect().await?;
        }
        Ok(())
    }

    async fn take(&self) -> Result<Lane<'_>, RedisFault> {
        // The semaphore is never closed, and there are as many links as permits.
        let (permit, waiting) = match self.permits.try_acquire() {
            Ok(permit) => (permit, None),
            Err(_) => {
                let since = Instant::now();
                (self.permits.acquire().await.map_err(|_| RedisFault::TimedOut)?, Some(since))
            }
        };
        let link = lock(&self.free).pop();
        let link = link.ok_or(RedisFault::TimedOut)?;
        Ok(Lane { lanes: self, link, waiting, _permit: permit })
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        lock(&self.lanes.free).push(Arc::clone(&self.link));
    }
}
