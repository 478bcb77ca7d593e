//! Slices of time whose windows have not fired yet, each with a table of its groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::min;
use arrow::record_batch::RecordBatch;

use super::overlap::{Overlap, merge_all};
use super::plan::WindowedPlan;
use super::slices::Slice;
use crate::error::{Error, Result};
use crate::ops::group_by::table::GroupTable;
use crate::windowing::{TimestampCombiner, Window};

/// The slices that windows to come are made of.
pub(super) struct LiveSlices {
    plan: Arc<WindowedPlan>,
    slices: BTreeMap<Window, LiveSlice>,
    /// The windows that have not fired, by end and start.
    waiting: BTreeSet<(i64, i64)>,
    overlap: Overlap,
    /// How many groups the last window had.
    n_groups: usize,
    /// How many bytes the slices fill.
    n_bytes: usize,
}

/// A window of fewer slices than this is put together from them anew.
const MANY_SLICES: usize = 8;
/// And if that takes in less than this many rows for each group: sums of slices are little smaller then.
const ROWS_PER_GROUP: usize = 4;

struct LiveSlice {
    slice: Slice,
    groups: Groups,
    /// The earliest event time that a result may have for the sake of these rows.
    hold: i64,
    n_bytes: usize,
}

/// Groups that take rows in, or that have been read and are kept as they were.
enum Groups {
    Open(GroupTable),
    Read(Vec<RecordBatch>),
}

impl LiveSlices {
    pub(super) fn new(plan: &Arc<WindowedPlan>) -> Self {
        Self {
            plan: Arc::clone(plan),
            slices: BTreeMap::new(),
            waiting: BTreeSet::new(),
            overlap: Overlap::new(plan),
            n_groups: 0,
            n_bytes: 0,
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes + self.overlap.n_bytes()
    }

    /// Takes keys and states of a slice in; `windows` are those over it that have not fired.
    pub(super) fn merge(
        &mut self,
        slice: Slice,
        windows: impl Iterator<Item = Window>,
        columns: &[ArrayRef],
    ) -> Result<()> {
        let n_rows = columns.first().map_or(0, Array::len);
        self.overlap.changes(slice.span);
        let plan = &self.plan;
        let live = match self.slices.entry(slice.span) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                self.waiting.extend(windows.map(|w| (w.end, w.start)));
                entry.insert(LiveSlice {
                    slice,
                    groups: Groups::Open(GroupTable::new(&plan.planned)?),
                    hold: i64::MAX,
                    n_bytes: 0,
                })
            }
        };
        // Where the latest row says it, a lower bound: it only becomes later.
        if let Some(times) = plan.times(&columns[plan.n_keys..]) {
            live.hold = live.hold.min(min(times).unwrap_or(i64::MAX));
        }
        live.table(plan)?.merge_columns(columns, n_rows)?;
        let was = live.measure();
        self.n_bytes = self.n_bytes - was + live.n_bytes;
        Ok(())
    }

    fn remove(&mut self, span: Window) -> Option<Groups> {
        let live = self.slices.remove(&span)?;
        self.n_bytes -= live.n_bytes;
        Some(live.groups)
    }

    /// As [`LiveSlices::merge`], where some of the windows may be known and others not.
    pub(super) fn restore(
        &mut self,
        slice: Slice,
        windows: &[Window],
        columns: &[ArrayRef],
        watermark: i64,
    ) -> Result<()> {
        let ahead = windows.iter().filter(|window| window.end > watermark);
        self.waiting.extend(ahead.map(|w| (w.end, w.start)));
        self.merge(slice, std::iter::empty(), columns)
    }

    /// The next window to fire at `watermark`, in the order of their ends.
    pub(super) fn next_window(&mut self, watermark: i64) -> Option<Window> {
        let &(end, start) = self.waiting.first().filter(|(end, _)| *end <= watermark)?;
        self.waiting.pop_first();
        Some(Window { start, end })
    }

    /// The groups of a window that fires; windows must come in the order of their ends.
    pub(super) fn take(&mut self, window: Window) -> Result<GroupTable> {
        let spans = self.spans_of(window);
        let table = match spans.len() {
            0..MANY_SLICES => self.put_together(window, &spans)?,
            _ => self.put_together_from_sums(window, &spans)?,
        };
        self.n_groups = table.n_groups();
        Ok(table)
    }

    fn put_together(&mut self, window: Window, spans: &[Window]) -> Result<GroupTable> {
        self.overlap.forget();
        let n_expected = self.n_groups;
        let mut all = None;
        for span in spans {
            let Some(live) = self.slices.get_mut(span) else {
                continue;
            };
            if live.slice.last_end > window.end {
                let rows = live.read()?;
                merge_all(or_new(&mut all, &self.plan, n_expected)?, rows)?;
                continue;
            }
            match self.remove(*span) {
                Some(Groups::Open(table)) if all.is_none() => all = Some(table),
                Some(Groups::Open(mut table)) => {
                    let rows = table.take_states()?;
                    merge_all(or_new(&mut all, &self.plan, n_expected)?, &rows)?;
                }
                Some(Groups::Read(rows)) => {
                    merge_all(or_new(&mut all, &self.plan, n_expected)?, &rows)?
                }
                None => {}
            }
        }
        match all {
            Some(table) => Ok(table),
            None => GroupTable::new(&self.plan.planned),
        }
    }

    fn put_together_from_sums(&mut self, window: Window, spans: &[Window]) -> Result<GroupTable> {
        let mut n_rows = 0;
        for span in spans {
            if let Some(live) = self.slices.get_mut(span) {
                n_rows += live
                    .read()?
                    .iter()
                    .map(RecordBatch::num_rows)
                    .sum::<usize>();
            }
        }
        if n_rows < ROWS_PER_GROUP.saturating_mul(self.n_groups) {
            return self.put_together(window, spans);
        }
        let mut slices = Vec::with_capacity(spans.len());
        for span in spans {
            if let Some(LiveSlice {
                groups: Groups::Read(rows),
                ..
            }) = self.slices.get(span)
            {
                slices.push((*span, rows.as_slice()));
            }
        }
        let table = self.overlap.sum(&slices)?;
        for span in spans {
            if self
                .slices
                .get(span)
                .is_some_and(|live| live.slice.last_end <= window.end)
            {
                self.remove(*span);
            }
        }
        Ok(table)
    }

    fn spans_of(&self, window: Window) -> Vec<Window> {
        if !self.plan.has_panes {
            return vec![window];
        }
        let from = Window {
            start: window.start,
            end: i64::MIN,
        };
        let spans = self.slices.range(from..).map(|(span, _)| *span);
        spans.take_while(|span| span.start < window.end).collect()
    }

    /// The earliest event time that a result to come may have; `i64::MAX` where the window says it.
    pub(super) fn hold(&self) -> i64 {
        let holds = self.slices.values().map(|slice| slice.hold);
        match self.plan.windowing.timestamp_combiner {
            TimestampCombiner::EndOfWindow => i64::MAX,
            _ => holds.min().unwrap_or(i64::MAX),
        }
    }

    /// The keys and states of each slice; nothing changes by it.
    pub(super) fn snapshot(&mut self) -> Result<Vec<(Window, RecordBatch)>> {
        let mut parts = Vec::new();
        for (span, live) in &mut self.slices {
            let rows = match &mut live.groups {
                Groups::Read(rows) => rows.clone(),
                Groups::Open(table) => {
                    let rows = table.take_states()?;
                    merge_all(table, &rows)?;
                    rows
                }
            };
            parts.extend(rows.into_iter().map(|rows| (*span, rows)));
        }
        Ok(parts)
    }
}

impl LiveSlice {
    /// Finds out how many bytes it fills, and gives what it was.
    fn measure(&mut self) -> usize {
        let n_bytes = match &self.groups {
            Groups::Open(table) => table.n_bytes(),
            Groups::Read(rows) => rows.iter().map(RecordBatch::get_array_memory_size).sum(),
        };
        std::mem::replace(&mut self.n_bytes, n_bytes)
    }

    /// The keys and states, which are kept as they are.
    fn read(&mut self) -> Result<&[RecordBatch]> {
        if let Groups::Open(table) = &mut self.groups {
            self.groups = Groups::Read(table.take_states()?);
        }
        match &self.groups {
            Groups::Read(rows) => Ok(rows),
            Groups::Open(_) => Err(Error::bug("a slice was read and is still open")),
        }
    }

    /// The table, which takes rows in again if it has been read.
    fn table(&mut self, plan: &WindowedPlan) -> Result<&mut GroupTable> {
        if let Groups::Read(rows) = &self.groups {
            let mut table = GroupTable::new(&plan.planned)?;
            merge_all(&mut table, rows)?;
            self.groups = Groups::Open(table);
        }
        match &mut self.groups {
            Groups::Open(table) => Ok(table),
            Groups::Read(_) => Err(Error::bug("a slice was opened and is not open")),
        }
    }
}

/// The table, or a new one with room for so many groups.
fn or_new<'a>(
    slot: &'a mut Option<GroupTable>,
    plan: &WindowedPlan,
    n_expected: usize,
) -> Result<&'a mut GroupTable> {
    Ok(match slot {
        Some(table) => table,
        None => {
            let table = slot.insert(GroupTable::new(&plan.planned)?);
            table.expect(n_expected);
            table
        }
    })
}
