//! tokio's tasks.

use std::{fmt, future::Future};

pub use shuttle::future::JoinHandle;
use shuttle::{
    future::yield_now,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::runtime::Handle;

shuttle::lazy_static! {
    static ref RUNNING: AtomicUsize = AtomicUsize::new(0);
}

/// Counts a task until it has ended.
struct Running;

impl Running {
    fn new() -> Self {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Begins a task.
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let running = Running::new();
    shuttle::future::spawn(async move {
        let _running = running;
        task.await
    })
}

/// Waits until all tasks have ended.
pub(crate) async fn all_ended() {
    while RUNNING.load(Ordering::SeqCst) > 0 {
        yield_now().await;
    }
}

/// Tasks that end with the set.
pub struct JoinSet<T> {
    tasks: Vec<JoinHandle<T>>,
}

impl<T: Send + 'static> JoinSet<T> {
    /// Begins a task.
    pub fn spawn_on(&mut self, task: impl Future<Output = T> + Send + 'static, _: &Handle) {
        self.tasks.push(spawn(task));
    }

    /// Takes a task off that has ended. Its result is not told.
    pub fn try_join_next(&mut self) -> Option<()> {
        let ended = self.tasks.iter().position(JoinHandle::is_finished)?;
        drop(self.tasks.swap_remove(ended));
        Some(())
    }

    /// Ends all tasks, and waits until they have ended.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
    }
}

impl<T> JoinSet<T> {
    /// Ends all tasks.
    pub fn abort_all(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self { tasks: Vec::new() }
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("tasks", &self.tasks.len()).finish()
    }
}
