//! One key of text or bytes, plain or as a dictionary, of which each value is looked up once a batch.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, GenericByteArray, GenericByteViewArray};
use arrow::compute::cast;
use arrow::datatypes::{ByteArrayType, ByteViewType, DataType, UInt64Type};

use super::bytes::DistinctBytes;
use super::{Keys, check_room};
use crate::error::Result;

/// The distinct values of one column of text or bytes.
pub(super) struct TextKeys {
    data_type: DataType,
    values: DistinctBytes,
    null: Option<usize>,
    /// The dictionary of the last batch, and the number of each of its values that was met.
    dictionary: Option<(ArrayRef, Vec<usize>)>,
}

const NOT_MET: usize = usize::MAX;

impl TextKeys {
    pub(super) fn new(data_type: DataType) -> Self {
        Self {
            data_type,
            values: DistinctBytes::default(),
            null: None,
            dictionary: None,
        }
    }

    fn null(&mut self) -> usize {
        *self.null.get_or_insert_with(|| self.values.push_empty())
    }

    /// The numbers of values by row, in runs between nulls.
    fn number_all<'a>(
        &mut self,
        column: &dyn Array,
        value: impl Fn(usize) -> &'a [u8],
        groups: &mut Vec<usize>,
    ) {
        let Some(nulls) = column.nulls().filter(|n| n.null_count() > 0) else {
            return self.values.find_all(column.len(), value, groups);
        };
        let mut row = 0;
        for (start, end) in nulls.valid_slices() {
            self.number_nulls(start - row, groups);
            self.values
                .find_all(end - start, |n| value(start + n), groups);
            row = end;
        }
        self.number_nulls(column.len() - row, groups);
    }

    fn number_nulls(&mut self, n: usize, groups: &mut Vec<usize>) {
        if n > 0 {
            let null = self.null();
            groups.resize(groups.len() + n, null);
        }
    }

    fn number_bytes<T: ByteArrayType>(
        &mut self,
        column: &GenericByteArray<T>,
        groups: &mut Vec<usize>,
    ) where
        T::Native: AsRef<[u8]>,
    {
        self.number_all(column, |row| column.value(row).as_ref(), groups);
    }

    fn number_views<T: ByteViewType>(
        &mut self,
        column: &GenericByteViewArray<T>,
        groups: &mut Vec<usize>,
    ) where
        T::Native: AsRef<[u8]>,
    {
        self.number_all(column, |row| column.value(row).as_ref(), groups);
    }

    fn number_plain(&mut self, column: &ArrayRef, groups: &mut Vec<usize>) -> Result<()> {
        match column.data_type() {
            DataType::Utf8 => self.number_bytes(column.as_string::<i32>(), groups),
            DataType::LargeUtf8 => self.number_bytes(column.as_string::<i64>(), groups),
            DataType::Binary => self.number_bytes(column.as_binary::<i32>(), groups),
            DataType::LargeBinary => self.number_bytes(column.as_binary::<i64>(), groups),
            DataType::Utf8View => self.number_views(column.as_string_view(), groups),
            DataType::BinaryView => self.number_views(column.as_binary_view(), groups),
            _ => {
                let bytes = cast(column, &DataType::Binary)?;
                let bytes: &BinaryArray = bytes.as_binary();
                self.number_bytes(bytes, groups);
            }
        }
        Ok(())
    }

    fn number_dictionary(&mut self, column: &ArrayRef, groups: &mut Vec<usize>) -> Result<()> {
        let array = column.as_any_dictionary();
        let values = array.values();
        let mut numbers = match self.dictionary.take() {
            Some((last, numbers)) if std::ptr::addr_eq(last.as_ref(), values.as_ref()) => numbers,
            _ => vec![NOT_MET; values.len()],
        };
        let codes = cast(
            &arrow::array::make_array(array.keys().to_data()),
            &DataType::UInt64,
        )?;
        let codes = codes.as_primitive::<UInt64Type>();
        let mut one = Vec::with_capacity(1);
        for code in codes {
            let code = code.and_then(|c| usize::try_from(c).ok());
            let Some(code) = code else {
                groups.push(self.null());
                continue;
            };
            if numbers[code] == NOT_MET {
                one.clear();
                self.number_plain(&values.slice(code, 1), &mut one)?;
                numbers[code] = one[0];
            }
            groups.push(numbers[code]);
        }
        self.dictionary = Some((ArrayRef::clone(values), numbers));
        Ok(())
    }
}

impl Keys for TextKeys {
    fn number(
        &mut self,
        columns: &[ArrayRef],
        n_rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        check_room(self.values.len() + n_rows)?;
        groups.clear();
        groups.reserve(n_rows);
        match columns[0].data_type() {
            DataType::Dictionary(_, _) => self.number_dictionary(&columns[0], groups),
            _ => self.number_plain(&columns[0], groups),
        }
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn columns(&self, range: Range<usize>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values.array(
            range,
            self.null,
            &self.data_type,
        )?])
    }

    fn columns_of(&self, numbers: &[usize]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values.array_of(
            numbers,
            self.null,
            &self.data_type,
        )?])
    }

    fn forget(&mut self) {
        self.values.forget();
        self.dictionary = None;
    }

    fn n_bytes(&self) -> usize {
        let numbers = self.dictionary.as_ref().map_or(0, |(_, n)| n.capacity());
        self.values.n_bytes() + numbers * size_of::<usize>()
    }
}
