//! Writes the history, and watches this machine.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ajwt_server::{Clock as _, SystemClock};

use crate::history::{History, Span};

const PULSE: Duration = Duration::from_millis(20);

/// A thread that wakes up later than that found the machine busy with others, or frozen.
const LATE: i64 = 100;

/// A history that is being written.
#[derive(Clone, Debug)]
pub struct Recorder {
    history: Arc<Mutex<History>>,
    ended: Arc<AtomicBool>,
}

impl Recorder {
    /// Begins, and watches whether this machine runs.
    #[must_use]
    pub fn new(history: History) -> Self {
        let recorder = Self { history: Arc::new(Mutex::new(history)), ended: Arc::default() };
        let watch = recorder.clone();
        thread::spawn(move || watch.pulse());
        recorder
    }

    fn pulse(&self) {
        let mut last = now();
        while !self.ended.load(Ordering::Relaxed) {
            thread::sleep(PULSE);
            let woken = now();
            if woken - last > LATE {
                self.write().stalls.push(Span { from: last, to: woken });
            }
            last = woken;
        }
    }

    /// What is written so far, to be added to.
    pub fn write(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> History {
        self.ended.store(true, Ordering::Relaxed);
        self.write().clone()
    }
}

/// This machine's clock, in milliseconds.
#[must_use]
pub fn now() -> i64 {
    SystemClock::new().now().as_millis()
}
