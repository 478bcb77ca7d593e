//! Keeps the windows of each key up to date, where equal keys have met on one worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use super::result::{Bytes, read_results, results_of};
use super::rows_of_key::RowsOfKey;
use super::saved;
use crate::batch::{BATCH_ROWS, Batch};
use crate::changelog::diffs;
use crate::error::Result;
use crate::keys::{Keys, keys_of};
use crate::ops::group_by::windowed::changing::by_effect::TakesEffect;
use crate::ops::group_by::windowed::changing::open_window::{How, never_added_in};
use crate::ops::group_by::windowed::changing::plan::{ChangingWindowsPlan, N_SLICE};
use crate::ops::group_by::windowed::pane::Timing;
use crate::ops::group_by::windowed::results::{Mark, push_together};
use crate::ops::group_by::windowed::settled::windows_of;
use crate::ops::group_by::windowed::{latest_watermark, watermark_part};
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};
use crate::windowing::Window;

/// Keys without rows are forgotten once there are more of them than these, and than others.
const MAX_GONE: usize = 1 << 10;

/// The second half of an aggregation of changes in windows that merge.
pub(in crate::ops::group_by::windowed) struct MergingChanges {
    plan: Arc<ChangingWindowsPlan>,
    key_names: Vec<String>,
    pub(super) values: Bytes,
    results: Bytes,
    pub(super) keys: Box<dyn Keys>,
    /// The rows of each key.
    pub(super) groups: Vec<RowsOfKey>,
    /// When each key is to be looked at.
    timers: BTreeSet<(i64, usize)>,
    /// What each key holds the watermark back to.
    holds: BTreeSet<(i64, usize)>,
    n_gone: usize,
    pub(super) watermark: i64,
    /// Rows from before came late; `None` for the watermark.
    in_time_from: Option<i64>,
    /// Keys that were restored of operators which had not heard of the watermark yet.
    pub(super) behind: BTreeSet<usize>,
    /// Of the rows of all keys.
    n_bytes: usize,
}

/// A window that leaves, by its key, and the windows that it was made of.
struct Leaving {
    group: usize,
    window: Window,
    from: Vec<Window>,
    how: How,
}

/// A result that leaves or is taken back.
type Left = (Box<[u8]>, Mark);

impl MergingChanges {
    pub(in crate::ops::group_by::windowed) fn new(
        plan: &Arc<ChangingWindowsPlan>,
        key_names: Vec<String>,
    ) -> Result<Self> {
        Ok(Self {
            values: Bytes::of_values(plan)?,
            results: Bytes::of_results(plan)?,
            keys: new_keys(plan)?,
            plan: Arc::clone(plan),
            key_names,
            groups: Vec::new(),
            timers: BTreeSet::new(),
            holds: BTreeSet::new(),
            in_time_from: None,
            n_gone: 0,
            watermark: Watermark::START.0,
            behind: BTreeSet::new(),
            n_bytes: 0,
        })
    }

    /// The number of each row's key.
    pub(super) fn number(&mut self, keys: &[ArrayRef], n_rows: usize) -> Result<Vec<usize>> {
        let mut groups = Vec::new();
        self.keys.number(keys, n_rows, &mut groups)?;
        let n_groups = self.keys.len().max(self.groups.len());
        self.n_gone += n_groups - self.groups.len();
        self.groups.resize_with(n_groups, RowsOfKey::default);
        Ok(groups)
    }

    /// Changes one key and keeps account of what it takes and when it is to be looked at.
    pub(super) fn with_group<T>(
        &mut self,
        group: usize,
        change: impl FnOnce(&mut RowsOfKey) -> T,
    ) -> T {
        let rows = &mut self.groups[group];
        let (was_empty, before) = (rows.is_empty(), rows.n_bytes());
        let made = change(rows);
        let after = rows.n_bytes();
        self.n_bytes = (self.n_bytes + after).saturating_sub(before);
        match (was_empty, rows.is_empty()) {
            (true, false) => self.n_gone -= 1,
            (false, true) => self.n_gone += 1,
            _ => {}
        }
        made
    }

    /// Sees to it that a key is looked at when the watermark next matters to it.
    pub(super) fn schedule(&mut self, group: usize) {
        let lateness = self.plan.lateness;
        let rows = &mut self.groups[group];
        let windows = rows.merged.iter();
        let of_windows = windows.map(|(window, merged)| match merged.fired.is_past_end {
            true => lateness.expiry(window.end),
            false => window.end,
        });
        let others = rows.without_rows().chain(rows.only_early());
        let others = others.map(|w| lateness.expiry(w.end));
        let next = of_windows.chain(others).min().unwrap_or(i64::MAX);
        let was = std::mem::replace(&mut rows.timer, next);
        if was != next {
            self.timers.remove(&(was, group));
            if !self.groups[group].is_empty() {
                self.timers.insert((next, group));
            }
        }
        self.schedule_hold(group);
    }

    fn schedule_hold(&mut self, group: usize) {
        if !self.plan.has_times {
            return;
        }
        let rows = &mut self.groups[group];
        let ahead = rows.merged.values().filter(|m| !m.fired.is_past_end);
        let hold = ahead.map(|merged| merged.hold).min().unwrap_or(i64::MAX);
        let was = std::mem::replace(&mut rows.hold, hold);
        self.holds.remove(&(was, group));
        if hold < i64::MAX {
            self.holds.insert((hold, group));
        }
    }

    /// Takes changes in that come in time, and gives what leaves by them.
    fn take_in(&mut self, rows: &RecordBatch) -> Result<Vec<Left>> {
        let n_keys = self.plan.of_groups.planned.key_fields.len();
        let keys = &rows.columns()[N_SLICE..N_SLICE + n_keys];
        let groups = self.number(keys, rows.num_rows())?;
        let values = &rows.columns()[self.plan.places_of_values()];
        let bytes = self.values.write(values, rows.num_rows())?;
        let changes = groups.iter().zip(bytes);
        let changes = changes.zip(windows_of(rows)?.into_iter().zip(diffs(rows)?));
        let plan = Arc::clone(&self.plan);
        let times = plan.times_of(rows);
        let in_time_from = self.in_time_from.unwrap_or(self.watermark);
        let mut touched: BTreeMap<usize, BTreeSet<Window>> = BTreeMap::new();
        let mut came: BTreeMap<usize, Vec<(Window, i64)>> = BTreeMap::new();
        for (n, ((&group, row), (window, diff))) in changes.enumerate() {
            self.with_group(group, |rows| rows.add(window, &row, i64::from(*diff)));
            touched.entry(group).or_default().insert(window);
            if let Some(time) = times.map(|times| times[n]).filter(|t| *t >= in_time_from) {
                came.entry(group).or_default().push((window, time));
            }
        }
        let mut left = Vec::new();
        let mut leaving = Vec::new();
        for (&group, changed) in &touched {
            let mut now = self.groups[group].windows(&*plan.windowing.window_fn);
            let changes = self.with_group(group, |rows| rows.change(changed, &now));
            if plan.has_times {
                let came = came.remove(&group).unwrap_or_default();
                self.groups[group].hold(&came, &changes.gone);
            }
            for (window, merged) in changes.gone {
                if let (Some(pane), Some(result)) = (merged.fired.pane, merged.result) {
                    left.push((result, mark(window, pane, -1)));
                }
            }
            for window in changes.other {
                let is_past_end = window.end <= self.watermark;
                let Some(merged) = self.groups[group].merged.get_mut(&window) else {
                    continue;
                };
                // Where nothing late is taken, it leaves with the next watermark, as it is then.
                merged.fired.is_past_end |= is_past_end && !plan.closes_at_end();
                if !(merged.fired.is_past_end || plan.firing.early) {
                    continue;
                }
                leaving.push(Leaving {
                    group,
                    window,
                    from: now.remove(&window).unwrap_or_default(),
                    how: How {
                        timing: match is_past_end {
                            true => Timing::Late,
                            false => Timing::Early,
                        },
                        is_last: false,
                        again: false,
                    },
                });
            }
        }
        self.leave(&leaving, &mut left)?;
        for group in touched.into_keys() {
            self.schedule(group);
        }
        Ok(left)
    }

    /// Lets windows leave as they are, after what has left of them is taken back.
    fn leave(&mut self, leaving: &[Leaving], left: &mut Vec<Left>) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        for leaving in leaving.chunks(BATCH_ROWS) {
            let keys: Vec<usize> = leaving.iter().map(|leaving| leaving.group).collect();
            let keys = self.keys.columns_of(&keys)?;
            let rows = leaving.iter().map(|l| self.groups[l.group].of(&l.from));
            let window_of = |n: usize| leaving[n].window;
            let results = results_of(&plan, &self.values, keys, window_of, rows)?;
            let results = self.results.write(results.columns(), results.num_rows())?;
            for (
                Leaving {
                    group, window, how, ..
                },
                result,
            ) in leaving.iter().zip(results)
            {
                let Some(merged) = self.groups[*group].merged.get_mut(window) else {
                    continue;
                };
                if !how.again && merged.result.as_ref() == Some(&result) {
                    continue;
                }
                if let (Some(pane), Some(result)) = (merged.fired.pane, merged.result.take()) {
                    left.push((result, mark(*window, pane, -1)));
                }
                merged.result = Some(result.clone());
                left.push((result, mark(*window, merged.fired.next(*how), 1)));
            }
        }
        Ok(())
    }

    /// Lets everything happen to these keys that the watermark brings.
    fn advance(&mut self, groups: &[usize], out: &mut Output) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let watermark = self.watermark;
        let is_over = |window: &Window| plan.lateness.expiry(window.end) <= watermark;
        let (mut at_end, mut closing) = (Vec::new(), Vec::new());
        let mut over = Vec::new();
        for &group in groups {
            let now = self.groups[group].windows(&*plan.windowing.window_fn);
            let rows = &mut self.groups[group];
            let others = rows.without_rows().chain(rows.only_early());
            let mut forgotten: Vec<Window> = others.filter(is_over).collect();
            for (window, from) in now {
                let Some(merged) = rows.merged.get_mut(&window) else {
                    continue;
                };
                let leaving = |how| Leaving {
                    group,
                    window,
                    from: from.clone(),
                    how,
                };
                let is_now_past = !merged.fired.is_past_end && window.end <= watermark;
                merged.fired.is_past_end |= is_now_past;
                let fires_at_end = is_now_past && plan.firing.at_end;
                if fires_at_end {
                    at_end.push(leaving(How {
                        timing: Timing::OnTime,
                        is_last: plan.closes_at_end(),
                        again: !plan.says_all_at_once,
                    }));
                }
                if !is_over(&window) {
                    continue;
                }
                let is_last_pane = fires_at_end && plan.closes_at_end();
                if !(plan.closes_silently() || is_last_pane) {
                    closing.push(leaving(How {
                        timing: Timing::Late,
                        is_last: true,
                        again: !plan.says_all_at_once,
                    }));
                }
                forgotten.extend(from);
            }
            over.push((group, forgotten));
        }
        let mut left = Vec::new();
        self.leave(&at_end, &mut left)?;
        self.leave(&closing, &mut left)?;
        for (group, forgotten) in over {
            self.with_group(group, |rows| {
                rows.merged.retain(|window, _| !is_over(window));
                rows.forget(&forgotten);
            });
            self.schedule(group);
        }
        self.push(&left, out)?;
        self.forget_keys()
    }

    /// Takes note of changes that came too late, some of which may add a row that was taken back before.
    fn settle(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let n_keys = self.plan.of_groups.planned.key_fields.len();
        let keys = &rows.columns()[N_SLICE..N_SLICE + n_keys];
        let groups = self.number(keys, rows.num_rows())?;
        let values = &rows.columns()[self.plan.places_of_values()];
        let bytes = self.values.write(values, rows.num_rows())?;
        let changes = windows_of(rows)?.into_iter().zip(diffs(rows)?);
        for ((group, row), (window, diff)) in groups.iter().zip(bytes).zip(changes) {
            let is_over = self.plan.lateness.expiry(window.end) <= self.watermark;
            self.with_group(*group, |rows| {
                rows.settle(window, &row, i64::from(*diff), is_over);
            });
            self.schedule(*group);
        }
        self.forget_keys()
    }

    /// # Errors
    /// If a row was taken back that was never added.
    fn check_end(&self) -> Result<()> {
        let mut groups = self.groups.iter().enumerate();
        match groups.find_map(|(group, rows)| Some((group, rows.owes()?))) {
            None => Ok(()),
            Some((group, window)) => {
                let keys = self.keys.columns_of(&[group]);
                Err(never_added_in(&self.plan, keys.ok(), window))
            }
        }
    }

    fn catch_up(&mut self, out: &mut Output) -> Result<()> {
        let behind: Vec<usize> = std::mem::take(&mut self.behind).into_iter().collect();
        match behind.is_empty() {
            true => Ok(()),
            false => self.advance(&behind, out),
        }
    }

    fn push(&self, left: &[Left], out: &mut Output) -> Result<()> {
        let mut results = Vec::new();
        for left in left.chunks(BATCH_ROWS) {
            let rows = left.iter().map(|(result, _)| &**result);
            let rows = read_results(&self.plan, &self.results, rows)?;
            let marks: Vec<Mark> = left.iter().map(|(_, mark)| *mark).collect();
            results.push(self.plan.marked(&rows, &marks)?);
        }
        push_together(self.plan.leave(results)?, out)
    }

    /// Forgets keys without rows, once they are the most or all; then numbers of keys change.
    fn forget_keys(&mut self) -> Result<()> {
        let n_there = self.groups.len() - self.n_gone;
        if self.n_gone == 0 || (n_there > 0 && self.n_gone <= MAX_GONE.max(n_there)) {
            return Ok(());
        }
        let there = (0..self.groups.len()).filter(|group| !self.groups[*group].is_empty());
        let there: Vec<usize> = there.collect();
        let columns = self.keys.columns_of(&there)?;
        self.keys = new_keys(&self.plan)?;
        self.keys.number(&columns, there.len(), &mut Vec::new())?;
        let groups = there.iter().map(|g| std::mem::take(&mut self.groups[*g]));
        self.groups = groups.collect();
        let timers = self.groups.iter().enumerate();
        self.timers = timers.map(|(group, rows)| (rows.timer, group)).collect();
        let holds = self.groups.iter().enumerate();
        let holds = holds.filter(|(_, rows)| rows.hold < i64::MAX);
        self.holds = holds.map(|(group, rows)| (rows.hold, group)).collect();
        self.n_gone = 0;
        Ok(())
    }
}

fn new_keys(plan: &ChangingWindowsPlan) -> Result<Box<dyn Keys>> {
    let fields = plan.of_groups.planned.key_fields.iter();
    let types: Vec<DataType> = fields.map(|f| f.data_type().clone()).collect();
    keys_of(&types)
}

fn mark(window: Window, pane: crate::ops::group_by::windowed::pane::Pane, diff: i8) -> Mark {
    Mark {
        window,
        event_time: window.max_timestamp(),
        pane,
        diff,
    }
}

impl TakesEffect for MergingChanges {
    fn in_time_from(&mut self, watermark: i64) {
        self.in_time_from = Some(watermark);
    }

    /// Windows become others with every change.
    fn turns(&mut self, _changes: &RecordBatch) -> Result<Option<BTreeSet<i64>>> {
        Ok(None)
    }
}

impl Operator for MergingChanges {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        let [rows, late] = self.plan.by_lateness(batch.rows())?;
        self.settle(&late)?;
        let in_time = windows_of(&rows)?.into_iter();
        let expiry = |window: Window| self.plan.lateness.expiry(window.end);
        let in_time = in_time.map(|window| Some(expiry(window) > self.watermark));
        let in_time: BooleanArray = in_time.collect();
        let n_late = rows.num_rows() - in_time.true_count();
        out.late(n_late as u64);
        let left = match n_late {
            0 => self.take_in(&rows)?,
            _ => {
                self.settle(&filter_record_batch(&rows, &not(&in_time)?)?)?;
                self.take_in(&filter_record_batch(&rows, &in_time)?)?
            }
        };
        self.push(&left, out)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        if watermark.0 <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark.0;
        let due = self.timers.range(..=(self.watermark, usize::MAX));
        let due: Vec<usize> = due.map(|(_, group)| *group).collect();
        self.advance(&due, out)?;
        match watermark.is_end() {
            true => self.check_end(),
            false => Ok(()),
        }
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        let hold = self.holds.first().map_or(i64::MAX, |(hold, _)| *hold);
        Watermark(input.0.min(hold))
    }

    fn state_bytes(&self) -> u64 {
        let groups = self.groups.capacity() * size_of::<RowsOfKey>();
        let timers = self.timers.len() * size_of::<(i64, usize)>() * 2;
        (self.n_bytes + groups + timers + self.keys.n_bytes()) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = vec![watermark_part(self.watermark)?];
        parts.extend(saved::parts(&self.plan, self, &self.key_names)?);
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.watermark = latest_watermark(state);
        let plan = Arc::clone(&self.plan);
        for part in state {
            saved::restore(&plan, self, part)?;
        }
        for group in 0..self.groups.len() {
            self.schedule(group);
        }
        Ok(())
    }
}
