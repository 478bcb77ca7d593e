//! Runs a transform on rows written as text, under the laws that every transform keeps.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use expect_test::Expect;

use super::{show, table};
use crate::artifact::Artifacts;
use crate::batch::{Batch, SplitKey};
use crate::error::Result;
use crate::output::{OnBadRow, Output};
use crate::transform::{Operator, Transform, Watermark};

/// The rows that leave the first port of `transform`, and its output with counts and dead letters.
///
/// # Errors
/// What the transform says of the schema or of the rows.
pub fn run_transform(
    transform: &dyn Transform,
    rows: &RecordBatch,
    policy: OnBadRow,
) -> Result<(RecordBatch, Output)> {
    run_in_batches(transform, rows, rows.num_rows().max(1), policy)
}

fn run_in_batches(
    transform: &dyn Transform,
    rows: &RecordBatch,
    batch_rows: usize,
    policy: OnBadRow,
) -> Result<(RecordBatch, Output)> {
    let schema = transform.output_schema(&[rows.schema()])?;
    let mut operator = transform.build(&Artifacts::none())?;
    let mut out = Output::new(policy);
    for start in (0..rows.num_rows()).step_by(batch_rows) {
        let part = rows.slice(start, batch_rows.min(rows.num_rows() - start));
        let name = Arc::from("rows in memory");
        let batch = Batch::read(part, SplitKey::default(), name, start as u64);
        operator.on_batch(0, batch, &mut out)?;
        go_on(&mut *operator, &mut out)?;
    }
    operator.on_watermark(Watermark::END, &mut out)?;
    go_on(&mut *operator, &mut out)?;
    let made: Vec<RecordBatch> = out
        .take()
        .into_iter()
        .filter(|(port, _)| *port == 0)
        .map(|(_, b)| b.rows().clone())
        .collect();
    for batch in &made {
        assert_eq!(
            batch.schema().fields(),
            schema.fields(),
            "the schema promised is the schema made"
        );
    }
    Ok((concat_batches(&schema, &made)?, out))
}

fn go_on(operator: &mut dyn Operator, out: &mut Output) -> Result<()> {
    while out.take_more() {
        operator.resume(out)?;
    }
    Ok(())
}

/// Checks the rows that leave `transform` for the rows in `input`, both as [`table`] reads them, and
/// that any split into batches gives the same rows under the schema that was promised.
///
/// # Panics
/// If not.
pub fn check_transform(transform: impl Transform, input: &str, expected: Expect) {
    let rows = table(input);
    let whole = match run_transform(&transform, &rows, OnBadRow::Fail) {
        Ok((made, _)) => show(&made),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&whole);
    if transform.properties().row_wise {
        for batch_rows in 1..rows.num_rows() {
            let cut = match run_in_batches(&transform, &rows, batch_rows, OnBadRow::Fail) {
                Ok((made, _)) => show(&made),
                Err(error) => error.to_string(),
            };
            assert_eq!(cut, whole, "in batches of {batch_rows} rows");
        }
    }
}

/// Checks the message by which `transform` refuses rows with the columns of `input` while planning.
///
/// # Panics
/// If it does not refuse them, or with another message.
pub fn refuse_transform(transform: impl Transform, input: &str, expected: Expect) {
    let message = match transform.output_schema(&[table(input).schema()]) {
        Ok(schema) => format!("accepted: {schema}"),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&message);
}
