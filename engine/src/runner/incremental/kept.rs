//! What is saved of a relation: its inputs as they are, of which all else follows.
//!
//! ```text
//! input ─▶ waits ─▶ let in ─▶ index by a key of a join, or by the whole row ─▶ …
//!            │                    │ as of the watermark, each row as often as it is there
//!            └──────── saved ─────┘
//! ```
//!
//! What is let in is read from the indices that joins keep anyhow. An input that no join reads by keys as it is
//! gets an index of its own, which costs as much memory as one of a join; only where states are saved.
//!
//! What follows from what had been let in has left, and follows from it again after a restart: it is computed
//! anew, and does not leave. So no output is kept, and a restart costs the time of computing the relation of its
//! inputs once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::{Cursor, TraceReader};
use timely::progress::Antichain;

use super::gate::{Gate, Input};
use super::render::Trace;
use super::row::RowBytes;
use super::waiting::Change;
use crate::error::{Error, Result};
use crate::ops::{watermark_of, watermark_part};
use crate::runner::time::LogicalTime;
use crate::state::StatePart;

/// By how much a row is there, and from when on: null where that is before the watermark.
const DIFF: &str = "$diff";
const TIME: &str = "$time";

/// So many changes are dealt to key groups together.
const SAVED_ROWS: usize = 1 << 17;

/// Indices that hold the rows of an input together, each row in one of them.
pub(super) type Indices = Vec<Index>;

/// An index over rows of an input.
pub(super) struct Index {
    pub(super) trace: Trace<LogicalTime>,
    /// The row is the key, and not the value.
    pub(super) by_row: bool,
}

/// What is kept of a relation on one worker, to be saved.
#[derive(Clone)]
pub(super) struct Kept {
    /// By input; none where states are not saved.
    inputs: Rc<RefCell<Vec<Indices>>>,
    /// What follows from everything before has left.
    passed: Rc<Cell<i64>>,
}

impl Kept {
    pub(super) fn new(inputs: Vec<Indices>) -> Self {
        Self {
            inputs: Rc::new(RefCell::new(inputs)),
            passed: Rc::new(Cell::new(i64::MIN)),
        }
    }

    /// Hears how far the relation has come; what was before need not be told apart any more.
    pub(super) fn passed(&mut self, now: Option<LogicalTime>) {
        self.passed.set(now.map_or(i64::MAX, |now| now.watermark));
        let frontier: Antichain<LogicalTime> = now.into_iter().collect();
        for index in self.inputs.borrow_mut().iter_mut().flatten() {
            index.trace.set_logical_compaction(frontier.borrow());
            // Batches are read all at once, however they are cut.
            index
                .trace
                .set_physical_compaction(Antichain::new().borrow());
        }
    }
}

/// The state of a relation on one worker.
pub(crate) struct RelationState {
    pub(super) gate: Rc<RefCell<Gate>>,
    pub(super) kept: Kept,
}

impl RelationState {
    /// How many batches have been taken in.
    pub(crate) fn n_batches(&self) -> u64 {
        self.gate.borrow().n_batches
    }

    /// The inputs as they are, and the changes that wait; asked once all that follows from what was let in has
    /// left on all workers.
    ///
    /// # Errors
    /// A bug where that is not so.
    pub(crate) fn snapshot(&self) -> Result<Vec<StatePart>> {
        let gate = self.gate.borrow();
        if self.kept.passed.get() != gate.open_until {
            return Err(Error::bug("a relation is saved while it is at work"));
        }
        let mut parts = Vec::new();
        let inputs = self.kept.inputs.borrow();
        if inputs.len() != gate.inputs.len() {
            return Err(Error::bug("a relation is saved that keeps no state"));
        }
        for (n, (input, indices)) in gate.inputs.iter().zip(&*inputs).enumerate() {
            let mut saver = Saver::new(n, input);
            let mut parts_of = Vec::new();
            each_row(indices, |row, times| {
                saver.add(row.clone(), None, times, &mut parts_of)
            })?;
            for Change { time, row, diff } in input.waiting.iter() {
                saver.add(row.clone(), Some(*time), *diff, &mut parts_of)?;
            }
            saver.flush(&mut parts_of)?;
            parts.extend(parts_of);
        }
        parts.push(watermark_part(gate.open_until)?);
        Ok(parts)
    }
}

/// Calls for each row of an input that has been let in, with how often it is there.
fn each_row(indices: &Indices, mut call: impl FnMut(&RowBytes, isize) -> Result<()>) -> Result<()> {
    for Index { trace, by_row } in indices {
        let mut batches = Vec::new();
        trace.map_spans(|span| batches.extend(span.inner.clone()));
        let (mut cursor, storage) = cursor_list(batches);
        while let Some(key) = cursor.get_key(&storage) {
            while let Some(value) = cursor.get_val(&storage) {
                let mut times = 0;
                cursor.map_times(&storage, |_, diff| times += *diff);
                if times != 0 {
                    call(if *by_row { key } else { value }, times)?;
                }
                cursor.step_val(&storage);
            }
            cursor.step_key(&storage);
        }
    }
    Ok(())
}

fn table(input: usize) -> String {
    format!("input {input}")
}

/// Makes parts of state from changes of one input.
struct Saver<'a> {
    table: String,
    keys: Vec<String>,
    input: &'a Input,
    schema: SchemaRef,
    changes: Vec<(RowBytes, Option<i64>, i64)>,
}

impl<'a> Saver<'a> {
    fn new(number: usize, input: &'a Input) -> Self {
        let values = input.values.fields();
        let mut fields = values.to_vec();
        fields.push(Arc::new(Field::new(TIME, DataType::Int64, true)));
        fields.push(Arc::new(Field::new(DIFF, DataType::Int64, false)));
        Self {
            table: table(number),
            keys: values.iter().map(|f| f.name().clone()).collect(),
            input,
            schema: Arc::new(Schema::new(fields)),
            changes: Vec::new(),
        }
    }

    fn add(
        &mut self,
        row: RowBytes,
        time: Option<i64>,
        diff: isize,
        parts: &mut Vec<StatePart>,
    ) -> Result<()> {
        let diff = i64::try_from(diff).unwrap_or(i64::MAX);
        self.changes.push((row, time, diff));
        match self.changes.len() < SAVED_ROWS {
            true => Ok(()),
            false => self.flush(parts),
        }
    }

    fn flush(&mut self, parts: &mut Vec<StatePart>) -> Result<()> {
        let changes = std::mem::take(&mut self.changes);
        let mut columns = self
            .input
            .codec
            .decode(changes.iter().map(|(row, ..)| row))?;
        let times: Int64Array = changes.iter().map(|(_, time, _)| *time).collect();
        let diffs = Int64Array::from_iter_values(changes.iter().map(|(.., diff)| *diff));
        columns.extend([Arc::new(times) as ArrayRef, Arc::new(diffs)]);
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        parts.extend(StatePart::by_key(&self.table, &rows, &self.keys)?);
        Ok(())
    }
}

/// Gives a gate what had been saved, before anything comes.
pub(super) fn restore(gate: &mut Gate, state: &[StatePart]) -> Result<()> {
    if state.is_empty() {
        return Ok(());
    }
    let other = || Error::pipeline("the state is that of another relation");
    gate.restored_at = Some(watermark_of(state).ok_or_else(other)?);
    for n in 0..gate.inputs.len() {
        let name = table(n);
        let input = &mut gate.inputs[n];
        for StatePart { rows, .. } in state.iter().filter(|part| part.table == name) {
            let n_values = rows.num_columns().checked_sub(2).ok_or_else(other)?;
            let (values, own) = rows.columns().split_at(n_values);
            let [times, diffs] = own else {
                return Err(other());
            };
            let number = |column: &ArrayRef| column.as_primitive_opt::<Int64Type>().cloned();
            let (times, diffs) = number(times).zip(number(diffs)).ok_or_else(other)?;
            let bytes = input.codec.encode(values, rows.num_rows())?;
            gate.row_bytes.add(&bytes);
            for (at, row) in bytes.into_iter().enumerate() {
                let diff = isize::try_from(diffs.value(at)).unwrap_or(isize::MAX);
                match times.is_valid(at) {
                    false => gate.restored[n].push((row, diff)),
                    true => {
                        let time = times.value(at);
                        input.waiting.add(Change { time, row, diff });
                    }
                }
            }
        }
    }
    Ok(())
}
