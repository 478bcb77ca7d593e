//! What a run traces, and at which level.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Mutex, OnceLock};

use expect_test::expect;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::testing::table;
use crate::{Pipeline, Progress, RunOptions, col, connectors, lit};

/// Keeps what a run of one pipeline traces: a line per event, and per span when it begins.
#[derive(Default)]
struct Collector {
    spans: Mutex<Vec<String>>,
    lines: Mutex<Vec<String>>,
}

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

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

impl Collector {
    fn place(&self, parent: Option<&Id>) -> String {
        let current = ENTERED.with_borrow(|entered| entered.last().copied());
        let id = parent.map(Id::into_u64).or(current);
        let spans = self.spans.lock().unwrap();
        let of = |id: u64| spans.get(usize::try_from(id).unwrap() - 1).cloned();
        id.and_then(of).unwrap_or_default()
    }
}

impl Subscriber for &'static Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("mainstem_engine")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let place = self.place(span.parent());
        let (name, level) = (span.metadata().name(), *span.metadata().level());
        let path = match place.as_str() {
            "" => format!("{name}{}", fields.0),
            outer => format!("{outer} > {name}{}", fields.0),
        };
        self.lines
            .lock()
            .unwrap()
            .push(format!("{level} span {path}"));
        let mut spans = self.spans.lock().unwrap();
        spans.push(path);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, place) = (*event.metadata().level(), self.place(event.parent()));
        let line = format!("{level} {place}:{}", fields.0);
        self.lines.lock().unwrap().push(line);
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, _: &Id) {
        ENTERED.with_borrow_mut(|entered| {
            entered.pop();
        });
    }
}

/// The lines of a run of the pipeline "traced", at this level, each once and in order.
fn traced(level: &str) -> String {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    static LINES: OnceLock<Vec<String>> = OnceLock::new();
    let lines = LINES.get_or_init(|| {
        let collector = COLLECTOR.get_or_init(Collector::default);
        tracing::subscriber::set_global_default(collector).unwrap();
        let pipeline = Pipeline::new("traced");
        let batches = vec![table("n: 0, 1, 2"), table("n: 3, 4")];
        let (sink, _) = connectors::collect();
        pipeline
            .read("numbers", connectors::from_record_batches(batches))
            .filter(col("n").gt(lit(0)))
            .write(sink);
        let options = RunOptions::new().workers(1).progress(Progress::Never);
        pipeline.run(&options).unwrap();
        let lines = collector.lines.lock().unwrap();
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
        INFO run …: run finished rows_read=5 rejected=0"#]].assert_eq(&traced("INFO"));
}

#[test]
fn debug_tells_of_splits_and_nodes_and_nothing_per_batch() {
    expect![[r#"
        DEBUG run … > phase number=1: rows in flight
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
        TRACE span run … > phase number=1 > node id="numbers""#]].assert_eq(&traced("TRACE"));
}
