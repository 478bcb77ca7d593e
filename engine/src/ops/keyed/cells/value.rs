//! A cell with one value or none.

use std::marker::PhantomData;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use super::slab::{Content, Slab};
use super::{Cell, CellValue, DeclaredCell, Stored};
use crate::error::Result;
use crate::ops::keyed::heap_bytes::heap_bytes;

/// A cell that holds one value, or none.
///
/// ```
/// use mainstem_engine::ops::keyed::Value;
/// const LAST_PRICE: Value<f64> = Value::new("last_price");
/// ```
#[derive(Debug)]
pub struct Value<T> {
    name: &'static str,
    holds: PhantomData<fn() -> T>,
}

impl<T> Value<T> {
    /// A cell of this name.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            holds: PhantomData,
        }
    }
}

impl<T: CellValue> Cell for Value<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn declare(&self, _rows: &SchemaRef) -> Result<DeclaredCell> {
        <Self as Stored>::Cells::declare(Self::KIND, self.name)
    }
}

impl<T: CellValue> Stored for Value<T> {
    type Cells = Slab<One<T>>;
    const KIND: &'static str = "value";
}

/// What a value cell holds.
pub(in crate::ops::keyed) struct One<T>(Option<T>);

impl<T> Default for One<T> {
    fn default() -> Self {
        Self(None)
    }
}

#[derive(Serialize, Deserialize)]
pub(in crate::ops::keyed) struct SavedValue<T> {
    value: T,
}

impl<T> SavedValue<T> {
    pub(super) fn of(value: T) -> Self {
        Self { value }
    }

    pub(super) fn into_inner(self) -> T {
        self.value
    }
}

impl<T: CellValue> Content for One<T> {
    type Row = SavedValue<T>;
    type RowRef<'a> = SavedValue<&'a T>;

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn n_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, heap_bytes)
    }

    fn save<'a>(&'a self, rows: &mut Vec<SavedValue<&'a T>>) {
        rows.extend(self.0.as_ref().map(SavedValue::of));
    }

    fn restore(&mut self, row: SavedValue<T>) {
        self.0 = Some(row.value);
    }
}

/// The [`Value`] of one key and window.
pub struct ValueState<'a, T> {
    pub(in crate::ops::keyed) slab: &'a mut Slab<One<T>>,
    pub(in crate::ops::keyed) scope: usize,
}

impl<T: CellValue> ValueState<'_, T> {
    /// The value, if there is one.
    pub fn read(&self) -> Option<&T> {
        self.slab.get(self.scope).0.as_ref()
    }

    /// Sets the value.
    pub fn write(&mut self, value: T) {
        self.change(|held| *held = Some(value));
    }

    /// Takes the value out.
    pub fn take(&mut self) -> Option<T> {
        self.change(Option::take)
    }

    /// Changes the value in its place, begun with `first` where there is none.
    pub fn update<R>(&mut self, first: T, change: impl FnOnce(&mut T) -> R) -> R {
        self.change(|held| change(held.get_or_insert(first)))
    }

    /// Empties the cell.
    pub fn clear(&mut self) {
        self.take();
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut Option<T>) -> R) -> R {
        let cell = self.slab.get_mut(self.scope);
        let before = cell.n_bytes();
        let result = change(&mut cell.0);
        let after = cell.n_bytes();
        self.slab.n_bytes = self.slab.n_bytes + after - before;
        result
    }
}
