//! What the schema of a changelog makes of an aggregation in windows, and which windows fit changes.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimestampMillisecondType,
};
use arrow::record_batch::RecordBatch;

use super::row_time::{ROW_TIME, RowTime, row_time_field};
use crate::aggregates::{max, min};
use crate::batch::Batch;
use crate::changelog::diff_field;
use crate::error::{Error, Result};
use crate::event_time::{EVENT_TIME, WINDOW_END, WINDOW_START, check_event_time, time_field};
use crate::expression::col;
use crate::ops::group_by::Grouping;
use crate::ops::group_by::changing::ChangingPlan;
use crate::ops::group_by::first_rows::unnested;
use crate::ops::group_by::windowed::asked::{Grouped, ORDER, ROW};
use crate::ops::group_by::windowed::corrected::{differences, gives_differences};
use crate::ops::group_by::windowed::plan::{WindowedGrouping, added_fields, check_added};
use crate::ops::group_by::windowed::results::{Mark, marked};
use crate::ops::group_by::windowed::slices::Lateness;
use crate::ops::top_k::Ranking;
use crate::output::Output;
use crate::windowing::{Accumulation, Closing, TimestampCombiner, Trigger, Windowing};

/// How many columns of what travels say the slice.
pub(super) const N_SLICE: usize = 2;

/// The column of what travels that says whether the change is too late for all windows over its slice.
const LATE: &str = " late";

/// An aggregation in windows that fits the schema of a changelog.
#[derive(Debug)]
pub(in crate::ops::group_by::windowed) struct ChangingWindowsPlan {
    pub(in crate::ops::group_by::windowed) windowing: Windowing,
    /// The columns that come in.
    pub(super) given: SchemaRef,
    /// Keys and aggregates, without windows.
    pub(in crate::ops::group_by::windowed) of_groups: ChangingPlan,
    /// The columns that travel: the slice, keys, the values of each aggregate and which count, when the change takes
    /// effect where rows have a time of their own, whether it is too late, by how much.
    pub(in crate::ops::group_by::windowed) travels: SchemaRef,
    /// The columns of results: keys, outputs, and what their window gives them.
    pub(in crate::ops::group_by::windowed) output: SchemaRef,
    /// The columns that leave, where each group leaves as several rows.
    pub(in crate::ops::group_by::windowed) leaving: Option<SchemaRef>,
    /// As of rows that stay: a correction gives the rows that leave and those that come, without those that stay.
    gives_differences: bool,
    /// Gives rows their order, where it is asked which come first, and the fields of the structs that are kept.
    ranked: Option<(Ranking, Fields)>,
    /// The columns as they are aggregated.
    input: SchemaRef,
    /// Rows have a time of their own, besides that at which a change takes effect.
    pub(in crate::ops::group_by::windowed) has_row_time: bool,
    /// Results have the event time of a row, which is the last of what groups give.
    pub(super) has_times: bool,
    /// How many of the columns of keys and outputs leave; after them comes that time.
    n_leaving: usize,
    pub(super) firing: Firing,
    /// As [`WindowedPlan::says_all_at_once`](crate::ops::group_by::windowed::plan::WindowedPlan).
    pub(super) says_all_at_once: bool,
    pub(super) lateness: Lateness,
}

/// When the groups of a window leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Firing {
    /// With every change, before the watermark has passed the end of the window.
    pub(super) early: bool,
    /// When it does, whatever has left before.
    pub(super) at_end: bool,
}

impl ChangingWindowsPlan {
    /// Checks windows, keys and aggregates against the schema of a changelog.
    pub(in crate::ops::group_by::windowed) fn new(
        grouping: &WindowedGrouping,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let windowing = &grouping.windowing;
        windowing.check()?;
        check_event_time(schema)?;
        let firing = check_windowing(windowing)?;
        let Grouped {
            keys,
            mut outputs,
            ranking,
            rows,
        } = grouping.asked.grouped(schema, None)?;
        let mut input = schema.fields().to_vec();
        let has_row_time = RowTime::of(windowing, schema)?.is_some();
        let combined = match windowing.timestamp_combiner {
            TimestampCombiner::EndOfWindow => None,
            TimestampCombiner::Earliest => Some(min(col(ROW_TIME))),
            TimestampCombiner::Latest => Some(max(col(ROW_TIME))),
        };
        let n_leaving = keys.len() + outputs.len();
        let has_times = combined.is_some();
        outputs.extend(combined.map(|time| time.alias(" time")));
        input.extend((has_row_time || has_times).then(row_time_field));
        let row = rows.as_ref().map(|rows| row_fields(rows));
        input.extend(row.clone().map(|fields| {
            let of = DataType::Struct(fields);
            Arc::new(Field::new(ROW, of, false))
        }));
        let input = Arc::new(Schema::new(input));
        let of_groups = Grouping {
            keys,
            outputs,
            // As of rows that stay, the keys of a window may be all that is asked for.
            groups_alone: true,
            planned: Mutex::new(None),
        };
        // What is dealt by it needs it for that alone; where it counts for the time of results, it is aggregated.
        let carried = has_row_time.then(row_time_field).into_iter().collect();
        let of_groups = ChangingPlan::carrying(&of_groups, &input, carried)?;
        let added = added_fields(windowing, &grouping.leaves, true);
        let leaving = &of_groups.planned.output.fields()[..n_leaving];
        check_added(leaving, &added)?;
        check_added(rows.as_deref().unwrap_or_default(), &added)?;
        let output = leaving.iter().cloned().chain(added.clone());
        let output = output.collect::<Vec<_>>();
        let leaving = rows.map(|rows| Arc::new(Schema::new([rows, added].concat())));
        let mut travels = vec![time_field(WINDOW_START), time_field(WINDOW_END)];
        // All but the time of the row, which the slice takes the place of.
        let prepared = of_groups.prepared.fields();
        travels.extend(
            prepared[..prepared.len().saturating_sub(2 + usize::from(has_row_time))]
                .iter()
                .cloned(),
        );
        travels.extend(has_row_time.then(|| time_field(EVENT_TIME)));
        travels.push(Arc::new(Field::new(LATE, DataType::Boolean, false)));
        travels.push(diff_field());
        Ok(Self {
            windowing: windowing.clone(),
            given: Arc::clone(schema),
            travels: Arc::new(Schema::new(travels)),
            output: Arc::new(Schema::new(output)),
            gives_differences: gives_differences(leaving.as_ref()),
            leaving,
            ranked: ranking.zip(row),
            input,
            of_groups,
            has_row_time,
            has_times,
            n_leaving,
            firing,
            says_all_at_once: grouping.asked.says_all_at_once(),
            lateness: Lateness::of(windowing),
        })
    }

    /// The columns that travel, but for the slice, with the row time, where there is one, and the event time before the
    /// last; those on which an expression fails are rejected.
    pub(super) fn prepare(
        &self,
        row_time: Option<&RowTime>,
        batch: Batch,
        out: &mut Output,
    ) -> Result<Batch> {
        if row_time.is_none() && !self.has_times && self.ranked.is_none() {
            return self.of_groups.prepare(batch, out);
        }
        self.of_groups.prepare_as(batch, out, |rows| {
            let mut columns = rows.columns().to_vec();
            match row_time {
                Some(row_time) => columns.push(row_time.column(rows)?),
                None if self.has_times => columns.push(Arc::clone(&rows[EVENT_TIME])),
                None => {}
            }
            let Some((ranking, fields)) = &self.ranked else {
                return Ok(RecordBatch::try_new(Arc::clone(&self.input), columns)?);
            };
            let mut of_row: Vec<ArrayRef> = vec![Arc::new(ranking.asked(rows)?)];
            for field in &fields[1..] {
                let column = rows.column_by_name(field.name());
                let column = column.ok_or_else(|| Error::bug("a column of a row is missing"))?;
                of_row.push(cast(column, field.data_type())?);
            }
            let row = StructArray::try_new(fields.clone(), of_row, None)?;
            columns.push(Arc::new(row));
            Ok(RecordBatch::try_new(Arc::clone(&self.input), columns)?)
        })
    }

    /// Results as rows that leave.
    pub(super) fn leave(&self, results: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let n_keys = self.of_groups.planned.key_fields.len();
        match &self.leaving {
            Some(leaving) => {
                let rows = unnested(&results, n_keys, leaving)?;
                match self.gives_differences {
                    true => differences(rows),
                    false => Ok(rows),
                }
            }
            None => Ok(results),
        }
    }

    /// Keys and the value of each aggregate as they leave.
    pub(super) fn project(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        self.of_groups.planned.project(columns)
    }

    /// Rows of keys and outputs as they leave, each with a mark of its own.
    pub(super) fn marked(&self, rows: &RecordBatch, marks: &[Mark]) -> Result<RecordBatch> {
        let columns = rows.columns()[..self.n_leaving].to_vec();
        let Some(times) = rows.columns().get(self.n_leaving) else {
            return marked(columns, marks, &self.output);
        };
        let times = times.as_primitive::<TimestampMillisecondType>();
        let marks = marks.iter().enumerate().map(|(row, mark)| Mark {
            // Of a group that is there a row is, so it has a time.
            event_time: match times.is_valid(row) {
                true => times.value(row),
                false => mark.event_time,
            },
            ..*mark
        });
        marked(columns, &marks.collect::<Vec<_>>(), &self.output)
    }

    /// The times of rows in what travels, or in its last columns, where they count for the time of results.
    pub(super) fn times_of<'a>(&self, travelling: &'a RecordBatch) -> Option<&'a [i64]> {
        // Aggregated last, and last of the values.
        let n_behind = self.travels.fields().len() - self.places_of_values().end;
        let place = travelling.num_columns().checked_sub(n_behind + 1)?;
        let times = travelling.columns().get(place).filter(|_| self.has_times)?;
        let times = times.as_primitive_opt::<TimestampMillisecondType>()?;
        Some(times.values())
    }

    /// The place of the time of the row in what is prepared.
    pub(super) fn place_of_time(&self, prepared: &RecordBatch) -> usize {
        let n_behind = 2 + usize::from(self.has_row_time);
        prepared.num_columns().saturating_sub(n_behind)
    }

    /// The places of what is aggregated, in what travels.
    pub(super) fn places_of_values(&self) -> Range<usize> {
        let n_behind = 2 + usize::from(self.has_row_time);
        let n_before = N_SLICE + self.of_groups.planned.key_fields.len();
        n_before..self.travels.fields().len().saturating_sub(n_behind)
    }

    /// Parts what travels, or its last columns: what may be in time, and what is too late.
    pub(super) fn by_lateness(&self, travelling: &RecordBatch) -> Result<[RecordBatch; 2]> {
        let late = travelling.column_by_name(LATE);
        let late = late.and_then(|column| column.as_boolean_opt());
        let late = late.ok_or_else(|| Error::bug("changes do not say whether they are late"))?;
        Ok(match late.true_count() {
            0 => [travelling.clone(), travelling.slice(0, 0)],
            n if n == travelling.num_rows() => [travelling.slice(0, 0), travelling.clone()],
            _ => [
                filter_record_batch(travelling, &not(late)?)?,
                filter_record_batch(travelling, late)?,
            ],
        })
    }

    /// True if a window closes without a word.
    pub(super) fn closes_silently(&self) -> bool {
        self.windowing.closing == Closing::FireIfNonEmpty
    }

    /// True if no change is taken in once a window has ended.
    pub(super) fn closes_at_end(&self) -> bool {
        self.windowing.allowed_lateness_ms == 0
    }
}

/// The fields of a row that is kept: its order, then its values.
fn row_fields(values: &[FieldRef]) -> Fields {
    let order = Arc::new(Field::new(ORDER, DataType::Binary, false));
    let values = values
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true));
    let values = values.map(Arc::new);
    std::iter::once(order).chain(values).collect()
}

/// Refuses windows that do not fit changes, all that is wrong at once.
fn check_windowing(windowing: &Windowing) -> Result<Firing> {
    let mut errors = Vec::new();
    let firing = firing_of(&windowing.trigger, windowing.allowed_lateness_ms > 0);
    if firing.is_none() {
        errors.push(
            Error::pipeline(format!("trigger {} does not fit a changelog", windowing.trigger))
                .with_detail("Changes are no rows to be counted or waited for, and none may be left out: results leave with every change, when the watermark passes the end of the window, or both.")
                .with_hint("Use `Trigger::after_watermark()`, and `.early(Trigger::always())` or `.late(Trigger::always())` for a correction with every change."),
        );
    }
    let corrects = firing.is_some_and(|f| f.early) || windowing.allowed_lateness_ms > 0;
    if corrects && windowing.accumulation != Accumulation::AccumulatingAndRetracting {
        let is = match windowing.accumulation {
            Accumulation::Discarding => "discarding",
            _ => "accumulating",
        };
        errors.push(
            Error::pipeline(format!("{is} windows over a changelog would give results that do not take back those before"))
                .with_detail("A row that is taken back changes a result that has left: that is withdrawn, and the right one takes its place.")
                .with_hint("Say `.accumulation(Accumulation::AccumulatingAndRetracting)`, or leave out early results and the allowed lateness."),
        );
    }
    match firing.filter(|_| errors.is_empty()) {
        Some(firing) => Ok(firing),
        None => Err(Error::all(errors)),
    }
}

/// When groups leave by this trigger; `None` where that depends on more than changes and the watermark.
fn firing_of(trigger: &Trigger, takes_late: bool) -> Option<Firing> {
    let with_every_change = Firing {
        early: true,
        at_end: false,
    };
    match trigger {
        Trigger::Default => Some(Firing {
            early: false,
            at_end: true,
        }),
        Trigger::AfterWatermark { early, late } => {
            let fits = |inner: &Option<Box<Trigger>>| inner.as_deref().is_none_or(is_always);
            let honoured = fits(early)
                && match late.as_deref() {
                    None => !takes_late,
                    Some(late) => *late == Trigger::Default || is_always(late),
                };
            honoured.then_some(Firing {
                early: early.is_some(),
                at_end: true,
            })
        }
        // Begun anew at the end of the window, it is due whenever late changes come.
        Trigger::Repeatedly(inner) => match &**inner {
            Trigger::Default | Trigger::AfterWatermark { late: Some(_), .. } => {
                firing_of(inner, takes_late)
            }
            Trigger::AfterWatermark { late: None, .. } => firing_of(inner, false),
            inner => is_always(inner).then_some(with_every_change),
        },
        _ => None,
    }
}

/// True if the trigger, begun anew whenever it has finished, fires whenever something has come.
fn is_always(trigger: &Trigger) -> bool {
    match trigger {
        Trigger::AfterCount(1) => true,
        Trigger::Repeatedly(inner) => is_always(inner),
        Trigger::AfterAny(triggers) => triggers.iter().any(is_always),
        _ => false,
    }
}
