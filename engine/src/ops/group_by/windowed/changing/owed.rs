//! What windows that are over have taken back before it came.
//!
//! ```text
//! window closes ──▶ groups with rows that were taken back and not added ──┐
//! changes that are too late ──────────────────────────────────────────────┴▶ until the row is added, or the end
//! ```
//!
//! The change that adds a row may come too late for its window: then it leaves as a late one, and settles what the
//! window owes. What is owed at the end of input was never added. Changes that are too late are told so before they are
//! dealt to workers, and may reach one that has not closed the window yet: they wait for that.

use std::collections::BTreeMap;

use arrow::array::UInt32Array;
use arrow::compute::take;
use arrow::record_batch::RecordBatch;

use super::open_window::{OpenWindow, never_added_in};
use super::plan::ChangingWindowsPlan;
use crate::error::Result;
use crate::keys::keys_of;
use crate::windowing::Window;

/// Windows by their end.
type ByEnd = BTreeMap<(i64, i64), OpenWindow>;

/// What is owed by windows, and what has come too late for windows that are still open.
#[derive(Default)]
pub(super) struct Owed {
    /// Groups of windows that are over, with what they are owed.
    pub(super) by_window: ByEnd,
    pub(super) early: ByEnd,
    n_bytes: usize,
}

impl Owed {
    /// Takes note of changes that are too late for a window, which `is_over`, or will be.
    pub(super) fn settle(
        &mut self,
        plan: &ChangingWindowsPlan,
        window: Window,
        rows: &RecordBatch,
        is_over: bool,
    ) -> Result<()> {
        let key = (window.end, window.start);
        if !is_over {
            let early = of_window(&mut self.early, plan, window)?;
            let before = early.n_bytes();
            let groups = early.number(plan.of_groups.keys(rows), rows.num_rows())?;
            early.change(plan, rows, &groups)?;
            self.n_bytes = (self.n_bytes + early.n_bytes()).saturating_sub(before);
            return Ok(());
        }
        if let Some(mut owed) = self.by_window.remove(&key) {
            self.n_bytes = self.n_bytes.saturating_sub(owed.n_bytes());
            let n_owed = owed.n_rows.len();
            let groups = owed.number(plan.of_groups.keys(rows), rows.num_rows())?;
            owed.change(plan, rows, &groups)?;
            self.keep(plan, owed, n_owed)?;
        }
        Ok(())
    }

    /// Takes over what a window owes that closes.
    pub(super) fn close(&mut self, plan: &ChangingWindowsPlan, closed: &OpenWindow) -> Result<()> {
        let window = closed.window;
        let unsound = (0..closed.n_rows.len()).filter(|group| closed.is_unsound(*group));
        let unsound: Vec<usize> = unsound.collect();
        if !unsound.is_empty() {
            let owed = of_window(&mut self.by_window, plan, window)?;
            let before = owed.n_bytes();
            absorb(owed, closed, &unsound)?;
            self.n_bytes = (self.n_bytes + owed.n_bytes()).saturating_sub(before);
        }
        Ok(())
    }

    /// Settles what is owed by windows that have closed by `watermark` with what had come too late for them.
    ///
    /// # Errors
    /// At the end of input, if something is still owed.
    pub(super) fn pass(&mut self, plan: &ChangingWindowsPlan, watermark: i64) -> Result<()> {
        let over = self.early.range(..=(watermark, i64::MAX));
        let over = over.filter(|(_, early)| plan.lateness.expiry(early.window.end) <= watermark);
        let over: Vec<(i64, i64)> = over.map(|(key, _)| *key).collect();
        for key in over {
            let Some(early) = self.early.remove(&key) else {
                continue;
            };
            self.n_bytes = self.n_bytes.saturating_sub(early.n_bytes());
            if let Some(mut owed) = self.by_window.remove(&key) {
                self.n_bytes = self.n_bytes.saturating_sub(owed.n_bytes());
                let n_owed = owed.n_rows.len();
                let all: Vec<usize> = (0..early.n_rows.len()).collect();
                absorb(&mut owed, &early, &all)?;
                self.keep(plan, owed, n_owed)?;
            }
        }
        match self.by_window.values().next() {
            Some(owed) if watermark == i64::MAX => {
                let keys = owed.keys.columns_of(&[0]);
                Err(never_added_in(plan, keys.ok(), owed.window))
            }
            _ => Ok(()),
        }
    }

    /// Keeps of the first `n_owed` groups those that are still owed something, and no others.
    fn keep(
        &mut self,
        plan: &ChangingWindowsPlan,
        mut owed: OpenWindow,
        n_owed: usize,
    ) -> Result<()> {
        let left = (0..n_owed).filter(|group| owed.is_unsound(*group));
        let left: Vec<usize> = left.collect();
        if left.is_empty() {
            return Ok(());
        }
        if left.len() < owed.n_rows.len() {
            let columns = owed.keys.columns_of(&left)?;
            let fields = plan.of_groups.planned.key_fields.iter();
            let types: Vec<_> = fields.map(|f| f.data_type().clone()).collect();
            owed.keys = keys_of(&types)?;
            owed.keys.number(&columns, left.len(), &mut Vec::new())?;
            owed.n_rows = left.iter().map(|group| owed.n_rows[*group]).collect();
            owed.fired.truncate(left.len());
            for aggregate in &mut owed.aggregates {
                aggregate.keep(&left);
            }
        }
        self.n_bytes += owed.n_bytes();
        let key = (owed.window.end, owed.window.start);
        self.by_window.insert(key, owed);
        Ok(())
    }

    /// Counts anew what is kept, after it was restored.
    pub(super) fn count_bytes(&mut self) {
        let all = self.by_window.values().chain(self.early.values());
        self.n_bytes = all.map(OpenWindow::n_bytes).sum();
    }

    /// How many bytes of memory it keeps, about.
    pub(super) fn n_bytes(&self) -> usize {
        let n_windows = self.by_window.len() + self.early.len();
        self.n_bytes + n_windows * size_of::<OpenWindow>()
    }
}

/// What is kept of a window among others.
pub(super) fn of_window<'a>(
    windows: &'a mut ByEnd,
    plan: &ChangingWindowsPlan,
    window: Window,
) -> Result<&'a mut OpenWindow> {
    use std::collections::btree_map::Entry;
    Ok(match windows.entry((window.end, window.start)) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(OpenWindow::new(plan, window)?),
    })
}

/// Adds to the groups of one window these of another.
fn absorb(into: &mut OpenWindow, from: &OpenWindow, groups: &[usize]) -> Result<()> {
    let keys = from.keys.columns_of(groups)?;
    let numbers = into.number(&keys, groups.len())?;
    let mut number_of = vec![None; from.n_rows.len()];
    for (group, number) in groups.iter().zip(numbers) {
        into.n_rows[number] += from.n_rows[*group];
        number_of[*group] = Some(number);
    }
    for (into, from) in into.aggregates.iter_mut().zip(&from.aggregates) {
        let (of, columns) = from.state()?;
        let wanted = (0u32..).zip(&of);
        let wanted = wanted.filter_map(|(row, group)| Some((row, number_of[*group]?)));
        let (rows, numbers): (Vec<u32>, Vec<usize>) = wanted.unzip();
        let rows = UInt32Array::from(rows);
        let columns = columns.iter().map(|column| take(column, &rows, None));
        into.restore(&numbers, &columns.collect::<Result<Vec<_>, _>>()?)?;
    }
    Ok(())
}
