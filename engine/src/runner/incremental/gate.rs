//! Where rows become updates, and wait until the watermark of all inputs has passed them.
//!
//! So what stands behind holds whole instants only: those that the watermark has passed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use differential_dataflow::{AsCollection, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};

use super::codec::RowCodec;
use super::ends::Update;
use super::row::RowBytes;
use super::steps::Context;
use super::waiting::{Change, Waiting};
use crate::batch::BATCH_ROWS;
use crate::changelog::{diffs, has_time, is_changelog};
use crate::error::{Error, Result};
use crate::event_time::event_times;
use crate::runner::container::Rows;
use crate::runner::failure::guard;
use crate::runner::memory::Account;
use crate::runner::time::LogicalTime;

/// An input, as far as it has come.
pub(super) struct Input {
    pub(super) values: SchemaRef,
    pub(super) codec: RowCodec,
    pub(super) waiting: Waiting,
}

/// All inputs of a relation on one worker.
pub(super) struct Gate {
    pub(super) inputs: Vec<Input>,
    /// What had been let in before a restart, by input: it is let in again before anything else.
    pub(super) restored: Vec<Vec<(RowBytes, isize)>>,
    /// Time had come so far then: nothing takes effect earlier.
    pub(super) restored_at: Option<i64>,
    /// Everything from before has been let in.
    pub(super) open_until: i64,
    /// How many batches have come.
    pub(super) n_batches: u64,
    pub(super) row_bytes: RowBytesSoFar,
}

/// How many rows have come, and what they take.
#[derive(Default)]
pub(super) struct RowBytesSoFar {
    n_rows: u64,
    n_bytes: u64,
    mean: Rc<Cell<u64>>,
}

impl RowBytesSoFar {
    pub(super) fn add(&mut self, rows: &[RowBytes]) {
        self.n_rows += rows.len() as u64;
        self.n_bytes += rows.iter().map(|row| row.n_bytes() as u64).sum::<u64>();
        self.mean.set(self.n_bytes / self.n_rows.max(1));
    }

    /// What a row takes on an average, now and later.
    pub(super) fn mean(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.mean)
    }
}

impl Gate {
    pub(super) fn new(schemas: Vec<SchemaRef>) -> Result<Self> {
        let inputs = schemas.into_iter().map(|values| {
            Ok(Input {
                codec: RowCodec::of(&values)?,
                values,
                waiting: Waiting::default(),
            })
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            restored: inputs.iter().map(|_| Vec::new()).collect(),
            inputs,
            restored_at: None,
            open_until: i64::MIN,
            n_batches: 0,
            row_bytes: RowBytesSoFar::default(),
        })
    }

    /// The least checkpoint of what is let in for the first time: what had been let in before a restart comes
    /// under the one before it, so that what follows from it can be told apart.
    pub(super) fn first_checkpoint(&self) -> u64 {
        u64::from(self.restored_at.is_some())
    }

    /// Keeps the rows. What comes late takes effect at the watermark under which it was sent.
    fn take_in(&mut self, input: usize, rows: &RecordBatch, sent: i64) -> Result<()> {
        let earliest = sent.max(self.restored_at.unwrap_or(i64::MIN));
        let input = self
            .inputs
            .get_mut(input)
            .ok_or_else(|| Error::bug("an input is not there"))?;
        let schema = rows.schema();
        let columns = input.values.fields().iter();
        let columns = columns.map(|f| Ok(Arc::clone(rows.column(schema.index_of(f.name())?))));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let bytes = input.codec.encode(&columns, rows.num_rows())?;
        self.row_bytes.add(&bytes);
        let times = match has_time(&schema) {
            true => event_times(rows)?,
            false => &[],
        };
        let diffs = match is_changelog(&schema) {
            true => diffs(rows)?,
            false => &[],
        };
        for (n, row) in bytes.into_iter().enumerate() {
            let time = times.get(n).copied().unwrap_or(i64::MIN).max(earliest);
            let diff = diffs.get(n).map_or(1, |diff| isize::from(*diff));
            input.waiting.add(Change { time, row, diff });
        }
        Ok(())
    }

    fn n_waiting_bytes(&self) -> u64 {
        let all = self.inputs.iter().map(|i| i.waiting.n_bytes() as u64);
        all.sum()
    }
}

/// Many at once, since all that is computed of rows is computed of as many as come together.
fn in_batches(updates: impl Iterator<Item = Update>) -> impl Iterator<Item = Vec<Update>> {
    let mut updates = updates;
    std::iter::from_fn(move || {
        let part: Vec<Update> = updates.by_ref().take(BATCH_ROWS).collect();
        (!part.is_empty()).then_some(part)
    })
}

/// The updates of each input, let in once the watermark of all of them has passed.
pub(super) fn build_gate<'s>(
    scope: Scope<'s, LogicalTime>,
    streams: Vec<Stream<'s, LogicalTime, Rows>>,
    gate: &Rc<RefCell<Gate>>,
    context: &Context<'s, LogicalTime>,
    mut account: Account,
) -> Vec<VecCollection<'s, LogicalTime, RowBytes, isize>> {
    let mut builder = OperatorBuilder::new(format!("{} in", context.id), scope);
    let (mut outputs, mut made) = (Vec::new(), Vec::new());
    let mut inputs = Vec::new();
    for rows in streams {
        inputs.push(builder.new_input(rows, Pipeline));
        let (output, stream) = builder.new_output::<Vec<Update>>();
        outputs.push(OutputBuilder::<_, CapacityContainerBuilder<_>>::from(
            output,
        ));
        made.push(stream.as_collection());
    }
    let (gate, context) = (Rc::clone(gate), context.clone());
    builder.build(move |capabilities| {
        let mut held = Some(capabilities);
        let mut last = LogicalTime::START;
        move |frontiers| {
            let gate = &mut *gate.borrow_mut();
            for (n, input) in inputs.iter_mut().enumerate() {
                input.for_each(|capability, rows: &mut Rows| {
                    let Some(batch) = rows.0.take() else { return };
                    gate.n_batches += 1;
                    if context.failure.has_failed() || batch.event().is_some() {
                        return;
                    }
                    let sent = LogicalTime::of_stamp(capability.stamp().elements());
                    let turn = guard(&context.id, || {
                        context.metrics.took_in(&batch);
                        gate.take_in(n, batch.rows(), sent.watermark)
                    });
                    if let Err(error) = turn {
                        context.failure.set(error);
                    }
                });
            }
            if context.failure.has_failed() {
                held = None;
            }
            let Some(capabilities) = &mut held else {
                return;
            };
            let now = LogicalTime::of_frontiers(frontiers);
            let checkpoint = now.unwrap_or(last).checkpoint.max(gate.first_checkpoint());
            for (n, capability) in capabilities.iter_mut().enumerate() {
                let restored = std::mem::take(&mut gate.restored[n]).into_iter();
                let restored = restored.map(|(row, diff)| (row, LogicalTime::START, diff));
                let mut output = outputs[n].activate();
                let mut session = output.session(capability);
                for mut part in in_batches(restored) {
                    session.give_container(&mut part);
                }
                let changes = gate.inputs[n].waiting.take_before(now.map(|t| t.watermark));
                let changes = changes.into_iter().map(|Change { time, row, diff }| {
                    let watermark = time;
                    let at = LogicalTime {
                        checkpoint,
                        watermark,
                    };
                    (row, at, diff)
                });
                for mut part in in_batches(changes) {
                    session.give_container(&mut part);
                }
                drop(session);
                drop(output);
                if let Some(now) = now {
                    capability.downgrade(&LogicalTime { checkpoint, ..now });
                }
            }
            last = now.unwrap_or(last);
            gate.open_until = now.map_or(i64::MAX, |now| now.watermark);
            if now.is_none() {
                held = None;
            }
            if let Err(error) = account.holds(gate.n_waiting_bytes()) {
                context.failure.set(error.at_node(&context.id));
            }
        }
    });
    made
}
