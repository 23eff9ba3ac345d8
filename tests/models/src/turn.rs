//! Turns of background tasks: a panic is the model's end.

/// Runs a turn to its end.
pub(crate) async fn run<T>(_: &'static str, turn: impl Future<Output = T>) -> Option<T> {
    Some(turn.await)
}
