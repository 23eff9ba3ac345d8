//! How many schedules of a model are run.

use std::env;

use shuttle::{
    Config, MaxSteps, Runner,
    future::block_on,
    scheduler::{DfsScheduler, PctScheduler, RandomScheduler},
};

use crate::task::all_ended;

/// Places at which the unlikely order of two tasks may matter for one fault.
const PCT_DEPTH: usize = 4;

/// Runs a model under random schedules, half of them with few changes between tasks: so many, times
/// `AJWT_MODELS`.
///
/// # Panics
/// With the panic of the model, after the schedule that led to it was printed: `shuttle::replay` runs
/// it again.
pub fn random(schedules: usize, model: impl Fn() + Clone + Send + Sync + 'static) {
    let schedules = schedules * factor() / 2;
    let run = |schedules| Runner::new(RandomScheduler::new(schedules), config()).run(model.clone());
    run(schedules);
    Runner::new(PctScheduler::new(PCT_DEPTH, schedules), config()).run(model);
}

/// Runs a model of tasks as [`random`] does. When it has ended, so must all that it began.
///
/// # Panics
/// As [`random`].
pub fn random_tasks<F: Future<Output = ()>>(
    schedules: usize,
    model: impl Fn() -> F + Clone + Send + Sync + 'static,
) {
    random(schedules, move || {
        block_on(async {
            model().await;
            all_ended().await;
        });
    });
}

/// Runs a small model under every schedule there is; returns how many there are.
///
/// # Panics
/// As [`random`].
pub fn all(model: impl Fn() + Send + Sync + 'static) -> usize {
    Runner::new(DfsScheduler::new(None, false), config()).run(model)
}

/// How many times more schedules than in a test run.
fn factor() -> usize {
    env::var("AJWT_MODELS").map_or(1, |factor| factor.parse().expect("AJWT_MODELS is a number"))
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 0x40_000;
    config.silence_warnings = true;
    // Far more than any takes: who waits for ever is told at once.
    config.max_steps = MaxSteps::FailAfter(100_000);
    config
}
