//! How many different values there are, where rows can be taken back.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};

use super::aggregate::{Changed, Misfit, Retractable, column};
use super::tallies::{Tallies, Unordered};
use crate::error::{Error, Result};
use crate::keys::normal;

/// The number of different values of each group: how often each is there is kept.
pub(super) struct DistinctCount {
    converter: RowConverter,
    values: Tallies<Unordered>,
}

impl DistinctCount {
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        Ok(Self {
            converter: RowConverter::new(vec![SortField::new(data_type.clone())])?,
            values: Tallies::default(),
        })
    }

    fn count(&self, group: usize) -> Result<i64> {
        let n_there = self.values.of(group).len() - self.values.n_missing(group);
        i64::try_from(n_there).map_err(|_| Error::bug("a group has more than 2^63 values"))
    }

    fn bytes(&self, changed: &Changed<'_>) -> Result<Rows> {
        Ok(self.converter.convert_columns(&[normal(changed.values)?])?)
    }
}

impl Retractable for DistinctCount {
    fn grow(&mut self, n_groups: usize) {
        self.values.grow(n_groups);
    }

    fn change(&mut self, changed: &Changed<'_>) -> Result<(ArrayRef, ArrayRef), Misfit> {
        let rows = self.bytes(changed)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for run in changed.runs {
            before.push(self.count(run.group)?);
            self.values.add_run(run, changed, &rows);
            after.push(self.count(run.group)?);
        }
        Ok((
            Arc::new(Int64Array::from(before)),
            Arc::new(Int64Array::from(after)),
        ))
    }

    fn add(&mut self, changed: &Changed<'_>) -> Result<(), Misfit> {
        let rows = self.bytes(changed)?;
        for run in changed.runs {
            self.values.add_run(run, changed, &rows);
        }
        Ok(())
    }

    fn values(&self, groups: &[usize]) -> Result<ArrayRef, Misfit> {
        let counts = groups.iter().map(|group| self.count(*group));
        Ok(Arc::new(Int64Array::from(
            counts.collect::<Result<Vec<_>>>()?,
        )))
    }

    fn is_unsound(&self, group: usize, n_rows: i64) -> bool {
        self.values.is_unsound(group, n_rows)
    }

    fn state(&self) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        let mut groups = Vec::new();
        let (mut values, mut counts) = (Vec::new(), Vec::new());
        for (group, value, n) in self.values.iter() {
            groups.push(group);
            values.push(value);
            counts.push(n);
        }
        let values = Arc::new(BinaryArray::from_iter_values(values));
        Ok((groups, vec![values, Arc::new(Int64Array::from(counts))]))
    }

    fn restore(&mut self, groups: &[usize], state: &[ArrayRef]) -> Result<()> {
        let values: &BinaryArray = column(state, 0)?;
        let counts: &Int64Array = column(state, 1)?;
        for (row, &group) in groups.iter().enumerate() {
            self.values.add(group, values.value(row), counts.value(row));
        }
        Ok(())
    }

    fn keep(&mut self, groups: &[usize]) {
        self.values.keep(groups);
    }

    fn n_bytes(&self) -> usize {
        self.values.n_bytes()
    }
}
