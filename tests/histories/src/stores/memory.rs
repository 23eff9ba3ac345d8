use std::path::Path;

use async_trait::async_trait;

use crate::{
    gateway::Gateway,
    history::Promise,
    store::{Store, StoreFault, Terms},
};

/// The memory of one server, which forgets when it is started again.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

#[async_trait]
impl Store for Memory {
    fn terms(&self) -> Terms {
        let shared = Terms::shared(2_000, (-5_000, 5_000));
        Terms { servers: 1, promise: Promise::OncePerStart, in_servers: true, ..shared }
    }

    fn words(&self) -> String {
        "--nonce memory".to_owned()
    }

    fn initialise(&self, _: &Path) {}

    fn faults(&self) -> Vec<StoreFault> {
        Vec::new()
    }

    async fn begin(&mut self, _: StoreFault, _: &[Gateway]) {}

    async fn end(&mut self, _: StoreFault, _: &[Gateway]) {}
}

/// What must not be done: several servers, each with a memory of its own. That it is found out shows that
/// the other histories could be, too.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOfEach;

#[async_trait]
impl Store for MemoryOfEach {
    fn terms(&self) -> Terms {
        Terms { servers: 3, promise: Promise::Once, in_servers: false, ..Memory.terms() }
    }

    fn words(&self) -> String {
        Memory.words()
    }

    fn initialise(&self, _: &Path) {}

    fn faults(&self) -> Vec<StoreFault> {
        Vec::new()
    }

    async fn begin(&mut self, _: StoreFault, _: &[Gateway]) {}

    async fn end(&mut self, _: StoreFault, _: &[Gateway]) {}
}
