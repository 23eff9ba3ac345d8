//! Timing, in turns.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// Rounds of each figure that is of the time that was run: many short ones, so that what a noisy machine
/// does for a while falls on all that stands side by side.
pub(crate) const SHORT_ROUNDS: usize = 101;

/// Rounds of each figure that needs long ones.
pub(crate) const ROUNDS: usize = 7;

/// Nanoseconds for each of so many operations.
#[allow(clippy::disallowed_methods, reason = "it measures")]
pub(crate) fn per_op(count: usize, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_nanos() as f64 / count as f64
}

/// As [`per_op`], of the time that this process has run: what else the machine does counts for less. Of all its
/// threads, for a store is read on others.
pub(crate) fn cpu_per_op(count: usize, work: impl FnOnce()) -> f64 {
    let begun = cpu();
    work();
    (cpu() - begun) / count as f64
}

/// Nanoseconds that all threads of this process have run.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// One measurement of each in each round, so that whatever else the machine does falls on all of them.
pub(crate) fn in_turn<const N: usize>(
    rounds: usize,
    mut works: [&mut dyn FnMut(usize) -> f64; N],
) -> [Vec<f64>; N] {
    let mut figures = [(); N].map(|()| Vec::with_capacity(rounds));
    for round in 0..rounds {
        for (figures, work) in figures.iter_mut().zip(works.iter_mut()) {
            figures.push(work(round));
        }
    }
    figures
}

/// The differences of two figures, round by round.
pub(crate) fn less(more: &[f64], less: &[f64]) -> Vec<f64> {
    more.iter().zip(less).map(|(more, less)| more - less).collect()
}

/// A runtime of one thread, as one core has.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
