//! The sources' `crate::sync`, `tokio::sync` and `quick_cache::sync` in one. Each operation on what
//! shuttle does not have itself is one step, before which it may let others run.

pub use real_tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
pub use shuttle::sync::{Arc, Mutex, MutexGuard, RwLock, atomic};
use shuttle::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// Waits for what is guarded, also where a panic has left it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`].
pub fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`].
pub fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Another task may run here.
fn step() {
    atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
}

/// A cache, each operation on which is one step.
#[derive(Debug)]
pub struct Cache<K, V>(real_quick_cache::sync::Cache<K, V>);

impl<V: Clone> Cache<Box<str>, V> {
    /// With room for so many.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(real_quick_cache::sync::Cache::new(capacity))
    }

    /// What is there.
    pub fn get(&self, key: &str) -> Option<V> {
        step();
        self.0.get(key)
    }

    /// Puts a value there.
    pub fn insert(&self, key: Box<str>, value: V) {
        step();
        self.0.insert(key, value);
    }

    /// Takes a value away.
    pub fn remove(&self, key: &str) -> Option<(Box<str>, V)> {
        step();
        self.0.remove(key)
    }

    /// Takes all away.
    pub fn clear(&self) {
        step();
        self.0.clear();
    }
}

/// A value that tells of its changes.
pub mod watch {
    use std::ops::Deref;

    use real_tokio::sync::watch;

    use super::step;

    /// Changes the value.
    #[derive(Debug)]
    pub struct Sender<T>(watch::Sender<T>);

    impl<T> Sender<T> {
        /// With a first value.
        pub fn new(value: T) -> Self {
            Self(watch::Sender::new(value))
        }

        /// Changes it.
        pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
            step();
            self.0.send_modify(modify);
        }

        /// Reads it.
        pub fn borrow(&self) -> impl Deref<Target = T> {
            step();
            self.0.borrow()
        }

        /// Who is told of changes from now on.
        pub fn subscribe(&self) -> Receiver<T> {
            step();
            Receiver(self.0.subscribe())
        }
    }

    /// Is told of changes.
    #[derive(Debug)]
    pub struct Receiver<T>(watch::Receiver<T>);

    impl<T> Receiver<T> {
        /// Waits for a change.
        ///
        /// # Errors
        /// Nobody can change it any more.
        pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
            step();
            self.0.changed().await
        }
    }
}
