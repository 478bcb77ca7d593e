//! Leaves out changes that cancel each other.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::Value;

use super::row_key::{RowKey, with_bytes};
use super::rows_by_time::{Instants, in_runs};
use super::top_k::Stage;
use crate::artifact::Artifacts;
use crate::batch::{BATCH_ROWS, Batch};
use crate::changelog::{check_changelog, diffs, has_time, values_of};
use crate::error::Result;
use crate::event_time::DIFF;
use crate::keys::keys_of;
use crate::output::Output;
use crate::pipeline::Collection;
use crate::state::StatePart;
use crate::transform::{
    Description, Distribution, OnChangelog, Operator, Properties, Transform, Watermark,
};

/// The bytes by which rows are compared, on their way to the worker of their key.
const KEY: &str = "$key";
/// The table of state that holds rows that have no time.
const TIMELESS: &str = "timeless";

/// Leaves out changes that cancel each other: of each instant only what is really another afterwards.
///
/// Rows that are added and taken back at one instant do not leave, in whichever order they came. A row that
/// is added twice leaves twice. Without an event time, what comes between two moves of the watermark is one
/// instant; in a bounded run without one that is everything, so that what leaves is the collection itself.
#[derive(Clone, Copy, Debug)]
pub struct Consolidate {
    stage: Stage,
}

impl Collection {
    /// The changelog without the changes that cancel each other; see [`Consolidate`].
    #[must_use]
    pub fn consolidate(&self) -> Collection {
        let name = self.next_name("consolidate");
        self.named(format!("{name}/keys"))
            .apply(Consolidate {
                stage: Stage::Partial,
            })
            .named(name)
            .apply(Consolidate {
                stage: Stage::Final,
            })
    }
}

impl Transform for Consolidate {
    fn describe(&self) -> Description {
        let kind = match self.stage {
            Stage::Partial => "consolidate_keys",
            Stage::Final => "consolidate",
        };
        Description::new(kind, Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        check_changelog(&inputs[0])?;
        match self.stage {
            Stage::Partial => {
                RowKey::of(&values_of(&inputs[0]), &inputs[0])?;
                with_bytes(&inputs[0], &[KEY])
            }
            Stage::Final => {
                let columns: Vec<usize> = (0..inputs[0].fields().len().saturating_sub(1)).collect();
                Ok(Arc::new(inputs[0].project(&columns)?))
            }
        }
    }

    fn keeps(&self) -> Option<String> {
        Some("changes until the watermark passes them".into())
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(match self.stage {
            Stage::Partial => Box::new(AddKeys { keys: None }),
            Stage::Final => Box::new(ConsolidateOperator {
                instants: Instants::default(),
                timeless: Vec::new(),
            }),
        })
    }

    fn properties(&self) -> Properties {
        match self.stage {
            Stage::Partial => Properties::row_wise(),
            Stage::Final => Properties {
                stateful: true,
                on_changelog: OnChangelog::Carry,
                distribution: Distribution::ByKey(vec![KEY.into()]),
                ..Properties::default()
            },
        }
    }
}

/// Gives each row the bytes of its values.
struct AddKeys {
    keys: Option<(RowKey, SchemaRef)>,
}

impl Operator for AddKeys {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let schema = batch.rows().schema();
        let (keys, promised) = match &mut self.keys {
            Some(keys) => keys,
            slot => slot.insert((
                RowKey::of(&values_of(&schema), &schema)?,
                with_bytes(&schema, &[KEY])?,
            )),
        };
        let mut columns = batch.rows().columns().to_vec();
        columns.push(Arc::new(keys.bytes(batch.rows())?) as ArrayRef);
        let rows = RecordBatch::try_new(Arc::clone(promised), columns)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

struct ConsolidateOperator {
    instants: Instants,
    /// Rows that have no time.
    timeless: Vec<RecordBatch>,
}

impl ConsolidateOperator {
    fn work(&mut self, out: &mut Output) -> Result<()> {
        if let Some(rows) = self.instants.next() {
            consolidate(&rows, out)?;
        }
        if self.instants.has_more() {
            out.more_follows();
        }
        Ok(())
    }
}

/// Gives what is left of the changes of each row and instant.
fn consolidate(rows: &RecordBatch, out: &mut Output) -> Result<()> {
    let last = rows.num_columns() - 1;
    let mut groups = Vec::new();
    keys_of(&[DataType::Binary])?.number(&rows.columns()[last..], rows.num_rows(), &mut groups)?;
    let (rows, runs) = in_runs(rows, &groups, has_time(&rows.schema()))?;
    let (mut places, mut signs) = (Vec::new(), Vec::new());
    let diffs = diffs(&rows)?;
    for run in runs {
        let left: i64 = diffs[run.rows.clone()].iter().map(|d| i64::from(*d)).sum();
        for _ in 0..left.unsigned_abs() {
            places.push(u32::try_from(run.rows.start).unwrap_or(u32::MAX));
            signs.push(if left < 0 { -1 } else { 1 });
        }
    }
    out.filtered(rows.num_rows().saturating_sub(places.len()));
    let columns: Vec<usize> = (0..last).collect();
    let rows = rows.project(&columns)?;
    let at = rows.schema().index_of(DIFF)?;
    for (places, signs) in places.chunks(BATCH_ROWS).zip(signs.chunks(BATCH_ROWS)) {
        let part = take_record_batch(&rows, &UInt32Array::from(places.to_vec()))?;
        let mut columns = part.columns().to_vec();
        columns[at] = Arc::new(Int8Array::from(signs.to_vec()));
        out.push(Batch::new(RecordBatch::try_new(part.schema(), columns)?).inexact());
    }
    Ok(())
}

impl Operator for ConsolidateOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, _out: &mut Output) -> Result<()> {
        let rows = batch.rows();
        match has_time(&rows.schema()) {
            true => self.instants.add(&batch),
            false => {
                self.timeless.push(rows.clone());
                Ok(())
            }
        }
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.instants.pass(watermark)?;
        if let Some(first) = self.timeless.first() {
            let rows = concat_batches(&first.schema(), &self.timeless)?;
            self.timeless.clear();
            self.instants.add_due(rows);
        }
        self.work(out)
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        self.work(out)
    }

    fn state_bytes(&self) -> u64 {
        let timeless = self.timeless.iter().map(RecordBatch::get_array_memory_size);
        (self.instants.n_bytes() + timeless.sum::<usize>()) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let keys = [KEY.to_owned()];
        let mut parts = self.instants.parts(&keys)?;
        for rows in &self.timeless {
            parts.extend(StatePart::by_key(TIMELESS, rows, &keys)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let timeless = state.iter().filter(|part| part.table == TIMELESS);
        self.timeless.extend(timeless.map(|part| part.rows.clone()));
        self.instants.restore(state)
    }
}

#[cfg(test)]
mod tests;
