//! Brings the states of each key and window together, and lets windows fire.
//!
//! ```text
//!            ┌─▶ live slices ──── the watermark passes the end ────┬─▶ results
//! states ────┤                                                     │ where late rows are allowed
//!            └─▶ keys in windows, each with a trigger ◀────────────┘
//!                any trigger, merging windows, late rows ─────────────▶ results
//! ```
//!
//! Where no window fires before its end, rows are brought together by slice, and what triggers remember of
//! each key and window comes into being only once a window has fired and may fire again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::asked::Asked;
use super::changing::{ByEffect, ChangingWindows, MergingChanges};
use super::live::LiveSlices;
use super::pane::Pane;
use super::partial::{SLICES, by_span};
use super::plan::{WindowedGrouping, WindowedPlan, WindowedPlans};
use super::results::{push_together, times_of};
use super::settled::{Arrivals, FIRED, Now, Settled, WINDOWS, windows_of};
use super::slices::Slicer;
use super::{latest_watermark, watermark_part};
use crate::artifact::Artifacts;
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::Result;
use crate::ops::group_by::table::States;
use crate::output::Output;
use crate::plan::{Lowered, Place};
use crate::state::StatePart;
use crate::transform::{
    ChangeTimes, Description, Distribution, OnChangelog, Operator, Properties, Transform, Watermark,
};
use crate::windowing::Window;

/// Slices smaller than this are merged before they are taken in.
const SMALL_ROWS: usize = 1 << 10;
/// So many runs of the same slice are taken in one by one; more are put in order before.
const MANY_RUNS: usize = 32;

/// The second half of an aggregation in windows: states to results, when windows fire.
#[derive(Clone, Debug)]
pub struct WindowedFinalAggregate {
    grouping: Arc<WindowedGrouping>,
}

impl WindowedFinalAggregate {
    pub(in crate::ops::group_by) fn new(grouping: &Arc<WindowedGrouping>) -> Self {
        Self {
            grouping: Arc::clone(grouping),
        }
    }
}

impl Transform for WindowedFinalAggregate {
    fn describe(&self) -> Description {
        let WindowedGrouping {
            asked, windowing, ..
        } = &*self.grouping;
        let window = windowing.window_fn.describe();
        let mut config = asked.config();
        let of_windows = [
            ("window", json!(window.kind)),
            ("window_config", window.config),
            ("trigger", json!(windowing.trigger.to_string())),
            ("accumulation", json!(windowing.accumulation)),
            ("timestamp_combiner", json!(windowing.timestamp_combiner)),
            ("allowed_lateness_ms", json!(windowing.allowed_lateness_ms)),
        ];
        config.extend(of_windows.map(|(name, value)| (name.to_owned(), value)));
        if let Some(time) = &windowing.row_time {
            config.insert("row_time".into(), json!(time.to_string()));
        }
        Description::new(asked.kind(), config.into())
    }

    fn output_schema(&self, _inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Arc::clone(self.grouping.plans()?.output()))
    }

    /// Where rows leave as they came, those of them that are wanted, beside what travels.
    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let Asked::First { .. } = self.grouping.asked else {
            return None;
        };
        let plans = self.grouping.plans().ok()?;
        let travels = plans.travels().fields().iter().map(|f| f.name());
        Some(wanted?.iter().chain(travels).cloned().collect())
    }

    /// Where the first half has been narrowed, that of the same columns.
    fn lower(&self, _place: &Place<'_>) -> Result<Option<Lowered>> {
        let narrowed = self.grouping.narrowed();
        Ok(narrowed.map(|grouping| Lowered::to(Self { grouping }, 1)))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let plan = match self.grouping.plans()? {
            WindowedPlans::Rows(plan) => plan,
            WindowedPlans::Changes(plan) => {
                let keys = self.grouping.key_names();
                let is_merging = plan.windowing.window_fn.is_merging();
                return Ok(match (is_merging, plan.has_row_time) {
                    (true, false) => Box::new(MergingChanges::new(&plan, keys)?),
                    (false, false) => Box::new(ChangingWindows::new(&plan, keys)),
                    (true, true) => {
                        let of = MergingChanges::new(&plan, keys.clone())?;
                        Box::new(ByEffect::new(of, keys))
                    }
                    (false, true) => {
                        let of = ChangingWindows::new(&plan, keys.clone());
                        Box::new(ByEffect::new(of, keys))
                    }
                });
            }
        };
        Ok(Box::new(FinalOperator {
            keys: self.grouping.key_names(),
            slicer: Slicer::new(&plan.windowing.window_fn),
            live: plan.waits_for_watermark().then(|| LiveSlices::new(&plan)),
            settled: match plan.fires_once() {
                true => None,
                false => Some(Settled::new(&plan)?),
            },
            watermark: Watermark::START.0,
            behind: BTreeMap::new(),
            small: Vec::new(),
            n_small: 0,
            plan,
        }))
    }

    fn keeps(&self) -> Option<String> {
        let of_windows = match self.grouping.windowing.allowed_lateness_ms {
            0 => "state until it passes a window's end",
            _ => "state until it passes a window's end by the lateness",
        };
        match self.grouping.plans().ok()? {
            WindowedPlans::Changes(plan) if plan.has_row_time => Some(format!(
                "changes until the watermark passes when they take effect, and {of_windows}"
            )),
            WindowedPlans::Changes(_) | WindowedPlans::Rows(_) => None,
        }
    }

    fn properties(&self) -> Properties {
        let keys = self.grouping.key_names();
        Properties {
            stateful: true,
            on_changelog: OnChangelog::Understand,
            // A result is taken back at the event time that it had.
            change_times: ChangeTimes::Row,
            distribution: if keys.is_empty() {
                Distribution::One
            } else {
                Distribution::ByKey(keys)
            },
            ..Properties::default()
        }
    }
}

struct FinalOperator {
    plan: Arc<WindowedPlan>,
    keys: Vec<String>,
    slicer: Slicer,
    /// Where no window fires before its end, what has come for windows to come.
    live: Option<LiveSlices>,
    /// Where a window may fire more than once, or not at its end alone, what is known of keys in windows.
    settled: Option<Settled>,
    watermark: i64,
    /// What was restored of operators that had not heard of the watermark yet, by the one that they had heard of.
    behind: BTreeMap<i64, Behind>,
    /// Slices that wait for others; their credit has gone back, or the source might wait for it.
    small: Vec<RecordBatch>,
    n_small: usize,
}

/// What an operator kept that had not heard of the watermark yet.
struct Behind {
    live: LiveSlices,
    settled: Option<Settled>,
}

impl Behind {
    fn new(plan: &Arc<WindowedPlan>) -> Result<Self> {
        let settled = (!plan.fires_once()).then(|| Settled::new(plan));
        Ok(Self {
            live: LiveSlices::new(plan),
            settled: settled.transpose()?,
        })
    }
}

impl FinalOperator {
    fn now(&self, out: &Output) -> Now {
        Now {
            watermark: self.watermark,
            processing_time: out.processing_time(),
        }
    }

    fn take_in_small(&mut self, out: &mut Output) -> Result<()> {
        if self.small.is_empty() {
            return Ok(());
        }
        let rows = concat_batches(&self.plan.travels, &self.small)?;
        self.small.clear();
        self.n_small = 0;
        self.take_in(&rows, out)
    }

    fn take_in(&mut self, rows: &RecordBatch, out: &mut Output) -> Result<()> {
        match &self.live {
            Some(_) => self.take_in_slices(rows, out),
            None => {
                let mut arrivals = Vec::with_capacity(rows.num_rows());
                let plan = Arc::clone(&self.plan);
                let mut last: Option<(Window, Vec<Window>)> = None;
                for (row, span) in (0u32..).zip(windows_of(rows)?) {
                    if last.as_ref().is_none_or(|(of, _)| *of != span) {
                        last = Some((span, self.slicer.windows(span).to_vec()));
                    }
                    let windows = last.iter().flat_map(|(_, windows)| windows);
                    arrivals.extend(windows.map(|window| (row, *window)));
                }
                let n_rows = rows.num_rows();
                self.settle_rows(&plan, rows, arrivals, vec![false; n_rows], out)
            }
        }
    }

    /// States by slice: to those that are live, and for windows that have fired to what is known of them.
    fn take_in_slices(&mut self, rows: &RecordBatch, out: &mut Output) -> Result<()> {
        let rows = in_few_runs(rows)?;
        let plan = Arc::clone(&self.plan);
        let watermark = self.watermark;
        let mut arrivals = Vec::new();
        let mut taken = vec![false; rows.num_rows()];
        let mut from = 0;
        for (span, run) in by_span(&rows)? {
            let of_run = from..from + run.num_rows();
            from = of_run.end;
            let slice = self.slicer.slice_at(span);
            if slice.last_end > watermark {
                let windows = self.slicer.windows(span).iter();
                let ahead = windows.filter(|window| window.end > watermark).copied();
                if let Some(live) = &mut self.live {
                    live.merge(slice, ahead, &run.columns()[2..])?;
                }
                taken[of_run.clone()].fill(true);
            }
            if slice.first_end <= watermark {
                let windows = self.slicer.windows(span);
                let over = windows.iter().filter(|window| window.end <= watermark);
                let over: Vec<Window> = over.copied().collect();
                for row in of_run {
                    let row = u32::try_from(row).unwrap_or(u32::MAX);
                    arrivals.extend(over.iter().map(|window| (row, *window)));
                }
            }
        }
        self.settle_rows(&plan, &rows, arrivals, taken, out)
    }

    /// States into keys in windows; those that nobody takes were too late.
    fn settle_rows(
        &mut self,
        plan: &WindowedPlan,
        rows: &RecordBatch,
        arrivals: Vec<(u32, Window)>,
        mut taken: Vec<bool>,
        out: &mut Output,
    ) -> Result<()> {
        let now = self.now(out);
        let columns = &rows.columns()[2..];
        if let Some(settled) = &mut self.settled
            && !arrivals.is_empty()
        {
            let arrivals = Arrivals {
                columns,
                rows: arrivals,
            };
            out.late(settled.add(arrivals, now, &mut taken)?);
            push_together(self.plan.leave(settled.take_results()?)?, out)?;
        }
        if taken.iter().any(|taken| !taken) {
            let counts = plan.counts(&columns[plan.n_keys..]);
            let late = taken.iter().enumerate().filter(|(_, taken)| !**taken);
            let of = |(row, _): (usize, &bool)| counts.map_or(1, |c| c[row].unsigned_abs());
            out.late(late.map(of).sum());
        }
        Ok(())
    }

    /// Lets everything happen that is due at the watermark.
    fn fire_what_is_due(&mut self, out: &mut Output) -> Result<()> {
        let now = self.now(out);
        let (live, settled) = (self.live.as_mut(), self.settled.as_mut());
        let results = fire_what_is_due(&self.plan, live, settled, now)?;
        push_together(self.plan.leave(results)?, out)
    }

    /// Fires what operators before a restart would have fired, had they heard of the watermark in time, and takes
    /// over what they keep.
    fn catch_up(&mut self, out: &mut Output) -> Result<()> {
        let now = self.now(out);
        let mut results = Vec::new();
        for (_, behind) in std::mem::take(&mut self.behind) {
            let Behind {
                mut live,
                mut settled,
            } = behind;
            let of = (Some(&mut live), settled.as_mut());
            results.extend(fire_what_is_due(&self.plan, of.0, of.1, now)?);
            if let Some(own) = &mut self.live {
                for (span, rows) in live.snapshot()? {
                    let slice = self.slicer.slice_at(span);
                    let windows = self.slicer.windows(span);
                    own.restore(slice, windows, rows.columns(), now.watermark)?;
                }
            }
            if let (Some(own), Some(settled)) = (&mut self.settled, &mut settled) {
                for part in settled.snapshot(&self.keys)? {
                    own.restore(&part)?;
                }
            }
        }
        push_together(self.plan.leave(results)?, out)
    }

    /// All that is known of keys in windows.
    fn all_settled(&self) -> impl Iterator<Item = &Settled> {
        let behind = self.behind.values().flat_map(|behind| &behind.settled);
        self.settled.iter().chain(behind)
    }

    /// All that has come for windows to come.
    fn all_live(&self) -> impl Iterator<Item = &LiveSlices> {
        let behind = self.behind.values().map(|behind| &behind.live);
        self.live.iter().chain(behind)
    }
}

/// Lets everything happen that is due at the watermark; gives the results.
fn fire_what_is_due(
    plan: &WindowedPlan,
    live: Option<&mut LiveSlices>,
    mut settled: Option<&mut Settled>,
    now: Now,
) -> Result<Vec<RecordBatch>> {
    let mut results = Vec::new();
    if let Some(live) = live {
        while let Some(window) = live.next_window(now.watermark) {
            let settled = settled.as_deref_mut();
            fire(plan, live, settled, window, now, &mut results)?;
        }
    }
    if let Some(settled) = settled {
        settled.advance(now);
        results.extend(settled.take_results()?);
    }
    Ok(results)
}

/// Rows of slices, as they come, of what has come and not fired, with the watermark that was told of.
fn rows_of_slices(
    plan: &WindowedPlan,
    live: &mut LiveSlices,
    watermark: i64,
) -> Result<Vec<RecordBatch>> {
    let rows = live.snapshot()?.into_iter().map(|(span, rows)| {
        let n_rows = rows.num_rows();
        let mut columns = vec![times_of(span.start, n_rows), times_of(span.end, n_rows)];
        columns.extend(rows.columns().iter().cloned());
        let rows = RecordBatch::try_new(Arc::clone(&plan.travels), columns)?;
        with_watermark(&rows, watermark)
    });
    rows.collect()
}

/// Fires a window for the first time, at its end.
fn fire(
    plan: &WindowedPlan,
    live: &mut LiveSlices,
    settled: Option<&mut Settled>,
    window: Window,
    now: Now,
    results: &mut Vec<RecordBatch>,
) -> Result<()> {
    let mut groups = live.take(window)?;
    let Some(settled) = settled else {
        for rows in groups.take_results()? {
            results.push(plan.results_of_window(&rows, window, Pane::ONLY)?);
        }
        return Ok(());
    };
    let pane = settled.pane_on_time(window);
    for states in groups.take_states()? {
        let rows = results_of_states(plan, &states)?;
        // Where a window is over by now it would only be forgotten, unless it fires once more for that.
        if plan.expiry(window.end) > now.watermark || !plan.closes_silently() {
            settled.settle(window, pane, &states, &rows, now)?;
        }
        results.push(plan.results_of_window(&rows, window, pane)?);
    }
    Ok(())
}

/// All that the plan makes of keys and states that are there once each.
fn results_of_states(plan: &WindowedPlan, rows: &RecordBatch) -> Result<RecordBatch> {
    let (keys, columns) = rows.columns().split_at(plan.n_keys);
    let groups: Vec<usize> = (0..rows.num_rows()).collect();
    let mut states = States::new(&plan.planned)?;
    states.merge(columns, &groups, groups.len())?;
    let mut results: Vec<ArrayRef> = keys.to_vec();
    let key_of = |group: usize| Some(keys.iter().map(|key| key.slice(group, 1)).collect());
    results.extend(states.take_values(key_of)?);
    plan.planned.project(results)
}

/// The rows so that those of the same slice mostly follow each other.
pub(super) fn in_few_runs(rows: &RecordBatch) -> Result<RecordBatch> {
    let spans = windows_of(rows)?;
    let n_runs = spans.chunk_by(|a, b| a == b).count();
    if n_runs <= MANY_RUNS {
        return Ok(rows.clone());
    }
    let mut order: Vec<u32> = (0u32..).take(spans.len()).collect();
    // Stable, so that the order of what comes for a key stays.
    order.sort_by_key(|row| spans[*row as usize]);
    let order = arrow::array::UInt32Array::from(order);
    Ok(arrow::compute::take_record_batch(rows, &order)?)
}

impl Operator for FinalOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        let rows = batch.rows();
        // What only waits for the watermark can wait for more of its kind.
        let waits = self.live.is_some() && rows.num_rows() < SMALL_ROWS && {
            let spans = windows_of(rows)?;
            let slicer = &mut self.slicer;
            let mut spans = spans.chunk_by(|a, b| a == b).map(|run| run[0]);
            spans.all(|span| slicer.slice_at(span).first_end > self.watermark)
        };
        if !waits {
            self.take_in_small(out)?;
            return self.take_in(rows, out);
        }
        self.n_small += rows.num_rows();
        self.small.push(rows.clone());
        match self.n_small >= BATCH_ROWS {
            true => self.take_in_small(out),
            false => Ok(()),
        }
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        self.take_in_small(out)?;
        self.watermark = self.watermark.max(watermark.0);
        self.fire_what_is_due(out)?;
        if watermark.is_end() {
            // Nothing comes any more that there would have to be room for.
            self.live = self.live.is_some().then(|| LiveSlices::new(&self.plan));
            let settled = self.settled.is_some().then(|| Settled::new(&self.plan));
            self.settled = settled.transpose()?;
        }
        Ok(())
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        let live = self.all_live().map(LiveSlices::hold);
        let settled = self.all_settled().map(Settled::earliest_hold);
        Watermark(live.chain(settled).fold(input.0, i64::min))
    }

    fn wakes_at(&self) -> Option<i64> {
        self.all_settled().filter_map(Settled::wakes_at).min()
    }

    fn on_processing_time(&mut self, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        self.take_in_small(out)?;
        let now = self.now(out);
        match &mut self.settled {
            Some(settled) => {
                settled.wake(now);
                push_together(self.plan.leave(settled.take_results()?)?, out)
            }
            None => Ok(()),
        }
    }

    fn state_bytes(&self) -> u64 {
        let small = self.small.iter().map(RecordBatch::get_array_memory_size);
        let live = self.all_live().map(LiveSlices::n_bytes);
        let settled = self.all_settled().map(Settled::n_bytes);
        small.chain(live).chain(settled).sum::<usize>() as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = vec![watermark_part(self.watermark)?];
        let live = self.live.iter_mut().map(|live| (self.watermark, live));
        let settled = self.settled.iter_mut().map(|of| (self.watermark, of));
        let (mut all_live, mut all_settled): (Vec<_>, Vec<_>) = (live.collect(), settled.collect());
        for (told, behind) in &mut self.behind {
            all_live.push((*told, &mut behind.live));
            all_settled.extend(behind.settled.iter_mut().map(|of| (*told, of)));
        }
        let mut slices = Vec::new();
        for (told, live) in all_live {
            slices.extend(rows_of_slices(&self.plan, live, told)?);
        }
        for rows in &self.small {
            slices.push(with_watermark(rows, self.watermark)?);
        }
        for rows in slices {
            parts.extend(StatePart::by_key(SLICES, &rows, &self.keys)?);
        }
        for (told, settled) in all_settled {
            for part in settled.snapshot(&self.keys)? {
                let rows = with_watermark(&part.rows, told)?;
                parts.push(StatePart { rows, ..part });
            }
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.watermark = latest_watermark(state);
        for part in state {
            let table = part.table.as_str();
            if ![SLICES, WINDOWS, FIRED].contains(&table) {
                continue;
            }
            let (rows, told) = without_watermark(&part.rows)?;
            let is_behind = told != self.watermark || (table == SLICES && self.live.is_none());
            let behind = match is_behind {
                true => Some(match self.behind.entry(told) {
                    Entry::Occupied(behind) => behind.into_mut(),
                    Entry::Vacant(slot) => slot.insert(Behind::new(&self.plan)?),
                }),
                false => None,
            };
            let (live, settled) = match behind {
                Some(behind) => (Some(&mut behind.live), behind.settled.as_mut()),
                None => (self.live.as_mut(), self.settled.as_mut()),
            };
            match (table, live, settled) {
                (SLICES, Some(live), _) => {
                    for (span, rows) in by_span(&rows)? {
                        let slice = self.slicer.slice_at(span);
                        let windows = self.slicer.windows(span);
                        live.restore(slice, windows, &rows.columns()[2..], told)?;
                    }
                }
                (WINDOWS | FIRED, _, Some(settled)) => settled.restore(&StatePart {
                    rows,
                    ..part.clone()
                })?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Rows with the watermark that the operator which kept them had been told of, in a last column.
fn with_watermark(rows: &RecordBatch, watermark: i64) -> Result<RecordBatch> {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("watermark", DataType::Int64, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_value(watermark, rows.num_rows())));
    let schema = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// What [`with_watermark`] made: all rows are of the same operator.
fn without_watermark(rows: &RecordBatch) -> Result<(RecordBatch, i64)> {
    let last = rows.num_columns() - 1;
    let told = rows.column(last).as_primitive_opt::<Int64Type>();
    let told = told.filter(|told| !told.is_empty());
    let told = told.map_or(i64::MIN, |told| told.value(0));
    let columns: Vec<usize> = (0..last).collect();
    Ok((rows.project(&columns)?, told))
}
