//! One key of text or bytes, plain or as a dictionary, of which each value is looked up once a batch.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, GenericByteArray, GenericByteViewArray, Int32Array,
    UInt64Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{ArrowNativeType, ByteArrayType, ByteViewType, DataType};

use super::bytes::DistinctBytes;
use super::{Keys, NOT_THERE, check_room};
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
/// Met in this batch, and about to be looked up.
const MET: usize = usize::MAX - 1;

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
        if self.values.is_frozen() {
            return self.null.unwrap_or(NOT_THERE);
        }
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
                let codes = || codes.values().iter().map(|code| code.as_usize());
                self.number_new(values, codes(), &mut numbers)?;
                groups.extend(codes().map(|code| numbers[code]));
            }
            _ => {
                let codes = array.normalized_keys();
                let is_null = |row: usize| nulls.is_some_and(|n| n.is_null(row));
                let there = |rows: Range<usize>| {
                    let there = rows.filter(|row| !is_null(*row));
                    there.map(|row| codes[row])
                };
                // Numbers are given in the order of first sight, that of null too.
                let mut n_done = 0;
                if self.null.is_none()
                    && let Some(first) = (0..codes.len()).find(|row| is_null(*row))
                {
                    self.number_new(values, there(0..first), &mut numbers)?;
                    self.null();
                    n_done = first;
                }
                self.number_new(values, there(n_done..codes.len()), &mut numbers)?;
                for (row, code) in codes.iter().enumerate() {
                    groups.push(match is_null(row) {
                        true => self.null(),
                        false => numbers[*code],
                    });
                }
            }
        }
        self.dictionary = Some((ArrayRef::clone(values), numbers));
        Ok(())
    }

    /// Looks up the values that are met first, all together.
    fn number_new(
        &mut self,
        values: &ArrayRef,
        codes: impl Iterator<Item = usize>,
        numbers: &mut [usize],
    ) -> Result<()> {
        let mut new: Vec<u64> = Vec::new();
        for code in codes {
            if numbers[code] == NOT_MET {
                numbers[code] = MET;
                new.push(code as u64);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let new = UInt64Array::from(new);
        let mut found = Vec::with_capacity(new.len());
        self.number_plain(&take(values, &new, None)?, &mut found)?;
        for (code, number) in new.values().iter().zip(found) {
            numbers[code.as_usize()] = number;
        }
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

    fn freeze(&mut self) {
        self.values.freeze();
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
