//! What a keyed transform keeps of each key and window.
//!
//! ```text
//! spec (a constant)            slab (on one worker)                 saved
//! Value::<i64>::new("seen") ─▶ cell of scope 0, 1, 2, …          ─▶ rows: key, window, value
//! ```
//!
//! A cell holds Rust values, which serde turns into Arrow columns and back.

mod aggregates;
mod bag;
mod combining;
mod map;
mod ordered_list;
mod set;
mod slab;
mod value;

pub use aggregates::{Aggregates, AggregatesState};
pub use bag::{Bag, BagState, RowBag, RowBagState};
pub use combining::{Combining, CombiningState};
pub use map::{Map, MapState};
pub use ordered_list::{OrderedList, OrderedListState};
pub use set::{Set, SetState};
pub use value::{Value, ValueState};

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, SchemaRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;

/// What a cell may hold: anything that serde writes and reads as an Arrow column.
pub trait CellValue: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> CellValue for T {}

/// A cell to be kept for each key and window: a [`Value`], [`Bag`], [`Set`], [`Map`], [`OrderedList`],
/// [`Combining`] value, [`Aggregates`], or a [`RowBag`].
pub trait Cell {
    /// The name, the same in saved state.
    fn name(&self) -> &'static str;

    /// What the cell is, for a transform that takes in rows of this schema.
    ///
    /// # Errors
    /// If the values cannot be columns.
    fn declare(&self, rows: &SchemaRef) -> Result<DeclaredCell>;
}

/// A cell that has been checked, and can be kept.
#[derive(Clone)]
pub struct DeclaredCell {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    /// The columns of its saved rows.
    pub(super) fields: Vec<FieldRef>,
    pub(super) build: Arc<dyn Fn() -> Result<Box<dyn Cells>> + Send + Sync>,
}

impl fmt::Debug for DeclaredCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)
    }
}

/// How the cells of a kind are stored.
pub(super) trait Stored {
    type Cells: Cells;
    const KIND: &'static str;
}

/// The cells of one name, of all scopes of a worker.
pub(super) trait Cells: Any + Send {
    /// Makes room for scopes with numbers less than `n_scopes`.
    fn make_room(&mut self, n_scopes: usize);

    fn is_empty(&self, scope: usize) -> bool;

    fn clear(&mut self, scope: usize);

    /// Keeps these scopes, in this order.
    fn keep(&mut self, scopes: &[usize]);

    fn n_bytes(&self) -> usize;

    /// The rows of these scopes as columns, with the place in `scopes` that each row belongs to.
    fn save(&mut self, scopes: &[usize]) -> Result<(Vec<u32>, Vec<ArrayRef>)>;

    /// Takes in rows as they were saved, of these scopes.
    fn restore(&mut self, scopes: &[usize], columns: &[ArrayRef]) -> Result<()>;

    fn as_any(&mut self) -> &mut dyn Any;
}

macro_rules! debug {
    ($($state:ident<$($of:ident),*>),* $(,)?) => {$(
        impl<$($of),*> fmt::Debug for $state<'_, $($of),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($state)).finish_non_exhaustive()
            }
        }
    )*};
}
debug!(
    AggregatesState<>, BagState<T>, CombiningState<I, A>, MapState<K, V>, OrderedListState<T>,
    RowBagState<>, SetState<T>, ValueState<T>,
);
