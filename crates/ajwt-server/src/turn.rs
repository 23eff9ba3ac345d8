//! Turns of background tasks. `tests/models` has its own: there a panic is the model's end.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// Runs a turn of a background task to its end. One that panics is told, and there is nothing of it: what panics is an
/// application's own store, or what writes its log, and without the task nothing would be done any more until the
/// process ends.
pub(crate) async fn run<T>(what: &'static str, turn: impl Future<Output = T>) -> Option<T> {
    let mut turn = pin!(turn);
    let ended = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| turn.as_mut().poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await;
    if ended.is_none() {
        // The log may be what panicked.
        let _ = catch_unwind(|| {
            tracing::error!(what, "a task in the background panicked; it goes on with its next turn");
        });
    }
    ended
}
