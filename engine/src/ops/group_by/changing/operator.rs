//! Keeps the aggregates of groups up to date, where equal keys have met on one worker.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::compute::{filter, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use super::aggregate::{Changed, Retractable, kept};
use super::plan::ChangingPlan;
use crate::batch::{BATCH_ROWS, Batch};
use crate::changelog::{diffs, never_added, show_values};
use crate::error::{Error, Result};
use crate::event_time::event_times;
use crate::keys::{Keys, keys_of};
use crate::ops::by_instant::{ByInstant, TakesInstants};
use crate::ops::group_by::table::show_group;
use crate::ops::row_key::equal_rows;
use crate::ops::rows_by_time::{Run, in_runs};
use crate::output::Output;
use crate::state::StatePart;

/// Groups that are gone are forgotten once there are more of them than groups that are there, and than this.
const MAX_GONE: usize = BATCH_ROWS;

/// The second half of an aggregation of changes.
pub(in crate::ops::group_by) struct ChangingOperator {
    plan: Arc<ChangingPlan>,
    key_names: Vec<String>,
    groups: Groups,
}

/// All groups that are there, and some that are no more.
struct Groups {
    keys: Box<dyn Keys>,
    /// How many rows each has.
    n_rows: Vec<i64>,
    /// Which have been given out: without keys, the one group stays when it has no rows.
    is_out: Vec<bool>,
    aggregates: Vec<Box<dyn Retractable>>,
    /// How many have no rows, not even less than none, and are not out.
    n_gone: usize,
}

impl Groups {
    fn new(plan: &ChangingPlan) -> Result<Self> {
        let types = plan.planned.key_fields.iter();
        let types: Vec<DataType> = types.map(|f| f.data_type().clone()).collect();
        Ok(Self {
            keys: keys_of(&types)?,
            n_rows: Vec::new(),
            is_out: Vec::new(),
            aggregates: plan
                .kinds
                .iter()
                .map(|k| k.create())
                .collect::<Result<_>>()?,
            n_gone: 0,
        })
    }

    /// The number of each row's group.
    fn number(&mut self, keys: &[ArrayRef], n_rows: usize) -> Result<Vec<usize>> {
        let mut groups = Vec::new();
        self.keys.number(keys, n_rows, &mut groups)?;
        let n_groups = self.keys.len();
        let n_new = n_groups - self.n_rows.len();
        self.n_gone += n_new;
        self.n_rows.resize(n_groups, 0);
        self.is_out.resize(n_groups, false);
        for aggregate in &mut self.aggregates {
            aggregate.grow(n_groups);
        }
        Ok(groups)
    }

    fn forget_those_gone(&mut self, plan: &ChangingPlan) -> Result<()> {
        let n_there = self.n_rows.len() - self.n_gone;
        if plan.planned.key_fields.is_empty() || self.n_gone <= MAX_GONE.max(n_there) {
            return Ok(());
        }
        let there = self.kept();
        let columns = self.keys.columns_of(&there)?;
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        self.keys = keys_of(&types)?;
        self.keys.number(&columns, there.len(), &mut Vec::new())?;
        self.n_rows = kept(&self.n_rows, &there);
        self.is_out = kept(&self.is_out, &there);
        for aggregate in &mut self.aggregates {
            aggregate.keep(&there);
        }
        let is_gone = |group: &usize| !self.is_there(*group);
        self.n_gone = (0..self.n_rows.len()).filter(is_gone).count();
        Ok(())
    }

    /// True if the group is out, or has rows, or less than none.
    fn is_there(&self, group: usize) -> bool {
        self.is_out[group] || self.n_rows[group] != 0
    }

    /// True if some row of the group was taken back that was not added, or not yet.
    fn is_unsound(&self, group: usize) -> bool {
        let n_rows = self.n_rows[group];
        let mut aggregates = self.aggregates.iter();
        n_rows < 0 || aggregates.any(|a| a.is_unsound(group, n_rows))
    }

    /// The groups of which something is known. As many rows may have been added as others were taken back too early.
    fn kept(&self) -> Vec<usize> {
        let is_kept = |group: &usize| self.is_there(*group) || self.is_unsound(*group);
        (0..self.n_rows.len()).filter(is_kept).collect()
    }

    fn n_bytes(&self) -> usize {
        let states: usize = self.aggregates.iter().map(|a| a.n_bytes()).sum();
        self.keys.n_bytes() + states + self.n_rows.capacity() * (size_of::<i64>() + 1)
    }
}

impl ChangingOperator {
    pub(in crate::ops::group_by) fn by_instant(
        plan: &Arc<ChangingPlan>,
        key_names: &[String],
    ) -> Result<ByInstant<Self>> {
        let operator = Self {
            plan: Arc::clone(plan),
            key_names: key_names.to_vec(),
            groups: Groups::new(plan)?,
        };
        Ok(ByInstant::new(operator, plan.has_time, key_names))
    }

    /// Counts the rows of the groups: which had been there before each run, and which are after it.
    ///
    /// A group with less than no rows is not there. A row may be taken back before the change that adds it takes effect,
    /// which is later where that comes late.
    fn count_rows(&mut self, runs: &[Run], diffs: &[i8]) -> (BooleanArray, BooleanArray) {
        let stays = self.plan.planned.key_fields.is_empty();
        let mut was = Vec::with_capacity(runs.len());
        let mut is = Vec::with_capacity(runs.len());
        for run in runs {
            let group = run.group;
            let more: i64 = diffs[run.rows.clone()].iter().map(|d| i64::from(*d)).sum();
            let was_there = self.groups.is_there(group);
            was.push(self.groups.is_out[group]);
            self.groups.n_rows[group] += more;
            let is_out = self.groups.n_rows[group] > 0 || stays;
            self.groups.is_out[group] = is_out;
            is.push(is_out);
            match (was_there, self.groups.is_there(group)) {
                (false, true) => self.groups.n_gone -= 1,
                (true, false) => self.groups.n_gone += 1,
                _ => {}
            }
        }
        (BooleanArray::from(was), BooleanArray::from(is))
    }

    fn never_added(&self, group: usize) -> Error {
        match self.show_group(group) {
            Some(detail) => never_added().with_detail(detail),
            None => never_added(),
        }
    }

    fn show_group(&self, group: usize) -> Option<String> {
        let keys = self.groups.keys.columns_of(&[group]).ok()?;
        let shown = show_values(&self.key_names, &keys)?;
        // Without aggregates the groups are the rows themselves.
        let what = match self.plan.kinds.is_empty() {
            true => "row",
            false => "group",
        };
        Some(format!("The {what} is {shown}."))
    }
}

/// Each run's old row taken back and its new row added, where they are different.
fn changes(
    plan: &ChangingPlan,
    (old, was): (&RecordBatch, &BooleanArray),
    (new, is): (&RecordBatch, &BooleanArray),
    runs: &[Run],
    at: impl Fn(&Run) -> i64,
) -> Result<Vec<RecordBatch>> {
    let same = equal_rows(old, new)?;
    let (mut places, mut times, mut diffs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut n_old, mut n_new) = (0, 0);
    for (n, run) in runs.iter().enumerate() {
        let (was, is) = (was.value(n), is.value(n));
        if !(was && is && same(n_old, n_new)) {
            for (is_there, side, row, diff) in [(was, 0, n_old, -1), (is, 1, n_new, 1)] {
                if is_there {
                    places.push((side, row));
                    times.push(at(run));
                    diffs.push(diff);
                }
            }
        }
        n_old += usize::from(was);
        n_new += usize::from(is);
    }
    let mut batches = Vec::new();
    for start in (0..places.len()).step_by(BATCH_ROWS) {
        let range = start..places.len().min(start + BATCH_ROWS);
        let rows = interleave_record_batch(&[old, new], &places[range.clone()])?;
        batches.push(plan.changes(&rows, times[range.clone()].to_vec(), diffs[range].to_vec())?);
    }
    Ok(batches)
}

impl TakesInstants for ChangingOperator {
    fn take_in(&mut self, rows: &RecordBatch, out: &mut Output) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let groups = self.groups.number(plan.keys(rows), rows.num_rows())?;
        let (rows, runs) = in_runs(rows, &groups, plan.has_time)?;
        let diffs = diffs(&rows)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let Groups {
            keys, aggregates, ..
        } = &mut self.groups;
        for (n, ((values, taken), aggregate)) in plan.values(&rows).zip(aggregates).enumerate() {
            let changed = Changed {
                runs: &runs,
                values,
                taken,
                diffs,
            };
            let (old, new) = aggregate.change(&changed).map_err(|misfit| {
                misfit.named(&plan.planned, n, |group| {
                    show_group(&plan.planned, &keys.columns_of(&[group]).ok()?)
                })
            })?;
            before.push(old);
            after.push(new);
        }
        let (was, is) = self.count_rows(&runs, diffs);
        let keys: Vec<usize> = runs.iter().map(|r| r.group).collect();
        let keys = self.groups.keys.columns_of(&keys)?;
        let project = |values: &[ArrayRef], mask: &BooleanArray| -> Result<RecordBatch> {
            let columns = keys.iter().chain(values).map(|c| filter(c, mask));
            plan.planned
                .project(columns.collect::<Result<Vec<_>, _>>()?)
        };
        let old = project(&before, &was)?;
        let new = project(&after, &is)?;
        let times = match plan.has_time {
            true => event_times(&rows)?,
            false => &[],
        };
        let at = |run: &Run| times.get(run.rows.start).copied().unwrap_or_default();
        for rows in changes(&plan, (&old, &was), (&new, &is), &runs, at)? {
            out.push(Batch::new(rows).inexact());
        }
        self.groups.forget_those_gone(&plan)
    }

    fn end(&mut self) -> Result<()> {
        let mut groups = 0..self.groups.n_rows.len();
        if let Some(group) = groups.find(|group| self.groups.is_unsound(*group)) {
            return Err(self.never_added(group));
        }
        self.groups = Groups::new(&self.plan)?;
        Ok(())
    }

    fn n_bytes(&self) -> usize {
        self.groups.n_bytes()
    }

    fn parts(&self) -> Result<Vec<StatePart>> {
        let all = self.groups.kept();
        let mut is_kept = vec![false; self.groups.n_rows.len()];
        for group in &all {
            is_kept[*group] = true;
        }
        let n_rows = Arc::new(Int64Array::from(kept(&self.groups.n_rows, &all)));
        let mut parts = self.part("groups", &all, vec![n_rows])?;
        for (n, aggregate) in self.groups.aggregates.iter().enumerate() {
            let (groups, columns) = aggregate.state()?;
            let there: BooleanArray = groups.iter().map(|g| Some(is_kept[*g])).collect();
            let columns = columns.iter().map(|c| filter(c, &there));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let groups: Vec<usize> = groups.into_iter().filter(|g| is_kept[*g]).collect();
            parts.extend(self.part(&format!("aggregate {n}"), &groups, columns)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let n_keys = self.plan.planned.key_fields.len();
        // Groups before their aggregates, whatever the order of the parts.
        for StatePart { rows, .. } in state.iter().filter(|p| p.table == "groups") {
            let (keys, columns) = rows.columns().split_at(n_keys);
            let groups = self.groups.number(keys, rows.num_rows())?;
            let n_rows: &Int64Array = super::aggregate::column(columns, 0)?;
            for (group, n) in groups.into_iter().zip(n_rows.values()) {
                self.groups.n_rows[group] = *n;
                // Without keys the one group stays when it has no rows.
                self.groups.is_out[group] = *n > 0 || n_keys == 0;
                self.groups.n_gone -= usize::from(self.groups.is_there(group));
            }
        }
        for StatePart { table, rows, .. } in state {
            if let Some(n) = table.strip_prefix("aggregate ") {
                let (keys, columns) = rows.columns().split_at(n_keys);
                let groups = self.groups.number(keys, rows.num_rows())?;
                let aggregate = n
                    .parse()
                    .ok()
                    .and_then(|n: usize| self.groups.aggregates.get_mut(n));
                let aggregate = aggregate
                    .ok_or_else(|| Error::pipeline("the state is that of other aggregates"))?;
                aggregate.restore(&groups, columns)?;
            }
        }
        Ok(())
    }
}

impl ChangingOperator {
    /// Rows of state, with the keys of their groups before.
    fn part(
        &self,
        table: &str,
        groups: &[usize],
        columns: Vec<ArrayRef>,
    ) -> Result<Vec<StatePart>> {
        let mut all = self.groups.keys.columns_of(groups)?;
        let mut fields: Vec<Arc<Field>> = self.plan.planned.key_fields.clone();
        for (n, column) in columns.iter().enumerate() {
            let field = Field::new(format!("{n}: state"), column.data_type().clone(), true);
            fields.push(Arc::new(field));
        }
        all.extend(columns);
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), all)?;
        StatePart::by_key(table, &rows, &self.key_names)
    }
}
