use std::{
    io,
    mem::take,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{Dispatch, Level, subscriber::DefaultGuard};

/// What is written to the log while it listens. Clones hold the same text.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

/// While it is there, its log listens.
#[derive(Debug)]
#[must_use = "the log listens until this is dropped"]
pub struct Listening {
    _default: DefaultGuard,
    _other: Dispatch,
}

impl Log {
    /// Listens to this thread, from this level on, until what it returns is dropped.
    pub fn listen(&self, level: Level) -> Listening {
        let log = self.clone();
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone());
        // Where there is one dispatcher alone, tracing asks that of the thread which comes to a message first whether
        // it counts, and that may be another test's, which has none: then nobody hears it from then on.
        let other = Dispatch::new(tracing_subscriber::registry());
        let default = tracing::subscriber::set_default(builder.with_max_level(level).finish());
        Listening { _default: default, _other: other }
    }

    /// Listens to all threads, from this level on, and to what is told by way of the crate `log`, too.
    ///
    /// # Panics
    /// Where another one does: a process has one such.
    pub fn listen_to_all_threads(&self, level: Level) {
        let log = self.clone();
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone());
        builder.with_max_level(level).init();
    }

    /// All of it.
    ///
    /// # Panics
    /// If it is no UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.lock().clone()).expect("text")
    }

    /// What was written since the last call.
    ///
    /// # Panics
    /// If it is no UTF-8.
    #[must_use]
    pub fn take(&self) -> String {
        String::from_utf8(take(&mut *self.lock())).expect("text")
    }

    /// The lines of a level, as `WARN`.
    #[must_use]
    pub fn lines(&self, level: &str) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(level)).map(str::to_owned).collect()
    }

    /// How many lines of this level hold the text.
    #[must_use]
    pub fn count(&self, level: &str, text: &str) -> usize {
        self.lines(level).iter().filter(|line| line.contains(text)).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one test of this process that listens: with another's dispatcher there would be two anyway.
    #[test]
    fn a_message_that_another_thread_comes_to_first_is_heard() {
        let tell = || tracing::warn!("told");
        let log = Log::default();
        let listening = log.listen(Level::WARN);
        std::thread::spawn(tell).join().expect("it ends");
        assert_eq!(log.text(), "", "another thread's");
        tell();
        assert_eq!(log.count("WARN", "told"), 1, "{}", log.text());
        drop(listening);
        tell();
        assert_eq!(log.take().lines().count(), 1);
        assert_eq!(log.text(), "", "it was taken");
    }
}
