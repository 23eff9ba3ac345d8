//! What an operator sees: the log at its most talkative level, and the counters.

use std::{cell::RefCell, collections::BTreeMap, io, sync::Once};

use ajwt_server::Reason;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

/// What was seen while a future ran.
pub(crate) struct Seen {
    /// Every line at TRACE and above.
    pub(crate) log: String,
    /// `ajwt_authentications_total` by outcome and reason, where anything was counted.
    pub(crate) counters: BTreeMap<(String, String), u64>,
}

/// Runs a future that builds an authenticator on a runtime of this thread, whose timers do not wait, and collects log
/// and counters.
pub(crate) fn observe<T>(future: impl Future<Output = T>) -> (T, Seen) {
    install();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    LOG.replace(Some(Vec::new()));
    let value = metrics::with_local_recorder(&recorder, || runtime.block_on(future));
    let log = LOG.take().expect("the log of this thread");

    let mut counters = BTreeMap::new();
    for (key, _, _, counted) in snapshotter.snapshot().into_vec() {
        assert_eq!(key.key().name(), "ajwt_authentications_total");
        let labels: BTreeMap<_, _> = key.key().labels().map(|label| (label.key(), label.value())).collect();
        let DebugValue::Counter(counted) = counted else { panic!("{counted:?} is no counter") };
        counters.insert((labels["outcome"].to_owned(), labels["reason"].to_owned()), counted);
    }
    // Each is there before its first event, and no other: of what was accepted, and what waited for one of two stores.
    assert_eq!(counters.len(), Reason::ALL.len() + 3, "{counters:?}");
    counters.retain(|_, counted| *counted > 0);
    (value, Seen { log: String::from_utf8(log).expect("a log in UTF-8"), counters })
}

/// One subscriber for all threads: where the only one is that of a thread, tracing asks no other
/// and switches off what the threads of other tests come upon first.
fn install() {
    static INSTALLED: Once = Once::new();

    INSTALLED.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| ThisThread)
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("no other subscriber");
        tracing::callsite::rebuild_interest_cache();
    });
}

thread_local! {
    /// What this thread logs, while it is observed.
    static LOG: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

struct ThisThread;

impl io::Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| {
            if let Some(log) = log {
                log.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
