//! What a driver needs of a store.

use std::{fmt::Debug, path::Path};

use async_trait::async_trait;

use crate::{gateway::Gateway, history::Promise, program};

/// What can be done to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// In a word.
    pub kind: &'static str,
    /// Whether no nonce can be stored until it is mended.
    pub blackout: bool,
    /// Whether what was stored may be lost by it.
    pub forgets: bool,
}

impl StoreFault {
    /// After which all goes on as it was.
    pub(crate) const fn passing(kind: &'static str) -> Self {
        Self { kind, blackout: false, forgets: false }
    }

    /// Which keeps nonces from being stored.
    pub(crate) const fn blackout(kind: &'static str) -> Self {
        Self { kind, blackout: true, forgets: false }
    }

    /// Which may lose what was stored.
    pub(crate) const fn forgets(mut self) -> Self {
        self.forgets = true;
        self
    }
}

/// How a store, and the servers on it, are treated.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How many servers there are.
    pub servers: usize,
    /// What the store promises.
    pub promise: Promise,
    /// After how many milliseconds a server gives up on its store.
    pub patience: i64,
    /// How long the store is away at least when it is, in milliseconds.
    pub least: u64,
    /// How far the servers' clocks may be ahead, in milliseconds: from, to.
    pub clocks: (i64, i64),
    /// Whether a server's own memory is the store.
    pub in_servers: bool,
    /// Nonces that there is room for, if it is bounded by their number.
    pub capacity: Option<usize>,
    /// Whether a server that is killed or paused disturbs the others.
    pub servers_disturb: bool,
    /// In how many parts the nonces lie, by the last byte of their keys.
    pub buckets: usize,
}

impl Terms {
    /// Of a store beside three servers, with these clocks.
    pub(crate) const fn shared(patience: i64, clocks: (i64, i64)) -> Self {
        let promise = Promise::Once;
        let least = 300;
        let (in_servers, capacity, servers_disturb, buckets) = (false, None, false, 1);
        Self { servers: 3, promise, patience, least, clocks, in_servers, capacity, servers_disturb, buckets }
    }
}

/// A store that can be broken.
#[async_trait]
pub trait Store: Debug + Send {
    /// How it is treated.
    fn terms(&self) -> Terms;

    /// The arguments of the gateway.
    fn words(&self) -> String;

    /// Where users are kept: `--database-url URL`. `None`: in files.
    fn database(&self) -> Option<String> {
        None
    }

    /// Says, after the users were registered, that nothing was used before.
    fn initialise(&self, folder: &Path) {
        let database = self.database().map(|database| format!(" {database}")).unwrap_or_default();
        program::run(folder, &format!("nonce init {}{database}", self.words()));
    }

    /// What can be done to it.
    fn faults(&self) -> Vec<StoreFault> {
        Vec::new()
    }

    /// Breaks it.
    async fn begin(&mut self, _: StoreFault, _: &[Gateway]) {}

    /// Mends it.
    async fn end(&mut self, _: StoreFault, _: &[Gateway]) {}
}
