//! Changelogs as text, and what they come to.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use super::{show, table};
use crate::changelog::{diffs, has_time};
use crate::event_time::{DIFF, EVENT_TIME, event_times, time_type};

/// Rows from text as [`table`] reads it, whose columns `event_time` and `diff` are those of a
/// [changelog](crate::changelog).
///
/// # Panics
/// As [`table`].
///
/// ```
/// use mainstem_engine::changelog::is_changelog;
/// use mainstem_engine::testing::changelog;
/// assert!(is_changelog(&changelog("a: x, x; event_time: 1, 5; diff: 1, -1").schema()));
/// ```
pub fn changelog(text: &str) -> RecordBatch {
    let rows = table(text);
    let typed = |field: &Arc<Field>, column: &ArrayRef| -> (Field, ArrayRef) {
        let wanted = match field.name().as_str() {
            EVENT_TIME => time_type(),
            DIFF => DataType::Int8,
            _ => return (field.as_ref().clone(), Arc::clone(column)),
        };
        let typed = cast(column, &DataType::Int64).and_then(|column| cast(&column, &wanted));
        let typed = typed.unwrap_or_else(|_| Arc::clone(column));
        (
            Field::new(field.name(), typed.data_type().clone(), false),
            typed,
        )
    };
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        columns.map(|(field, column)| typed(field, column)).unzip();
    #[expect(clippy::panic, reason = "documented: the table is written in the test")]
    match RecordBatch::try_new(Arc::new(Schema::new(fields)), columns) {
        Ok(rows) => rows,
        Err(error) => panic!("not a changelog: {error}"),
    }
}

/// What a changelog has come to when all changes up to `time` have taken effect, or all there are: its rows,
/// sorted, one a line, without when and by how much.
///
/// A row that is there several times stands there as often. One that was taken back more often than it was added
/// has a minus before it.
pub fn contents_at(batches: &[RecordBatch], time: Option<i64>) -> String {
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    for batch in batches {
        let times = match has_time(&batch.schema()) {
            true => event_times(batch).ok(),
            false => None,
        };
        let plain = batch.schema();
        let own = |name: &str| name == DIFF || (times.is_some() && name == EVENT_TIME);
        let values: Vec<usize> = (0..plain.fields().len())
            .filter(|n| !own(plain.field(*n).name()))
            .collect();
        let (Ok(values), Ok(diffs)) = (batch.project(&values), diffs(batch)) else {
            return "not a changelog".to_owned();
        };
        for (row, diff) in diffs.iter().enumerate() {
            let at = times
                .and_then(|times| times.get(row))
                .copied()
                .unwrap_or(i64::MIN);
            if time.is_none_or(|time| at <= time) {
                let text = show(&values.slice(row, 1));
                let line: Vec<String> = text
                    .lines()
                    .map(|line| line.replacen(": ", "=", 1))
                    .collect();
                *rows.entry(line.join(" ")).or_default() += i64::from(*diff);
            }
        }
    }
    let lines = rows.into_iter().flat_map(|(line, n)| {
        let times = usize::try_from(n.unsigned_abs()).unwrap_or(0);
        let line = if n < 0 { format!("-{line}") } else { line };
        std::iter::repeat_n(line, times)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The instants at which a changelog changes, each once.
pub fn times_of(batches: &[RecordBatch]) -> Vec<i64> {
    let mut times: Vec<i64> = Vec::new();
    for batch in batches {
        let column = batch.column_by_name(EVENT_TIME);
        let column =
            column.and_then(|c| c.as_primitive_opt::<arrow::datatypes::TimestampMillisecondType>());
        times.extend(column.iter().flat_map(|c| c.values().iter().copied()));
    }
    times.sort_unstable();
    times.dedup();
    times
}
