//! The first rows of groups from which rows can be taken back: all rows of a group are kept, in order.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StructArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use super::aggregate::{Changed, Misfit, Retractable, column};
use super::tallies::{Ordered, Tallies};
use crate::error::{Error, Result};
use crate::keys::normal;
use crate::ops::group_by::first_rows::lists_of;

/// The first rows of each group by the order of their values, as a list of structs without the first field.
///
/// A row that is there twice takes two places.
pub(super) struct First {
    n_rows: usize,
    converter: RowConverter,
    /// By their bytes, which are ordered as the rows are.
    rows: Tallies<Ordered>,
}

impl First {
    /// Of structs, by the order of their fields.
    pub(super) fn new(n_rows: usize, data_type: &DataType) -> Result<Self> {
        Ok(Self {
            n_rows,
            converter: RowConverter::new(vec![SortField::new(data_type.clone())])?,
            rows: Tallies::default(),
        })
    }

    /// The first rows of a group, each as often as it is among them.
    fn first(&self, group: usize) -> Vec<&[u8]> {
        let there = self.rows.of(group).iter().filter(|(_, n)| **n > 0);
        let each = there.flat_map(|(row, n)| {
            let times = usize::try_from(*n).unwrap_or(usize::MAX);
            std::iter::repeat_n(&**row, times)
        });
        each.take(self.n_rows).collect()
    }

    fn structs<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<ArrayRef> {
        let parser = self.converter.parser();
        let columns = self
            .converter
            .convert_rows(rows.map(|row| parser.parse(row)))?;
        Ok(Arc::clone(&columns[0]))
    }

    fn lists(&self, groups: &[Vec<&[u8]>]) -> Result<ArrayRef> {
        let rows = self.structs(groups.iter().flatten().copied())?;
        let rows = RecordBatch::from(rows.as_struct());
        let columns: Vec<usize> = (1..rows.num_columns()).collect();
        let lists = lists_of(&rows.project(&columns)?, groups.iter().map(Vec::len));
        Ok(Arc::new(lists.map_err(Error::from)?))
    }
}

impl Retractable for First {
    fn grow(&mut self, n_groups: usize) {
        self.rows.grow(n_groups);
    }

    /// Without windows first rows are those of [`TopK`](crate::ops::TopK), which keeps no lists.
    fn change(&mut self, _changed: &Changed<'_>) -> Result<(ArrayRef, ArrayRef), Misfit> {
        Err(Error::bug("first rows are asked for without windows").into())
    }

    fn add(&mut self, changed: &Changed<'_>) -> Result<(), Misfit> {
        let rows = self.converter.convert_columns(&[normal(changed.values)?])?;
        for run in changed.runs {
            self.rows.add_run(run, changed, &rows);
        }
        Ok(())
    }

    fn values(&self, groups: &[usize]) -> Result<ArrayRef, Misfit> {
        let first = groups.iter().map(|group| self.first(*group));
        Ok(self.lists(&first.collect::<Vec<_>>())?)
    }

    fn is_unsound(&self, group: usize, n_rows: i64) -> bool {
        self.rows.is_unsound(group, n_rows)
    }

    fn state(&self) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        let groups = self.rows.iter().map(|(group, ..)| group).collect();
        let rows = self.structs(self.rows.iter().map(|(_, row, _)| row))?;
        let counts = self.rows.iter().map(|(.., n)| n);
        let counts = Int64Array::from_iter_values(counts);
        Ok((groups, vec![rows, Arc::new(counts)]))
    }

    fn restore(&mut self, groups: &[usize], state: &[ArrayRef]) -> Result<()> {
        let _: &StructArray = column(state, 0)?;
        let counts: &Int64Array = column(state, 1)?;
        let rows = self.converter.convert_columns(&state[..1])?;
        for (row, &group) in groups.iter().enumerate() {
            self.rows
                .add(group, rows.row(row).as_ref(), counts.value(row));
        }
        Ok(())
    }

    fn keep(&mut self, groups: &[usize]) {
        self.rows.keep(groups);
    }

    fn n_bytes(&self) -> usize {
        self.rows.n_bytes()
    }
}
