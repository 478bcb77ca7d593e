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
        let (times, extent) = batch.event_times()?;
        let sliced = self.slicer.slice(times, extent);
        let now = Now::at(self.watermark);
        let Some(fates) = sliced.fates(batch.n_rows(), self.lateness, now) else {
            return Ok((batch, sliced));
        };
        let (batch, _) = taken(batch, fates, promised, out)?;
        let sliced = self.slices(&batch)?;
        Ok((batch, sliced))
    }

    /// As [`InTime::rows`], of changes whose rows were at `times`, where that is not their event time, and then take
    /// effect at that; those that are too late are given too, as they came.
    pub(super) fn changes(
        &mut self,
        batch: Batch,
        times: Option<&[i64]>,
        promised: &Schema,
        out: &mut Output,
    ) -> Result<(Batch, Option<Batch>)> {
        let effects = event_times(batch.rows())?;
        let sliced = self.slicer.slice(times.unwrap_or(effects), None);
        let now = self.now(times.map(|_| effects));
        match sliced.fates(batch.n_rows(), self.lateness, now) {
            None => Ok((batch, None)),
            Some(fates) => taken(batch, fates, promised, out),
        }
    }

    /// Of changes as [`InTime::changes`] has them: all their slices, and for each entry whether it is too late for all
    /// windows over its slice.
    pub(super) fn all_slices(
        &mut self,
        batch: &Batch,
        times: Option<&[i64]>,
    ) -> Result<(Sliced, Vec<bool>)> {
        let effects = event_times(batch.rows())?;
        let sliced = self.slicer.slice(times.unwrap_or(effects), None);
        let now = self.now(times.map(|_| effects));
        let is_late = |n: usize| {
            let slice = &sliced.slices[sliced.slice_of(n)];
            !self.lateness.takes(slice, now.of(sliced.row_of(n)))
        };
        let late = (0..sliced.n_entries(batch.n_rows())).map(is_late).collect();
        Ok((sliced, late))
    }

    fn now<'a>(&self, effects: Option<&'a [i64]>) -> Now<'a> {
        match effects {
            None => Now::at(self.watermark),
            Some(effects) => Now::each(self.watermark, effects),
        }
    }

    /// The slices of the rows that still take some.
    pub(super) fn slices(&mut self, batch: &Batch) -> Result<Sliced> {
        let (times, extent) = batch.event_times()?;
        let mut sliced = self.slicer.slice(times, extent);
        sliced.retain_taken(times.len(), self.lateness, Now::at(self.watermark));
        Ok(sliced)
    }
}

/// The rows that are taken, and those that are late, which leave; the others are in no window at all.
fn taken(
    batch: Batch,
    fates: Fates,
    promised: &Schema,
    out: &mut Output,
) -> Result<(Batch, Option<Batch>)> {
    let n_rows = batch.n_rows();
    let is_late = BooleanArray::from(fates.late);
    let n_late = is_late.true_count();
    let late = match n_late {
        0 => None,
        _ => Some(batch.filter(&is_late)?),
    };
    if let Some(late) = &late {
        out.push_late(1, as_promised(late.clone(), promised)?);
    }
    let n_taken = fates.taken.iter().filter(|taken| **taken).count();
    out.filtered(n_rows - n_taken - n_late);
    let taken = match n_taken == n_rows {
        true => batch,
        false => batch.filter(&BooleanArray::from(fates.taken))?,
    };
    Ok((taken, late))
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
