//! The keys of both sides as numbers, which are given anew once most keys are gone.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::keys::{Keys, keys_of, normal};

/// The number of a row with a null key, which equals none.
pub(super) const NO_KEY: u32 = u32::MAX;

/// Numbers of keys, from 0 in the order of first sight.
pub(super) struct KeyNumbers {
    types: Vec<DataType>,
    keys: Box<dyn Keys>,
    groups: Vec<usize>,
}

impl KeyNumbers {
    /// Keys of these types, which are plain.
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        Ok(Self {
            types: types.to_vec(),
            keys: keys_of(types)?,
            groups: Vec::new(),
        })
    }

    /// The number of each row's key, the columns of which are `columns`; [`NO_KEY`] where one is null.
    pub(super) fn number(&mut self, rows: &RecordBatch, columns: &[usize]) -> Result<Vec<u32>> {
        let columns: Vec<ArrayRef> = columns
            .iter()
            .zip(&self.types)
            .map(|(&i, to)| {
                let column = rows.column(i);
                if column.data_type() == to {
                    normal(column)
                } else {
                    normal(&cast(column, to)?)
                }
            })
            .collect::<Result<_>>()?;
        let n_rows = rows.num_rows();
        self.keys.number(&columns, n_rows, &mut self.groups)?;
        // There are fewer keys than 32 bits can number.
        let number = |group: &usize| u32::try_from(*group).unwrap_or(NO_KEY);
        let mut numbers: Vec<u32> = self.groups.iter().map(number).collect();
        let nulls = columns.iter().fold(None, |nulls, column| {
            NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref())
        });
        if let Some(nulls) = nulls.filter(|n| n.null_count() > 0) {
            for (number, valid) in numbers.iter_mut().zip(&nulls) {
                if !valid {
                    *number = NO_KEY;
                }
            }
        }
        Ok(numbers)
    }

    /// Says that about so many keys are to come.
    pub(super) fn expect(&mut self, n_keys: usize) {
        self.keys.expect(n_keys);
    }

    /// From now on no key is added: one that is not there has [`NO_KEY`], as one that is null.
    pub(super) fn freeze(&mut self) {
        self.keys.freeze();
    }

    /// How many keys have a number.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Forgets all keys but these, and gives the new number of each old one; [`NO_KEY`] for the forgotten.
    pub(super) fn keep(&mut self, is_kept: &[bool]) -> Result<Vec<u32>> {
        let kept: Vec<usize> = (0..self.keys.len()).filter(|&n| is_kept[n]).collect();
        let mut keys = keys_of(&self.types)?;
        let mut new_numbers = vec![NO_KEY; self.keys.len()];
        if !kept.is_empty() {
            let columns = self.keys.columns_of(&kept)?;
            keys.number(&columns, kept.len(), &mut self.groups)?;
            for (&old, &new) in kept.iter().zip(&self.groups) {
                new_numbers[old] = u32::try_from(new).unwrap_or(NO_KEY);
            }
        }
        self.keys = keys;
        Ok(new_numbers)
    }

    /// How many bytes of memory are kept, about.
    pub(super) fn n_bytes(&self) -> usize {
        self.keys.n_bytes() + self.groups.capacity() * size_of::<usize>()
    }
}

/// Gives rows the new numbers of their keys.
pub(super) fn renumber(keys: &mut [u32], new_numbers: &[u32]) {
    for key in keys {
        if *key != NO_KEY {
            *key = new_numbers[*key as usize];
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Float64Array};
    use arrow::datatypes::TimeUnit;

    use super::*;
    use crate::testing::table;

    /// The numbers of `rows` once those of `first`, which come in two batches, have theirs and no more are added.
    fn found(first: &str, rows: &str) -> Vec<Option<u32>> {
        let (first, rows) = (table(first), table(rows));
        let columns: Vec<usize> = (0..first.num_columns()).collect();
        let types = first.columns().iter().map(|c| c.data_type().clone());
        let mut keys = KeyNumbers::new(&types.collect::<Vec<_>>()).unwrap();
        for part in [first.slice(0, 1), first.slice(1, first.num_rows() - 1)] {
            keys.number(&part, &columns).unwrap();
        }
        keys.freeze();
        let numbers = keys.number(&rows, &columns).unwrap().into_iter();
        numbers.map(|n| (n != NO_KEY).then_some(n)).collect()
    }

    #[test]
    fn a_key_that_was_seen_is_found_by_its_number() {
        assert_eq!(
            found("k: 3, 1, 3, null", "k: 1, 3, 2, null"),
            [Some(1), Some(0), None, None]
        );
        assert_eq!(
            found(
                "k: 1, 1000000000007, -5000000000000, 1",
                "k: -5000000000000, 7, 1, 1000000000007"
            ),
            [Some(2), None, Some(0), Some(1)]
        );
    }

    #[test]
    fn zeros_are_one_key() {
        assert_eq!(
            found("k: 0.0, 1.5, 2.5", "k: -0.0, 2.5, 3.5"),
            [Some(0), Some(2), None]
        );
    }

    #[test]
    fn all_nan_are_one_key() {
        let floats = |of: Vec<f64>| {
            let column: ArrayRef = Arc::new(Float64Array::from(of));
            RecordBatch::try_from_iter([("k", column)]).unwrap()
        };
        let mut keys = KeyNumbers::new(&[DataType::Float64]).unwrap();
        let numbers = keys.number(&floats(vec![1.0, f64::NAN]), &[0]).unwrap();
        assert_eq!(numbers, [0, 1]);
        keys.freeze();
        let numbers = keys.number(&floats(vec![-f64::NAN, 2.0]), &[0]).unwrap();
        assert_eq!(numbers, [1, NO_KEY]);
    }

    /// The type in which both sides are compared is that of the other side, which has no such value.
    #[test]
    fn a_value_beyond_the_type_of_the_comparison_has_no_number() {
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let mut keys = KeyNumbers::new(&[nanoseconds]).unwrap();
        // The first day of 1970 and of 1971, and 9999-12-31.
        let days: ArrayRef = Arc::new(Date32Array::from(vec![0, 365, 2_932_896, 365]));
        let days = RecordBatch::try_from_iter([("k", days)]).unwrap();
        for _ in 0..2 {
            assert_eq!(keys.number(&days, &[0]).unwrap(), [0, 1, NO_KEY, 1]);
            keys.freeze();
        }
    }

    #[test]
    fn long_text_is_compared_whole() {
        assert_eq!(
            found(
                "k: 'short', 'a text longer than a code', null",
                "k: 'a text longer than a code', 'a text longer than a cone', 'short', null"
            ),
            [Some(1), None, Some(0), None]
        );
    }

    #[test]
    fn all_of_several_keys_must_be_equal_and_none_null() {
        assert_eq!(
            found(
                "k: 1, 1, null; l: 'a', 'b', 'a'",
                "k: 1, 1, null, 2; l: 'b', 'a', 'a', 'a'"
            ),
            [Some(1), Some(0), None, None]
        );
    }
}
