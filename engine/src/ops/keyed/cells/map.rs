//! A cell with values by key.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use super::slab::{Content, Slab};
use super::{Cell, CellValue, DeclaredCell, Stored};
use crate::error::Result;
use crate::ops::keyed::heap_bytes::bytes_of;

/// A cell that holds values by a key of their own, in the order of the keys.
///
/// ```
/// use mainstem_engine::ops::keyed::Map;
/// const STOCK_BY_SHOP: Map<String, i64> = Map::new("stock_by_shop");
/// ```
#[derive(Debug)]
pub struct Map<K, V> {
    name: &'static str,
    holds: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Map<K, V> {
    /// A cell of this name.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            holds: PhantomData,
        }
    }
}

impl<K: CellValue + Ord, V: CellValue> Cell for Map<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn declare(&self, _rows: &SchemaRef) -> Result<DeclaredCell> {
        <Self as Stored>::Cells::declare(Self::KIND, self.name)
    }
}

impl<K: CellValue + Ord, V: CellValue> Stored for Map<K, V> {
    type Cells = Slab<Entries<K, V>>;
    const KIND: &'static str = "map";
}

/// What a map holds.
pub(in crate::ops::keyed) struct Entries<K, V> {
    values: BTreeMap<K, V>,
    n_bytes: usize,
}

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            n_bytes: 0,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(in crate::ops::keyed) struct SavedEntry<K, V> {
    entry_key: K,
    value: V,
}

impl<K: CellValue + Ord, V: CellValue> Entries<K, V> {
    fn put(&mut self, key: K, value: V) -> Option<V> {
        let key_bytes = bytes_of(&key);
        self.n_bytes += bytes_of(&value);
        let old = self.values.insert(key, value);
        match &old {
            Some(old) => self.n_bytes -= bytes_of(old),
            None => self.n_bytes += key_bytes,
        }
        old
    }
}

impl<K: CellValue + Ord, V: CellValue> Content for Entries<K, V> {
    type Row = SavedEntry<K, V>;
    type RowRef<'a> = SavedEntry<&'a K, &'a V>;

    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    fn save<'a>(&'a self, rows: &mut Vec<SavedEntry<&'a K, &'a V>>) {
        let entries = self.values.iter();
        rows.extend(entries.map(|(entry_key, value)| SavedEntry { entry_key, value }));
    }

    fn restore(&mut self, row: SavedEntry<K, V>) {
        self.put(row.entry_key, row.value);
    }
}

/// The [`Map`] of one key and window.
pub struct MapState<'a, K, V> {
    pub(in crate::ops::keyed) slab: &'a mut Slab<Entries<K, V>>,
    pub(in crate::ops::keyed) scope: usize,
}

impl<K: CellValue + Ord, V: CellValue> MapState<'_, K, V> {
    /// The value of a key, if there is one.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.read().get(key)
    }

    /// Sets the value of a key, and gives the one it replaces.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        self.change(|entries| entries.put(key, value))
    }

    /// Takes the value of a key out, if there is one.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.change(|entries| {
            let (key, value) = entries.values.remove_entry(key)?;
            entries.n_bytes -= bytes_of(&key) + bytes_of(&value);
            Some(value)
        })
    }

    /// The values by key.
    pub fn read(&self) -> &BTreeMap<K, V> {
        &self.slab.get(self.scope).values
    }

    /// Takes all values out.
    pub fn take(&mut self) -> BTreeMap<K, V> {
        self.change(std::mem::take).values
    }

    /// Empties the cell.
    pub fn clear(&mut self) {
        self.take();
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut Entries<K, V>) -> R) -> R {
        let cell = self.slab.get_mut(self.scope);
        let before = cell.n_bytes;
        let result = change(cell);
        let after = cell.n_bytes;
        self.slab.n_bytes = self.slab.n_bytes + after - before;
        result
    }
}
