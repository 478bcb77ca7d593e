//! Aggregates rows by key in windows of event time.
//!
//! ```text
//! rows ──▶ windowed/partial ──▶ by key ──▶ windowed/finish ──▶ one row a key, window and firing
//!           states by slice      exchange   on the worker of the key
//! ```
//!
//! States cannot give back what they took in: of a changelog, `changing` keeps groups that can.

mod asked;
mod changing;
mod corrected;
mod finish;
mod in_time;
mod live;
mod overlap;
mod pane;
mod partial;
mod plan;
mod results;
mod settled;
mod slices;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;

pub use finish::WindowedFinalAggregate;
pub use partial::WindowedPartialAggregate;

pub(super) use asked::Asked;
pub(super) use plan::WindowedGrouping;

use crate::error::Result;
use crate::state::StatePart;
use crate::transform::Watermark;

/// The name of the table with the watermark in a snapshot.
const WATERMARK: &str = "watermark";

/// The watermark that an operator has been told of.
fn watermark_part(watermark: i64) -> Result<StatePart> {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![watermark]));
    let rows = RecordBatch::try_from_iter([("watermark", column)])?;
    Ok(StatePart::of_worker(WATERMARK, rows))
}

/// The watermarks that operators had been told of.
fn told_watermarks(state: &[StatePart]) -> impl Iterator<Item = i64> {
    let parts = state.iter().filter(|part| part.table == WATERMARK);
    parts.filter_map(|part| {
        let column = part.rows.columns().first()?;
        arrow::compute::max(column.as_primitive_opt::<Int64Type>()?)
    })
}

/// The watermark by which lateness is judged after a restart: the earliest that an operator had been told
/// of, so that no row is late which would not have been.
fn earliest_watermark(state: &[StatePart]) -> i64 {
    told_watermarks(state).min().unwrap_or(Watermark::START.0)
}

/// The watermark by which windows have fired before a restart: the latest that an operator had been told of,
/// and that all would have been told of next.
///
/// To go on from an earlier one would let windows fire again that have fired on the worker that was the
/// first to know.
fn latest_watermark(state: &[StatePart]) -> i64 {
    told_watermarks(state).max().unwrap_or(Watermark::START.0)
}
