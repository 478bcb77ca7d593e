//! A cell into which values are combined as they come.

use std::fmt;

use arrow::datatypes::SchemaRef;

use super::slab::{Content, Slab};
use super::value::SavedValue;
use super::{Cell, CellValue, DeclaredCell, Stored};
use crate::error::Result;
use crate::ops::keyed::heap_bytes::heap_bytes;

/// A cell into which values of type `I` are combined: it keeps an accumulator `A`.
///
/// For the aggregates of the engine, such as a mean or a quantile, see [`Aggregates`](super::Aggregates).
///
/// ```
/// use mainstem_engine::ops::keyed::Combining;
/// const TOTAL: Combining<i64, i64> = Combining::new("total", || 0, |total, more| *total += more);
/// ```
pub struct Combining<I, A> {
    name: &'static str,
    create: fn() -> A,
    add: fn(&mut A, I),
}

impl<I, A> Combining<I, A> {
    /// A cell of this name, whose accumulator is `create()` where nothing has come yet.
    pub const fn new(name: &'static str, create: fn() -> A, add: fn(&mut A, I)) -> Self {
        Self { name, create, add }
    }
}

impl<I, A> fmt::Debug for Combining<I, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Combining({:?})", self.name)
    }
}

impl<I: 'static, A: CellValue> Cell for Combining<I, A> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn declare(&self, _rows: &SchemaRef) -> Result<DeclaredCell> {
        <Self as Stored>::Cells::declare(Self::KIND, self.name)
    }
}

impl<I: 'static, A: CellValue> Stored for Combining<I, A> {
    type Cells = Slab<Accumulated<A>>;
    const KIND: &'static str = "combining";
}

/// What a combining cell holds.
pub(in crate::ops::keyed) struct Accumulated<A>(Option<A>);

impl<A> Default for Accumulated<A> {
    fn default() -> Self {
        Self(None)
    }
}

impl<A: CellValue> Content for Accumulated<A> {
    type Row = SavedValue<A>;
    type RowRef<'a> = SavedValue<&'a A>;

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn n_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, heap_bytes)
    }

    fn save<'a>(&'a self, rows: &mut Vec<SavedValue<&'a A>>) {
        rows.extend(self.0.as_ref().map(SavedValue::of));
    }

    fn restore(&mut self, row: SavedValue<A>) {
        self.0 = Some(row.into_inner());
    }
}

/// The [`Combining`] cell of one key and window.
pub struct CombiningState<'a, I, A> {
    pub(in crate::ops::keyed) slab: &'a mut Slab<Accumulated<A>>,
    pub(in crate::ops::keyed) scope: usize,
    pub(in crate::ops::keyed) create: fn() -> A,
    pub(in crate::ops::keyed) add: fn(&mut A, I),
}

impl<I, A> Combining<I, A> {
    pub(in crate::ops::keyed) fn state<'a>(
        &self,
        slab: &'a mut Slab<Accumulated<A>>,
        scope: usize,
    ) -> CombiningState<'a, I, A> {
        let Self { create, add, .. } = *self;
        CombiningState {
            slab,
            scope,
            create,
            add,
        }
    }
}

impl<I, A: CellValue> CombiningState<'_, I, A> {
    /// Combines a value into the accumulator.
    pub fn add(&mut self, value: I) {
        let cell = self.slab.get_mut(self.scope);
        let before = cell.n_bytes();
        (self.add)(cell.0.get_or_insert_with(self.create), value);
        let after = cell.n_bytes();
        self.slab.n_bytes = self.slab.n_bytes + after - before;
    }

    /// The accumulator, if anything has come.
    pub fn read(&self) -> Option<&A> {
        self.slab.get(self.scope).0.as_ref()
    }

    /// Takes the accumulator out.
    pub fn take(&mut self) -> Option<A> {
        let cell = std::mem::take(self.slab.get_mut(self.scope));
        self.slab.n_bytes -= cell.n_bytes();
        cell.0
    }

    /// Empties the cell.
    pub fn clear(&mut self) {
        self.take();
    }
}
