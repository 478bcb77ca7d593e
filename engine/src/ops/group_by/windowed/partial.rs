//! Aggregates what it can, slice by slice, before rows are dealt to workers.
//!
//! Rows of slices that no window has been fired of are kept in a table a slice, until the watermark passes
//! the end of the first window over it. All others go on at once, aggregated within their batch.
//!
//! Where results have the event time of a row, what is kept holds the watermark back. A slice then goes on when the
//! watermark has passed its own end, so that it never holds back the end of a window: none lies within a slice. Where
//! lateness is allowed a window is over later than it ends, which may be in the midst of a slice: the rows of such a
//! slice go on with their batch, or what a window gives when it is over would have to wait for them.

mod in_batch;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_expr::GroupsAccumulator;
use serde_json::json;

use super::asked::Asked;
use super::changing::PrepareWindows;
use super::in_time::InTime;
use super::plan::{WindowedGrouping, WindowedPlan, WindowedPlans};
use super::results::{push_together, times_of};
use super::settled::windows_of;
use super::slices::{Slice, Sliced, Slicer};
use super::{earliest_watermark, watermark_part};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::event_time::event_times;
use crate::ops::group_by::planned::Inputs;
use crate::ops::group_by::table::{GroupTable, converters};
use crate::output::Output;
use crate::plan::{Lowered, Place};
use crate::state::StatePart;
use crate::transform::{
    ChangeTimes, Description, OnChangelog, Operator, Properties, Transform, Watermark,
};
use crate::windowing::Window;

/// Tables with more groups than this are sent on, so that they fit the caches and the memory stays bounded.
const MAX_GROUPS: usize = 1 << 17;
/// Tables of more bytes than this are sent on, whatever the number of their groups.
const MAX_BYTES: usize = 64 << 20;
/// After so many rows it is known whether aggregating pays.
const PROBE_ROWS: usize = 1 << 16;
/// Or after so many rows of slices that have been sent, to which no further rows are added.
const PROBE_SENT_ROWS: usize = 1 << 12;
/// It does not if there are more groups than this for 100 rows.
const MAX_GROUPS_PER_100_ROWS: usize = 75;
/// How many rows pass by before it is tried again.
const ROWS_BETWEEN_PROBES: usize = 1 << 22;
/// A slice is worth a table of its own if a batch has as many rows of it, on average.
const ROWS_PER_SLICE: usize = 64;
/// And if no more than these are open.
const MAX_SLICES: usize = 1 << 10;

/// The first half of an aggregation in windows: rows to keys and states by slice.
///
/// Rows that are too late for all of their windows are counted and leave as they came in, by the port `late`.
#[derive(Clone, Debug)]
pub struct WindowedPartialAggregate {
    grouping: Arc<WindowedGrouping>,
}

impl WindowedPartialAggregate {
    pub(in crate::ops::group_by) fn new(grouping: &Arc<WindowedGrouping>) -> Self {
        Self {
            grouping: Arc::clone(grouping),
        }
    }
}

impl Transform for WindowedPartialAggregate {
    fn describe(&self) -> Description {
        let WindowedGrouping {
            asked, windowing, ..
        } = &*self.grouping;
        let window = windowing.window_fn.describe();
        let mut config = asked.config();
        // Of the second half, which says what becomes of states.
        config.remove("aggregates");
        config.insert("window".into(), json!(window.kind));
        config.insert("window_config".into(), window.config);
        if let Some(time) = &windowing.row_time {
            config.insert("row_time".into(), json!(time.to_string()));
        }
        Description::new(asked.partial_kind(), config.into())
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Arc::clone(self.grouping.plan(&inputs[0])?.travels()))
    }

    fn port_schema(&self, _late: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        if let WindowedPlans::Changes(_) = self.grouping.plans()? {
            return Ok(Box::new(PrepareWindows::new(&self.grouping)));
        }
        Ok(Box::new(PartialOperator {
            slicer: Slicer::new(&self.grouping.windowing.window_fn),
            grouping: Arc::clone(&self.grouping),
            watermark: Watermark::START.0,
            open: None,
        }))
    }

    fn properties(&self) -> Properties {
        Properties {
            stateful: true,
            on_changelog: OnChangelog::Understand,
            // Those of changes that leave late, as they came.
            change_times: ChangeTimes::Kept,
            needs_row_times: self.grouping.needs_row_times(),
            orders_as_rows_stand: matches!(self.grouping.asked, Asked::First { .. }),
            ..Properties::default()
        }
        .ports(["out", "late"])
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let columns = self.grouping.reads(wanted)?;
        let planned = self.grouping.plans().ok();
        Some(match planned {
            // Of the outputs only what stands inside of aggregates is a column of the input.
            Some(planned) => columns
                .into_iter()
                .filter(|c| planned.input().index_of(c).is_ok())
                .collect(),
            None => columns,
        })
    }

    /// Late rows leave as they came.
    fn reads_for_port(&self, _late: usize, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }

    fn lower(&self, place: &Place<'_>) -> Result<Option<Lowered>> {
        let [rows] = place.inputs() else {
            return Err(Error::bug("an aggregation in windows has one input"));
        };
        let by_values = !place.has_positions(0);
        let narrowed = self.grouping.narrow(rows, place.wanted(), by_values)?;
        Ok(narrowed.map(|grouping| Lowered::to(Self { grouping }, 1)))
    }

    fn takes_encoded(&self) -> Vec<String> {
        let key = self.grouping.asked.plain_key();
        key.map(ToOwned::to_owned).into_iter().collect()
    }
}

struct PartialOperator {
    grouping: Arc<WindowedGrouping>,
    slicer: Slicer,
    watermark: i64,
    open: Option<Open>,
}

/// What is there once the schema of the rows is known.
struct Open {
    plan: Arc<WindowedPlan>,
    /// The schema of the rows as they come in.
    schema: SchemaRef,
    /// And as planning knew them, in which late rows leave.
    promised: SchemaRef,
    live: BTreeMap<Window, LiveTable>,
    /// Rows taken into tables since it was last asked whether that pays.
    n_rows: usize,
    /// Groups that were there then, and that have been sent on since.
    n_before: usize,
    n_sent: usize,
    /// Rows and groups of whole slices sent since it was last asked whether tables of them pay.
    whole_slices: (usize, usize),
    /// Groups of the slice that was sent last, which the next may have as well.
    n_in_last: usize,
    /// Rows still to pass by before tables are tried again.
    n_passing: usize,
    converters: Vec<Box<dyn GroupsAccumulator>>,
    may_pass: bool,
    keeps: bool,
}

struct LiveTable {
    table: GroupTable,
    slice: Slice,
    /// How many it has taken in; `None` where part of it was restored, of which that is not known.
    n_rows: Option<usize>,
    /// The earliest event time that a result may have for the sake of these rows; `i64::MAX` where the window says it.
    hold: i64,
}

impl LiveTable {
    /// Takes note of event times that results may have.
    fn hold(&mut self, times: impl Iterator<Item = i64>) {
        self.hold = times.fold(self.hold, i64::min);
    }
}

impl Open {
    fn new(plan: Arc<WindowedPlan>, schema: &SchemaRef, promised: &SchemaRef) -> Result<Self> {
        let aggregates = &plan.planned.aggregates;
        Ok(Self {
            schema: Arc::clone(schema),
            promised: Arc::clone(promised),
            live: BTreeMap::new(),
            n_rows: 0,
            n_before: 0,
            n_sent: 0,
            whole_slices: (0, 0),
            n_in_last: 0,
            n_passing: 0,
            converters: converters(&plan.planned)?,
            may_pass: plan.n_keys > 0 && aggregates.iter().all(|a| a.kind.converts_rows()),
            keeps: plan.waits_for_watermark() && (plan.stands_at_end() || plan.has_panes),
            plan,
        })
    }

    fn on_batch(
        &mut self,
        slicer: &mut Slicer,
        batch: Batch,
        watermark: i64,
        out: &mut Output,
    ) -> Result<()> {
        let mut in_time = InTime {
            slicer,
            lateness: self.plan.lateness,
            watermark,
        };
        let (batch, mut sliced) = in_time.rows(batch, &self.promised, out)?;
        if batch.n_rows() == 0 {
            return Ok(());
        }
        let n_in_time = batch.n_rows();
        let (batch, inputs) = self.plan.evaluate_good(batch, watermark, out)?;
        if batch.n_rows() == 0 {
            return Ok(());
        }
        if batch.n_rows() < n_in_time {
            sliced = in_time.slices(&batch)?;
        }
        if self.plan.windowing.window_fn.is_merging() {
            let merged = self.merge_windows(&inputs, batch.n_rows(), &mut sliced)?;
            out.push(batch.derive(self.aggregated_in_windows(inputs, &sliced, &merged)?));
            return Ok(());
        }
        if self.n_passing > 0 {
            self.n_passing = self.n_passing.saturating_sub(batch.n_rows());
            out.push(batch.derive(self.as_states(inputs, &sliced)?));
            return Ok(());
        }
        let few = batch.n_rows() < ROWS_PER_SLICE * sliced.slices.len();
        if !self.keeps || (few && sliced.slices.len() > 1) || self.live.len() > MAX_SLICES {
            let rows = self.aggregated(inputs, &sliced, batch.n_rows())?;
            return push_derived(&batch, rows, out);
        }
        self.take_in(&batch, &inputs, sliced, watermark, out)?;
        self.send_on_what_is_much(&batch, out)
    }

    /// True if rows of this slice have a table: no window over it has fired, and nothing else is held back.
    fn is_kept(&self, slice: &Slice, watermark: i64) -> bool {
        let plan = &self.plan;
        slice.first_end > watermark && (plan.stands_at_end() || plan.may_hold_back(slice.span))
    }

    /// Rows into the tables of their slices; what belongs to slices that have fired goes on.
    fn take_in(
        &mut self,
        batch: &Batch,
        inputs: &Inputs,
        mut sliced: Sliced,
        watermark: i64,
        out: &mut Output,
    ) -> Result<()> {
        if sliced.rows.is_none() && sliced.of.is_empty() {
            let slice = sliced.slices[0];
            if self.is_kept(&slice, watermark) {
                let rows = 0..batch.n_rows();
                return self.take_in_slice(
                    slice,
                    inputs,
                    rows.len(),
                    held(batch, rows, watermark)?,
                );
            }
        }
        let kept = sliced.slices.iter();
        let kept: Vec<bool> = kept.map(|slice| self.is_kept(slice, watermark)).collect();
        if let Some(ranges) = sliced.ranges() {
            let of_slices = sliced.slices.iter().zip(ranges).zip(&kept);
            for ((slice, rows), _) in of_slices.filter(|(_, is_kept)| **is_kept) {
                let held = held(batch, rows.clone(), watermark)?;
                self.take_in_slice(*slice, &inputs.range(&rows), rows.len(), held)?;
            }
        } else {
            let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); sliced.slices.len()];
            for n in 0..sliced.n_entries(batch.n_rows()) {
                let row = u32::try_from(sliced.row_of(n)).unwrap_or(u32::MAX);
                rows_of[sliced.slice_of(n)].push(row);
            }
            for ((slice, rows), is_kept) in sliced.slices.iter().zip(rows_of).zip(&kept) {
                if *is_kept && !rows.is_empty() {
                    let n_rows = rows.len();
                    let of_rows = rows.iter().map(|row| *row as usize);
                    let held = held(batch, of_rows, watermark)?.min();
                    let part = inputs.part(rows)?;
                    self.take_in_slice(*slice, &part, n_rows, held.into_iter())?;
                }
            }
        }
        if kept.contains(&false) {
            sliced.retain(batch.n_rows(), |slice| !self.is_kept(slice, watermark));
            let inputs = Inputs {
                keys: inputs.keys.clone(),
                arguments: inputs.arguments.clone(),
            };
            let rows = self.aggregated(inputs, &sliced, batch.n_rows())?;
            push_derived(batch, rows, out)?;
        }
        Ok(())
    }

    fn take_in_slice(
        &mut self,
        slice: Slice,
        inputs: &Inputs,
        n_rows: usize,
        held: impl Iterator<Item = i64>,
    ) -> Result<()> {
        self.n_rows += n_rows;
        let stands_at_end = self.plan.stands_at_end();
        let live = self.table(slice)?;
        if !stands_at_end {
            live.hold(held);
        }
        live.n_rows = live.n_rows.map(|n| n + n_rows);
        live.table.update(inputs, n_rows)
    }

    fn table(&mut self, slice: Slice) -> Result<&mut LiveTable> {
        use std::collections::btree_map::Entry;
        Ok(match self.live.entry(slice.span) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let mut table = GroupTable::new(&self.plan.planned)?;
                table.expect(self.n_in_last);
                entry.insert(LiveTable {
                    table,
                    slice,
                    n_rows: Some(0),
                    hold: i64::MAX,
                })
            }
        })
    }

    fn send_on_what_is_much(&mut self, batch: &Batch, out: &mut Output) -> Result<()> {
        let n_groups: usize = self.live.values().map(|live| live.table.n_groups()).sum();
        let is_full = n_groups >= MAX_GROUPS || self.n_bytes() >= MAX_BYTES;
        if self.n_rows < PROBE_ROWS && !is_full {
            return Ok(());
        }
        let n_new = (n_groups + self.n_sent).saturating_sub(self.n_before);
        let pays = self.n_rows < PROBE_ROWS || pays(n_new, self.n_rows);
        let passes = self.may_pass && !pays;
        let mut rows = Vec::new();
        if passes {
            self.n_passing = ROWS_BETWEEN_PROBES;
        }
        if passes || is_full {
            rows = self.take_until(i64::MAX)?;
            // More rows of these slices may come.
            self.whole_slices = (0, 0);
        }
        (self.n_rows, self.n_sent) = (0, 0);
        self.n_before = match self.live.is_empty() {
            true => 0,
            false => n_groups,
        };
        push_derived(batch, rows, out)
    }

    /// The states of all slices that have to go on at this time.
    fn take_until(&mut self, time: i64) -> Result<Vec<RecordBatch>> {
        let stands_at_end = self.plan.stands_at_end();
        let is_due = |slice: &Slice| match stands_at_end {
            true => slice.first_end <= time,
            false => slice.span.end <= time,
        };
        let due = self.live.iter().filter(|(_, live)| is_due(&live.slice));
        let due: Vec<Window> = due.map(|(span, _)| *span).collect();
        let mut made = Vec::new();
        for span in due {
            let Some(mut live) = self.live.remove(&span) else {
                continue;
            };
            self.n_in_last = live.table.n_groups();
            if let Some(n_rows) = live.n_rows {
                self.whole_slices.0 += n_rows;
                self.whole_slices.1 += self.n_in_last;
            }
            for rows in live.table.take_states()? {
                self.n_sent += rows.num_rows();
                made.push(self.in_slice(&rows, span)?);
            }
        }
        Ok(made)
    }

    /// Lets rows pass by from now on where they hardly become fewer, as whole slices tell.
    fn learn_from_what_was_sent(&mut self) {
        let (n_rows, n_groups) = self.whole_slices;
        if n_rows >= PROBE_SENT_ROWS {
            self.whole_slices = (0, 0);
            if self.may_pass && !pays(n_groups, n_rows) {
                self.n_passing = ROWS_BETWEEN_PROBES;
            }
        }
    }

    /// Keys and states with the slice that all are of.
    fn in_slice(&self, rows: &RecordBatch, span: Window) -> Result<RecordBatch> {
        let n_rows = rows.num_rows();
        let mut columns = vec![times_of(span.start, n_rows), times_of(span.end, n_rows)];
        columns.extend(rows.columns().iter().cloned());
        Ok(RecordBatch::try_new(
            Arc::clone(&self.plan.travels),
            columns,
        )?)
    }

    fn n_bytes(&self) -> usize {
        self.live.values().map(|live| live.table.n_bytes()).sum()
    }
}

/// True if so many rows become so many fewer groups that tables of them are worth it.
fn pays(n_groups: usize, n_rows: usize) -> bool {
    n_groups.saturating_mul(100) <= n_rows.saturating_mul(MAX_GROUPS_PER_100_ROWS)
}

/// The event times of these rows that count for that of a result: those that are not behind the watermark.
fn held(
    batch: &Batch,
    mut rows: impl Iterator<Item = usize>,
    watermark: i64,
) -> Result<impl Iterator<Item = i64>> {
    let times = event_times(batch.rows())?;
    let times = std::iter::from_fn(move || rows.next().map(|row| times[row]));
    Ok(times.filter(move |time| *time >= watermark))
}

fn push_derived(batch: &Batch, rows: Vec<RecordBatch>, out: &mut Output) -> Result<()> {
    for rows in rows {
        out.push(batch.derive(rows));
    }
    Ok(())
}

impl PartialOperator {
    fn open(&mut self, schema: &SchemaRef) -> Result<&mut Open> {
        // The columns that arrive may be fewer than those that were checked.
        match &mut self.open {
            Some(open) => {
                if open.schema != *schema {
                    open.plan = self.grouping.planned_for(schema)?;
                    open.schema = Arc::clone(schema);
                }
                Ok(open)
            }
            slot => {
                let plan = self.grouping.planned_for(schema)?;
                let promised = &self.grouping.planned()?.given;
                Ok(slot.insert(Open::new(plan, schema, promised)?))
            }
        }
    }
}

impl Operator for PartialOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let watermark = self.watermark;
        self.open(&batch.rows().schema())?;
        match &mut self.open {
            Some(open) if batch.n_rows() > 0 => {
                open.on_batch(&mut self.slicer, batch, watermark, out)
            }
            _ => Ok(()),
        }
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.watermark = self.watermark.max(watermark.0);
        if let Some(open) = &mut self.open {
            push_together(open.take_until(self.watermark)?, out)?;
            open.learn_from_what_was_sent();
        }
        if watermark.is_end() {
            // Nothing comes any more that there would have to be room for.
            self.open = None;
        }
        Ok(())
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        let live = self.open.iter().flat_map(|open| open.live.values());
        let hold = live.map(|live| live.hold).min().unwrap_or(i64::MAX);
        Watermark(hold.min(input.0))
    }

    fn state_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.n_bytes() as u64)
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = vec![watermark_part(self.watermark)?];
        let Some(open) = &mut self.open else {
            return Ok(parts);
        };
        let keys = self.grouping.key_names();
        let mut all = Vec::new();
        for (span, live) in &mut open.live {
            for rows in live.table.take_states()? {
                live.table.merge(&rows)?;
                all.push((*span, rows));
            }
        }
        for (span, rows) in all {
            let rows = open.in_slice(&rows, span)?;
            parts.extend(StatePart::by_key(SLICES, &rows, &keys)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.watermark = earliest_watermark(state);
        for part in state.iter().filter(|part| part.table == SLICES) {
            let open = match &mut self.open {
                Some(open) => open,
                slot => {
                    let plan = self.grouping.planned()?;
                    let schema = Arc::clone(&plan.given);
                    slot.insert(Open::new(plan, &schema, &schema)?)
                }
            };
            for (span, rows) in by_span(&part.rows)? {
                let slice = self.slicer.slice_at(span);
                open.n_rows += rows.num_rows();
                let plan = Arc::clone(&open.plan);
                let live = open.table(slice)?;
                live.n_rows = None;
                if let Some(times) = plan.times(&rows.columns()[2 + plan.n_keys..]) {
                    live.hold(times.iter().flatten());
                }
                live.table
                    .merge_columns(&rows.columns()[2..], rows.num_rows())?;
            }
        }
        Ok(())
    }
}

/// The name of the table of slices in a snapshot.
pub(super) const SLICES: &str = "slices";

/// Runs of rows of the same slice.
pub(super) fn by_span(rows: &RecordBatch) -> Result<Vec<(Window, RecordBatch)>> {
    let spans = windows_of(rows)?;
    let mut from = 0;
    let mut runs = Vec::new();
    for run in spans.chunk_by(|a, b| a == b) {
        runs.push((run[0], rows.slice(from, run.len())));
        from += run.len();
    }
    Ok(runs)
}
