//! Least and greatest values from which rows can be taken back: all values of a group are kept, in order.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, new_null_array};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use super::aggregate::{Changed, Misfit, Retractable, column};
use super::tallies::{Ordered, Tallies};
use crate::error::Result;
use crate::keys::normal;

/// Which end of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Least,
    Greatest,
}

/// The least or the greatest value of each group.
///
/// NaN is greater than all other floats.
pub(super) struct Extreme {
    end: End,
    converter: RowConverter,
    /// The bytes of null.
    null: Box<[u8]>,
    /// By their bytes, which are ordered as the values are.
    values: Tallies<Ordered>,
}

impl Extreme {
    pub(super) fn new(end: End, data_type: &DataType) -> Result<Self> {
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
        let null = converter.convert_columns(&[new_null_array(data_type, 1)])?;
        let null = null.row(0).as_ref().into();
        Ok(Self {
            end,
            converter,
            null,
            values: Tallies::default(),
        })
    }

    fn best(&self, group: usize) -> &[u8] {
        let mut there = self.values.of(group).iter().filter(|(_, n)| **n > 0);
        let best = match self.end {
            End::Least => there.next(),
            End::Greatest => there.next_back(),
        };
        best.map_or(&self.null, |(value, _)| value)
    }

    fn array(&self, values: &Bytes) -> Result<ArrayRef> {
        let parser = self.converter.parser();
        let rows = values.iter().map(|value| parser.parse(value));
        let columns = self.converter.convert_rows(rows)?;
        Ok(Arc::clone(&columns[0]))
    }
}

/// Byte strings, one after the other.
#[derive(Default)]
struct Bytes {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Bytes {
    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[*start..*end])
    }
}

impl Retractable for Extreme {
    fn grow(&mut self, n_groups: usize) {
        self.values.grow(n_groups);
    }

    fn change(&mut self, changed: &Changed<'_>) -> Result<(ArrayRef, ArrayRef), Misfit> {
        let rows = self.converter.convert_columns(&[normal(changed.values)?])?;
        let (mut before, mut after) = (Bytes::default(), Bytes::default());
        for run in changed.runs {
            before.push(self.best(run.group));
            self.values.add_run(run, changed, &rows);
            after.push(self.best(run.group));
        }
        Ok((self.array(&before)?, self.array(&after)?))
    }

    fn add(&mut self, changed: &Changed<'_>) -> Result<(), Misfit> {
        let rows = self.converter.convert_columns(&[normal(changed.values)?])?;
        for run in changed.runs {
            self.values.add_run(run, changed, &rows);
        }
        Ok(())
    }

    fn values(&self, groups: &[usize]) -> Result<ArrayRef, Misfit> {
        let mut values = Bytes::default();
        for group in groups {
            values.push(self.best(*group));
        }
        Ok(self.array(&values)?)
    }

    fn is_unsound(&self, group: usize, n_rows: i64) -> bool {
        self.values.is_unsound(group, n_rows)
    }

    fn state(&self) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        let mut groups = Vec::new();
        let (mut values, mut counts) = (Bytes::default(), Vec::new());
        for (group, value, n) in self.values.iter() {
            groups.push(group);
            values.push(value);
            counts.push(n);
        }
        let columns = vec![
            self.array(&values)?,
            Arc::new(Int64Array::from(counts)) as _,
        ];
        Ok((groups, columns))
    }

    fn restore(&mut self, groups: &[usize], state: &[ArrayRef]) -> Result<()> {
        let counts: &Int64Array = column(state, 1)?;
        let rows = self.converter.convert_columns(&state[..1])?;
        for (row, &group) in groups.iter().enumerate() {
            self.values
                .add(group, rows.row(row).as_ref(), counts.value(row));
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
