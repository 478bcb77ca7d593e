//! One key of a fixed width: numbers, dates, times, compared by their bits.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::Keys;
use crate::error::{Error, Result};

/// The distinct values of one column, carried as the unsigned integers `T` of the same width.
pub(super) struct FixedKeys<T: ArrowPrimitiveType> {
    data_type: DataType,
    table: HashTable<(T::Native, u32)>,
    values: Vec<T::Native>,
    null: Option<usize>,
}

impl<T: ArrowPrimitiveType> FixedKeys<T>
where
    T::Native: Into<u64> + Eq,
{
    pub(super) fn new(data_type: DataType) -> Self {
        Self {
            data_type,
            table: HashTable::new(),
            values: Vec::new(),
            null: None,
        }
    }

    #[inline]
    fn find(&mut self, value: T::Native) -> usize {
        let next = self.values.len();
        let same = |(seen, _): &(T::Native, u32)| *seen == value;
        match self.table.entry(hash(value), same, |(seen, _)| hash(*seen)) {
            Entry::Occupied(entry) => entry.get().1 as usize,
            Entry::Vacant(entry) => {
                entry.insert((value, u32::try_from(next).unwrap_or(u32::MAX)));
                self.values.push(value);
                next
            }
        }
    }

    fn find_null(&mut self) -> usize {
        let next = self.values.len();
        *self.null.get_or_insert_with(|| {
            self.values.push(T::Native::default());
            next
        })
    }
}

/// Both halves of the product with an odd constant, so that low and high bits depend on all bits.
#[inline]
fn hash(value: impl Into<u64>) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let product = u128::from(value.into() ^ 0x2545_F491_4F6C_DD1D) * u128::from(ODD);
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    let low = product as u64;
    low ^ (product >> 64) as u64
}

/// Columns of other types of this width as `T`, without a copy.
fn carried<T: ArrowPrimitiveType>(column: &ArrayRef) -> Result<PrimitiveArray<T>> {
    let data = column.to_data().into_builder().data_type(T::DATA_TYPE);
    Ok(PrimitiveArray::from(data.build()?))
}

impl<T: ArrowPrimitiveType> Keys for FixedKeys<T>
where
    T::Native: Into<u64> + Eq,
{
    fn number(
        &mut self,
        columns: &[ArrayRef],
        _n_rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        let column = carried::<T>(&columns[0])?;
        if self.values.len() + column.len() >= u32::MAX as usize {
            return Err(Error::data("one worker has more than 4 billion groups")
                .with_hint("Run with more workers."));
        }
        groups.clear();
        groups.reserve(column.len());
        match column.nulls().filter(|n| n.null_count() > 0) {
            None => {
                for &value in column.values() {
                    let group = self.find(value);
                    groups.push(group);
                }
            }
            Some(nulls) => {
                for (&value, valid) in column.values().iter().zip(nulls) {
                    let group = if valid {
                        self.find(value)
                    } else {
                        self.find_null()
                    };
                    groups.push(group);
                }
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn columns(&self, range: Range<usize>) -> Result<Vec<ArrayRef>> {
        let nulls = self
            .null
            .filter(|n| range.contains(n))
            .map(|null| NullBuffer::from_iter(range.clone().map(|group| group != null)));
        let values = self.values[range].to_vec();
        let array: ArrayRef = Arc::new(PrimitiveArray::<T>::new(values.into(), nulls));
        let data = array
            .to_data()
            .into_builder()
            .data_type(self.data_type.clone());
        Ok(vec![make_array(data.build()?)])
    }

    fn forget(&mut self) {
        self.table = HashTable::new();
    }

    fn n_bytes(&self) -> usize {
        self.table.allocation_size() + self.values.capacity() * size_of::<T::Native>()
    }
}
