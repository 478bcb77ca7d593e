//! An order in which no two rows are equal: that which is asked for, then how rows stand in their source.

use arrow::array::{BinaryArray, BinaryBuilder};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_expr::{Expr, SortExpr};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::expression::col;
use crate::ops::row_key::RowKey;

/// Gives rows the bytes by which they are ordered.
#[derive(Debug)]
pub(in crate::ops) struct Ranking {
    order: RowKey,
    /// The values of rows that have no place of their own in a source.
    values: RowKey,
}

impl Ranking {
    /// # Errors
    /// If an expression does not fit the schema, or its values have no order.
    pub(in crate::ops) fn new(order: &[SortExpr], schema: &SchemaRef) -> Result<Self> {
        let columns = schema.fields().iter();
        let comparable: Vec<Expr> = columns
            .map(|f| col(f.name()))
            .filter(|c| RowKey::of(std::slice::from_ref(c), schema).is_ok())
            .collect();
        Ok(Self {
            order: order_key(order, schema)?,
            values: RowKey::of(&comparable, schema)?,
        })
    }

    /// The bytes of what is asked for.
    ///
    /// # Errors
    /// If an expression fails on a row.
    pub(in crate::ops) fn asked(&self, rows: &RecordBatch) -> Result<BinaryArray> {
        self.order.bytes(rows)
    }

    /// Those bytes, followed by those of the place of each row: its source, its split and its number there, or its
    /// values where that is not known.
    pub(in crate::ops) fn complete(
        &self,
        asked: &BinaryArray,
        batch: &Batch,
    ) -> Result<BinaryArray> {
        let split = batch.split_key();
        let numbers = batch.row_numbers();
        let values = match &numbers {
            Some(_) => None,
            None => Some(self.values.bytes(batch.rows())?),
        };
        let mut prefix = Vec::with_capacity(17);
        prefix.extend(split.source.to_be_bytes());
        prefix.extend(split.split.to_be_bytes());
        prefix.extend(split.branch.to_be_bytes());
        prefix.push(u8::from(values.is_some()));
        let n_rows = batch.n_rows();
        let mut bytes = BinaryBuilder::with_capacity(n_rows, n_rows * 34);
        let mut one = Vec::new();
        for (row, of_row) in asked.iter().enumerate() {
            one.clear();
            one.extend_from_slice(of_row.unwrap_or_default());
            one.extend_from_slice(&prefix);
            match (&values, &numbers) {
                (Some(values), _) => one.extend_from_slice(values.value(row)),
                (None, Some(numbers)) => one.extend(numbers[row].to_be_bytes()),
                (None, None) => {}
            }
            bytes.append_value(&one);
        }
        Ok(bytes.finish())
    }
}

/// The bytes of `order`.
pub(in crate::ops) fn order_key(order: &[SortExpr], schema: &SchemaRef) -> Result<RowKey> {
    let option = |s: &SortExpr| SortOptions {
        descending: !s.asc,
        nulls_first: s.nulls_first,
    };
    let keys: Vec<_> = order.iter().map(|s| (&s.expr, option(s))).collect();
    RowKey::ordered(&keys, schema, "has no order")
}

/// Checks a number of rows, keys and an order against a schema, all that is wrong at once.
pub(in crate::ops) fn check_first(
    kind: &str,
    n_rows: usize,
    keys: &[Expr],
    order: &[SortExpr],
    schema: &SchemaRef,
) -> Result<()> {
    if n_rows == 0 {
        return Err(Error::pipeline(format!("{kind} of 0 rows has no rows"))
            .with_hint("Ask for at least one."));
    }
    let errors = [
        RowKey::of(keys, schema).err(),
        order_key(order, schema).err(),
    ];
    let errors: Vec<Error> = errors.into_iter().flatten().collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Error::all(errors)),
    }
}
