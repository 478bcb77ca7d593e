//! A cell with values in the order of their times.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use super::slab::{Content, Slab};
use super::{Cell, CellValue, DeclaredCell, Stored};
use crate::error::Result;
use crate::ops::keyed::heap_bytes::heap_bytes;

/// A cell that holds values by event time, in milliseconds; those of one time in the order in which they came.
///
/// To add at the end and to clear from the beginning is cheap, as rows come and expire.
///
/// ```
/// use mainstem_engine::ops::keyed::OrderedList;
/// const READINGS: OrderedList<f64> = OrderedList::new("readings");
/// ```
#[derive(Debug)]
pub struct OrderedList<T> {
    name: &'static str,
    holds: PhantomData<fn() -> T>,
}

impl<T> OrderedList<T> {
    /// A cell of this name.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            holds: PhantomData,
        }
    }
}

impl<T: CellValue> Cell for OrderedList<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn declare(&self, _rows: &SchemaRef) -> Result<DeclaredCell> {
        <Self as Stored>::Cells::declare(Self::KIND, self.name)
    }
}

impl<T: CellValue> Stored for OrderedList<T> {
    type Cells = Slab<InOrder<T>>;
    const KIND: &'static str = "ordered_list";
}

/// What an ordered list holds.
pub(in crate::ops::keyed) struct InOrder<T> {
    values: VecDeque<(i64, T)>,
    n_bytes: usize,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self {
            values: VecDeque::new(),
            n_bytes: 0,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(in crate::ops::keyed) struct SavedAt<T> {
    time: i64,
    value: T,
}

impl<T: CellValue> InOrder<T> {
    fn add(&mut self, time: i64, value: T) {
        self.n_bytes += bytes_at(&value);
        match self.values.back() {
            Some((last, _)) if *last > time => {
                let at = self.values.partition_point(|(t, _)| *t <= time);
                self.values.insert(at, (time, value));
            }
            _ => self.values.push_back((time, value)),
        }
    }

    fn places(&self, times: &impl RangeBounds<i64>) -> Range<usize> {
        let start = match times.start_bound() {
            Bound::Included(start) => self.values.partition_point(|(t, _)| t < start),
            Bound::Excluded(start) => self.values.partition_point(|(t, _)| t <= start),
            Bound::Unbounded => 0,
        };
        let end = match times.end_bound() {
            Bound::Included(end) => self.values.partition_point(|(t, _)| t <= end),
            Bound::Excluded(end) => self.values.partition_point(|(t, _)| t < end),
            Bound::Unbounded => self.values.len(),
        };
        start..end.max(start)
    }
}

fn bytes_at<T: CellValue>(value: &T) -> usize {
    size_of::<(i64, T)>() + heap_bytes(value)
}

impl<T: CellValue> Content for InOrder<T> {
    type Row = SavedAt<T>;
    type RowRef<'a> = SavedAt<&'a T>;

    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    fn save<'a>(&'a self, rows: &mut Vec<SavedAt<&'a T>>) {
        let values = self.values.iter();
        rows.extend(values.map(|(time, value)| SavedAt { time: *time, value }));
    }

    fn restore(&mut self, row: SavedAt<T>) {
        self.add(row.time, row.value);
    }
}

/// The [`OrderedList`] of one key and window.
pub struct OrderedListState<'a, T> {
    pub(in crate::ops::keyed) slab: &'a mut Slab<InOrder<T>>,
    pub(in crate::ops::keyed) scope: usize,
}

impl<T: CellValue> OrderedListState<'_, T> {
    /// Adds a value behind those of the same time and of earlier ones.
    pub fn add(&mut self, time: i64, value: T) {
        let cell = self.slab.get_mut(self.scope);
        let before = cell.n_bytes;
        cell.add(time, value);
        let after = cell.n_bytes;
        self.slab.n_bytes += after - before;
    }

    /// All values with their times.
    pub fn read(&self) -> impl DoubleEndedIterator<Item = (i64, &T)> + ExactSizeIterator {
        self.read_range(..)
    }

    /// The values with times in this range, such as `10..20` for those of at least 10 and less than 20.
    pub fn read_range(
        &self,
        times: impl RangeBounds<i64>,
    ) -> impl DoubleEndedIterator<Item = (i64, &T)> + ExactSizeIterator {
        let cell = self.slab.get(self.scope);
        let values = cell.values.range(cell.places(&times));
        values.map(|(time, value)| (*time, value))
    }

    /// Takes out the values with times in this range.
    pub fn clear_range(&mut self, times: impl RangeBounds<i64>) {
        let cell = self.slab.get_mut(self.scope);
        let places = cell.places(&times);
        let cleared: usize = cell
            .values
            .drain(places)
            .map(|(_, value)| bytes_at(&value))
            .sum();
        cell.n_bytes -= cleared;
        self.slab.n_bytes -= cleared;
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.slab.get(self.scope).values.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Empties the cell.
    pub fn clear(&mut self) {
        let cell = std::mem::take(self.slab.get_mut(self.scope));
        self.slab.n_bytes -= cell.n_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;
    use proptest::prelude::*;
    use std::sync::Arc;

    #[derive(Clone, Debug)]
    enum Change {
        Add(i64),
        Clear(i64, i64),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (0i64..30).prop_map(Change::Add),
            1 => (0i64..30, 0i64..30).prop_map(|(from, to)| Change::Clear(from, to)),
        ]
    }

    proptest! {
        /// Against a plain list that is sorted anew each time; a range includes its start and not its end.
        #[test]
        fn values_stand_in_the_order_of_time_and_of_arrival(
            changes in prop::collection::vec(change(), 0..60),
            from in 0i64..30,
            to in 0i64..30,
        ) {
            let schema = Arc::new(Schema::empty());
            let declared = OrderedList::<String>::new("list").declare(&schema).unwrap();
            let mut cells = (declared.build)().unwrap();
            cells.make_room(1);
            let slab = cells.as_any().downcast_mut::<Slab<InOrder<String>>>().unwrap();
            let mut list = OrderedListState { slab, scope: 0 };
            let mut plain: Vec<(i64, String)> = Vec::new();
            for (n, change) in changes.into_iter().enumerate() {
                match change {
                    Change::Add(time) => {
                        list.add(time, n.to_string());
                        plain.push((time, n.to_string()));
                        plain.sort_by_key(|(time, _)| *time);
                    }
                    Change::Clear(from, to) => {
                        list.clear_range(from..to);
                        plain.retain(|(time, _)| !(from..to).contains(time));
                    }
                }
            }
            let as_read = |read: &mut dyn Iterator<Item = (i64, &String)>| -> Vec<(i64, String)> {
                read.map(|(time, value)| (time, value.clone())).collect()
            };
            prop_assert_eq!(as_read(&mut list.read()), plain.clone());
            let within = plain.iter().filter(|(time, _)| (from..to).contains(time)).cloned();
            prop_assert_eq!(as_read(&mut list.read_range(from..to)), within.collect::<Vec<_>>());
            let n_bytes: usize = plain.iter().map(|(_, value)| bytes_at(value)).sum();
            prop_assert_eq!(list.slab.n_bytes, n_bytes);
            list.clear();
            prop_assert_eq!(list.slab.n_bytes, 0);
        }
    }
}
