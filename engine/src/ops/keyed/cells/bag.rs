//! A cell with any number of values, in the order in which they came; of a Rust type, or rows.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StructArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::slab::{Content, Slab};
use super::value::SavedValue;
use super::{Cell, CellValue, Cells, DeclaredCell, Stored};
use crate::error::{Error, Result};
use crate::ops::keyed::heap_bytes::bytes_of;

/// A cell that holds any number of values, in the order in which they came.
///
/// ```
/// use mainstem_engine::ops::keyed::Bag;
/// const WAITING: Bag<String> = Bag::new("waiting");
/// ```
#[derive(Debug)]
pub struct Bag<T> {
    name: &'static str,
    holds: PhantomData<fn() -> T>,
}

impl<T> Bag<T> {
    /// A cell of this name.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            holds: PhantomData,
        }
    }
}

impl<T: CellValue> Cell for Bag<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn declare(&self, _rows: &SchemaRef) -> Result<DeclaredCell> {
        <Self as Stored>::Cells::declare(Self::KIND, self.name)
    }
}

impl<T: CellValue> Stored for Bag<T> {
    type Cells = Slab<Many<T>>;
    const KIND: &'static str = "bag";
}

/// What a bag holds.
pub(in crate::ops::keyed) struct Many<T> {
    values: Vec<T>,
    n_bytes: usize,
}

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            n_bytes: 0,
        }
    }
}

impl<T: CellValue> Content for Many<T> {
    type Row = SavedValue<T>;
    type RowRef<'a> = SavedValue<&'a T>;

    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    fn save<'a>(&'a self, rows: &mut Vec<SavedValue<&'a T>>) {
        rows.extend(self.values.iter().map(SavedValue::of));
    }

    fn restore(&mut self, row: SavedValue<T>) {
        let value = row.into_inner();
        self.n_bytes += bytes_of(&value);
        self.values.push(value);
    }
}

/// The [`Bag`] of one key and window.
pub struct BagState<'a, T> {
    pub(in crate::ops::keyed) slab: &'a mut Slab<Many<T>>,
    pub(in crate::ops::keyed) scope: usize,
}

impl<T: CellValue> BagState<'_, T> {
    /// Adds a value at the end.
    pub fn add(&mut self, value: T) {
        let n_bytes = bytes_of(&value);
        let bag = self.slab.get_mut(self.scope);
        bag.values.push(value);
        bag.n_bytes += n_bytes;
        self.slab.n_bytes += n_bytes;
    }

    /// Adds values at the end.
    pub fn extend(&mut self, values: impl IntoIterator<Item = T>) {
        values.into_iter().for_each(|value| self.add(value));
    }

    /// The values.
    pub fn read(&self) -> &[T] {
        &self.slab.get(self.scope).values
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Takes all values out.
    pub fn take(&mut self) -> Vec<T> {
        let bag = std::mem::take(self.slab.get_mut(self.scope));
        self.slab.n_bytes -= bag.n_bytes;
        bag.values
    }

    /// Empties the cell.
    pub fn clear(&mut self) {
        self.take();
    }
}

/// A cell that holds rows like those that come in, in the order in which they came.
///
/// For transforms that do not know the columns of their rows.
#[derive(Debug)]
pub struct RowBag {
    name: &'static str,
}

impl RowBag {
    /// A cell of this name.
    pub const fn new(name: &'static str) -> Self {
        Self { name }
    }
}

impl Cell for RowBag {
    fn name(&self) -> &'static str {
        self.name
    }

    fn declare(&self, rows: &SchemaRef) -> Result<DeclaredCell> {
        let schema = Arc::clone(rows);
        let row = DataType::Struct(rows.fields().clone());
        Ok(DeclaredCell {
            name: self.name,
            kind: Self::KIND,
            fields: vec![Arc::new(Field::new("row", row, false))],
            build: Arc::new(move || {
                Ok(Box::new(RowBags {
                    schema: Arc::clone(&schema),
                    bags: Vec::new(),
                    n_bytes: 0,
                }))
            }),
        })
    }
}

impl Stored for RowBag {
    type Cells = RowBags;
    const KIND: &'static str = "row_bag";
}

/// The row bags of all scopes.
pub(in crate::ops::keyed) struct RowBags {
    schema: SchemaRef,
    bags: Vec<Vec<RecordBatch>>,
    n_bytes: usize,
}

impl RowBags {
    fn take(&mut self, scope: usize) -> Vec<RecordBatch> {
        let bag = std::mem::take(&mut self.bags[scope]);
        self.n_bytes -= bag
            .iter()
            .map(RecordBatch::get_array_memory_size)
            .sum::<usize>();
        bag
    }

    fn add(&mut self, scope: usize, rows: RecordBatch) {
        self.n_bytes += rows.get_array_memory_size();
        self.bags[scope].push(rows);
    }
}

impl Cells for RowBags {
    fn make_room(&mut self, n_scopes: usize) {
        if self.bags.len() < n_scopes {
            self.bags.resize_with(n_scopes, Vec::new);
        }
    }

    fn is_empty(&self, scope: usize) -> bool {
        self.bags[scope].is_empty()
    }

    fn clear(&mut self, scope: usize) {
        self.take(scope);
    }

    fn keep(&mut self, scopes: &[usize]) {
        let kept = scopes
            .iter()
            .map(|scope| std::mem::take(&mut self.bags[*scope]));
        self.bags = kept.collect();
    }

    fn n_bytes(&self) -> usize {
        self.bags.capacity() * size_of::<Vec<RecordBatch>>() + self.n_bytes
    }

    fn save(&mut self, scopes: &[usize]) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        let mut places = Vec::new();
        let mut chunks = Vec::new();
        for (place, &scope) in (0u32..).zip(scopes) {
            for chunk in &self.bags[scope] {
                places.resize(places.len() + chunk.num_rows(), place);
                chunks.push(chunk);
            }
        }
        let rows = concat_batches(&self.schema, chunks)?;
        Ok((places, vec![Arc::new(StructArray::from(rows))]))
    }

    fn restore(&mut self, scopes: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let rows = columns
            .first()
            .and_then(|column| column.as_struct_opt())
            .ok_or_else(|| Error::data("the saved rows of a row bag are no structs"))?;
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec())?;
        let mut start = 0;
        for run in scopes.chunk_by(|a, b| a == b) {
            self.add(run[0], copied(&rows, start, run.len())?);
            start += run.len();
        }
        Ok(())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Some rows alone: a slice would keep all of the batch in memory.
fn copied(rows: &RecordBatch, start: usize, n_rows: usize) -> Result<RecordBatch> {
    let end = u32::try_from(start + n_rows).map_err(|_| Error::bug("a batch of too many rows"))?;
    let start = u32::try_from(start).map_err(|_| Error::bug("a batch of too many rows"))?;
    Ok(take_record_batch(
        rows,
        &UInt32Array::from_iter_values(start..end),
    )?)
}

/// The [`RowBag`] of one key and window.
pub struct RowBagState<'a> {
    pub(in crate::ops::keyed) bags: &'a mut RowBags,
    pub(in crate::ops::keyed) scope: usize,
}

impl RowBagState<'_> {
    /// Adds rows at the end.
    ///
    /// # Errors
    /// If they have other columns than the rows that come in.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let rows = RecordBatch::try_new(Arc::clone(&self.bags.schema), rows.columns().to_vec())?;
        if rows.num_rows() > 0 {
            let rows = copied(&rows, 0, rows.num_rows())?;
            self.bags.add(self.scope, rows);
        }
        Ok(())
    }

    /// The rows.
    ///
    /// # Errors
    /// If they are more than a batch can hold.
    pub fn read(&self) -> Result<RecordBatch> {
        Ok(concat_batches(
            &self.bags.schema,
            &self.bags.bags[self.scope],
        )?)
    }

    /// How many rows.
    pub fn n_rows(&self) -> usize {
        self.bags.bags[self.scope]
            .iter()
            .map(RecordBatch::num_rows)
            .sum()
    }

    /// Takes all rows out.
    ///
    /// # Errors
    /// If they are more than a batch can hold.
    pub fn take(&mut self) -> Result<RecordBatch> {
        let chunks = self.bags.take(self.scope);
        Ok(concat_batches(&self.bags.schema, &chunks)?)
    }

    /// Empties the cell.
    pub fn clear(&mut self) {
        self.bags.take(self.scope);
    }
}
