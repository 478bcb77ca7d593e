//! One key of a fixed width: numbers, dates, times, compared by their bits.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::near::{Distance, Near};
use super::slots::{EMPTY, Hashed, Slots};
use super::{Keys, NOT_THERE, check_room};
use crate::error::Result;

/// Room for so many values is made at once: few enough not to matter, and more than many columns have.
const FEW: usize = 256;

/// The distinct values of one column, carried as the unsigned integers `T` of the same width.
pub(super) struct FixedKeys<T: ArrowPrimitiveType> {
    data_type: DataType,
    /// As long as the values lie close together; then the slots hold none of them.
    near: Near<T::Native>,
    slots: Slots<T::Native>,
    values: Vec<T::Native>,
    null: Option<usize>,
    is_frozen: bool,
    /// How many values are to come.
    n_expected: usize,
}

impl<T: ArrowPrimitiveType> FixedKeys<T>
where
    T::Native: Hashed + Distance,
{
    pub(super) fn new(data_type: DataType) -> Self {
        Self {
            data_type,
            near: Near::default(),
            slots: Slots::new(),
            values: Vec::new(),
            null: None,
            is_frozen: false,
            n_expected: 0,
        }
    }

    /// The number of each value, to `groups`.
    pub(super) fn number_values(&mut self, values: &[T::Native], groups: &mut Vec<usize>) {
        if self.near.holds(values, self.n_expected) {
            if self.is_frozen {
                return self.near.find(values, groups);
            }
            if self.values.is_empty() {
                self.values
                    .reserve(self.n_expected.max(values.len().min(FEW)));
            }
            return self.near.number(values, &mut self.values, groups);
        }
        if let Some(near) = self.near.give_up() {
            self.move_to_slots(&near);
        }
        let n_expected = std::mem::take(&mut self.n_expected);
        self.slots.make_room(n_expected);
        self.values.reserve(n_expected);
        let is_frozen = self.is_frozen;
        self.slots.find_all(
            values,
            &mut self.values,
            |_, _, _| true,
            |distinct, row| {
                if is_frozen {
                    return EMPTY;
                }
                distinct.push(values[row]);
                u32::try_from(distinct.len() - 1).unwrap_or(u32::MAX)
            },
            |number| groups.push(number),
        );
    }

    /// Puts values that lie close together, with their numbers, where all others are to be.
    fn move_to_slots(&mut self, numbers: &[u32]) {
        let numbers: Vec<u32> = numbers.iter().copied().filter(|n| *n != EMPTY).collect();
        let values: Vec<T::Native> = numbers.iter().map(|n| self.values[*n as usize]).collect();
        let mut state = ();
        let add = |(): &mut (), row: usize| numbers[row];
        self.slots
            .find_all(&values, &mut state, |(), _, _| true, add, |_| {});
    }

    /// The distinct values, by number.
    pub(super) fn values(&self) -> &[T::Native] {
        &self.values
    }

    fn number_nullable(
        &mut self,
        values: &[T::Native],
        nulls: &NullBuffer,
        groups: &mut Vec<usize>,
    ) {
        // Values under a null may be anything, so runs between nulls are looked up.
        let mut row = 0;
        for (start, end) in nulls.valid_slices() {
            self.number_nulls(start - row, groups);
            self.number_values(&values[start..end], groups);
            row = end;
        }
        self.number_nulls(values.len() - row, groups);
    }

    fn number_nulls(&mut self, n: usize, groups: &mut Vec<usize>) {
        if n > 0 {
            let null = match self.is_frozen {
                true => self.null.unwrap_or(NOT_THERE),
                false => *self.null.get_or_insert_with(|| {
                    self.values.push(T::Native::default());
                    self.values.len() - 1
                }),
            };
            groups.resize(groups.len() + n, null);
        }
    }
}

/// Columns of other types of this width as `T`, without a copy.
fn carried<T: ArrowPrimitiveType>(column: &ArrayRef) -> Result<PrimitiveArray<T>> {
    let data = column.to_data().into_builder().data_type(T::DATA_TYPE);
    Ok(PrimitiveArray::from(data.build()?))
}

impl<T: ArrowPrimitiveType> Keys for FixedKeys<T>
where
    T::Native: Hashed + Distance,
{
    fn number(
        &mut self,
        columns: &[ArrayRef],
        n_rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        check_room(self.values.len() + n_rows)?;
        let column = carried::<T>(&columns[0])?;
        groups.clear();
        groups.reserve(column.len());
        match column.nulls().filter(|n| n.null_count() > 0) {
            None => self.number_values(column.values(), groups),
            Some(nulls) => self.number_nullable(column.values(), nulls, groups),
        }
        Ok(())
    }

    fn freeze(&mut self) {
        self.is_frozen = true;
    }

    fn expect(&mut self, n_keys: usize) {
        self.n_expected = self.n_expected.max(n_keys);
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn columns_of(&self, numbers: &[usize]) -> Result<Vec<ArrayRef>> {
        let nulls = self
            .null
            .map(|null| NullBuffer::from_iter(numbers.iter().map(|n| *n != null)));
        let values: Vec<T::Native> = numbers.iter().map(|n| self.values[*n]).collect();
        self.typed(values, nulls)
    }

    fn columns(&self, range: Range<usize>) -> Result<Vec<ArrayRef>> {
        let null = self.null.filter(|n| range.contains(n));
        let nulls = null.map(|null| NullBuffer::from_iter(range.clone().map(|n| n != null)));
        self.typed(self.values[range].to_vec(), nulls)
    }

    fn forget(&mut self) {
        self.near.give_up();
        self.slots = Slots::new();
    }

    fn n_bytes(&self) -> usize {
        self.near.n_bytes() + self.slots.n_bytes() + self.values.capacity() * size_of::<T::Native>()
    }
}

impl<T: ArrowPrimitiveType> FixedKeys<T> {
    fn typed(&self, values: Vec<T::Native>, nulls: Option<NullBuffer>) -> Result<Vec<ArrayRef>> {
        let array: ArrayRef = Arc::new(PrimitiveArray::<T>::new(values.into(), nulls));
        let data = array
            .to_data()
            .into_builder()
            .data_type(self.data_type.clone());
        Ok(vec![make_array(data.build()?)])
    }
}
