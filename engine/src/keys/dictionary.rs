//! One key of text or bytes, plain or as a dictionary, of which each value is looked up once a batch.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, GenericByteArray, GenericByteViewArray, Int32Array,
};
use arrow::compute::cast;
use arrow::datatypes::{ArrowNativeType, ByteArrayType, ByteViewType, DataType};

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

    /// The number of the value at `code`, which is looked up when it is met first.
    #[inline]
    fn number_value(
        &mut self,
        values: &ArrayRef,
        code: usize,
        numbers: &mut [usize],
    ) -> Result<usize> {
        if numbers[code] == NOT_MET {
            let mut one = Vec::with_capacity(1);
            self.number_plain(&values.slice(code, 1), &mut one)?;
            numbers[code] = one[0];
        }
        Ok(numbers[code])
    }

    fn number_dictionary(&mut self, column: &ArrayRef, groups: &mut Vec<usize>) -> Result<()> {
        let array = column.as_any_dictionary();
        let values = array.values();
        let mut numbers = match self.dictionary.take() {
            // The same memory: readers wrap the dictionary of their file anew for each batch.
            Some((last, numbers)) if last.to_data().ptr_eq(&values.to_data()) => numbers,
            _ => vec![NOT_MET; values.len()],
        };
        if values.is_empty() {
            self.number_nulls(column.len(), groups);
            return Ok(());
        }
        let nulls = array.keys().nulls().filter(|n| n.null_count() > 0);
        match (array.keys().as_any().downcast_ref::<Int32Array>(), nulls) {
            (Some(codes), None) => {
                for code in codes.values() {
                    groups.push(self.number_value(values, code.as_usize(), &mut numbers)?);
                }
            }
            _ => {
                for (row, code) in array.normalized_keys().into_iter().enumerate() {
                    groups.push(match nulls.is_some_and(|n| n.is_null(row)) {
                        true => self.null(),
                        false => self.number_value(values, code, &mut numbers)?,
                    });
                }
            }
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

    fn expect(&mut self, n_keys: usize) {
        self.values.make_room(n_keys);
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
