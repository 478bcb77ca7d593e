//! Which rows come in time for their windows.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::cast;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;

use super::slices::{Lateness, Sliced, Slicer};
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
        let n_rows = batch.n_rows();
        let Some(fates) = sliced.fates(n_rows, self.lateness, self.watermark) else {
            return Ok((batch, sliced));
        };
        let late = BooleanArray::from(fates.late);
        let n_late = late.true_count();
        if n_late > 0 {
            out.push_late(1, as_promised(batch.filter(&late)?, promised)?);
        }
        let n_taken = fates.taken.iter().filter(|taken| **taken).count();
        // What is left is in no window at all.
        out.filtered(n_rows - n_taken - n_late);
        let batch = match n_taken == n_rows {
            true => batch,
            false => batch.filter(&BooleanArray::from(fates.taken))?,
        };
        let sliced = self.slices(&batch)?;
        Ok((batch, sliced))
    }

    /// The slices of the rows that still take some.
    pub(super) fn slices(&mut self, batch: &Batch) -> Result<Sliced> {
        let (lateness, watermark) = (self.lateness, self.watermark);
        let mut sliced = self.slicer.slice(event_times(batch.rows())?);
        sliced.retain(batch.n_rows(), |slice| lateness.takes(slice, watermark));
        Ok(sliced)
    }
}

/// The rows in the columns that are promised: some of text may have come as dictionaries.
fn as_promised(batch: Batch, promised: &Schema) -> Result<Batch> {
    let rows = batch.rows();
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    for (field, column) in fields.iter_mut().zip(&mut columns) {
        let to = promised.field_with_name(field.name())?;
        *column = cast(column, to.data_type())?;
        *field = Arc::new(to.clone());
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    Ok(batch.with_columns(rows))
}
