//! Columns put together from rows of many batches.

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::error::Result;

/// The place of a row: a batch and the row in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowAt {
    pub(super) chunk: u32,
    pub(super) row: u32,
}

impl RowAt {
    /// No row: all columns are null there.
    pub(super) const NONE: Self = Self {
        chunk: u32::MAX,
        row: u32::MAX,
    };

    pub(super) fn new(chunk: usize, row: usize) -> Self {
        // Batches and their rows are counted in 32 bits, as in Arrow's own indices.
        let narrow = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            chunk: narrow(chunk),
            row: narrow(row),
        }
    }

    /// The same row, where so many batches stand before those it was counted in.
    pub(super) fn after(self, n_chunks: usize) -> Self {
        Self::new(self.chunk as usize + n_chunks, self.row as usize)
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// Rows to be taken from some batches of one schema.
pub(super) struct Gather<'a> {
    chunks: Vec<&'a RecordBatch>,
    places: Places,
}

enum Places {
    /// All rows of the one batch, in their order.
    All,
    /// Rows of one batch; null for no row.
    One(UInt32Array),
    /// By batch and row; no row is in a batch after the last.
    Many(Vec<(usize, usize)>),
    /// No row at all, so many times.
    None(usize),
}

impl<'a> Gather<'a> {
    /// All rows of a batch.
    pub(super) fn all(rows: &'a RecordBatch) -> Self {
        Self {
            chunks: vec![rows],
            places: Places::All,
        }
    }

    /// These rows of these batches.
    pub(super) fn new(chunks: &'a [RecordBatch], rows: &[RowAt]) -> Self {
        let mut used: Vec<u32> = Vec::new();
        let mut place = vec![usize::MAX; chunks.len()];
        for at in rows.iter().filter(|at| !at.is_none()) {
            let slot = &mut place[at.chunk as usize];
            if *slot == usize::MAX {
                *slot = used.len();
                used.push(at.chunk);
            }
        }
        let places = match used.as_slice() {
            [] => Places::None(rows.len()),
            [_] if rows.iter().any(|at| at.is_none()) => {
                let row = |at: &RowAt| (!at.is_none()).then_some(at.row);
                Places::One(rows.iter().map(row).collect())
            }
            [_] => Places::One(UInt32Array::from_iter_values(rows.iter().map(|at| at.row))),
            _ => {
                let none = (used.len(), 0);
                let of = |at: &RowAt| match at.is_none() {
                    true => none,
                    false => (place[at.chunk as usize], at.row as usize),
                };
                Places::Many(rows.iter().map(of).collect())
            }
        };
        Self {
            chunks: used.iter().map(|&n| &chunks[n as usize]).collect(),
            places,
        }
    }

    /// A column of the rows.
    pub(super) fn column(&self, i: usize, data_type: &DataType) -> Result<ArrayRef> {
        Ok(match &self.places {
            Places::None(n_rows) => new_null_array(data_type, *n_rows),
            Places::All => ArrayRef::clone(self.chunks[0].column(i)),
            Places::One(rows) => take(self.chunks[0].column(i), rows, None)?,
            Places::Many(places) => {
                let null = new_null_array(data_type, 1);
                let mut arrays: Vec<&dyn Array> =
                    self.chunks.iter().map(|c| &**c.column(i)).collect();
                arrays.push(&*null);
                interleave(&arrays, places)?
            }
        })
    }

    /// All columns of the rows.
    pub(super) fn rows(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let columns = schema.fields().iter().enumerate();
        let columns = columns.map(|(i, field)| self.column(i, field.data_type()));
        let n_rows = match &self.places {
            Places::All => self.chunks[0].num_rows(),
            Places::One(rows) => rows.len(),
            Places::Many(places) => places.len(),
            Places::None(n_rows) => *n_rows,
        };
        record_batch(schema, columns.collect::<Result<_>>()?, n_rows)
    }
}

/// A batch of columns, of which there may be none.
pub(super) fn record_batch(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    n_rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    Ok(RecordBatch::try_new_with_options(
        SchemaRef::clone(schema),
        columns,
        &options,
    )?)
}

/// The rows of all batches, which have one schema, one after the other.
pub(super) fn concat_rows(schema: &SchemaRef, chunks: &[RecordBatch]) -> Result<RecordBatch> {
    if let [one] = chunks {
        return Ok(one.clone());
    }
    let columns = (0..schema.fields().len()).map(|i| {
        let arrays: Vec<&dyn Array> = chunks.iter().map(|c| &**c.column(i)).collect();
        concat(&arrays)
    });
    let n_rows = chunks.iter().map(RecordBatch::num_rows).sum();
    match chunks.is_empty() {
        true => Ok(RecordBatch::new_empty(SchemaRef::clone(schema))),
        false => record_batch(schema, columns.collect::<Result<_, _>>()?, n_rows),
    }
}

/// How many bytes the rows fill; of shared buffers, only the part that they use.
pub(super) fn n_bytes(rows: &RecordBatch) -> u64 {
    let columns = rows.columns().iter();
    let sizes = columns.map(|c| c.to_data().get_slice_memory_size().unwrap_or(0));
    sizes.sum::<usize>() as u64
}
