//! Which rows come in time for their windows.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::cast;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;

use super::slices::{Fates, Lateness, Now, Sliced, Slicer};
use crate::batch::Batch;
use crate::error::Result;
use crate::event_time::event_times;
use crate::output::Output;

/// What says whether a row comes in time.
pub(super) struct InTime<'a> {
    pub(super) slicer: &'a mut Slicer,
    pub(super) lateness: Lateness,
    pub(super) watermark: i64,
}

impl InTime<'_> {
    /// The rows that some window takes, and their slices.
    ///
    /// Those that are too late for all of their windows leave by the port `late`, in the columns that are
    /// promised; those that are in no window at all count as filtered.
    pub(super) fn rows(
        &mut self,
        batch: Batch,
        promised: &Schema,
        out: &mut Output,
    ) -> Result<(Batch, Sliced)> {
        let sliced = self.slicer.slice(event_times(batch.rows())?);
        let now = Now::at(self.watermark);
        let Some(fates) = sliced.fates(batch.n_rows(), self.lateness, now) else {
            return Ok((batch, sliced));
        };
        let batch = taken(batch, fates, promised, out)?;
        let sliced = self.slices(&batch)?;
        Ok((batch, sliced))
    }

    /// As [`InTime::rows`], of rows that were at `times` and take effect at their event time.
    pub(super) fn rows_of(
        &mut self,
        batch: Batch,
        times: &[i64],
        promised: &Schema,
        out: &mut Output,
    ) -> Result<Batch> {
        let sliced = self.slicer.slice(times);
        let now = Now::each(self.watermark, event_times(batch.rows())?);
        match sliced.fates(batch.n_rows(), self.lateness, now) {
            None => Ok(batch),
            Some(fates) => taken(batch, fates, promised, out),
        }
    }

    /// The slices of the rows that still take some.
    pub(super) fn slices(&mut self, batch: &Batch) -> Result<Sliced> {
        let times = event_times(batch.rows())?;
        Ok(self.slices_at(times, Now::at(self.watermark)))
    }

    /// As [`InTime::slices`], of rows that were at `times` and take effect at their event time.
    pub(super) fn slices_of(&mut self, batch: &Batch, times: &[i64]) -> Result<Sliced> {
        let effects = event_times(batch.rows())?;
        Ok(self.slices_at(times, Now::each(self.watermark, effects)))
    }

    fn slices_at(&mut self, times: &[i64], now: Now<'_>) -> Sliced {
        let mut sliced = self.slicer.slice(times);
        sliced.retain_taken(times.len(), self.lateness, now);
        sliced
    }
}

/// The rows that are taken; those that are late leave, and the others are in no window at all.
fn taken(batch: Batch, fates: Fates, promised: &Schema, out: &mut Output) -> Result<Batch> {
    let n_rows = batch.n_rows();
    let late = BooleanArray::from(fates.late);
    let n_late = late.true_count();
    if n_late > 0 {
        out.push_late(1, as_promised(batch.filter(&late)?, promised)?);
    }
    let n_taken = fates.taken.iter().filter(|taken| **taken).count();
    out.filtered(n_rows - n_taken - n_late);
    match n_taken == n_rows {
        true => Ok(batch),
        false => batch.filter(&BooleanArray::from(fates.taken)),
    }
}

/// The rows in the columns that are promised: some of text may have come as dictionaries.
///
/// More may come than were promised, where something reads of late rows what is not aggregated: as they are.
fn as_promised(batch: Batch, promised: &Schema) -> Result<Batch> {
    let rows = batch.rows();
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    for (field, column) in fields.iter_mut().zip(&mut columns) {
        if let Ok(to) = promised.field_with_name(field.name()) {
            *column = cast(column, to.data_type())?;
            *field = Arc::new(to.clone());
        }
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    Ok(batch.with_columns(rows))
}
