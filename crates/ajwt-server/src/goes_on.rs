use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;

/// A future that goes on in a task of its own when whoever waits for it goes, for stores.
///
/// The engine drops what takes too long, and a server what a caller waited for that has hung up. A command that is
/// dropped half-way often costs its connection, since nobody would read the answer before the next one is sent; and a
/// new connection costs more than the command.
///
/// ```
/// use ajwt_server::GoesOn;
///
/// # async fn ask_the_server() -> u64 { 1 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // On a connection that is taken from a pool and given back to it.
/// let answer = GoesOn::new(async { ask_the_server().await }).await;
/// # assert_eq!(answer, 1);
/// # }
/// ```
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct GoesOn<F: Future + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future + Send + 'static> GoesOn<F> {
    /// Of this future, which is polled where this one is as long as somebody does, and then on the runtime that this one
    /// is dropped in, if there is one.
    pub fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F: Future + Send + 'static> Future for GoesOn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out meanwhile: one that panics does not go on.
        let Some(mut future) = self.0.take() else { return Poll::Pending };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(future);
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for GoesOn<F> {
    fn drop(&mut self) {
        // Outside of a runtime, as when it has ended, nothing goes on.
        if let Some(future) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                future.await;
            });
        }
    }
}

impl<F: Future + Send + 'static> fmt::Debug for GoesOn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoesOn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_goes_on() {
        let (done, told) = oneshot::channel();
        let work = GoesOn::new(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            done.send(()).expect("somebody waits");
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), work).await.is_err());
        assert_eq!(told.await, Ok(()));
    }

    #[tokio::test]
    async fn one_that_was_never_polled_goes_on_too() {
        let (done, told) = oneshot::channel();
        drop(GoesOn::new(async move { done.send(()).expect("somebody waits") }));
        assert_eq!(told.await, Ok(()));
    }
}
