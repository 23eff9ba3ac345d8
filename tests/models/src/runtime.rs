//! tokio's runtime.

use crate::task::{self, JoinHandle};

/// Where tasks run.
#[derive(Clone, Debug)]
pub struct Handle;

/// There is none, which is never so.
#[derive(Debug)]
pub struct TryCurrentError;

impl Handle {
    /// There is one.
    #[must_use]
    pub const fn current() -> Self {
        Self
    }

    /// There is one.
    ///
    /// # Errors
    /// None.
    pub const fn try_current() -> Result<Self, TryCurrentError> {
        Ok(Self)
    }

    /// Begins a task.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        task::spawn(task)
    }
}
