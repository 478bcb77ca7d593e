//! A pipeline without branches under the hand of a test, a step at a time.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::artifact::Artifacts;
use crate::batch::{Batch, SplitKey};
use crate::error::{Error, Result};
use crate::graph::{Node, Port, Stage};
use crate::output::Output;
use crate::pipeline::Pipeline;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};

/// An operator may ask to be woken so often at one instant before that is taken for a mistake.
const MAX_WAKES: usize = 10_000;

/// The transforms of a pipeline with one source and no branches, on one worker and in the hand of a test: it
/// gives the rows, moves the watermark and the clock, and sees after each step what has left.
///
/// The source gives its columns and no rows; a sink, if there is one, gets none. Nothing runs in between steps,
/// so a test knows what each of them causes.
///
/// ```
/// # use std::time::Duration;
/// # use mainstem_engine::{Pipeline, Windowing, aggregates::count, connectors, lit};
/// # use mainstem_engine::testing::{LinearRun, table};
/// let rows = table("n: 1, 2, 3; event_time: 1, 2, 13");
/// let pipeline = Pipeline::new("counts");
/// let source = connectors::from_record_batches(vec![rows.slice(0, 0)]);
/// pipeline.read("rows", source);
/// let mut run = LinearRun::new(&pipeline)?;
/// run.rows(&rows)?;
/// assert_eq!(run.take(0), [rows]);
/// # Ok::<(), mainstem_engine::Error>(())
/// ```
#[derive(Debug)]
pub struct LinearRun {
    nodes: Vec<Running>,
    input: SchemaRef,
    output: SchemaRef,
    n_rows: u64,
    now: i64,
    watermark: Watermark,
    /// What has left the last transform, by port.
    left: Vec<(usize, RecordBatch)>,
}

struct Running {
    operator: Box<dyn Operator>,
    out: Output,
    /// What it has been told.
    watermark: Watermark,
    n_late: u64,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an operator at {:?}", self.watermark)
    }
}

impl LinearRun {
    /// Checks the pipeline, and builds its operators.
    ///
    /// # Errors
    /// If it has branches, learns something, or is wrong; what the transforms say of the columns.
    pub fn new(pipeline: &Pipeline) -> Result<Self> {
        let graph = pipeline.graph();
        let (first, rest) = graph
            .nodes
            .split_first()
            .ok_or_else(|| Error::pipeline("the pipeline has no nodes"))?;
        let Stage::Source(source) = &first.stage else {
            return Err(not_linear(first));
        };
        let input = source.schema()?;
        let mut schema = Arc::clone(&input);
        let mut nodes = Vec::new();
        for (before, node) in rest.iter().enumerate() {
            let follows = match node.inputs.as_slice() {
                [edge] => edge.from == before && edge.port == Port::Out(0),
                _ => false,
            };
            let transform = match &node.stage {
                Stage::Transform(transform) if follows => transform,
                Stage::Sink(_) if follows && before + 1 == rest.len() => break,
                _ => return Err(not_linear(node)),
            };
            let made = transform.output_schema(&[Arc::clone(&schema)]);
            schema = made.map_err(|error| error.at_node(&node.id))?;
            nodes.push(Running {
                operator: transform.build(&Artifacts::none())?,
                out: Output::new(node.on_bad_row),
                watermark: Watermark::START,
                n_late: 0,
            });
        }
        Ok(Self {
            nodes,
            input,
            output: schema,
            n_rows: 0,
            now: 0,
            watermark: Watermark::START,
            left: Vec::new(),
        })
    }

    /// The columns that the source has.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The columns that leave.
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output
    }

    /// Rows come in, as one batch.
    ///
    /// # Errors
    /// What an operator says of them.
    pub fn rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let name = Arc::from("rows in memory");
        let batch = Batch::read(rows.clone(), SplitKey::default(), name, self.n_rows);
        self.n_rows += rows.num_rows() as u64;
        self.go_down(0, vec![(0, batch)])?;
        self.tell_watermarks()?;
        self.wake()
    }

    /// The watermark of the source moves to `time`. It never goes back.
    ///
    /// # Errors
    /// What an operator says of it.
    pub fn watermark(&mut self, time: i64) -> Result<()> {
        self.watermark = self.watermark.max(Watermark(time));
        self.tell_watermarks()?;
        self.wake()
    }

    /// The clock moves to `now`, in milliseconds; it stands at 0 before. Operators that wanted to be woken by
    /// then are, one after the other at their time.
    ///
    /// # Errors
    /// What an operator says of it.
    pub fn processing_time(&mut self, now: i64) -> Result<()> {
        let now = self.now.max(now);
        for _ in 0..MAX_WAKES {
            let next = self
                .nodes
                .iter()
                .filter_map(|n| n.operator.wakes_at())
                .min();
            match next.filter(|next| *next <= now) {
                Some(next) => self.now = self.now.max(next),
                None => {
                    self.now = now;
                    return Ok(());
                }
            }
            self.wake()?;
        }
        Err(too_many_wakes(now))
    }

    /// The input ends.
    ///
    /// # Errors
    /// What an operator says of it.
    pub fn end(&mut self) -> Result<()> {
        self.watermark(Watermark::END.0)
    }

    /// Takes the rows that have left the last transform by a port since the last call.
    pub fn take(&mut self, port: usize) -> Vec<RecordBatch> {
        let (taken, kept) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|(by, _)| *by == port);
        self.left = kept;
        let taken: Vec<(usize, RecordBatch)> = taken;
        taken.into_iter().map(|(_, rows)| rows).collect()
    }

    /// How many rows have come too late so far, for all transforms together.
    pub fn n_late(&self) -> u64 {
        self.nodes.iter().map(|node| node.n_late).sum()
    }

    /// What those behind the last transform know of event time.
    pub fn watermark_behind(&self) -> Watermark {
        self.nodes.iter().fold(self.watermark, |input, node| {
            node.operator.output_watermark(input)
        })
    }

    /// What each transform keeps, in their order.
    ///
    /// # Errors
    /// What an operator says.
    pub fn snapshot(&mut self) -> Result<Vec<Vec<StatePart>>> {
        let nodes = self.nodes.iter_mut();
        nodes.map(|node| node.operator.snapshot()).collect()
    }

    /// A run of the same pipeline at the same place, whose operators have been made anew from their state.
    ///
    /// # Errors
    /// What an operator says of its state.
    pub fn restarted(mut self, pipeline: &Pipeline) -> Result<Self> {
        let state = self.snapshot()?;
        let mut new = Self::new(pipeline)?;
        for ((node, old), state) in new.nodes.iter_mut().zip(&self.nodes).zip(&state) {
            (node.watermark, node.n_late) = (old.watermark, old.n_late);
            node.out.set_processing_time(self.now);
            node.operator.restore(state)?;
        }
        (new.now, new.watermark, new.n_rows) = (self.now, self.watermark, self.n_rows);
        new.left = self.left;
        Ok(new)
    }

    /// Batches into the node `at` and down from there, each as far as it goes before the next.
    fn go_down(&mut self, at: usize, batches: Vec<(usize, Batch)>) -> Result<()> {
        for (port, batch) in batches {
            if at > 0 && port != 0 && at < self.nodes.len() {
                continue; // nothing reads it
            }
            let Some(node) = self.nodes.get_mut(at) else {
                self.left.push((port, batch.rows().clone()));
                continue;
            };
            node.out.set_processing_time(self.now);
            node.operator.on_batch(0, batch, &mut node.out)?;
            self.pass_on(at)?;
        }
        Ok(())
    }

    /// Sends on what a node has pushed, until it has nothing more.
    fn pass_on(&mut self, at: usize) -> Result<()> {
        loop {
            let node = &mut self.nodes[at];
            node.n_late += node.out.take_late();
            let (pushed, more) = (node.out.take(), node.out.take_more());
            self.go_down(at + 1, pushed)?;
            if !more {
                return Ok(());
            }
            let node = &mut self.nodes[at];
            node.operator.resume(&mut node.out)?;
        }
    }

    /// Tells each node of its watermark, where that has moved, and what follows to those behind it.
    fn tell_watermarks(&mut self) -> Result<()> {
        let mut watermark = self.watermark;
        for at in 0..self.nodes.len() {
            let now = self.now;
            let node = &mut self.nodes[at];
            if watermark > node.watermark {
                node.watermark = watermark;
                node.out.set_processing_time(now);
                node.operator.on_watermark(watermark, &mut node.out)?;
                self.pass_on(at)?;
            }
            let node = &self.nodes[at];
            watermark = node.operator.output_watermark(node.watermark);
        }
        Ok(())
    }

    /// Wakes who wanted to be woken by now.
    fn wake(&mut self) -> Result<()> {
        if self.watermark.is_end() {
            return Ok(());
        }
        for _ in 0..MAX_WAKES {
            let now = self.now;
            let due = self.nodes.iter().position(|node| {
                let at = node.operator.wakes_at();
                at.is_some_and(|at| at <= now)
            });
            let Some(at) = due else {
                return Ok(());
            };
            let node = &mut self.nodes[at];
            node.out.set_processing_time(now);
            node.operator.on_processing_time(&mut node.out)?;
            self.pass_on(at)?;
            self.tell_watermarks()?;
        }
        Err(too_many_wakes(self.now))
    }
}

fn not_linear(node: &Node) -> Error {
    Error::pipeline(format!(
        "node {:?} is not one of a source and transforms in one line",
        node.id.to_string()
    ))
}

fn too_many_wakes(now: i64) -> Error {
    Error::bug(format!(
        "operators were woken {MAX_WAKES} times by {now} and want to be again"
    ))
}
