//! How many different values there are, where rows can be taken back.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use super::aggregate::{Changed, Retractable, column};
use crate::error::{Error, Result};
use crate::keys::normal;

/// What an entry takes besides the bytes of its value, about.
const ENTRY_BYTES: usize = 32;

/// The number of different values of each group: how often each is there is kept.
pub(super) struct DistinctCount {
    converter: RowConverter,
    values: Vec<HashMap<Box<[u8]>, i64>>,
    n_bytes: usize,
}

impl DistinctCount {
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        Ok(Self {
            converter: RowConverter::new(vec![SortField::new(data_type.clone())])?,
            values: Vec::new(),
            n_bytes: 0,
        })
    }

    fn add(&mut self, group: usize, value: &[u8], weight: i64) {
        let values = &mut self.values[group];
        match values.get_mut(value) {
            Some(n) if *n + weight == 0 => {
                values.remove(value);
                self.n_bytes -= value.len() + ENTRY_BYTES;
            }
            Some(n) => *n += weight,
            None => {
                values.insert(value.into(), weight);
                self.n_bytes += value.len() + ENTRY_BYTES;
            }
        }
    }

    fn count(&self, group: usize) -> Result<i64> {
        i64::try_from(self.values[group].len())
            .map_err(|_| Error::bug("a group has more than 2^63 values"))
    }
}

impl Retractable for DistinctCount {
    fn grow(&mut self, n_groups: usize) {
        self.values.resize_with(n_groups, HashMap::new);
    }

    fn change(&mut self, changed: &Changed<'_>) -> Result<(ArrayRef, ArrayRef)> {
        let rows = self.converter.convert_columns(&[normal(changed.values)?])?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for run in changed.runs {
            before.push(self.count(run.group)?);
            for row in run.rows.clone() {
                let weight = changed.weight(row);
                if weight != 0 {
                    self.add(run.group, rows.row(row).as_ref(), weight);
                }
            }
            after.push(self.count(run.group)?);
        }
        Ok((
            Arc::new(Int64Array::from(before)),
            Arc::new(Int64Array::from(after)),
        ))
    }

    fn state(&self) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        let mut groups = Vec::new();
        let (mut values, mut counts) = (Vec::new(), Vec::new());
        for (group, of_group) in self.values.iter().enumerate() {
            for (value, n) in of_group {
                groups.push(group);
                values.push(&**value);
                counts.push(*n);
            }
        }
        let values = Arc::new(BinaryArray::from_iter_values(values));
        Ok((groups, vec![values, Arc::new(Int64Array::from(counts))]))
    }

    fn restore(&mut self, groups: &[usize], state: &[ArrayRef]) -> Result<()> {
        let values: &BinaryArray = column(state, 0)?;
        let counts: &Int64Array = column(state, 1)?;
        for (row, &group) in groups.iter().enumerate() {
            self.add(group, values.value(row), counts.value(row));
        }
        Ok(())
    }

    fn keep(&mut self, groups: &[usize]) {
        self.values = groups
            .iter()
            .map(|g| std::mem::take(&mut self.values[*g]))
            .collect();
        let sizes = self
            .values
            .iter()
            .flatten()
            .map(|(v, _)| v.len() + ENTRY_BYTES);
        self.n_bytes = sizes.sum();
    }

    fn n_bytes(&self) -> usize {
        self.n_bytes + self.values.capacity() * size_of::<HashMap<Box<[u8]>, i64>>()
    }
}
