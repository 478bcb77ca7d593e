//! Changes with their slice, keys and arguments, on their way to the worker of their key.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::plan::ChangingWindowsPlan;
use super::row_time::{RowTime, row_times};
use crate::batch::Batch;
use crate::error::Result;
use crate::ops::group_by::windowed::in_time::InTime;
use crate::ops::group_by::windowed::plan::{WindowedGrouping, WindowedPlans};
use crate::ops::group_by::windowed::results::times_column;
use crate::ops::group_by::windowed::slices::{Sliced, Slicer};
use crate::ops::group_by::windowed::{earliest_watermark, watermark_part};
use crate::output::{OnBadRow, Output};
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};

/// The first half of an aggregation of changes in windows: keeps nothing but the watermark.
///
/// Changes that are too late for all of their windows are counted and leave as they came in, by the port `late`. They
/// travel too, marked as late: one of them may add a row that a window has taken back before it came.
pub(in crate::ops::group_by::windowed) struct PrepareWindows {
    grouping: Arc<WindowedGrouping>,
    slicer: Slicer,
    watermark: i64,
    /// For the columns that come, which may be fewer than those that were checked.
    open: Option<Open>,
}

struct Open {
    schema: SchemaRef,
    plan: ChangingWindowsPlan,
    row_time: Option<RowTime>,
    /// The columns that planning knew, in which late changes leave.
    promised: SchemaRef,
}

impl PrepareWindows {
    pub(in crate::ops::group_by::windowed) fn new(grouping: &Arc<WindowedGrouping>) -> Self {
        Self {
            grouping: Arc::clone(grouping),
            slicer: Slicer::new(&grouping.windowing.window_fn),
            watermark: Watermark::START.0,
            open: None,
        }
    }

    fn open(&mut self, schema: &SchemaRef) -> Result<()> {
        let is_known = self
            .open
            .as_ref()
            .is_some_and(|open| open.schema == *schema);
        if !is_known {
            let promised = match self.grouping.plans()? {
                WindowedPlans::Changes(plan) => Arc::clone(&plan.given),
                WindowedPlans::Rows(plan) => Arc::clone(&plan.given),
            };
            self.open = Some(Open {
                schema: Arc::clone(schema),
                plan: ChangingWindowsPlan::new(&self.grouping, schema)?,
                row_time: RowTime::of(&self.grouping.windowing, schema)?,
                promised,
            });
        }
        Ok(())
    }
}

impl Open {
    /// Changes as they travel; those on which an expression fails are rejected.
    fn travelling(
        &self,
        in_time: &mut InTime<'_>,
        batch: Batch,
        out: &mut Output,
    ) -> Result<Batch> {
        let prepared = self.plan.prepare(self.row_time.as_ref(), batch, out)?;
        let times = match self.row_time {
            None => None,
            Some(_) => Some(row_times(prepared.rows())?),
        };
        let (sliced, late) = in_time.all_slices(&prepared, times)?;
        let rows = in_slices(&self.plan, prepared.rows(), &sliced, late)?;
        Ok(prepared.derive(rows))
    }
}

impl Operator for PrepareWindows {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.open(&batch.rows().schema())?;
        let Some(open) = self.open.as_ref().filter(|_| batch.n_rows() > 0) else {
            return Ok(());
        };
        let mut in_time = InTime {
            slicer: &mut self.slicer,
            lateness: open.plan.lateness,
            watermark: self.watermark,
        };
        let (batch, times) = match &open.row_time {
            None => (batch, None),
            Some(row_time) => {
                let (batch, times) = row_time.of_changes(batch, out)?;
                (batch, Some(times))
            }
        };
        let (batch, late) = in_time.changes(batch, times.as_deref(), &open.promised, out)?;
        let travelling = open.travelling(&mut in_time, batch, out)?;
        out.push(travelling);
        if let Some(late) = late {
            // Nobody is told of what is bad about them: they have left as they came.
            let mut unheard = Output::new(OnBadRow::DeadLetter);
            let travelling = open.travelling(&mut in_time, late, &mut unheard)?;
            out.push(travelling);
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, _out: &mut Output) -> Result<()> {
        self.watermark = self.watermark.max(watermark.0);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        Ok(vec![watermark_part(self.watermark)?])
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.watermark = earliest_watermark(state);
        Ok(())
    }
}

/// Each row once for each of its slices, with that before it and without its own time; with that of its effect where
/// that is another, and with whether it is too late there.
fn in_slices(
    plan: &ChangingWindowsPlan,
    rows: &RecordBatch,
    sliced: &Sliced,
    late: Vec<bool>,
) -> Result<RecordBatch> {
    let n_entries = sliced.n_entries(rows.num_rows());
    let spans = (0..n_entries).map(|n| sliced.slices[sliced.slice_of(n)].span);
    let mut columns: Vec<ArrayRef> = vec![
        times_column(spans.clone().map(|span| span.start)),
        times_column(spans.map(|span| span.end)),
    ];
    let picked = sliced.rows.as_ref();
    let picked = picked.map(|rows| UInt32Array::from(rows.clone()));
    // The slice takes the place of the time of the row.
    let time = plan.place_of_time(rows);
    let others = rows.columns().iter().enumerate();
    for (_, column) in others.filter(|(n, _)| *n != time) {
        columns.push(match &picked {
            Some(picked) => take(column, picked, None)?,
            None => Arc::clone(column),
        });
    }
    let by_how_much = columns.len() - 1;
    columns.insert(by_how_much, Arc::new(BooleanArray::from(late)));
    Ok(RecordBatch::try_new(Arc::clone(&plan.travels), columns)?)
}
