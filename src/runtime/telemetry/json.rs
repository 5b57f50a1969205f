//! Log lines as flat JSON objects.
//!
//! The JSON format of `tracing-subscriber` nests the fields of spans under `span`; a query for
//! `graph = "x"` would have to know whether a line was written inside the graph's span. Here the
//! fields of all enclosing spans and of the event itself lie side by side.

use std::{fmt, io::Write as _};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    fmt::MakeWriter,
    layer::Context,
    registry::{LookupSpan, Scope},
};

/// Writes each event as one line of JSON: `time`, `level`, `target`, the fields, `message`.
pub(super) struct Lines<W> {
    writer: W,
}

impl<W> Lines<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer }
    }
}

/// Fields of a span, kept with it.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut own = Fields::default();
        event.record(&mut own);
        let line = line(event, own, context.event_scope(event));
        // a log that cannot be written is no reason to stop
        let _ = writeln!(self.writer.make_writer_for(event.metadata()), "{line}");
    }
}

fn line<'a, S: LookupSpan<'a>>(event: &Event<'_>, own: Fields, scope: Option<Scope<'a, S>>) -> Value {
    let mut line = Map::new();
    line.insert("time".into(), Timestamp::now().to_string().into());
    line.insert("level".into(), event.metadata().level().as_str().into());
    line.insert("target".into(), event.metadata().target().into());
    // from the outermost span to the event: the nearest value of a name wins
    for span in scope.into_iter().flat_map(Scope::from_root) {
        if let Some(fields) = span.extensions().get::<Fields>() {
            line.extend(fields.0.clone());
        }
    }
    line.extend(own.0);
    Value::Object(line)
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn fields_of_spans_and_events_lie_side_by_side() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::registry().with(Lines::new(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let _graph =
                tracing::info_span!("reconcile", graph = "team/orders", task = tracing::field::Empty).entered();
            tracing::Span::current().record("task", "outer");
            let _task = tracing::info_span!("apply", task = "extract").entered();
            tracing::warn!(attempt = 2, "line\nbreak and \"quotes\"");
        });
        let written = buffer.0.lock().clone();
        let written = String::from_utf8(written).unwrap();
        assert_eq!(written.lines().count(), 1, "one line an event");
        let mut line: Map<String, Value> = serde_json::from_str(&written).unwrap();
        assert!(line.remove("time").unwrap().as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!(
            Value::Object(line),
            serde_json::json!({
                "level": "WARN", "target": "taskgraph::runtime::telemetry::json::tests",
                "graph": "team/orders", "task": "extract", "attempt": 2, "message": "line\nbreak and \"quotes\"",
            })
        );
    }
}
