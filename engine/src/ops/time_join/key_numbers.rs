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
