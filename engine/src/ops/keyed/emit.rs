//! What a keyed transform emits, from its calls to batches.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde::Serialize;

use super::rows::SortedRows;
use super::scopes::Scopes;
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::event_time::{EVENT_TIME, WINDOW_END, WINDOW_START, time_field};

/// What the rows are that a keyed transform emits.
#[derive(Clone, Debug)]
pub(super) enum Emits {
    /// Some of the rows that come in.
    Rows,
    /// Some of the rows that come in, with these columns besides.
    RowsWith(Vec<FieldRef>),
    /// The key, these columns, the window and the event time.
    Values(Vec<FieldRef>),
    /// Rows of this schema.
    Batches(SchemaRef),
}

impl Emits {
    /// The schema of what is emitted.
    pub(super) fn schema(
        &self,
        rows: &SchemaRef,
        keys: &[FieldRef],
        is_windowed: bool,
    ) -> SchemaRef {
        match self {
            Self::Rows => Arc::clone(rows),
            Self::RowsWith(more) => {
                let fields = rows.fields().iter().chain(more).cloned();
                Arc::new(Schema::new(fields.collect::<Vec<_>>()))
            }
            Self::Values(values) => {
                let mut fields: Vec<FieldRef> = keys.iter().chain(values).cloned().collect();
                if is_windowed {
                    fields.extend([WINDOW_START, WINDOW_END].map(time_field));
                }
                if rows.index_of(EVENT_TIME).is_ok() {
                    fields.push(time_field(EVENT_TIME));
                }
                Arc::new(Schema::new(fields))
            }
            Self::Batches(schema) => Arc::clone(schema),
        }
    }
}

/// Values of one Rust type that wait to become columns.
trait Values: Any + Send {
    fn len(&self) -> usize;
    fn take(&mut self, fields: &[FieldRef]) -> Result<Vec<ArrayRef>>;
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<T: Serialize + Send + 'static> Values for Vec<T> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn take(&mut self, fields: &[FieldRef]) -> Result<Vec<ArrayRef>> {
        let columns = serde_arrow::to_arrow(fields, &*self).map_err(|error| {
            Error::data(format!(
                "a {} does not fit its own type",
                std::any::type_name::<T>()
            ))
            .with_detail(format!("{}.", error.message()))
        })?;
        self.clear();
        Ok(columns)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Collects what calls emit.
pub(super) struct Emitter {
    emits: Emits,
    schema: SchemaRef,
    is_windowed: bool,
    /// The rows to be kept, by their places among the sorted rows.
    kept: Vec<u32>,
    values: Option<Box<dyn Values>>,
    scopes: Vec<usize>,
    times: Vec<i64>,
    done: Vec<RecordBatch>,
    n_done: usize,
}

impl Emitter {
    pub(super) fn new(emits: Emits, schema: SchemaRef, is_windowed: bool) -> Self {
        Self {
            emits,
            schema,
            is_windowed,
            kept: Vec::new(),
            values: None,
            scopes: Vec::new(),
            times: Vec::new(),
            done: Vec::new(),
            n_done: 0,
        }
    }

    /// About how many rows wait.
    pub(super) fn n_rows(&self) -> usize {
        self.n_done + self.kept.len() + self.times.len()
    }

    pub(super) fn keep(&mut self, place: u32) -> Result<()> {
        match self.emits {
            Emits::Rows => {
                self.kept.push(place);
                Ok(())
            }
            _ => Err(undeclared("rows that come in")),
        }
    }

    pub(super) fn keep_with<T: Serialize + Send + 'static>(
        &mut self,
        place: u32,
        value: T,
    ) -> Result<()> {
        match self.emits {
            Emits::RowsWith(_) => {
                self.push_value(value)?;
                self.kept.push(place);
                Ok(())
            }
            _ => Err(undeclared("rows that come in with more columns")),
        }
    }

    pub(super) fn value<T: Serialize + Send + 'static>(
        &mut self,
        scope: usize,
        time: i64,
        value: T,
        scopes: &Scopes,
    ) -> Result<()> {
        if !matches!(self.emits, Emits::Values(_)) {
            return Err(undeclared("values"));
        }
        self.push_value(value)?;
        self.scopes.push(scope);
        self.times.push(time);
        if self.times.len() >= BATCH_ROWS {
            self.finish_values(scopes)?;
        }
        Ok(())
    }

    pub(super) fn batch(&mut self, rows: &RecordBatch) -> Result<()> {
        if !matches!(self.emits, Emits::Batches(_)) {
            return Err(undeclared("batches"));
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec());
        let rows = rows.map_err(|error| {
            Error::pipeline("rows are emitted that are not of the schema that was declared")
                .with_source(error)
        })?;
        self.push(rows);
        Ok(())
    }

    fn push(&mut self, rows: RecordBatch) {
        self.n_done += rows.num_rows();
        self.done.push(rows);
    }

    fn push_value<T: Serialize + Send + 'static>(&mut self, value: T) -> Result<()> {
        let values = self.values.get_or_insert_with(|| Box::new(Vec::<T>::new()));
        let wanted = std::any::type_name::<T>();
        let values = values.as_any().downcast_mut::<Vec<T>>().ok_or_else(|| {
            Error::pipeline(format!(
                "a {wanted} is emitted beside values of another type"
            ))
            .with_hint("Emit values of one type, the one that was declared.")
        })?;
        values.push(value);
        Ok(())
    }

    fn value_columns(&mut self, fields: &[FieldRef]) -> Result<Vec<ArrayRef>> {
        match &mut self.values {
            Some(values) if values.len() > 0 => values.take(fields),
            _ => Ok(fields
                .iter()
                .map(|f| arrow::array::new_empty_array(f.data_type()))
                .collect()),
        }
    }

    fn finish_values(&mut self, scopes: &Scopes) -> Result<()> {
        let Emits::Values(fields) = self.emits.clone() else {
            return Ok(());
        };
        let of = std::mem::take(&mut self.scopes);
        let times = std::mem::take(&mut self.times);
        if of.is_empty() {
            return Ok(());
        }
        let mut columns = scopes.key_columns(&of)?;
        columns.extend(self.value_columns(&fields)?);
        if self.is_windowed {
            columns.extend(scopes.window_columns(&of));
        }
        if columns.len() < self.schema.fields().len() {
            columns.push(Arc::new(TimestampMillisecondArray::from(times)));
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.push(rows);
        Ok(())
    }

    /// The rows that were kept of a batch become a batch; before the next comes.
    pub(super) fn finish_kept(&mut self, sorted: &SortedRows) -> Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let mut kept = std::mem::take(&mut self.kept);
        let more = match self.emits.clone() {
            Emits::RowsWith(fields) => self.value_columns(&fields)?,
            _ => Vec::new(),
        };
        // Rows leave in the order in which they came, whatever the order of the keys.
        let mut order: Vec<u32> = (0u32..).take(kept.len()).collect();
        order.sort_by_key(|n| sorted.places[kept[*n as usize] as usize]);
        kept = order.iter().map(|n| kept[*n as usize]).collect();
        let n_columns = self.schema.fields().len() - more.len();
        let places: Vec<usize> = (0..n_columns).collect();
        let rows = take_record_batch(&sorted.rows.project(&places)?, &UInt32Array::from(kept))?;
        let mut columns = rows.columns().to_vec();
        let order = UInt32Array::from(order);
        for column in more {
            columns.push(arrow::compute::take(&column, &order, None)?);
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.push(rows);
        Ok(())
    }

    /// All that waits, in batches; before scopes move.
    pub(super) fn take(&mut self, scopes: &Scopes) -> Result<Vec<RecordBatch>> {
        self.finish_values(scopes)?;
        self.n_done = 0;
        Ok(std::mem::take(&mut self.done))
    }
}

fn undeclared(what: &str) -> Error {
    Error::pipeline(format!("{what} are emitted, which is not declared")).with_hint(
        "Say what is emitted where the transform is declared, as with `Declared::emits`.",
    )
}
