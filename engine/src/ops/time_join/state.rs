//! Rows that wait, as parts of a snapshot and back.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type};
use arrow::record_batch::RecordBatch;

use super::gather::{concat_rows, record_batch};
use super::layout::SideLayout;
use crate::batch::{Batch, SplitKey};
use crate::error::{Error, Result};
use crate::state::StatePart;

/// The columns that say which split a row came from.
const SPLIT: [&str; 3] = ["$source", "$split", "$branch"];

/// The rows of batches by key group, with the splits they came from.
pub(super) fn save_rows(
    table: &str,
    side: &SideLayout,
    batches: &[Batch],
) -> Result<Vec<StatePart>> {
    let mut fields = side.schema.fields().to_vec();
    for (name, data_type) in SPLIT.iter().zip(split_types()) {
        fields.push(Arc::new(Field::new(*name, data_type, false)));
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let with_split = |batch: &Batch| {
        let SplitKey {
            source,
            split,
            branch,
        } = batch.split_key();
        let n = batch.n_rows();
        let mut columns = batch.rows().columns().to_vec();
        columns.push(Arc::new(UInt32Array::from(vec![source; n])) as ArrayRef);
        columns.push(Arc::new(UInt32Array::from(vec![split; n])));
        columns.push(Arc::new(UInt64Array::from(vec![branch; n])));
        record_batch(&schema, columns, n)
    };
    let rows: Vec<RecordBatch> = batches.iter().map(with_split).collect::<Result<_>>()?;
    StatePart::by_key(table, &concat_rows(&schema, &rows)?, &side.key_names)
}

fn split_types() -> [DataType; 3] {
    [DataType::UInt32, DataType::UInt32, DataType::UInt64]
}

/// The batches that [`save_rows`] made a part of: one for each split, rows in their order.
pub(super) fn load_rows(part: &StatePart, side: &SideLayout) -> Result<Vec<Batch>> {
    let column = |i: usize| part.rows.column_by_name(SPLIT[i]);
    let (Some(source), Some(split), Some(branch)) = (
        column(0).and_then(|c| c.as_primitive_opt::<UInt32Type>()),
        column(1).and_then(|c| c.as_primitive_opt::<UInt32Type>()),
        column(2).and_then(|c| c.as_primitive_opt::<UInt64Type>()),
    ) else {
        return Err(foreign(part));
    };
    let key = |row: usize| SplitKey {
        source: source.value(row),
        split: split.value(row),
        branch: branch.value(row),
    };
    let mut rows: Vec<u32> = (0u32..).take(part.rows.num_rows()).collect();
    rows.sort_by_key(|&row| key(row as usize));
    let kept = side.project(&part.rows).map_err(|_| foreign(part))?;
    rows.chunk_by(|&a, &b| key(a as usize) == key(b as usize))
        .map(|rows| {
            let key = key(rows[0] as usize);
            let rows = take_record_batch(&kept, &UInt32Array::from(rows.to_vec()))?;
            Ok(Batch::read(rows, key, Arc::from("rows of a snapshot"), 0).inexact())
        })
        .collect()
}

/// Numbers that every worker must know, by name.
pub(super) fn save_numbers(table: &str, numbers: &[(&str, i64)]) -> Result<StatePart> {
    let column = |(name, n): &(&str, i64)| {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![*n]));
        ((*name).to_owned(), values)
    };
    let rows = RecordBatch::try_from_iter(numbers.iter().map(column))?;
    Ok(StatePart::of_worker(table, rows))
}

/// The number `name` of a part that [`save_numbers`] made.
pub(super) fn load_number(part: &StatePart, name: &str) -> Result<i64> {
    let column = part.rows.column_by_name(name);
    let values = column.and_then(|c| c.as_primitive_opt::<Int64Type>());
    match values.map(|v| &**v.values()) {
        Some([number]) => Ok(*number),
        _ => Err(foreign(part)),
    }
}

/// A part that is not of this operator.
pub(super) fn foreign(part: &StatePart) -> Error {
    Error::pipeline(format!("state {:?} does not fit the join", part.table))
        .with_detail(format!("Its rows are: {}.", part.rows.schema()))
        .with_hint("Restore a snapshot of the same graph.")
}
