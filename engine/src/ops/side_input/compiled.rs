//! The expressions of a side input, for the columns that arrive: these may be fewer than were checked.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_expr::Expr;

use super::layout::{Layout, Values};
use super::lookup::Coded;
use crate::error::Result;
use crate::expression::{Expression, check_column};
use crate::keys::normal;

/// What is made of main rows of one schema.
pub(super) struct MainRows {
    input: SchemaRef,
    keys: Vec<Expression>,
    types: Vec<DataType>,
    pub(super) output: SchemaRef,
}

impl MainRows {
    pub(super) fn new(layout: &Layout, input: &SchemaRef) -> Result<Self> {
        Ok(Self {
            input: Arc::clone(input),
            keys: compile(layout.keys.iter().map(|key| &key.main), input)?,
            types: layout.key_types(),
            output: layout.output(input),
        })
    }

    pub(super) fn fits(&self, input: &SchemaRef) -> bool {
        Arc::ptr_eq(&self.input, input) || self.input == *input
    }

    /// The keys of rows, if there are any.
    pub(super) fn keys(&self, rows: &RecordBatch) -> Result<Option<Coded>> {
        let keys = self.keys.iter().zip(&self.types);
        let keys = keys.map(|(key, data_type)| compared(key, data_type, rows));
        Coded::new(&keys.collect::<Result<Vec<_>>>()?, &self.types)
    }
}

/// What is kept of side rows of one schema.
pub(super) struct SideRows {
    input: SchemaRef,
    keys: Vec<Expression>,
    types: Vec<DataType>,
    columns: Vec<usize>,
    value: Option<Expression>,
    stored: SchemaRef,
}

impl SideRows {
    pub(super) fn new(layout: &Layout, input: &SchemaRef) -> Result<Self> {
        let (columns, value) = match &layout.values {
            Values::Columns(names) => {
                let places = names.iter().map(|name| check_column(name, input));
                (places.collect::<Result<_>>()?, None)
            }
            Values::List(value) => (Vec::new(), Some(Expression::compile(value, input)?)),
        };
        Ok(Self {
            input: Arc::clone(input),
            keys: compile(layout.keys.iter().map(|key| &key.side), input)?,
            types: layout.key_types(),
            columns,
            value,
            stored: Arc::clone(&layout.stored),
        })
    }

    pub(super) fn fits(&self, input: &SchemaRef) -> bool {
        Arc::ptr_eq(&self.input, input) || self.input == *input
    }

    /// What is kept, without the rows whose key is null; true in the mask is a row that is kept.
    pub(super) fn store(&self, rows: &RecordBatch) -> Result<(RecordBatch, Option<BooleanArray>)> {
        let keys = self.keys.iter().zip(&self.types);
        let keys = keys.map(|(key, data_type)| compared(key, data_type, rows));
        let mut columns = keys.collect::<Result<Vec<_>>>()?;
        let nulls = columns.iter().fold(None, |nulls, column| {
            NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref())
        });
        columns.extend(
            self.columns
                .iter()
                .map(|&place| Arc::clone(rows.column(place))),
        );
        if let Some(value) = &self.value {
            columns.push(value.evaluate(rows)?);
        }
        let with = |schema: &SchemaRef, columns: Vec<ArrayRef>, n_rows: usize| {
            let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
            RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        };
        let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else {
            return Ok((with(&self.stored, columns, rows.num_rows())?, None));
        };
        // The keys that are null stand there until their rows are left out.
        let all = with(&nullable(&self.stored), columns, rows.num_rows())?;
        let mask = BooleanArray::new(nulls.into_inner(), None);
        let kept = filter_record_batch(&all, &mask)?;
        let kept = with(&self.stored, kept.columns().to_vec(), kept.num_rows())?;
        Ok((kept, Some(mask)))
    }
}

fn compile<'a>(
    exprs: impl Iterator<Item = &'a Expr>,
    schema: &SchemaRef,
) -> Result<Vec<Expression>> {
    exprs
        .map(|expr| Expression::compile(expr, schema))
        .collect()
}

/// Key values as they are compared.
fn compared(key: &Expression, data_type: &DataType, rows: &RecordBatch) -> Result<ArrayRef> {
    let values = key.evaluate(rows)?;
    match values.data_type() == data_type {
        true => normal(&values),
        false => normal(&cast(&values, data_type)?),
    }
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields: Vec<Field> = fields
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(Schema::new(fields))
}
