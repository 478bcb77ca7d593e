//! The metrics of runs, for a Prometheus server to collect (feature `prometheus`).
//!
//! Every run publishes what its nodes do through the facade of the crate `metrics`, once a second and at
//! its end, so whatever recorder the program has installed receives them. A program that has none calls
//! [`install`] once and answers with [`metrics_text`] where Prometheus asks it: no port is opened here.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstem_node_rows_in_total` | counter: rows taken in; of a source, read | `pipeline`, `node`, `kind` |
//! | `mainstem_node_rows_out_total` | counter: rows pushed out | " |
//! | `mainstem_node_rows_filtered_total` | counter: rows left out on purpose | " |
//! | `mainstem_node_rows_rejected_total` | counter: rows refused | " |
//! | `mainstem_node_rows_late_total` | counter: rows behind the allowed lateness | " |
//! | `mainstem_node_rows_behind_total` | counter: rows behind the watermark where it is made | " |
//! | `mainstem_node_rows_pruned_total` | counter: rows that a source need not read | " |
//! | `mainstem_node_in_bytes_total` | counter: memory that the rows taken in fill | " |
//! | `mainstem_node_storage_read_bytes_total` | counter: storage that a source has read | " |
//! | `mainstem_node_batches_total` | counter: batches taken in | " |
//! | `mainstem_node_busy_seconds` | gauge that only grows, as the facade's counters are whole numbers: time spent in the node, over all workers | " |
//! | `mainstem_node_state_bytes` | gauge: kept between calls | " |
//! | `mainstem_node_credit_bytes` | gauge: rows of a source in flight | " |
//! | `mainstem_node_watermark_seconds` | gauge: the watermark behind the node, as seconds since 1970 | " |
//! | `mainstem_node_watermark_lag_seconds` | gauge: how far it is behind the clock | " |
//! | `mainstem_node_watermark_held_back` | gauge: 1 for whoever holds it back, 0 for who did | ", and `by` |
//! | `mainstem_runs_total` | counter: runs that are over | `pipeline`, `outcome` (`finished` or `failed`) |
//! | `mainstem_last_run_seconds` | gauge: how long the last run took | `pipeline` |
//!
//! A node that runs in several phases counts on. Two runs of equally named pipelines at the same time
//! share their counters, and overwrite each other's gauges of state and credit.
//!
//! ```
//! use mainstem_engine::{Pipeline, RunOptions, connectors, prometheus, testing::table};
//!
//! prometheus::install()?;
//! let pipeline = Pipeline::new("copy");
//! let (sink, _rows) = connectors::collect();
//! let rows = table("age: 20, 40, 60");
//! pipeline.read("people", connectors::from_record_batches(vec![rows])).write(sink);
//! pipeline.run(&RunOptions::new())?;
//!
//! // What the handler of `GET /metrics` answers, as `text/plain; version=0.0.4`.
//! let text = prometheus::metrics_text();
//! assert!(text.contains("# TYPE mainstem_node_rows_in_total counter"));
//! assert!(text.contains("mainstem_runs_total{pipeline=\"copy\",outcome=\"finished\"} 1"));
//! # Ok::<(), mainstem_engine::Error>(())
//! ```

use std::collections::BTreeMap;
use std::sync::OnceLock;

use metrics::{Counter, Gauge, Label, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::error::{Error, Result};
use crate::report::{NodeReport, RunReport, WatermarkReport};
use crate::runner::metrics::Counts;

/// The recorder of this process, once [`install`] has made it.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Records the metrics of this process, those of the program's own too, for [`metrics_text`].
///
/// Calling it again changes nothing. What was published before is not recorded.
///
/// # Errors
/// A pipeline error if the program has installed another recorder: that one receives the metrics of
/// runs already.
pub fn install() -> Result<()> {
    if RECORDER.get().is_some() {
        return Ok(());
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    match metrics::set_global_recorder(recorder) {
        Ok(()) => {
            let _ = RECORDER.set(handle);
            describe();
            Ok(())
        }
        // Another thread was faster.
        Err(_) if RECORDER.get().is_some() => Ok(()),
        Err(error) => Err(
            Error::pipeline("the metrics of this process have a recorder already")
                .with_hint("Collect from that recorder: runs publish to it.")
                .with_source(error.to_string()),
        ),
    }
}

/// All metrics of this process in Prometheus' text format; empty before [`install`].
pub fn metrics_text() -> String {
    let Some(recorder) = RECORDER.get() else {
        return String::new();
    };
    recorder.run_upkeep();
    recorder.render()
}

/// A count of a node that only grows.
type Count = (&'static str, Unit, &'static str, fn(&Counts) -> u64);

const COUNTS: &[Count] = &[
    (
        "mainstem_node_rows_in_total",
        Unit::Count,
        "Rows taken in; of a source, read.",
        |c| c.rows_in,
    ),
    (
        "mainstem_node_rows_out_total",
        Unit::Count,
        "Rows pushed out.",
        |c| c.rows_out,
    ),
    (
        "mainstem_node_rows_filtered_total",
        Unit::Count,
        "Rows left out on purpose.",
        |c| c.filtered,
    ),
    (
        "mainstem_node_rows_rejected_total",
        Unit::Count,
        "Rows refused: dropped or dead letters.",
        |c| c.rejected,
    ),
    (
        "mainstem_node_rows_late_total",
        Unit::Count,
        "Rows behind the allowed lateness.",
        |c| c.late,
    ),
    (
        "mainstem_node_rows_behind_total",
        Unit::Count,
        "Rows behind the watermark where it is made.",
        |c| c.behind,
    ),
    (
        "mainstem_node_rows_pruned_total",
        Unit::Count,
        "Rows that a source need not read.",
        |c| c.pruned,
    ),
    (
        "mainstem_node_in_bytes_total",
        Unit::Bytes,
        "Memory that the rows taken in fill.",
        |c| c.bytes_in,
    ),
    (
        "mainstem_node_storage_read_bytes_total",
        Unit::Bytes,
        "Storage that a source has read.",
        |c| c.bytes_read,
    ),
    (
        "mainstem_node_batches_total",
        Unit::Count,
        "Batches taken in.",
        |c| c.batches,
    ),
];

const BUSY: &str = "mainstem_node_busy_seconds";
const STATE: &str = "mainstem_node_state_bytes";
const CREDIT: &str = "mainstem_node_credit_bytes";
const WATERMARK: &str = "mainstem_node_watermark_seconds";
const LAG: &str = "mainstem_node_watermark_lag_seconds";
const HELD_BACK: &str = "mainstem_node_watermark_held_back";
const RUNS: &str = "mainstem_runs_total";
const LAST_RUN: &str = "mainstem_last_run_seconds";

fn describe() {
    for (name, unit, what, _) in COUNTS {
        describe_counter!(*name, *unit, *what);
    }
    describe_gauge!(
        BUSY,
        Unit::Seconds,
        "Time spent in the node, over all workers."
    );
    describe_gauge!(STATE, Unit::Bytes, "What the node keeps between calls.");
    describe_gauge!(CREDIT, Unit::Bytes, "Rows of a source that are in flight.");
    describe_gauge!(
        WATERMARK,
        Unit::Seconds,
        "The watermark behind the node, as seconds since 1970."
    );
    describe_gauge!(
        LAG,
        Unit::Seconds,
        "How far the watermark is behind the clock."
    );
    describe_gauge!(
        HELD_BACK,
        Unit::Count,
        "1 for whoever holds the watermark back, 0 for who did."
    );
    describe_counter!(RUNS, Unit::Count, "Runs that are over.");
    describe_gauge!(LAST_RUN, Unit::Seconds, "How long the last run took.");
}

/// Publishes what one run does.
pub(crate) struct Publisher {
    pipeline: String,
    nodes: BTreeMap<(usize, String), Published>,
}

/// What of a node in a phase has been published.
struct Published {
    counts: Vec<Counter>,
    busy: Gauge,
    state: Gauge,
    credit: Gauge,
    last: Counts,
    labels: Vec<Label>,
    /// Who held the watermark back at last.
    held_back_by: Option<String>,
}

impl Publisher {
    pub(crate) fn new(pipeline: &str) -> Self {
        Self {
            pipeline: pipeline.into(),
            nodes: BTreeMap::new(),
        }
    }

    /// Publishes the counts of a node, which has counted from 0 in this phase.
    pub(crate) fn node(
        &mut self,
        phase: usize,
        about: &NodeReport,
        now: &Counts,
        watermark: Option<&WatermarkReport>,
    ) {
        let pipeline = &self.pipeline;
        let published = self
            .nodes
            .entry((phase, about.node.clone()))
            .or_insert_with(|| Published::new(pipeline, about));
        published.publish(now);
        published.publish_watermark(watermark);
    }

    pub(crate) fn run_over(&self, report: &RunReport) {
        let outcome = match report.error {
            Some(_) => "failed",
            None => "finished",
        };
        let pipeline = Label::new("pipeline", self.pipeline.clone());
        let of_run = vec![pipeline.clone(), Label::new("outcome", outcome)];
        counter!(RUNS, of_run).increment(1);
        gauge!(LAST_RUN, vec![pipeline]).set(report.wall.as_secs_f64());
    }
}

impl Published {
    fn new(pipeline: &str, about: &NodeReport) -> Self {
        let labels = || {
            vec![
                Label::new("pipeline", pipeline.to_owned()),
                Label::new("node", about.node.clone()),
                Label::new("kind", about.kind.clone()),
            ]
        };
        Self {
            counts: COUNTS
                .iter()
                .map(|(name, ..)| counter!(*name, labels()))
                .collect(),
            busy: gauge!(BUSY, labels()),
            state: gauge!(STATE, labels()),
            credit: gauge!(CREDIT, labels()),
            last: Counts::default(),
            labels: labels(),
            held_back_by: None,
        }
    }

    /// Gauges of time are there only where there is an event time.
    fn publish_watermark(&mut self, watermark: Option<&WatermarkReport>) {
        let by = watermark.map(|w| w.held_back_by.clone());
        if by != self.held_back_by {
            for (who, value) in [(&self.held_back_by, 0.0), (&by, 1.0)] {
                if let Some(who) = who {
                    let mut labels = self.labels.clone();
                    labels.push(Label::new("by", who.clone()));
                    gauge!(HELD_BACK, labels).set(value);
                }
            }
            self.held_back_by = by;
        }
        if let Some(WatermarkReport {
            at_ms: Some(at_ms),
            lag: Some(lag),
            ..
        }) = watermark
        {
            gauge!(WATERMARK, self.labels.clone()).set(*at_ms as f64 / 1e3);
            gauge!(LAG, self.labels.clone()).set(lag.as_secs_f64());
        }
    }

    fn publish(&mut self, now: &Counts) {
        for (counter, (_, _, _, of)) in self.counts.iter().zip(COUNTS) {
            counter.increment(of(now).saturating_sub(of(&self.last)));
        }
        self.busy
            .increment(now.busy.saturating_sub(self.last.busy).as_secs_f64());
        self.state.set(now.state_bytes as f64);
        self.credit.set(now.credit_bytes as f64);
        self.last = *now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;
    use crate::{OnBadRow, Pipeline, Progress, RunOptions, col, connectors, lit};
    use expect_test::expect;

    fn run(pipeline: &str) -> Result<RunReport> {
        let pipeline = Pipeline::new(pipeline);
        let rows = connectors::from_record_batches(vec![table("n: 0, 1, 2, 3")]);
        let (sink, _) = connectors::collect();
        pipeline
            .read("numbers", rows)
            .filter(col("n").gt(lit(0)))
            .with_column("q", lit(8) / (col("n") - lit(2)))
            .on_bad_row(OnBadRow::Drop)
            .named("out \"quoted\"")
            .write(sink);
        pipeline.run(&RunOptions::new().workers(1).progress(Progress::Never))
    }

    /// The lines of a pipeline, without figures that differ from run to run.
    fn lines(pipeline: &str) -> String {
        let text = metrics_text();
        let label = format!("pipeline=\"{pipeline}\"");
        let of_pipeline = text.lines().filter(|l| l.contains(&label));
        let mut lines: Vec<String> = of_pipeline
            .filter(|l| !l.contains("_seconds") && !l.ends_with(" 0"))
            .map(|l| l.replace(&label, "…"))
            .collect();
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn runs_are_published_and_counters_go_on() {
        install().unwrap();
        install().unwrap();
        run("prometheus counters").unwrap();
        run("prometheus counters").unwrap();
        expect![[r#"
            mainstem_node_batches_total{…,node="filter",kind="filter"} 2
            mainstem_node_batches_total{…,node="numbers",kind="record_batches"} 2
            mainstem_node_batches_total{…,node="out \"quoted\"",kind="collect"} 2
            mainstem_node_batches_total{…,node="with_column",kind="with_column"} 2
            mainstem_node_in_bytes_total{…,node="filter",kind="filter"} 64
            mainstem_node_in_bytes_total{…,node="numbers",kind="record_batches"} 64
            mainstem_node_in_bytes_total{…,node="out \"quoted\"",kind="collect"} 64
            mainstem_node_in_bytes_total{…,node="with_column",kind="with_column"} 48
            mainstem_node_rows_filtered_total{…,node="filter",kind="filter"} 2
            mainstem_node_rows_in_total{…,node="filter",kind="filter"} 8
            mainstem_node_rows_in_total{…,node="numbers",kind="record_batches"} 8
            mainstem_node_rows_in_total{…,node="out \"quoted\"",kind="collect"} 4
            mainstem_node_rows_in_total{…,node="with_column",kind="with_column"} 6
            mainstem_node_rows_out_total{…,node="filter",kind="filter"} 6
            mainstem_node_rows_out_total{…,node="numbers",kind="record_batches"} 8
            mainstem_node_rows_out_total{…,node="with_column",kind="with_column"} 4
            mainstem_node_rows_rejected_total{…,node="with_column",kind="with_column"} 2
            mainstem_node_storage_read_bytes_total{…,node="numbers",kind="record_batches"} 256
            mainstem_runs_total{…,outcome="finished"} 2"#]]
        .assert_eq(&lines("prometheus counters"));
        let text = metrics_text();
        for described in [
            "# HELP mainstem_node_rows_in_total Rows taken in; of a source, read.",
            "# TYPE mainstem_node_rows_in_total counter",
            "# TYPE mainstem_node_busy_seconds gauge",
        ] {
            assert!(text.lines().any(|l| l == described), "{described}\n{text}");
        }
    }

    #[test]
    fn a_run_that_fails_is_counted_as_such() {
        install().unwrap();
        let pipeline = Pipeline::new("prometheus failure");
        let rows = connectors::from_record_batches(vec![table("n: 0")]);
        let (sink, _) = connectors::collect();
        let divided = pipeline
            .read("numbers", rows)
            .with_column("q", lit(8) / col("n"));
        divided.write(sink);
        let options = RunOptions::new().workers(1).progress(Progress::Never);
        assert!(pipeline.run(&options).is_err());
        let lines = lines("prometheus failure");
        assert!(
            lines.contains("mainstem_runs_total{…,outcome=\"failed\"} 1"),
            "{lines}"
        );
    }
}
