//! The groups of one window, from which rows can be taken back.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{filter, interleave_record_batch};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use super::plan::ChangingWindowsPlan;
use crate::batch::BATCH_ROWS;
use crate::changelog::{diffs, never_added, show_values};
use crate::error::{Error, Result};
use crate::event_time::{WINDOW_END, WINDOW_START};
use crate::keys::{Keys, keys_of};
use crate::ops::group_by::changing::{Changed, Retractable};
use crate::ops::group_by::windowed::pane::{Pane, Timing};
use crate::ops::group_by::windowed::results::{Mark, times_of};
use crate::ops::row_key::equal_rows;
use crate::ops::rows_by_time::Run;
use crate::windowing::Window;

/// A window that still takes changes.
pub(super) struct OpenWindow {
    pub(super) window: Window,
    pub(super) keys: Box<dyn Keys>,
    /// How many rows each group has: less than none where one was taken back before it came.
    pub(super) n_rows: Vec<i64>,
    pub(super) fired: Vec<Fired>,
    pub(super) aggregates: Vec<Box<dyn Retractable>>,
    /// The earliest event time that a result at the end may have for the sake of rows that came in time; `i64::MAX`
    /// where that of the window is given.
    pub(super) hold: i64,
    /// The watermark has passed the end, and what was to leave by that has left.
    pub(super) is_past_end: bool,
}

/// What has left of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fired {
    /// Of the result that has left and was not taken back.
    pub(super) pane: Option<Pane>,
    /// The number of the next result, and that among those that are not early.
    pub(super) index: i64,
    pub(super) nonspeculative_index: i64,
    /// As [`OpenWindow::is_past_end`], of this group: they differ where groups of several workers have met.
    pub(super) is_past_end: bool,
}

impl Fired {
    pub(super) fn next(&mut self, how: How) -> Pane {
        let is_early = how.timing == Timing::Early;
        let pane = Pane {
            timing: match how.timing {
                Timing::OnTime if self.nonspeculative_index > 0 => Timing::Late,
                timing => timing,
            },
            index: self.index,
            nonspeculative_index: match is_early {
                true => -1,
                false => self.nonspeculative_index,
            },
            is_first: self.index == 0,
            is_last: how.is_last,
        };
        self.index += 1;
        self.nonspeculative_index += i64::from(!is_early);
        self.pane = Some(pane);
        pane
    }
}

/// How groups leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) timing: Timing,
    pub(super) is_last: bool,
    /// Groups that are as they were leave again, as another pane.
    pub(super) again: bool,
}

impl OpenWindow {
    pub(super) fn new(plan: &ChangingWindowsPlan, window: Window) -> Result<Self> {
        let fields = plan.of_groups.planned.key_fields.iter();
        let types: Vec<DataType> = fields.map(|f| f.data_type().clone()).collect();
        let kinds = plan.of_groups.kinds.iter();
        Ok(Self {
            window,
            keys: keys_of(&types)?,
            n_rows: Vec::new(),
            fired: Vec::new(),
            aggregates: kinds.map(|kind| kind.create()).collect::<Result<_>>()?,
            hold: i64::MAX,
            is_past_end: false,
        })
    }

    /// The number of each row's group.
    pub(super) fn number(&mut self, keys: &[ArrayRef], n_rows: usize) -> Result<Vec<usize>> {
        let mut groups = Vec::new();
        self.keys.number(keys, n_rows, &mut groups)?;
        let n_groups = self.keys.len();
        let new = Fired {
            is_past_end: self.is_past_end,
            ..Fired::default()
        };
        self.n_rows.resize(n_groups, 0);
        self.fired.resize(n_groups, new);
        for aggregate in &mut self.aggregates {
            aggregate.grow(n_groups);
        }
        Ok(groups)
    }

    /// Takes in changes as they travel, without their slice, and gives what leaves by it. Their rows came in time that
    /// are not from before `watermark`.
    pub(super) fn take_in(
        &mut self,
        plan: &ChangingWindowsPlan,
        rows: &RecordBatch,
        watermark: i64,
    ) -> Result<Vec<RecordBatch>> {
        if let Some(times) = plan.times_of(rows).filter(|_| !self.is_past_end) {
            let in_time = times.iter().filter(|time| **time >= watermark);
            self.hold = in_time.fold(self.hold, |hold, time| hold.min(*time));
        }
        let groups = self.number(plan.of_groups.keys(rows), rows.num_rows())?;
        let timing = match self.is_past_end {
            true => Some(Timing::Late),
            false => plan.firing.early.then_some(Timing::Early),
        };
        let mut touched = Vec::new();
        if timing.is_some() {
            touched.clone_from(&groups);
            touched.sort_unstable();
            touched.dedup();
        }
        let before = self.values(plan, &touched)?;
        self.change(plan, rows, &groups)?;
        match timing {
            None => Ok(Vec::new()),
            Some(timing) => {
                let how = How {
                    timing,
                    is_last: false,
                    again: false,
                };
                Ok(self
                    .leave(plan, &touched, Some(before), how)?
                    .into_iter()
                    .collect())
            }
        }
    }

    /// Takes in changes of these groups, by which nothing leaves.
    pub(super) fn change(
        &mut self,
        plan: &ChangingWindowsPlan,
        rows: &RecordBatch,
        groups: &[usize],
    ) -> Result<()> {
        let diffs = diffs(rows)?;
        for (group, diff) in groups.iter().zip(diffs) {
            self.n_rows[*group] += i64::from(*diff);
        }
        let runs = runs_of(groups);
        let (keys, window) = (&self.keys, self.window);
        let all = plan.of_groups.values(rows).zip(&mut self.aggregates);
        for (n, ((values, taken), aggregate)) in all.enumerate() {
            let changed = Changed {
                runs: &runs,
                values,
                taken,
                diffs,
            };
            aggregate.add(&changed).map_err(|misfit| {
                misfit.named(&plan.of_groups.planned, n, |group| {
                    show_group_in(plan, keys.columns_of(&[group]).ok()?, window)
                })
            })?;
        }
        Ok(())
    }

    /// Lets leave what is to leave when the watermark has passed the end.
    pub(super) fn pass_end(&mut self, plan: &ChangingWindowsPlan) -> Result<Vec<RecordBatch>> {
        let waiting = (0..self.fired.len()).filter(|group| !self.fired[*group].is_past_end);
        let waiting: Vec<usize> = waiting.collect();
        self.is_past_end = true;
        self.hold = i64::MAX;
        for fired in &mut self.fired {
            fired.is_past_end = true;
        }
        if !plan.firing.at_end {
            return Ok(Vec::new());
        }
        let how = How {
            timing: Timing::OnTime,
            is_last: plan.closes_at_end(),
            again: !plan.says_all_at_once,
        };
        self.leave_all(plan, &waiting, how)
    }

    /// True if some row of the group was taken back that was not added, or not yet.
    pub(super) fn is_unsound(&self, group: usize) -> bool {
        let n_rows = self.n_rows[group];
        let mut aggregates = self.aggregates.iter();
        n_rows < 0 || aggregates.any(|a| a.is_unsound(group, n_rows))
    }

    /// Lets leave what is to leave when no change can come any more.
    pub(super) fn close(&mut self, plan: &ChangingWindowsPlan) -> Result<Vec<RecordBatch>> {
        if plan.closes_silently() {
            return Ok(Vec::new());
        }
        let is_last = |group: &usize| self.fired[*group].pane.is_some_and(|pane| pane.is_last);
        let open = (0..self.fired.len()).filter(|group| !is_last(group));
        let how = How {
            timing: match plan.closes_at_end() {
                true => Timing::OnTime,
                false => Timing::Late,
            },
            is_last: true,
            again: !plan.says_all_at_once,
        };
        let open: Vec<usize> = open.collect();
        self.leave_all(plan, &open, how)
    }

    fn leave_all(
        &mut self,
        plan: &ChangingWindowsPlan,
        groups: &[usize],
        how: How,
    ) -> Result<Vec<RecordBatch>> {
        let left = groups.chunks(BATCH_ROWS);
        let left = left.map(|groups| self.leave(plan, groups, None, how));
        Ok(left
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Takes back what has left of these groups, and lets them leave as they are.
    ///
    /// `before` are their values as they left, where they may be others by now.
    fn leave(
        &mut self,
        plan: &ChangingWindowsPlan,
        groups: &[usize],
        before: Option<Vec<ArrayRef>>,
        how: How,
    ) -> Result<Option<RecordBatch>> {
        let after = self.values(plan, groups)?;
        let before = before.as_ref().unwrap_or(&after);
        let keys = self.keys.columns_of(groups)?;
        let was = groups.iter().map(|g| Some(self.fired[*g].pane.is_some()));
        let is = groups.iter().map(|g| Some(self.n_rows[*g] > 0));
        let project = |values: &[ArrayRef], there: BooleanArray| -> Result<RecordBatch> {
            let columns = keys.iter().chain(values).map(|c| filter(c, &there));
            plan.project(columns.collect::<Result<Vec<_>, _>>()?)
        };
        let old = project(before, was.collect())?;
        let new = project(&after, is.collect())?;
        let same = equal_rows(&old, &new)?;
        let (mut places, mut marks) = (Vec::new(), Vec::new());
        let mark = |pane, diff| Mark {
            window: self.window,
            event_time: self.window.max_timestamp(),
            pane,
            diff,
        };
        let (mut n_old, mut n_new) = (0, 0);
        for group in groups {
            let fired = &mut self.fired[*group];
            let (was, is) = (fired.pane, self.n_rows[*group] > 0);
            if how.again || !(was.is_some() && is && same(n_old, n_new)) {
                if let Some(pane) = fired.pane.take() {
                    places.push((0, n_old));
                    marks.push(mark(pane, -1));
                }
                if is {
                    places.push((1, n_new));
                    marks.push(mark(fired.next(how), 1));
                }
            }
            n_old += usize::from(was.is_some());
            n_new += usize::from(is);
        }
        if places.is_empty() {
            return Ok(None);
        }
        let rows = interleave_record_batch(&[&old, &new], &places)?;
        plan.marked(&rows, &marks).map(Some)
    }

    fn values(&self, plan: &ChangingWindowsPlan, groups: &[usize]) -> Result<Vec<ArrayRef>> {
        let show = |group: usize| {
            let keys = self.keys.columns_of(&[group]).ok()?;
            show_group_in(plan, keys, self.window)
        };
        let values = self.aggregates.iter().enumerate().map(|(n, aggregate)| {
            let values = aggregate.values(groups);
            values.map_err(|misfit| misfit.named(&plan.of_groups.planned, n, show))
        });
        values.collect()
    }

    /// How many bytes of memory it keeps, about.
    pub(super) fn n_bytes(&self) -> usize {
        let aggregates = self.aggregates.iter().map(|a| a.n_bytes());
        self.keys.n_bytes()
            + aggregates.sum::<usize>()
            + self.n_rows.capacity() * size_of::<i64>()
            + self.fired.capacity() * size_of::<Fired>()
    }
}

/// What is wrong with a window to which a row was never added that it takes back; `keys` are those of its group, if
/// they can be shown.
pub(super) fn never_added_in(
    plan: &ChangingWindowsPlan,
    keys: Option<Vec<ArrayRef>>,
    window: Window,
) -> Error {
    let error = never_added().with_hint("A change counts in the windows of its row: one that takes a row back must have the time of that row, which `Windowing::row_time` reads from a column where the event time is another.");
    match keys.and_then(|keys| show_group_in(plan, keys, window)) {
        Some(shown) => error.with_detail(shown),
        None => error,
    }
}

/// Says which group of a window has these keys.
pub(super) fn show_group_in(
    plan: &ChangingWindowsPlan,
    mut keys: Vec<ArrayRef>,
    window: Window,
) -> Option<String> {
    let names = plan.of_groups.planned.key_fields.iter();
    let mut names: Vec<String> = names.map(|f| f.name().clone()).collect();
    names.extend([WINDOW_START.to_owned(), WINDOW_END.to_owned()]);
    keys.push(times_of(window.start, 1));
    keys.push(times_of(window.end, 1));
    let shown = show_values(&names, &keys)?;
    Some(format!("The group is {shown}."))
}

/// Where rows of one group follow each other.
fn runs_of(groups: &[usize]) -> Vec<Run> {
    let mut start = 0;
    let runs = groups.chunk_by(|a, b| a == b).map(|run| {
        let rows = start..start + run.len();
        start = rows.end;
        Run {
            group: run[0],
            rows,
        }
    });
    runs.collect()
}
