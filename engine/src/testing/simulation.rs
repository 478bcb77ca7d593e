//! Runs a pipeline over a script, with every move chosen by a seed.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::{show, table};
use crate::error::{Error, Result};
use crate::pipeline::Pipeline;
use crate::runner;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::state::StatePart;
use crate::transform::{ChangeTimes, Description};

/// A source whose rows come from a [`Script`]; it never ends by itself, and has no rows in a run.
#[derive(Clone, Debug)]
pub struct Scripted {
    schema: SchemaRef,
    bounded: bool,
}

impl Scripted {
    /// Whether planning is told that it ends, as a script may let it; false by default.
    #[must_use]
    pub fn bounded(mut self, bounded: bool) -> Self {
        self.bounded = bounded;
        self
    }
}

/// A source for [`simulate`] with the columns of `rows`, as [`table`] reads them.
pub fn scripted(rows: &str) -> Scripted {
    scripted_with(table(rows).schema())
}

/// A source for [`simulate`] with these columns. Where they are those of changes, a row is taken back with the event time
/// with which it was added.
pub fn scripted_with(schema: SchemaRef) -> Scripted {
    Scripted {
        schema,
        bounded: false,
    }
}

impl Source for Scripted {
    fn describe(&self) -> Description {
        Description::new("scripted", json!(null))
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&self.schema))
    }

    fn splits(&self) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }

    fn open(
        &self,
        split: &Split,
        _position: Position,
        _columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        Err(Error::bug(format!("{} is not of this source", split.name)))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            at_hand: false,
            bounded: self.bounded,
            repeatable: false,
            change_times: ChangeTimes::Row,
        }
    }
}

/// What happens in a simulation, in order.
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: Vec<Step>,
}

/// A step of a [`Script`].
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Rows {
        source: String,
        split: u32,
        rows: RecordBatch,
    },
    Watermark {
        source: String,
        at_ms: i64,
    },
    ProcessingTime {
        now_ms: i64,
    },
    End {
        source: String,
    },
    Restart {
        n_workers: usize,
    },
}

impl Script {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What happens, in order.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// One batch of rows, as [`table`] reads them, from split 0 of the source of this name.
    #[must_use]
    pub fn rows(self, source: &str, rows: &str) -> Self {
        self.batch(source, 0, table(rows))
    }

    /// One batch of rows from a split of a source. Worker `split % n_workers` reads it.
    #[must_use]
    pub fn batch(self, source: &str, split: u32, rows: RecordBatch) -> Self {
        let source = source.to_owned();
        self.step(Step::Rows {
            source,
            split,
            rows,
        })
    }

    /// The source's watermark goes on to `at_ms`; of no effect where `assign_timestamps` makes another.
    #[must_use]
    pub fn watermark(self, source: &str, at_ms: i64) -> Self {
        let source = source.to_owned();
        self.step(Step::Watermark { source, at_ms })
    }

    /// The clock goes on to `now_ms`; it stands at 0 before.
    #[must_use]
    pub fn processing_time(self, now_ms: i64) -> Self {
        self.step(Step::ProcessingTime { now_ms })
    }

    /// The source ends.
    #[must_use]
    pub fn end(self, source: &str) -> Self {
        let source = source.to_owned();
        self.step(Step::End { source })
    }

    /// All state is saved, and everything goes on from it with as many workers.
    #[must_use]
    pub fn restart(self, n_workers: usize) -> Self {
        self.step(Step::Restart { n_workers })
    }
}

/// What reached the sinks of a simulated pipeline.
#[derive(Clone, Debug)]
pub struct Simulated {
    arrived: runner::Arrived,
    saved: runner::Saved,
}

impl Simulated {
    /// What reached a sink, after each step of the script.
    ///
    /// # Panics
    /// If the pipeline has no sink of this name.
    pub fn steps(&self, sink: &str) -> &[Vec<RecordBatch>] {
        let steps = self.arrived.get(sink);
        assert!(steps.is_some(), "no sink is named {sink:?}");
        steps.map_or(&[], Vec::as_slice)
    }

    /// All that reached a sink, in order.
    ///
    /// # Panics
    /// As [`Simulated::steps`].
    pub fn rows(&self, sink: &str) -> Vec<RecordBatch> {
        self.steps(sink).concat()
    }

    /// The state that a node had saved, on all workers, when the step with this number restarted everything;
    /// none where it has no state or the step does something else.
    pub fn saved(&self, step: usize, node: &str) -> &[StatePart] {
        let parts = self.saved.get(&step).and_then(|nodes| nodes.get(node));
        parts.map_or(&[], Vec::as_slice)
    }
}

/// Runs a pipeline over a script on `n_workers` simulated workers.
///
/// Operators, exchange and watermarks are those of a run, which tells an operator of several inputs of the watermark of
/// each before it tells of all; there are no threads and no clock but the script's.
/// After each step all moves that are possible are made, in an order that follows from `seed`: any of them is
/// one that a run may take. The operators of a [`Relation`](crate::Relation) exchange rows among themselves: they
/// are on a thread for each worker, which take turns as the seed says. Sources are [`scripted`], by their names; nothing is written to the sinks, which
/// only tell where rows arrive.
///
/// ```
/// use mainstem_engine::testing::{Script, scripted, show_rows, simulate};
/// use mainstem_engine::{Pipeline, col, connectors, lit};
///
/// let pipeline = Pipeline::new("clicks");
/// let (sink, _) = connectors::collect();
/// let clicks = pipeline.read("clicks", scripted("k: 0"));
/// clicks.filter(col("k").gt(lit(1))).named("out").write(sink);
/// let script = Script::new().rows("clicks", "k: 1, 3").rows("clicks", "k: 2").end("clicks");
/// let simulated = simulate(&pipeline, &script, 2, 7)?;
/// assert_eq!(show_rows(&simulated.rows("out")), "k=2\nk=3");
/// # Ok::<(), mainstem_engine::Error>(())
/// ```
///
/// # Errors
/// Those of the plan, and the first failure of an operator.
pub fn simulate(
    pipeline: &Pipeline,
    script: &Script,
    n_workers: usize,
    seed: u64,
) -> Result<Simulated> {
    let plan = pipeline.plan()?;
    let (arrived, saved) = runner::simulate(&plan, script.steps(), n_workers.max(1), seed)?;
    Ok(Simulated { arrived, saved })
}

/// Rows of several batches, sorted, one a line, each as `name=value` pairs: for comparing what has no order.
pub fn show_rows(batches: &[RecordBatch]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let text = show(&batch.slice(row, 1));
            let values = text.lines().map(|line| line.replacen(": ", "=", 1));
            lines.push(values.collect::<Vec<_>>().join(" "));
        }
    }
    lines.sort();
    lines.join("\n")
}
