//! Keeps the groups of each window up to date, where equal keys have met on one worker.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::by_effect::TakesEffect;
use super::open_window::OpenWindow;
use super::owed::{Owed, of_window};
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
    /// What those owe that do not any more.
    owed: Owed,
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
            owed: Owed::default(),
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
        let windows = self.slicer.windows(span).iter().copied();
        let takes = |window: &Window| plan.lateness.expiry(window.end) > self.watermark;
        let (windows, over): (Vec<Window>, Vec<Window>) = windows.partition(takes);
        for window in over {
            self.owed.settle(&plan, window, rows, true)?;
        }
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

    /// Changes of one slice that are too late for all of its windows.
    fn settle(&mut self, span: Window, rows: &RecordBatch) -> Result<()> {
        for window in self.slicer.windows(span) {
            let is_over = self.plan.lateness.expiry(window.end) <= self.watermark;
            self.owed.settle(&self.plan, *window, rows, is_over)?;
        }
        Ok(())
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
                self.owed.close(&self.plan, open)?;
                closed.push(*end);
            }
        }
        for end in closed {
            if let Some(open) = self.open.remove(&end) {
                self.n_bytes = self.n_bytes.saturating_sub(open.n_bytes());
            }
        }
        push_together(self.plan.leave(results)?, out)?;
        self.owed.pass(&self.plan, self.watermark)
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
            let [rows, late] = self.plan.by_lateness(&run.project(&columns)?)?;
            if rows.num_rows() > 0 && !self.take_in(span, &rows, &mut results)? {
                out.late(rows.num_rows() as u64);
            }
            if late.num_rows() > 0 {
                self.settle(span, &late)?;
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
        let open = self.n_bytes + self.open.len() * size_of::<OpenWindow>();
        (open + self.owed.n_bytes()) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = vec![watermark_part(self.watermark)?];
        let kinds = [
            (saved::OPEN, &self.open),
            (saved::OWED, &self.owed.by_window),
            (saved::EARLY, &self.owed.early),
        ];
        for (kind, windows) in kinds {
            let windows: Vec<&OpenWindow> = windows.values().collect();
            parts.extend(saved::parts(&self.plan, kind, &windows, &self.key_names)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        self.watermark = latest_watermark(state);
        self.is_behind = true;
        // Groups before their aggregates, whatever the order of the parts.
        for is_groups in [true, false] {
            let tables = state.iter().filter_map(|part| {
                let (kind, table) = saved::table_of(part)?;
                ((table == saved::GROUPS) == is_groups).then_some((kind, table, part))
            });
            for (kind, table, part) in tables {
                for (window, rows) in by_span(&part.rows)? {
                    let of = match kind {
                        saved::OWED => of_window(&mut self.owed.by_window, &plan, window)?,
                        saved::EARLY => of_window(&mut self.owed.early, &plan, window)?,
                        _ => self.open(window)?,
                    };
                    saved::restore(&plan, of, table, &rows)?;
                }
            }
        }
        self.owed.count_bytes();
        self.n_bytes = self.open.values().map(OpenWindow::n_bytes).sum();
        Ok(())
    }
}
