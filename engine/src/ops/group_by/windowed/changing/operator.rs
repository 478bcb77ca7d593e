//! Keeps the groups of each window up to date, where equal keys have met on one worker.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::by_effect::TakesEffect;
use super::open_window::OpenWindow;
use super::plan::{ChangingWindowsPlan, N_SLICE};
use super::saved;
use crate::batch::Batch;
use crate::error::Result;
use crate::ops::group_by::windowed::finish::in_few_runs;
use crate::ops::group_by::windowed::partial::by_span;
use crate::ops::group_by::windowed::results::push_together;
use crate::ops::group_by::windowed::settled::windows_of;
use crate::ops::group_by::windowed::slices::Slicer;
use crate::ops::group_by::windowed::{latest_watermark, watermark_part};
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};
use crate::windowing::Window;

/// The second half of an aggregation of changes in windows.
pub(in crate::ops::group_by::windowed) struct ChangingWindows {
    plan: Arc<ChangingWindowsPlan>,
    key_names: Vec<String>,
    slicer: Slicer,
    /// The windows that still take changes, by their end.
    open: BTreeMap<(i64, i64), OpenWindow>,
    watermark: i64,
    /// Rows from before came late; `None` for the watermark.
    in_time_from: Option<i64>,
    /// Of all windows.
    n_bytes: usize,
    /// What was restored may be of operators that had not heard of the watermark yet.
    is_behind: bool,
}

impl ChangingWindows {
    pub(in crate::ops::group_by::windowed) fn new(
        plan: &Arc<ChangingWindowsPlan>,
        key_names: Vec<String>,
    ) -> Self {
        Self {
            plan: Arc::clone(plan),
            key_names,
            slicer: Slicer::new(&plan.windowing.window_fn),
            open: BTreeMap::new(),
            watermark: Watermark::START.0,
            in_time_from: None,
            n_bytes: 0,
            is_behind: false,
        }
    }

    fn open(&mut self, window: Window) -> Result<&mut OpenWindow> {
        Ok(match self.open.entry((window.end, window.start)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let mut open = OpenWindow::new(&self.plan, window)?;
                open.is_past_end = window.end <= self.watermark;
                entry.insert(open)
            }
        })
    }

    /// Changes of one slice into each of its windows that still takes some; false where none does.
    fn take_in(
        &mut self,
        span: Window,
        rows: &RecordBatch,
        results: &mut Vec<RecordBatch>,
    ) -> Result<bool> {
        let plan = Arc::clone(&self.plan);
        let windows = self.slicer.windows(span).iter();
        let takes = |window: &&Window| plan.lateness.expiry(window.end) > self.watermark;
        let windows: Vec<Window> = windows.filter(takes).copied().collect();
        let in_time_from = self.in_time_from.unwrap_or(self.watermark);
        for window in &windows {
            let open = self.open(*window)?;
            let before = open.n_bytes();
            results.extend(open.take_in(&plan, rows, in_time_from)?);
            let after = open.n_bytes();
            self.n_bytes = (self.n_bytes + after).saturating_sub(before);
        }
        Ok(!windows.is_empty())
    }

    /// Lets everything happen that the watermark brings.
    fn advance(&mut self, out: &mut Output) -> Result<()> {
        self.is_behind = false;
        let mut results = Vec::new();
        let mut closed = Vec::new();
        for (end, open) in self.open.range_mut(..=(self.watermark, i64::MAX)) {
            if !open.is_past_end {
                results.extend(open.pass_end(&self.plan)?);
            }
            if self.plan.lateness.expiry(open.window.end) <= self.watermark {
                results.extend(open.close(&self.plan)?);
                closed.push(*end);
            }
        }
        for end in closed {
            if let Some(open) = self.open.remove(&end) {
                self.n_bytes = self.n_bytes.saturating_sub(open.n_bytes());
            }
        }
        push_together(self.plan.leave(results)?, out)
    }
}

impl TakesEffect for ChangingWindows {
    fn in_time_from(&mut self, watermark: i64) {
        self.in_time_from = Some(watermark);
    }

    fn turns(&mut self, changes: &RecordBatch) -> Result<Option<BTreeSet<i64>>> {
        let spans: BTreeSet<Window> = windows_of(changes)?.into_iter().collect();
        let mut ends: BTreeSet<i64> = self.open.keys().map(|(end, _)| *end).collect();
        for span in spans {
            ends.extend(self.slicer.windows(span).iter().map(|window| window.end));
        }
        let over = ends.iter().map(|end| self.plan.lateness.expiry(*end));
        Ok(Some(ends.iter().copied().chain(over).collect()))
    }
}

impl Operator for ChangingWindows {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        if self.is_behind {
            self.advance(out)?;
        }
        let rows = in_few_runs(batch.rows())?;
        let columns: Vec<usize> = (N_SLICE..rows.num_columns()).collect();
        let mut results = Vec::new();
        for (span, run) in by_span(&rows)? {
            if !self.take_in(span, &run.project(&columns)?, &mut results)? {
                out.late(run.num_rows() as u64);
            }
        }
        push_together(self.plan.leave(results)?, out)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.watermark = self.watermark.max(watermark.0);
        self.advance(out)
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        if !self.plan.has_times {
            return input;
        }
        let holds = self.open.values().map(|open| open.hold);
        Watermark(holds.fold(input.0, i64::min))
    }

    fn state_bytes(&self) -> u64 {
        (self.n_bytes + self.open.len() * size_of::<OpenWindow>()) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = vec![watermark_part(self.watermark)?];
        let open: Vec<&OpenWindow> = self.open.values().collect();
        parts.extend(saved::parts(&self.plan, &open, &self.key_names)?);
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        self.watermark = latest_watermark(state);
        self.is_behind = true;
        // Groups before their aggregates, whatever the order of the parts.
        for is_groups in [true, false] {
            for part in state.iter().filter(|part| saved::is_of_windows(part)) {
                if (part.table == saved::GROUPS) != is_groups {
                    continue;
                }
                for (window, rows) in by_span(&part.rows)? {
                    saved::restore(&plan, self.open(window)?, &part.table, &rows)?;
                }
            }
        }
        self.n_bytes = self.open.values().map(OpenWindow::n_bytes).sum();
        Ok(())
    }
}
