use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// Everything that all crates tell a log, ours and those they use, at TRACE: events, spans, and records of the
/// crate `log`. It holds what was told since the last [`take`](Self::take).
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Vec<Told>>>);

/// One event, or what was told of a span.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Who told it: a module, most often.
    pub target: String,
    /// Names and values, as they came: not escaped by any format.
    pub fields: Vec<(&'static str, String)>,
}

impl Trace {
    /// From now on, of all threads.
    ///
    /// # Panics
    /// Where another subscriber does: it is the global one, so a test that uses this needs a file, and so a process, of
    /// its own.
    pub fn start() -> Self {
        let trace = Self::default();
        tracing_subscriber::registry().with(trace.clone()).init();
        trace
    }

    /// What was told since the last call.
    ///
    /// # Panics
    /// If another thread has panicked while it told something.
    pub fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.0.lock().expect("lock"))
    }

    fn tell(&self, target: &str, record: impl FnOnce(&mut Told)) {
        let mut told = Told { target: target.to_owned(), fields: Vec::new() };
        record(&mut told);
        self.0.lock().expect("lock").push(told);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Trace {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.tell(event.metadata().target(), |told| event.record(told));
    }

    fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.tell(span.metadata().target(), |told| span.record(told));
    }

    fn on_record(&self, span: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let target = context.metadata(span).map(|metadata| metadata.target()).unwrap_or_default();
        self.tell(target, |told| values.record(told));
    }
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.push((field.name(), format!("{value:?}")));
    }

    /// With its sources, which formats print too.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let sources = std::iter::successors(value.source(), |error| error.source());
        let text = sources.fold(value.to_string(), |text, source| format!("{text}: {source}"));
        self.fields.push((field.name(), text));
    }
}
