//! A cell with distinct values.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use arrow::datatypes::SchemaRef;

use super::slab::{Content, Slab};
use super::value::SavedValue;
use super::{Cell, CellValue, DeclaredCell, Stored};
use crate::error::Result;
use crate::ops::keyed::heap_bytes::bytes_of;

/// A cell that holds distinct values, in their order.
///
/// ```
/// use mainstem_engine::ops::keyed::Set;
/// const PAGES: Set<String> = Set::new("pages");
/// ```
#[derive(Debug)]
pub struct Set<T> {
    name: &'static str,
    holds: PhantomData<fn() -> T>,
}

impl<T> Set<T> {
    /// A cell of this name.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            holds: PhantomData,
        }
    }
}

impl<T: CellValue + Ord> Cell for Set<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn declare(&self, _rows: &SchemaRef) -> Result<DeclaredCell> {
        <Self as Stored>::Cells::declare(Self::KIND, self.name)
    }
}

impl<T: CellValue + Ord> Stored for Set<T> {
    type Cells = Slab<Distinct<T>>;
    const KIND: &'static str = "set";
}

/// What a set holds.
pub(in crate::ops::keyed) struct Distinct<T> {
    values: BTreeSet<T>,
    n_bytes: usize,
}

impl<T> Default for Distinct<T> {
    fn default() -> Self {
        Self {
            values: BTreeSet::new(),
            n_bytes: 0,
        }
    }
}

impl<T: CellValue + Ord> Content for Distinct<T> {
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
        let n_bytes = bytes_of(&value);
        if self.values.insert(value) {
            self.n_bytes += n_bytes;
        }
    }
}

/// The [`Set`] of one key and window.
pub struct SetState<'a, T> {
    pub(in crate::ops::keyed) slab: &'a mut Slab<Distinct<T>>,
    pub(in crate::ops::keyed) scope: usize,
}

impl<T: CellValue + Ord> SetState<'_, T> {
    /// Adds a value; false if it was there.
    pub fn add(&mut self, value: T) -> bool {
        let n_bytes = bytes_of(&value);
        let set = self.slab.get_mut(self.scope);
        let is_new = set.values.insert(value);
        if is_new {
            set.n_bytes += n_bytes;
            self.slab.n_bytes += n_bytes;
        }
        is_new
    }

    /// Takes a value out; false if it was not there.
    pub fn remove(&mut self, value: &T) -> bool {
        let set = self.slab.get_mut(self.scope);
        let Some(value) = set.values.take(value) else {
            return false;
        };
        let n_bytes = bytes_of(&value);
        set.n_bytes -= n_bytes;
        self.slab.n_bytes -= n_bytes;
        true
    }

    /// The values.
    pub fn read(&self) -> &BTreeSet<T> {
        &self.slab.get(self.scope).values
    }

    /// True if the value is there.
    pub fn contains(&self, value: &T) -> bool {
        self.read().contains(value)
    }

    /// Takes all values out.
    pub fn take(&mut self) -> BTreeSet<T> {
        let set = std::mem::take(self.slab.get_mut(self.scope));
        self.slab.n_bytes -= set.n_bytes;
        set.values
    }

    /// Empties the cell.
    pub fn clear(&mut self) {
        self.take();
    }
}
