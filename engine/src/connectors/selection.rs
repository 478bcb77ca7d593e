//! The columns that a reader is asked for, in the order and the types that the source promised.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::error::{Error, Result};
use crate::expression::check_column;

/// Some columns of a schema, in its order.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    places: Vec<usize>,
    schema: SchemaRef,
}

impl Selection {
    /// The columns named, or all; a name that is not there is the planner's bug.
    pub(crate) fn new(schema: &SchemaRef, columns: Option<&[String]>) -> Result<Self> {
        let places: Vec<usize> = match columns {
            None => (0..schema.fields().len()).collect(),
            Some(names) => {
                for name in names {
                    check_column(name, schema)?;
                }
                (0..schema.fields().len())
                    .filter(|i| names.contains(schema.field(*i).name()))
                    .collect()
            }
        };
        Ok(Self {
            schema: Arc::new(schema.project(&places)?),
            places,
        })
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &FieldRef> {
        self.schema.fields().iter()
    }

    /// Whether the column at this place of the whole schema is one of them.
    pub(crate) fn has(&self, place: usize) -> bool {
        self.places.contains(&place)
    }

    /// The columns by their place in the whole schema.
    pub(crate) fn pick(&self, columns: &[ArrayRef], n_rows: usize) -> Result<RecordBatch> {
        let picked = self
            .places
            .iter()
            .map(|i| Arc::clone(&columns[*i]))
            .collect();
        self.batch(picked, n_rows)
    }

    /// The columns by their names, wherever they stand.
    pub(crate) fn arrange(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let picked: Result<Vec<ArrayRef>> = self
            .fields()
            .map(|f| {
                rows.column_by_name(f.name())
                    .cloned()
                    .ok_or_else(|| Error::bug(format!("column {:?} was not read", f.name())))
            })
            .collect();
        self.batch(picked?, rows.num_rows())
    }

    /// No rows of the columns.
    pub(crate) fn none(&self) -> RecordBatch {
        RecordBatch::new_empty(Arc::clone(&self.schema))
    }

    fn batch(&self, columns: Vec<ArrayRef>, n_rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}
