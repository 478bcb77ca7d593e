//! Reads a source whole, under the laws that every source keeps.

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::batch::BATCH_ROWS;
use crate::error::Result;
use crate::output::{OnBadRow, Output};
use crate::source::{Position, Source, Split};

/// All rows of a source, split after split, and the output that its bad rows went to.
///
/// # Errors
/// What the source says of its files or of a row.
pub fn read_source(source: &dyn Source, policy: OnBadRow) -> Result<(RecordBatch, Output)> {
    let schema = source.schema()?;
    let mut out = Output::new(policy);
    let mut rows = Vec::new();
    for split in source.splits()? {
        rows.push(read(source, &schema, &split, 0, None, &mut out)?);
    }
    Ok((concat_batches(&schema, &rows)?, out))
}

/// Checks the laws that every source keeps, on the rows of this one, and gives these rows.
///
/// The schema promised is the schema read; batches are not much larger than [`BATCH_ROWS`] and never
/// empty; splits are the same each time and know how many rows they hold, if they say so; a position
/// gives the rest of the split; some columns are those columns of all, and as many rows.
///
/// # Panics
/// If a law is broken.
///
/// # Errors
/// What the source says of its files. Bad rows are left out.
pub fn check_source(source: &dyn Source) -> Result<RecordBatch> {
    let schema = source.schema()?;
    let splits = source.splits()?;
    assert_eq!(splits, source.splits()?, "splits are the same each time");
    let mut all = Vec::new();
    for split in &splits {
        all.push(check_split(source, &schema, split)?);
    }
    Ok(concat_batches(&schema, &all)?)
}

fn check_split(source: &dyn Source, schema: &SchemaRef, split: &Split) -> Result<RecordBatch> {
    let mut out = Output::new(OnBadRow::Drop);
    let whole = read(source, schema, split, 0, None, &mut out)?;
    let n_rows = whole.num_rows();
    let name = &split.name;
    if let Some(promised) = split.n_rows {
        assert_eq!(promised, n_rows as u64, "rows of {name}");
    }

    let again = read(source, schema, split, 0, None, &mut out)?;
    assert_eq!(again, whole, "{name} gives the same rows each time");

    for start in [
        1,
        n_rows / 2,
        BATCH_ROWS,
        n_rows.saturating_sub(1),
        n_rows,
        n_rows + 1,
    ] {
        let start = start.min(n_rows + 1);
        let rest = read(source, schema, split, start as u64, None, &mut out)?;
        let there = start.min(n_rows);
        assert_eq!(
            rest,
            whole.slice(there, n_rows - there),
            "{name} after {start} rows"
        );
    }

    for wanted in selections(schema) {
        let columns: Vec<String> = wanted
            .iter()
            .map(|i| schema.field(*i).name().clone())
            .collect();
        let some = read(source, schema, split, 0, Some(&columns), &mut out)?;
        assert_eq!(
            some,
            project(&whole, &wanted)?,
            "columns {columns:?} of {name}"
        );
    }
    Ok(whole)
}

/// No column, each one alone, and all but the first.
fn selections(schema: &SchemaRef) -> Vec<Vec<usize>> {
    let n = schema.fields().len();
    let mut selections = vec![Vec::new(), (1..n).collect()];
    selections.extend((0..n).map(|i| vec![i]));
    selections
}

fn project(rows: &RecordBatch, wanted: &[usize]) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = rows.schema().project(wanted)?;
    let columns = wanted.iter().map(|i| rows.column(*i).clone()).collect();
    Ok(RecordBatch::try_new_with_options(
        schema.into(),
        columns,
        &options,
    )?)
}

fn read(
    source: &dyn Source,
    schema: &SchemaRef,
    split: &Split,
    start: u64,
    columns: Option<&[String]>,
    out: &mut Output,
) -> Result<RecordBatch> {
    let wanted: Vec<usize> = (0..schema.fields().len())
        .filter(|i| columns.is_none_or(|names| names.contains(schema.field(*i).name())))
        .collect();
    let promised = SchemaRef::new(schema.project(&wanted)?);
    let mut reader = source.open(split, Position(start), columns)?;
    let mut batches = Vec::new();
    let mut n_bytes = reader.bytes_read();
    let mut n_rejected = out.n_rejected();
    while let Some(batch) = reader.next_batch(out)? {
        assert_eq!(
            batch.schema(),
            promised,
            "the schema promised is the schema read"
        );
        let n_bad = out.n_rejected() - n_rejected;
        n_rejected += n_bad;
        assert!(
            batch.num_rows() > 0 || n_bad > 0,
            "a batch of {} is empty, and no row was rejected",
            split.name
        );
        assert!(
            n_bad <= 2 * BATCH_ROWS as u64,
            "{n_bad} rows of {} are rejected at once",
            split.name
        );
        assert!(
            batch.num_rows() <= 2 * BATCH_ROWS,
            "a batch of {} is too large",
            split.name
        );
        assert!(
            reader.bytes_read() >= n_bytes,
            "bytes that were read are not unread"
        );
        n_bytes = reader.bytes_read();
        batches.push(batch);
    }
    assert!(
        reader.next_batch(out)?.is_none(),
        "the end of {} is the end",
        split.name
    );
    if let Some(all) = split.n_bytes {
        assert!(
            n_bytes <= all,
            "{} has {all} bytes, read {n_bytes}",
            split.name
        );
    }
    Ok(concat_batches(&promised, &batches)?)
}
