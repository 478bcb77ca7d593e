//! The values of expressions as bytes that are equal, or ordered, as the values are.

use arrow::array::BinaryArray;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion_expr::Expr;
use std::sync::Arc;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::keys::{normal, plain_type};

/// Expressions whose values become one byte string a row, as arrow-row writes them.
#[derive(Debug)]
pub(super) struct RowKey {
    expressions: Vec<Expression>,
    types: Vec<DataType>,
    converter: RowConverter,
}

impl RowKey {
    /// Keys that are only compared for equality.
    pub(super) fn of(keys: &[Expr], schema: &SchemaRef) -> Result<Self> {
        let keys: Vec<_> = keys.iter().map(|k| (k, SortOptions::default())).collect();
        Self::ordered(&keys, schema, "cannot be hashed")
    }

    /// Keys whose bytes are ordered as the options say; what has no order `cannot`.
    pub(super) fn ordered(
        keys: &[(&Expr, SortOptions)],
        schema: &SchemaRef,
        cannot: &str,
    ) -> Result<Self> {
        let mut expressions = Vec::new();
        let mut types = Vec::new();
        let mut fields = Vec::new();
        let mut errors = Vec::new();
        for (key, options) in keys {
            match check_key(key, schema, cannot) {
                Ok(expression) => {
                    let data_type = plain_type(expression.data_type());
                    fields.push(SortField::new_with_options(data_type.clone(), *options));
                    types.push(data_type);
                    expressions.push(expression);
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        Ok(Self {
            expressions,
            types,
            converter: RowConverter::new(fields)?,
        })
    }

    /// The bytes of each row; empty without expressions.
    pub(super) fn bytes(&self, rows: &RecordBatch) -> Result<BinaryArray> {
        if self.expressions.is_empty() {
            let none: &[u8] = &[];
            return Ok(BinaryArray::from_iter_values(std::iter::repeat_n(
                none,
                rows.num_rows(),
            )));
        }
        let mut columns = Vec::with_capacity(self.expressions.len());
        for (expression, data_type) in self.expressions.iter().zip(&self.types) {
            let values = expression.evaluate(rows)?;
            columns.push(if values.data_type() == data_type {
                normal(&values)?
            } else {
                normal(&cast(&values, data_type)?)?
            });
        }
        Ok(self
            .converter
            .convert_columns(&columns)?
            .try_into_binary()?)
    }
}

/// Tells whether a row of one batch is equal to a row of another of the same columns.
pub(in crate::ops) fn equal_rows(
    one: &RecordBatch,
    other: &RecordBatch,
) -> Result<impl Fn(usize, usize) -> bool + use<>> {
    let fields = one.schema();
    let fields = fields.fields().iter();
    let converter = RowConverter::new(
        fields
            .map(|f| SortField::new(f.data_type().clone()))
            .collect(),
    )?;
    let one = converter.convert_columns(one.columns())?;
    let other = converter.convert_columns(other.columns())?;
    Ok(move |a, b| one.row(a) == other.row(b))
}

/// Compiles a key of a type that has bytes.
pub(crate) fn check_key(key: &Expr, schema: &SchemaRef, cannot: &str) -> Result<Expression> {
    let expression = Expression::compile(key, schema)?;
    let data_type = plain_type(expression.data_type());
    if RowConverter::supports_fields(&[SortField::new(data_type.clone())]) {
        return Ok(expression);
    }
    let text = key.clone().unalias().to_string();
    Err(
        Error::pipeline(format!("key `{text}` {cannot}: {data_type}"))
            .with_hint("Take a part of it that can, or cast it to text."),
    )
}

/// The value of `evaluate` for a batch; where it fails on a row, the error says where that row stands.
pub(super) fn located<T>(batch: &Batch, evaluate: impl Fn(&RecordBatch) -> Result<T>) -> Result<T> {
    let error = match evaluate(batch.rows()) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    for row in 0..batch.n_rows() {
        if let Err(of_row) = evaluate(&batch.rows().slice(row, 1)) {
            let reason = of_row.to_string().replace("\n  ", ": ");
            return Err(
                Error::data(format!("{}: {reason}", batch.position(row))).with_hint(
                    "Compute the value before with `with_column`, and choose an `OnBadRow` there.",
                ),
            );
        }
    }
    Err(error)
}

/// The schema with columns of bytes at its end, which travel with the rows to the worker of their key.
pub(super) fn with_bytes(schema: &SchemaRef, names: &[&str]) -> Result<SchemaRef> {
    let mut fields = schema.fields().to_vec();
    for name in names {
        if schema.index_of(name).is_ok() {
            return Err(Error::pipeline(format!(
                "the column name {name:?} is taken by the engine"
            ))
            .with_hint("Call the column otherwise with `select`."));
        }
        fields.push(Arc::new(Field::new(*name, DataType::Binary, false)));
    }
    Ok(Arc::new(Schema::new(fields)))
}
