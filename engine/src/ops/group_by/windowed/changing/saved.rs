//! The groups of windows as rows of state.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;

use super::open_window::{Fired, OpenWindow};
use super::plan::{ChangingWindowsPlan, N_SLICE};
use crate::error::{Error, Result};
use crate::event_time::{WINDOW_END, WINDOW_START, time_field};
use crate::ops::group_by::changing::column;
use crate::ops::group_by::windowed::pane::{Pane, Timing};
use crate::ops::group_by::windowed::results::times_of;
use crate::state::StatePart;

/// The table of groups: how many rows they have, and what has left of them.
pub(super) const GROUPS: &str = "groups";
/// How the names of the tables of aggregates begin.
const AGGREGATE: &str = "aggregate ";

/// How the names of tables begin: of windows that take changes, of what those owe that do not any more, and of what has
/// come too late for some that do.
pub(super) const OPEN: &str = "";
pub(super) const OWED: &str = "owed ";
pub(super) const EARLY: &str = "early ";

/// Of a part that [`parts`] gave, which windows it is of and the name of its table.
pub(super) fn table_of(part: &StatePart) -> Option<(&'static str, &str)> {
    [OWED, EARLY, OPEN].into_iter().find_map(|kind| {
        let table = part.table.strip_prefix(kind)?;
        (table == GROUPS || table.starts_with(AGGREGATE)).then_some((kind, table))
    })
}

/// All groups of these windows, which are of this kind.
pub(super) fn parts(
    plan: &ChangingWindowsPlan,
    kind: &str,
    open: &[&OpenWindow],
    key_names: &[String],
) -> Result<Vec<StatePart>> {
    let mut parts = Vec::new();
    let n_aggregates = plan.of_groups.kinds.len();
    let tables = (0..n_aggregates).map(|n| (format!("{AGGREGATE}{n}"), Some(n)));
    for (table, aggregate) in std::iter::once((GROUPS.to_owned(), None)).chain(tables) {
        let rows = open.iter().map(|window| match aggregate {
            None => rows_of(plan, window, &all(window), groups(plan, window)),
            Some(n) => {
                let (groups, columns) = window.aggregates[n].state()?;
                rows_of(plan, window, &groups, columns)
            }
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        if let Some(first) = rows.first() {
            let rows = concat_batches(first.schema_ref(), &rows)?;
            let table = format!("{kind}{table}");
            parts.extend(StatePart::by_key(&table, &rows, key_names)?);
        }
    }
    Ok(parts)
}

/// Takes over rows of one window that [`parts`] gave; those of [`GROUPS`] first.
pub(super) fn restore(
    plan: &ChangingWindowsPlan,
    open: &mut OpenWindow,
    table: &str,
    rows: &RecordBatch,
) -> Result<()> {
    let n_keys = plan.of_groups.planned.key_fields.len();
    let (keys, columns) = rows.columns()[N_SLICE..].split_at(n_keys);
    let groups = open.number(keys, rows.num_rows())?;
    if table == GROUPS {
        restore_groups(open, &groups, columns)?;
        open.is_past_end = open.fired.iter().all(|fired| fired.is_past_end);
        if plan.has_times && !open.is_past_end {
            let holds: &Int64Array = column(columns, 1 + N_FIRED)?;
            open.hold = holds.values().iter().copied().fold(open.hold, i64::min);
        }
        return Ok(());
    }
    let n = table.strip_prefix(AGGREGATE).and_then(|n| n.parse().ok());
    let aggregate = n.and_then(|n: usize| open.aggregates.get_mut(n));
    let aggregate =
        aggregate.ok_or_else(|| Error::pipeline("the state is that of other aggregates"))?;
    aggregate.restore(&groups, columns)
}

fn all(open: &OpenWindow) -> Vec<usize> {
    (0..open.n_rows.len()).collect()
}

/// What is known of each group, as columns.
fn groups(plan: &ChangingWindowsPlan, open: &OpenWindow) -> Vec<ArrayRef> {
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(open.n_rows.clone()))];
    columns.extend(fired_columns(open.fired.iter()));
    if plan.has_times {
        columns.push(Arc::new(Int64Array::from_value(
            open.hold,
            open.fired.len(),
        )));
    }
    columns
}

fn restore_groups(open: &mut OpenWindow, groups: &[usize], columns: &[ArrayRef]) -> Result<()> {
    let n_rows: &Int64Array = column(columns, 0)?;
    for (row, &group) in groups.iter().enumerate() {
        open.n_rows[group] += n_rows.value(row);
        open.fired[group] = fired_at(&columns[1..], row)?;
    }
    Ok(())
}

/// How many columns [`fired_columns`] makes.
pub(super) const N_FIRED: usize = 8;

/// What has left, as columns.
pub(super) fn fired_columns<'a>(fired: impl Iterator<Item = &'a Fired> + Clone) -> Vec<ArrayRef> {
    let panes = || fired.clone().map(|fired| fired.pane);
    let flags = |of: fn(&Pane) -> bool| -> ArrayRef {
        Arc::new(
            panes()
                .map(|pane| pane.as_ref().map(of))
                .collect::<BooleanArray>(),
        )
    };
    let indices = |of: fn(&Pane) -> i64| -> ArrayRef {
        Arc::new(
            panes()
                .map(|pane| pane.as_ref().map(of))
                .collect::<Int64Array>(),
        )
    };
    let numbers = |of: fn(&Fired) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(fired.clone().map(of)))
    };
    let timings = panes().map(|pane| pane.map(|pane| pane.timing.name()));
    let past_end = fired.clone().map(|fired| Some(fired.is_past_end));
    vec![
        numbers(|fired| fired.index),
        numbers(|fired| fired.nonspeculative_index),
        Arc::new(past_end.collect::<BooleanArray>()),
        // Of the result that has left; null where none has.
        Arc::new(timings.collect::<StringArray>()),
        indices(|pane| pane.index),
        indices(|pane| pane.nonspeculative_index),
        flags(|pane| pane.is_first),
        flags(|pane| pane.is_last),
    ]
}

/// What [`fired_columns`] made of one.
pub(super) fn fired_at(columns: &[ArrayRef], row: usize) -> Result<Fired> {
    let number = |n| column::<Int64Array>(columns, n).map(|c| c.value(row));
    let flag = |n| column::<BooleanArray>(columns, n).map(|c| c.value(row));
    let timing: &StringArray = column(columns, 3)?;
    let pane = Pane {
        timing: Timing::of_name(timing.value(row)),
        index: number(4)?,
        nonspeculative_index: number(5)?,
        is_first: flag(6)?,
        is_last: flag(7)?,
    };
    Ok(Fired {
        pane: timing.is_valid(row).then_some(pane),
        index: number(0)?,
        nonspeculative_index: number(1)?,
        is_past_end: flag(2)?,
    })
}

/// Rows of state, each with its window and the key of its group.
fn rows_of(
    plan: &ChangingWindowsPlan,
    open: &OpenWindow,
    groups: &[usize],
    columns: Vec<ArrayRef>,
) -> Result<RecordBatch> {
    let mut all = vec![
        times_of(open.window.start, groups.len()),
        times_of(open.window.end, groups.len()),
    ];
    let mut fields = vec![time_field(WINDOW_START), time_field(WINDOW_END)];
    all.extend(open.keys.columns_of(groups)?);
    fields.extend(plan.of_groups.planned.key_fields.iter().cloned());
    for (n, column) in columns.iter().enumerate() {
        let field = Field::new(format!("{n}: state"), column.data_type().clone(), true);
        fields.push(Arc::new(field));
    }
    all.extend(columns);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), all)?)
}
