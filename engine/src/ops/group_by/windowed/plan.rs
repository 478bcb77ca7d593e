//! What both halves of an aggregation in windows share: keys, aggregates and columns, checked against a schema.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;

use super::asked::{Asked, Grouped, ORDER};
use super::changing::ChangingWindowsPlan;
use super::corrected::{differences, gives_differences};
use super::pane::pane_field;
use super::slices::{Lateness, has_panes};
use crate::aggregates::{count, max, min};
use crate::batch::Batch;
use crate::changelog::{diff_field, is_changelog};
use crate::error::{Error, Result};
use crate::event_time::{
    DIFF, EVENT_TIME, MIN_TIME, PANE, WINDOW_END, WINDOW_START, check_event_time, event_times,
    time_field, time_type,
};
use crate::expression::{col, lit, on_good_rows, with_columns_of};
use crate::ops::group_by::first_rows::unnested;
use crate::ops::group_by::planned::{Inputs, Planned};
use crate::ops::top_k::Ranking;
use crate::output::Output;
use crate::windowing::{
    Accumulation, Closing, GlobalWindow, TimestampCombiner, Trigger, Window, WindowFn, Windowing,
};

/// The column in which rows have their event time where it counts for the event time of results.
///
/// Users' columns may be called anything; what begins with a space is ours.
const HELD: &str = " held";

/// An aggregation in windows, as the user asks for it.
#[derive(Debug)]
pub(in crate::ops::group_by) struct WindowedGrouping {
    pub(super) asked: Asked,
    pub(super) windowing: Windowing,
    pub(super) leaves: Leaves,
    planned: Mutex<Option<WindowedPlans>>,
    /// What the planner has last put in its place, for the second half.
    narrowed: Mutex<Option<Arc<WindowedGrouping>>>,
}

/// Which columns leave where rows leave as they came, once it is known what is read behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaves {
    /// Those of the rows; `None` for all.
    pub(super) columns: Option<Vec<String>>,
    /// Nothing reads which firing a row is of.
    pub(super) no_pane: bool,
}

impl WindowedGrouping {
    pub(in crate::ops::group_by) fn new(asked: Asked, windowing: &Windowing) -> Self {
        Self {
            asked,
            windowing: windowing.clone(),
            leaves: Leaves::default(),
            planned: Mutex::new(None),
            narrowed: Mutex::new(None),
        }
    }

    /// What takes its place where rows leave as they came: only with the columns `wanted` of what leaves (`None`: all).
    ///
    /// Columns stay the same from here on, so that both halves agree in every phase. `keeps_all` says that all columns
    /// of the rows are needed to tell which come first.
    pub(super) fn narrow(
        &self,
        schema: &SchemaRef,
        wanted: Option<&[String]>,
        keeps_all: bool,
    ) -> Result<Option<Arc<Self>>> {
        let Asked::First { .. } = self.asked else {
            return Ok(None);
        };
        let all: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let columns = wanted.filter(|_| !keeps_all).unwrap_or(&all);
        let narrowed = Arc::new(Self {
            leaves: Leaves {
                columns: self.asked.kept(schema, columns),
                no_pane: wanted.is_some_and(|wanted| !wanted.iter().any(|name| name == PANE)),
            },
            ..Self::new(self.asked.clone(), &self.windowing)
        });
        narrowed.plan(schema)?;
        let mut slot = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::clone(&narrowed));
        Ok(Some(narrowed))
    }

    /// What [`WindowedGrouping::narrow`] has made last.
    pub(super) fn narrowed(&self) -> Option<Arc<Self>> {
        let slot = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
    }

    /// The columns that are read where only `wanted` of what leaves is; `None` is all.
    pub(super) fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let kept = self.leaves.columns.as_deref().or(wanted);
        let is_of_changes = matches!(self.plans(), Ok(WindowedPlans::Changes(_)));
        let kept = kept.filter(|_| !is_of_changes);
        let columns = self.asked.reads(kept)?;
        with_columns_of(Some(&columns), &self.windowing.row_time)
    }

    /// True if a change counts where its event time says, and so must have that of its row: of windows that have an
    /// end, or whose results have the time of a row, and where rows do not say themselves when they were.
    pub(super) fn needs_row_times(&self) -> bool {
        let is_one = self.windowing.window_fn.describe() == WindowFn::describe(&GlobalWindow);
        let at_end = self.windowing.timestamp_combiner == TimestampCombiner::EndOfWindow;
        self.windowing.row_time.is_none() && !(is_one && at_end)
    }

    /// The columns by whose values rows are dealt, once the first half has been checked.
    pub(super) fn key_names(&self) -> Vec<String> {
        let plans = self.plans().ok();
        let keys = plans.iter().flat_map(WindowedPlans::keys);
        keys.map(|field| field.name().clone()).collect()
    }

    /// Checks everything against the schema of the rows, and keeps what it makes for the second half.
    pub(super) fn plan(&self, schema: &SchemaRef) -> Result<WindowedPlans> {
        let plans = match is_changelog(schema) {
            true => WindowedPlans::Changes(Arc::new(ChangingWindowsPlan::new(self, schema)?)),
            false => WindowedPlans::Rows(Arc::new(WindowedPlan::new(self, schema)?)),
        };
        let mut slot = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(plans.clone());
        Ok(plans)
    }

    /// The plan for rows with these columns, which may be fewer than those that were checked.
    pub(super) fn planned_for(&self, schema: &SchemaRef) -> Result<Arc<WindowedPlan>> {
        let planned = self.planned()?;
        match planned.given == *schema {
            true => Ok(planned),
            false => Ok(Arc::new(WindowedPlan::new(self, schema)?)),
        }
    }

    pub(super) fn plans(&self) -> Result<WindowedPlans> {
        let slot = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
            .ok_or_else(|| Error::bug("a final aggregation was checked before its partial one"))
    }

    /// The plan for rows that stay.
    pub(super) fn planned(&self) -> Result<Arc<WindowedPlan>> {
        match self.plans()? {
            WindowedPlans::Rows(planned) => Ok(planned),
            WindowedPlans::Changes(_) => Err(Error::bug(
                "changes came to an aggregation of rows in windows",
            )),
        }
    }
}

/// The plan for the rows that come.
#[derive(Clone, Debug)]
pub(super) enum WindowedPlans {
    /// Rows that stay.
    Rows(Arc<WindowedPlan>),
    /// Rows that may be taken back.
    Changes(Arc<ChangingWindowsPlan>),
}

impl WindowedPlans {
    fn keys(&self) -> &[Arc<Field>] {
        match self {
            Self::Rows(plan) => &plan.planned.key_fields,
            Self::Changes(plan) => &plan.of_groups.planned.key_fields,
        }
    }

    /// The columns that are aggregated.
    pub(super) fn input(&self) -> &SchemaRef {
        match self {
            Self::Rows(plan) => &plan.input,
            Self::Changes(plan) => &plan.of_groups.planned.input,
        }
    }

    /// The columns that travel from the first half to the second.
    pub(super) fn travels(&self) -> &SchemaRef {
        match self {
            Self::Rows(plan) => &plan.travels,
            Self::Changes(plan) => &plan.travels,
        }
    }

    /// The columns that leave.
    pub(super) fn output(&self) -> &SchemaRef {
        match self {
            Self::Rows(plan) => plan.leaving.as_ref().unwrap_or(&plan.output),
            Self::Changes(plan) => plan.leaving.as_ref().unwrap_or(&plan.output),
        }
    }
}

/// An aggregation in windows that fits a schema.
#[derive(Debug)]
pub(super) struct WindowedPlan {
    pub(super) windowing: Windowing,
    /// The columns that come in.
    pub(super) given: SchemaRef,
    /// And as they are aggregated.
    pub(super) input: SchemaRef,
    /// By the keys alone; after the outputs of the user come ours.
    pub(super) planned: Arc<Planned>,
    /// By the number of a slice and the keys.
    pub(super) by_slice: Arc<Planned>,
    /// The columns that travel: the slice, keys, states.
    pub(super) travels: SchemaRef,
    /// The columns of results: a row for each group.
    pub(super) output: SchemaRef,
    /// The columns that leave, where each group leaves as several rows.
    leaving: Option<SchemaRef>,
    /// A correction gives the rows that leave and those that come, without those that stay.
    gives_differences: bool,
    /// Gives rows the bytes by which they are ordered, where it is asked which come first.
    ranking: Option<Ranking>,
    pub(super) n_keys: usize,
    /// How many of the columns that the plan makes leave; after them come those that are ours.
    pub(super) n_leaving: usize,
    /// Of the columns of states the one that counts rows, where they are counted.
    count: Option<usize>,
    /// Of the columns of states the one with the event time of the result, where it is not that of the window.
    time: Option<usize>,
    pub(super) has_panes: bool,
    /// A group leaves once and is not corrected, since nothing about it can change.
    pub(super) says_all_at_once: bool,
    pub(super) lateness: Lateness,
}

impl WindowedPlan {
    fn new(grouping: &WindowedGrouping, schema: &SchemaRef) -> Result<Self> {
        let windowing = &grouping.windowing;
        windowing.check()?;
        check_event_time(schema)?;
        let Grouped {
            keys,
            mut outputs,
            ranking,
            rows,
        } = grouping
            .asked
            .grouped(schema, grouping.leaves.columns.as_deref())?;
        let n_keys = keys.len();
        let n_leaving = n_keys + outputs.len();
        let mut input = schema.fields().to_vec();
        let combined = match windowing.timestamp_combiner {
            TimestampCombiner::EndOfWindow => None,
            TimestampCombiner::Earliest => Some(min(col(HELD))),
            TimestampCombiner::Latest => Some(max(col(HELD))),
        };
        if let Some(time) = &combined {
            input.push(Arc::new(Field::new(HELD, time_type(), true)));
            outputs.push(time.clone().alias(" time"));
        }
        if ranking.is_some() {
            input.push(Arc::new(Field::new(ORDER, DataType::Binary, false)));
        }
        let counted = (!fires_once(windowing)).then(|| count(lit(1)));
        outputs.extend(counted.clone().map(|count| count.alias(" count")));
        let input = Arc::new(Schema::new(input));
        let planned = Planned::of_groups(&keys, &outputs, &input)?;
        let state_of = |expr: Option<&Expr>| expr.and_then(|e| place_of_state(&planned, e));
        let slice = Field::new(" slice", DataType::UInt32, false);
        let by_slice = planned.divided_by(slice);
        let mut travels = vec![time_field(WINDOW_START), time_field(WINDOW_END)];
        travels.extend(planned.states.fields().iter().cloned());
        let mut output = planned.output.fields()[..n_leaving].to_vec();
        let retracts = windowing.accumulation == Accumulation::AccumulatingAndRetracting;
        let added = added_fields(windowing, &grouping.leaves, retracts);
        check_added(&output, &added)?;
        check_added(rows.as_deref().unwrap_or_default(), &added)?;
        let leaving = rows.map(|rows| Arc::new(Schema::new([rows, added.clone()].concat())));
        output.extend(added);
        Ok(Self {
            windowing: windowing.clone(),
            count: state_of(counted.as_ref()),
            time: state_of(combined.as_ref()),
            by_slice: Arc::new(by_slice),
            planned: Arc::new(planned),
            travels: Arc::new(Schema::new(travels)),
            output: Arc::new(Schema::new(output)),
            gives_differences: gives_differences(leaving.as_ref()),
            leaving,
            ranking,
            given: Arc::clone(schema),
            input,
            n_keys,
            n_leaving,
            has_panes: has_panes(&*windowing.window_fn),
            says_all_at_once: grouping.asked.says_all_at_once(),
            lateness: Lateness::of(windowing),
        })
    }

    /// What these rows give to a group table, without those on which an expression fails, which are rejected.
    pub(super) fn evaluate_good(
        &self,
        batch: Batch,
        watermark: i64,
        out: &mut Output,
    ) -> Result<(Batch, Inputs)> {
        let (batch, mut inputs) = on_good_rows(batch, out, |rows| {
            let rows = self.as_aggregated(rows, watermark)?;
            self.planned.evaluate_rows(&rows)
        })?;
        if let Some(ranking) = &self.ranking {
            // Only of the batch it is known where its rows stand.
            let order = inputs.arguments.first_mut();
            let order = order.and_then(|(columns, _)| columns.first_mut());
            if let Some(order) = order {
                *order = Arc::new(ranking.complete(order.as_binary(), &batch)?);
            }
        }
        Ok((batch, inputs))
    }

    /// The rows as they are aggregated: with the column of times that count, those of `watermark` and later, and
    /// with that of their order.
    fn as_aggregated(&self, rows: &RecordBatch, watermark: i64) -> Result<RecordBatch> {
        if self.time.is_none() && self.ranking.is_none() {
            return Ok(rows.clone());
        }
        let mut columns = rows.columns().to_vec();
        if self.time.is_some() {
            let times = event_times(rows)?.iter();
            let held: PrimitiveArray<TimestampMillisecondType> = times
                .map(|time| (*time >= watermark).then_some(*time))
                .collect();
            columns.push(Arc::new(held));
        }
        if let Some(ranking) = &self.ranking {
            columns.push(Arc::new(ranking.asked(rows)?));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.input), columns)?)
    }

    /// Results as rows that leave.
    pub(super) fn leave(&self, results: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        match &self.leaving {
            Some(leaving) => {
                let rows = unnested(&results, self.n_keys, leaving)?;
                match self.gives_differences {
                    true => differences(rows),
                    false => Ok(rows),
                }
            }
            None => Ok(results),
        }
    }

    /// How many rows each state is of, where rows are counted.
    pub(super) fn counts<'a>(&self, states: &'a [ArrayRef]) -> Option<&'a [i64]> {
        let column = &states[self.count?];
        column
            .as_primitive_opt::<arrow::datatypes::Int64Type>()
            .map(|counts| &**counts.values())
    }

    /// The event time of each state's result, where it is not that of the window.
    pub(super) fn times<'a>(
        &self,
        states: &'a [ArrayRef],
    ) -> Option<&'a PrimitiveArray<TimestampMillisecondType>> {
        states[self.time?].as_primitive_opt()
    }

    /// As [`WindowedPlan::times`] of a result, of all columns that the plan makes.
    pub(super) fn time_of_results<'a>(
        &self,
        results: &'a RecordBatch,
    ) -> Option<&'a PrimitiveArray<TimestampMillisecondType>> {
        self.time?;
        results.column(self.n_leaving).as_primitive_opt()
    }

    /// True if results tell which firing of their window they are.
    pub(super) fn has_pane(&self) -> bool {
        self.output
            .index_of(PANE)
            .is_ok_and(|at| at >= self.n_leaving)
    }

    pub(super) fn retracts(&self) -> bool {
        self.windowing.accumulation == Accumulation::AccumulatingAndRetracting
    }

    pub(super) fn fires_once(&self) -> bool {
        fires_once(&self.windowing)
    }

    /// True if a window closes without a word where nothing has come since it last fired.
    pub(super) fn closes_silently(&self) -> bool {
        self.windowing.closing == Closing::FireIfNonEmpty
    }

    /// True if the event time of a result is that of its window.
    pub(super) fn stands_at_end(&self) -> bool {
        self.time.is_none()
    }

    /// True if rows of this slice that are kept may hold the watermark back, up to the end of the slice: no window ends
    /// within it, and none is over there by the lateness.
    pub(super) fn may_hold_back(&self, slice: Window) -> bool {
        let lateness = self.windowing.allowed_lateness_ms;
        if lateness == 0 {
            return true;
        }
        // No window ends within a pane, so none is over within what is as much later.
        let earlier = slice.start.checked_sub(lateness);
        let earlier = earlier.filter(|start| *start >= MIN_TIME);
        let pane = earlier.and_then(|start| self.windowing.window_fn.pane_of(start));
        pane.is_some_and(|pane| pane.end.saturating_add(lateness) >= slice.end)
    }

    /// When a window takes no more rows and is forgotten.
    pub(super) fn expiry(&self, end: i64) -> i64 {
        self.lateness.expiry(end)
    }

    /// True if no window fires before the watermark has passed its end, and all do then.
    pub(super) fn waits_for_watermark(&self) -> bool {
        !self.windowing.window_fn.is_merging() && waits_for_watermark(&self.windowing.trigger)
    }
}

fn waits_for_watermark(trigger: &Trigger) -> bool {
    match trigger {
        Trigger::Default | Trigger::AfterWatermark { early: None, .. } => true,
        Trigger::Repeatedly(inner) => waits_for_watermark(inner),
        _ => false,
    }
}

/// True if each window fires at its end and is over then, and no windows merge.
fn fires_once(windowing: &Windowing) -> bool {
    windowing.allowed_lateness_ms == 0
        && !windowing.window_fn.is_merging()
        && waits_for_watermark(&windowing.trigger)
}

pub(super) fn has_pane(windowing: &Windowing) -> bool {
    windowing.trigger != Trigger::Default || windowing.allowed_lateness_ms > 0
}

/// The columns that a window gives its results; `has_diff` says that results are taken back, or may be.
pub(super) fn added_fields(
    windowing: &Windowing,
    leaves: &Leaves,
    has_diff: bool,
) -> Vec<Arc<Field>> {
    let mut fields = [WINDOW_START, WINDOW_END, EVENT_TIME]
        .map(time_field)
        .to_vec();
    if has_pane(windowing) && !leaves.no_pane {
        fields.push(pane_field());
    }
    if has_diff {
        fields.push(diff_field());
    }
    fields
}

pub(super) fn check_added(leaving: &[Arc<Field>], added: &[Arc<Field>]) -> Result<()> {
    let names = [WINDOW_START, WINDOW_END, EVENT_TIME, PANE, DIFF];
    let is_taken = |name: &str| added.iter().any(|field| field.name() == name);
    let travels = [WINDOW_START, WINDOW_END];
    let taken = leaving.iter().map(|field| field.name().as_str());
    let mut taken =
        taken.filter(|name| names.contains(name) && (is_taken(name) || travels.contains(name)));
    match taken.next() {
        Some(name) => Err(Error::pipeline(format!(
            "a column of the result is called {name:?}, as one that its window gives it"
        ))
        .with_hint("Give it another name with `.alias(\"…\")`, or leave it out with `select`.")),
        None => Ok(()),
    }
}

/// The first column, among those of states, of this aggregate.
fn place_of_state(planned: &Planned, aggregate: &Expr) -> Option<usize> {
    let text = aggregate.to_string();
    let n = planned.aggregates.iter().position(|a| a.text == text)?;
    Some(planned.aggregates[..n].iter().map(|a| a.states.len()).sum())
}
