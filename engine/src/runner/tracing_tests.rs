//! What a run traces, and at which level.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use expect_test::expect;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::testing::table;
use crate::{Pipeline, Progress, RunOptions, col, connectors, lit};

/// Keeps what is traced: a line per event, and per span when it begins.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<String>>>);

/// A span with those around it.
struct Path(String);

/// The fields of an event or a span, without those that differ from run to run.
#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "seconds" | "busy_seconds" | "memory" | "each" | "all" => {}
            "message" => self.0.insert_str(0, &format!(" {value:?}")),
            name => self.0.push_str(&format!(" {name}={value:?}")),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("mainstem_engine")
    }

    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let Some(of) = context.span(id) else { return };
        let (name, level) = (of.name(), *of.metadata().level());
        let outer = of
            .parent()
            .and_then(|p| p.extensions().get::<Path>().map(|p| p.0.clone()));
        let outer = outer.map_or_else(String::new, |path| format!("{path} > "));
        let path = format!("{outer}{name}{}", fields.0);
        self.0.lock().unwrap().push(format!("{level} span {path}"));
        of.extensions_mut().insert(Path(path));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let place = context.lookup_current();
        let place = place.and_then(|p| p.extensions().get::<Path>().map(|p| p.0.clone()));
        let (level, place) = (*event.metadata().level(), place.unwrap_or_default());
        self.0
            .lock()
            .unwrap()
            .push(format!("{level} {place}:{}", fields.0));
    }
}

/// The lines of a run of the pipeline "traced", at this level, each once and in order.
fn traced(level: &str) -> String {
    static LINES: OnceLock<Vec<String>> = OnceLock::new();
    let lines = LINES.get_or_init(|| {
        let collector = Collector::default();
        let subscriber = tracing_subscriber::registry().with(collector.clone());
        // Of the whole process: workers have threads of their own.
        tracing::subscriber::set_global_default(subscriber).unwrap();
        let pipeline = Pipeline::new("traced");
        let batches = vec![table("n: 0, 1, 2"), table("n: 3, 4")];
        let (sink, _) = connectors::collect();
        pipeline
            .read("numbers", connectors::from_record_batches(batches))
            .filter(col("n").gt(lit(0)))
            .write(sink);
        let options = RunOptions::new().workers(1).progress(Progress::Never);
        pipeline.run(&options).unwrap();
        let lines = collector.0.lock().unwrap();
        let ours = lines.iter().filter(|l| l.contains("pipeline=\"traced\""));
        ours.map(|l| l.replace("pipeline=\"traced\"", "…"))
            .collect()
    });
    let of_level = lines.iter().filter(|l| l.starts_with(level));
    let mut lines: Vec<&str> = of_level.map(String::as_str).collect();
    // Calls of nodes come in any order.
    if level == "TRACE" {
        lines.sort_unstable();
        lines.dedup();
    }
    lines.join("\n")
}

#[test]
fn info_tells_of_the_run_and_its_phases() {
    expect![[r#"
        INFO span run …
        INFO run …: run starts workers=1 phases=1
        INFO span run … > phase number=1
        INFO run … > phase number=1: phase finished ends_in="collect" rows_read=5 rejected=0
        INFO run …: run finished rows_read=5 rejected=0"#]]
    .assert_eq(&traced("INFO"));
}

#[test]
fn debug_tells_of_splits_and_nodes_and_nothing_per_batch() {
    expect![[r#"
        DEBUG run … > phase number=1: rows in flight
        DEBUG run … > phase number=1 > node id="numbers" > node id="numbers": split opened node="numbers" split="record batch 0"
        DEBUG run … > phase number=1 > node id="numbers" > node id="numbers": split opened node="numbers" split="record batch 1"
        DEBUG run … > phase number=1: node finished node="numbers" kind="record_batches" rows_in=5 rows_out=5 filtered=0 rejected=0
        DEBUG run … > phase number=1: node finished node="filter" kind="filter" rows_in=5 rows_out=4 filtered=1 rejected=0
        DEBUG run … > phase number=1: node finished node="collect" kind="collect" rows_in=4 rows_out=0 filtered=0 rejected=0"#]].assert_eq(&traced("DEBUG"));
}

#[test]
fn calls_of_nodes_are_spans_within_the_phase() {
    expect![[r#"
        TRACE span run … > node id="collect"
        TRACE span run … > phase number=1 > node id="collect"
        TRACE span run … > phase number=1 > node id="filter"
        TRACE span run … > phase number=1 > node id="numbers"
        TRACE span run … > phase number=1 > node id="numbers" > node id="numbers"
        TRACE span run … > phase number=1 > node id="numbers" > node id="numbers" > node id="filter""#]]
    .assert_eq(&traced("TRACE"));
}
