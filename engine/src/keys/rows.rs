//! Keys of any type and number, compared as arrow-row bytes.

use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use super::bytes::DistinctBytes;
use super::{Keys, check_room};
use crate::error::Result;

/// The distinct rows of some columns.
pub(super) struct RowKeys {
    types: Vec<DataType>,
    converter: RowConverter,
    rows: DistinctBytes,
}

impl RowKeys {
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        let fields = types.iter().map(|t| SortField::new(t.clone())).collect();
        Ok(Self {
            types: types.to_vec(),
            converter: RowConverter::new(fields)?,
            rows: DistinctBytes::default(),
        })
    }
}

impl Keys for RowKeys {
    fn number(
        &mut self,
        columns: &[ArrayRef],
        n_rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        check_room(self.rows.len() + n_rows)?;
        let plain = columns.iter().zip(&self.types).map(|(column, data_type)| {
            if column.data_type() == data_type {
                Ok(ArrayRef::clone(column))
            } else {
                cast(column, data_type)
            }
        });
        let rows = self
            .converter
            .convert_columns(&plain.collect::<Result<Vec<_>, _>>()?)?;
        groups.clear();
        self.rows
            .find_all(n_rows, |row| rows.row(row).data(), groups);
        Ok(())
    }

    fn freeze(&mut self) {
        self.rows.freeze();
    }

    fn expect(&mut self, n_keys: usize) {
        self.rows.make_room(n_keys);
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn columns(&self, range: Range<usize>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let rows = range.map(|n| parser.parse(self.rows.value(n)));
        Ok(self.converter.convert_rows(rows)?)
    }

    fn columns_of(&self, numbers: &[usize]) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let rows = numbers.iter().map(|n| parser.parse(self.rows.value(*n)));
        Ok(self.converter.convert_rows(rows)?)
    }

    fn forget(&mut self) {
        self.rows.forget();
    }

    fn n_bytes(&self) -> usize {
        self.rows.n_bytes() + self.converter.size()
    }
}
