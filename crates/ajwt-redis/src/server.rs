use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;
use redis::{Pipeline, Value, aio::ConnectionLike};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use crate::{
    RedisFault,
    link::{Dial, Link, ask},
};

/// Connections to one server for requests that wait for its replicas.
const LANES: usize = 32;

/// The way to one server.
pub(crate) enum Server {
    /// One connection for all.
    Shared(Link),
    /// A connection for one request at a time: WAIT holds up whatever comes after it.
    Lanes(Lanes),
    /// The application's own connection.
    Given(Given),
}

impl Server {
    pub(crate) fn new(dial: Dial, waits: bool) -> Self {
        let dial = Arc::new(dial);
        if waits { Self::Lanes(Lanes::new(&dial)) } else { Self::Shared(Link::new(dial)) }
    }

    pub(crate) async fn connect(&self) -> Result<(), RedisFault> {
        match self {
            Self::Shared(link) => link.connect().await,
            Self::Lanes(lanes) => lanes.connect().await,
            Self::Given(_) => Ok(()),
        }
    }

    /// As [`Link::ask`].
    pub(crate) async fn ask<T>(
        &self,
        deadline: Instant,
        commands: impl FnOnce(Option<&str>) -> Pipeline,
        read: impl FnOnce(&[Value], Option<&str>) -> Result<T, RedisFault>,
    ) -> Result<T, RedisFault> {
        match self {
            Self::Shared(link) => link.ask(deadline, commands, read).await,
            Self::Lanes(lanes) => {
                let lane = timeout_at(deadline, lanes.take()).await.map_err(|_| RedisFault::TimedOut)??;
                lane.link.ask(deadline, commands, read).await
            }
            Self::Given(given) => read(&given.0(deadline, commands(None)).await?, None),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared(_) => "Shared(..)",
            Self::Lanes(_) => "Lanes(..)",
            Self::Given(_) => "Given(..)",
        })
    }
}

type Asking = BoxFuture<'static, Result<Vec<Value>, RedisFault>>;

/// A connection of any type that can be cloned.
pub(crate) struct Given(Box<dyn Fn(Instant, Pipeline) -> Asking + Send + Sync>);

impl Given {
    pub(crate) fn new(connection: impl ConnectionLike + Clone + Send + Sync + 'static) -> Self {
        Self(Box::new(move |deadline, commands| {
            let mut connection = connection.clone();
            Box::pin(async move { ask(&mut connection, deadline, commands).await })
        }))
    }
}

pub(crate) struct Lanes {
    free: Mutex<Vec<Arc<Link>>>,
    permits: Semaphore,
}

/// A connection that nobody else has meanwhile.
struct Lane<'a> {
    lanes: &'a Lanes,
    link: Arc<Link>,
    _permit: SemaphorePermit<'a>,
}

impl Lanes {
    fn new(dial: &Arc<Dial>) -> Self {
        let free = (0..LANES).map(|_| Arc::new(Link::new(Arc::clone(dial)))).collect();
        Self { free: Mutex::new(free), permits: Semaphore::new(LANES) }
    }

    async fn connect(&self) -> Result<(), RedisFault> {
        let links = self.free.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for link in links {
            link.connect().await?;
        }
        Ok(())
    }

    async fn take(&self) -> Result<Lane<'_>, RedisFault> {
        // The semaphore is never closed, and there are as many links as permits.
        let permit = self.permits.acquire().await.map_err(|_| RedisFault::TimedOut)?;
        let link = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let link = link.ok_or(RedisFault::TimedOut)?;
        Ok(Lane { lanes: self, link, _permit: permit })
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.lanes.free.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&self.link));
    }
}
