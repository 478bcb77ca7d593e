//! Results as they leave: keys and aggregates, the window, the event time, and which firing it is.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, TimestampMillisecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::pane::{Pane, pane_column};
use super::plan::WindowedPlan;
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::Result;
use crate::event_time::{DIFF, PANE, WINDOW_END, WINDOW_START};
use crate::output::Output;
use crate::windowing::Window;

/// What a result is besides its keys and aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) window: Window,
    pub(super) event_time: i64,
    pub(super) pane: Pane,
    /// 1, or -1 where it takes back what has left before.
    pub(super) diff: i8,
}

impl WindowedPlan {
    /// Results of one window, all of the same firing, as they leave.
    ///
    /// `rows` has all columns that the plan makes.
    pub(super) fn results_of_window(
        &self,
        rows: &RecordBatch,
        window: Window,
        pane: Pane,
    ) -> Result<RecordBatch> {
        let n_rows = rows.num_rows();
        let last = window.max_timestamp();
        let event_times: TimestampMillisecondArray = match self.time_of_results(rows) {
            Some(times) => times.iter().map(|t| Some(t.unwrap_or(last))).collect(),
            None => TimestampMillisecondArray::from_value(last, n_rows),
        };
        let mut columns = rows.columns()[..self.n_leaving].to_vec();
        columns.push(times_of(window.start, n_rows));
        columns.push(times_of(window.end, n_rows));
        columns.push(Arc::new(event_times));
        if self.has_pane() {
            columns.push(pane_column(&vec![pane; n_rows])?);
        }
        if self.retracts() {
            columns.push(Arc::new(Int8Array::from_value(1, n_rows)));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.output), columns)?)
    }

    /// Results as they leave, each with a mark of its own.
    pub(super) fn results(&self, rows: &RecordBatch, marks: &[Mark]) -> Result<RecordBatch> {
        let columns = rows.columns()[..self.n_leaving].to_vec();
        marked(columns, marks, &self.output)
    }
}

/// These columns, each row with a mark of its own: as they leave, where `output` has those that a mark is written to.
pub(super) fn marked(
    mut columns: Vec<ArrayRef>,
    marks: &[Mark],
    output: &SchemaRef,
) -> Result<RecordBatch> {
    let times = |of: fn(&Mark) -> i64| times_column(marks.iter().map(of));
    let fields = output.fields().iter().skip(columns.len());
    for field in fields.map(|field| field.name().as_str()) {
        columns.push(match field {
            WINDOW_START => times(|mark| mark.window.start),
            WINDOW_END => times(|mark| mark.window.end),
            PANE => pane_column(&marks.iter().map(|mark| mark.pane).collect::<Vec<_>>())?,
            DIFF => Arc::new(Int8Array::from_iter_values(
                marks.iter().map(|mark| mark.diff),
            )),
            _ => times(|mark| mark.event_time),
        });
    }
    Ok(RecordBatch::try_new(Arc::clone(output), columns)?)
}

/// The same instant for each row.
pub(super) fn times_of(time: i64, n_rows: usize) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_value(time, n_rows))
}

/// Instants as a column.
pub(super) fn times_column(times: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(times))
}

/// Batches of as many rows go on as they are: to copy them would cost more than they cost behind it.
const ENOUGH_ROWS: usize = BATCH_ROWS / 8;

/// Sends rows on, small batches put together.
pub(super) fn push_together(rows: Vec<RecordBatch>, out: &mut Output) -> Result<()> {
    let mut waiting: Vec<RecordBatch> = Vec::new();
    let mut n_waiting = 0;
    for rows in rows {
        let is_enough = n_waiting.max(rows.num_rows()) >= ENOUGH_ROWS;
        if n_waiting > 0 && (is_enough || n_waiting + rows.num_rows() > BATCH_ROWS) {
            push_all(&mut waiting, out)?;
            n_waiting = 0;
        }
        n_waiting += rows.num_rows();
        waiting.push(rows);
    }
    push_all(&mut waiting, out)
}

fn push_all(waiting: &mut Vec<RecordBatch>, out: &mut Output) -> Result<()> {
    let rows = match waiting.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        [first, ..] => concat_batches(first.schema_ref(), waiting.iter())?,
    };
    waiting.clear();
    out.push(Batch::new(rows).inexact());
    Ok(())
}
