use std::path::Path;

use async_trait::async_trait;

use crate::{
    history::Promise,
    store::{Store, Terms},
};

/// Nonces that there is room for: more than live at a time by themselves, few enough to be filled up.
const CAPACITY: usize = 6_000;

/// The memory of one server, which forgets when it is started again.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Whether it refuses, after a start, what may have been used before it.
    pub strict_start: bool,
}

#[async_trait]
impl Store for Memory {
    fn terms(&self) -> Terms {
        let shared = Terms::shared(2_000, (-5_000, 5_000));
        let promise = if self.strict_start { Promise::Once } else { Promise::OncePerStart };
        Terms { servers: 1, promise, in_servers: true, capacity: Some(CAPACITY), ..shared }
    }

    fn words(&self) -> String {
        let strict = if self.strict_start { " --memory-strict-start" } else { "" };
        format!("--nonce memory --memory-capacity {CAPACITY}{strict}")
    }

    fn initialise(&self, _: &Path) {}
}

/// What must not be done: several servers, each with a memory of its own. That it is found out shows that
/// the other histories could be, too.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOfEach;

#[async_trait]
impl Store for MemoryOfEach {
    fn terms(&self) -> Terms {
        // Close, so that most tokens are good on all servers.
        Terms::shared(2_000, (-500, 500))
    }

    fn words(&self) -> String {
        "--nonce memory".to_owned()
    }

    fn initialise(&self, _: &Path) {}
}
