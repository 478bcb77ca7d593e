//! When rows of a changelog were, where that is another time than that of the change.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{FieldRef, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;

use crate::batch::Batch;
use crate::changelog::check_expressions;
use crate::error::{Error, Result};
use crate::event_time::time_field;
use crate::expression::{Expression, on_good_rows};
use crate::ops::assign_timestamps::{as_instants, check_type, good_times};
use crate::output::Output;
use crate::windowing::Windowing;

/// The column with the row times.
///
/// Users' columns may be called anything; what begins with a space is ours.
pub(super) const ROW_TIME: &str = " row time";

/// The column with the row times, as they travel.
pub(super) fn row_time_field() -> FieldRef {
    time_field(ROW_TIME)
}

/// Computes the row times of changes; see [`Windowing::row_time`].
pub(super) struct RowTime {
    time: Expression,
    text: String,
}

impl RowTime {
    /// That of a windowing, if it has one, over changes with these columns.
    pub(super) fn of(windowing: &Windowing, schema: &SchemaRef) -> Result<Option<Self>> {
        let Some(time) = &windowing.row_time else {
            return Ok(None);
        };
        check_expressions([time], schema)?;
        let compiled = Expression::compile(time, schema)?;
        check_type(time, compiled.data_type())?;
        Ok(Some(Self {
            time: compiled,
            text: time.to_string(),
        }))
    }

    /// The changes whose rows have a time, and these; the others are rejected.
    pub(super) fn of_changes(&self, batch: Batch, out: &mut Output) -> Result<(Batch, Vec<i64>)> {
        let (batch, values) = on_good_rows(batch, out, |rows| self.time.evaluate(rows))?;
        let good = good_times(&values, &self.text, &batch, out)?;
        let batch = match good.rows {
            None => batch,
            Some(good) => batch.filter(&good)?,
        };
        Ok((batch, good.times.values().to_vec()))
    }

    /// The times of rows that have passed [`RowTime::of_changes`], as a column.
    pub(super) fn column(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        as_instants(&self.time.evaluate(rows)?)
    }
}

/// The row times of what is prepared.
pub(super) fn row_times(prepared: &RecordBatch) -> Result<&[i64]> {
    let column = prepared.column_by_name(ROW_TIME);
    let times = column.and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>());
    times
        .map(|times| &**times.values())
        .ok_or_else(|| Error::bug("changes have lost the times of their rows"))
}
