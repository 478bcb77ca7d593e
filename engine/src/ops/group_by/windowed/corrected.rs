//! Corrections of first rows: what of a list leaves and what comes, without the rows that stay.
//!
//! ```text
//! before: a b c d e    a -1  b -1  c -1  d -1  e -1
//! after:  a b x c d    a +1  b +1  x +1  c +1  d +1    ──▶    e -1  x +1
//! ```
//!
//! Only of rows that do not tell which firing they are of: one that does is another in each.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use crate::changelog::diffs;
use crate::error::Result;
use crate::event_time::{DIFF, PANE};

/// True if corrections of rows that leave with these columns are made of what is another afterwards.
///
/// Rows with a value that has no bytes, such as a map, cannot be told to be the same.
pub(super) fn gives_differences(leaving: Option<&SchemaRef>) -> bool {
    leaving.is_some_and(|leaving| {
        let has = |name| leaving.index_of(name).is_ok();
        has(DIFF) && !has(PANE) && RowConverter::supports_fields(&values_of(leaving))
    })
}

/// How the columns are compared that make a row what it is, its window and its event time among them.
fn values_of(leaving: &SchemaRef) -> Vec<SortField> {
    let values = leaving.fields().iter().filter(|f| f.name() != DIFF);
    values
        .map(|f| SortField::new(f.data_type().clone()))
        .collect()
}

/// Without the rows of a firing that are both taken back and given: in the order in which they were.
pub(super) fn differences(rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let mut takes_back = false;
    for rows in &rows {
        takes_back |= diffs(rows)?.iter().any(|diff| *diff < 0);
    }
    let Some(first) = rows.first().filter(|_| takes_back) else {
        return Ok(rows);
    };
    let converter = RowConverter::new(values_of(first.schema_ref()))?;
    let mut bytes = Vec::with_capacity(rows.len());
    for rows in &rows {
        let fields = rows.schema_ref().fields().iter().zip(rows.columns());
        let values = fields.filter(|(field, _)| field.name() != DIFF);
        let values: Vec<ArrayRef> = values.map(|(_, column)| Arc::clone(column)).collect();
        bytes.push(converter.convert_columns(&values)?);
    }
    // By how much each row is there more often afterwards, as long as that has not left.
    let mut more: HashMap<&[u8], i64> = HashMap::new();
    for (rows, bytes) in rows.iter().zip(&bytes) {
        for (diff, row) in diffs(rows)?.iter().zip(bytes) {
            *more.entry(row.data()).or_default() += i64::from(*diff);
        }
    }
    let mut left = Vec::with_capacity(rows.len());
    for (rows, bytes) in rows.iter().zip(&bytes) {
        let leaves = diffs(rows)?.iter().zip(bytes).map(|(diff, row)| {
            let more = more.entry(row.data()).or_default();
            let leaves = more.signum() == i64::from(diff.signum());
            *more -= match leaves {
                true => i64::from(*diff),
                false => 0,
            };
            Some(leaves)
        });
        let leaves: BooleanArray = leaves.collect();
        if leaves.true_count() > 0 {
            left.push(filter_record_batch(rows, &leaves)?);
        }
    }
    Ok(left)
}
