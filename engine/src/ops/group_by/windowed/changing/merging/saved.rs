//! The rows of keys and their windows as rows of state.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Int64Array};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;

use super::operator::MergingChanges;
use super::rows_of_key::Merged;
use crate::batch::BATCH_ROWS;
use crate::error::Result;
use crate::event_time::{WINDOW_END, WINDOW_START, time_field};
use crate::ops::group_by::changing::column;
use crate::ops::group_by::windowed::changing::plan::{ChangingWindowsPlan, N_SLICE};
use crate::ops::group_by::windowed::changing::saved::{N_FIRED, fired_at, fired_columns};
use crate::ops::group_by::windowed::results::times_column;
use crate::ops::group_by::windowed::settled::windows_of;
use crate::state::StatePart;
use crate::windowing::Window;

/// The tables of rows, each with how often it is there and the window that it opens: of those that may still change, of
/// those that were taken back and not added, and of changes that came too late.
const ROWS: [&str; 3] = ["rows", "owed", "early"];
/// The table of windows: what has left of each.
const MERGED: &str = "merged";

/// All rows and windows, each with the watermark that the operator had been told of.
pub(super) fn parts(
    plan: &ChangingWindowsPlan,
    of: &MergingChanges,
    key_names: &[String],
) -> Result<Vec<StatePart>> {
    let groups = of.groups.iter().enumerate();
    let merged = groups.flat_map(|(group, rows)| {
        let all = rows.merged.iter();
        all.map(move |(window, merged)| (group, *window, merged))
    });
    let merged: Vec<(usize, Window, &Merged)> = merged.collect();
    let mut parts = Vec::new();
    for (n, name) in ROWS.iter().enumerate() {
        let rows = of.groups.iter().enumerate().flat_map(|(group, rows)| {
            rows.all()[n].iter().flat_map(move |(window, rows)| {
                rows.iter()
                    .map(move |(row, times)| (group, *window, &**row, *times))
            })
        });
        let rows: Vec<(usize, Window, &[u8], i64)> = rows.collect();
        for rows in rows.chunks(BATCH_ROWS) {
            let bytes = rows.iter().map(|(_, _, row, _)| *row);
            let times = rows.iter().map(|(.., times)| *times);
            let columns: Vec<ArrayRef> = vec![
                Arc::new(BinaryArray::from_iter_values(bytes)),
                Arc::new(Int64Array::from_iter_values(times)),
            ];
            let of_rows: Vec<(usize, Window)> = rows.iter().map(|row| (row.0, row.1)).collect();
            let rows = table(plan, of, &of_rows, columns)?;
            parts.extend(StatePart::by_key(name, &rows, key_names)?);
        }
    }
    for merged in merged.chunks(BATCH_ROWS) {
        let fired = merged.iter().map(|(.., merged)| &merged.fired);
        let mut columns = fired_columns(fired);
        let results = merged.iter().map(|(.., merged)| merged.result.as_deref());
        columns.push(Arc::new(results.collect::<BinaryArray>()));
        if plan.has_times {
            let holds = merged.iter().map(|(.., merged)| merged.hold);
            columns.push(Arc::new(Int64Array::from_iter_values(holds)));
        }
        let of_rows: Vec<(usize, Window)> = merged.iter().map(|row| (row.0, row.1)).collect();
        let rows = table(plan, of, &of_rows, columns)?;
        parts.extend(StatePart::by_key(MERGED, &rows, key_names)?);
    }
    Ok(parts)
}

/// Window, keys and the watermark before these columns.
fn table(
    plan: &ChangingWindowsPlan,
    of: &MergingChanges,
    of_rows: &[(usize, Window)],
    columns: Vec<ArrayRef>,
) -> Result<RecordBatch> {
    let groups: Vec<usize> = of_rows.iter().map(|(group, _)| *group).collect();
    let windows = of_rows.iter().map(|(_, window)| *window);
    let mut all = vec![
        times_column(windows.clone().map(|window| window.start)),
        times_column(windows.map(|window| window.end)),
    ];
    let mut fields = vec![time_field(WINDOW_START), time_field(WINDOW_END)];
    all.extend(of.keys.columns_of(&groups)?);
    fields.extend(plan.of_groups.planned.key_fields.iter().cloned());
    let told: ArrayRef = Arc::new(Int64Array::from_value(of.watermark, of_rows.len()));
    for (n, column) in std::iter::once(told).chain(columns).enumerate() {
        let field = Field::new(format!("{n}: state"), column.data_type().clone(), true);
        fields.push(Arc::new(field));
        all.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), all)?)
}

/// Takes over what [`parts`] gave.
pub(super) fn restore(
    plan: &ChangingWindowsPlan,
    of: &mut MergingChanges,
    part: &StatePart,
) -> Result<()> {
    let of_rows = ROWS.iter().position(|name| part.table == *name);
    if of_rows.is_none() && part.table != MERGED {
        return Ok(());
    }
    let rows = &part.rows;
    let windows = windows_of(rows)?;
    let n_keys = plan.of_groups.planned.key_fields.len();
    let (keys, columns) = rows.columns()[N_SLICE..].split_at(n_keys);
    let groups = of.number(keys, rows.num_rows())?;
    let told: &Int64Array = column(columns, 0)?;
    let behind = groups.iter().zip(told.values());
    let behind = behind.filter(|(_, told)| **told < of.watermark);
    let behind: Vec<usize> = behind.map(|(group, _)| *group).collect();
    of.behind.extend(behind);
    let columns = &columns[1..];
    if let Some(n) = of_rows {
        let bytes: &BinaryArray = column(columns, 0)?;
        let times: &Int64Array = column(columns, 1)?;
        for (row, (group, window)) in groups.into_iter().zip(windows).enumerate() {
            let (row, times) = (bytes.value(row), times.value(row));
            of.with_group(group, |rows| match n {
                0 => rows.add(window, row, times),
                1 => rows.restore_owed(window, row, times),
                _ => rows.restore_early(window, row, times),
            });
        }
        return Ok(());
    }
    let results: &BinaryArray = column(columns, N_FIRED)?;
    let holds = match plan.has_times {
        true => Some(column::<Int64Array>(columns, N_FIRED + 1)?),
        false => None,
    };
    for (row, (group, window)) in groups.into_iter().zip(windows).enumerate() {
        let merged = Merged {
            fired: fired_at(columns, row)?,
            hold: holds.map_or(i64::MAX, |holds| holds.value(row)),
            result: results.is_valid(row).then(|| results.value(row).into()),
        };
        of.with_group(group, |rows| rows.merged.insert(window, merged));
    }
    Ok(())
}
