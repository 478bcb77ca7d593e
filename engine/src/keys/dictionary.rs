//! One key of text or bytes, plain or as a dictionary, of which each value is looked up once a batch.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, GenericByteArray};
use arrow::compute::cast;
use arrow::datatypes::{ByteArrayType, ByteViewType, DataType, UInt64Type};

use super::Keys;
use super::bytes::DistinctBytes;
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

    fn find(&mut self, value: Option<&[u8]>) -> usize {
        match value {
            Some(value) => self.values.find(value),
            None => *self.null.get_or_insert_with(|| self.values.push_empty()),
        }
    }

    fn number_bytes<T: ByteArrayType>(
        &mut self,
        column: &GenericByteArray<T>,
        groups: &mut Vec<usize>,
    ) where
        T::Native: AsRef<[u8]>,
    {
        if column.null_count() == 0 {
            for row in 0..column.len() {
                groups.push(self.values.find(column.value(row).as_ref()));
            }
        } else {
            for value in column {
                groups.push(self.find(value.map(AsRef::as_ref)));
            }
        }
    }

    fn number_views<T: ByteViewType>(
        &mut self,
        column: &arrow::array::GenericByteViewArray<T>,
        groups: &mut Vec<usize>,
    ) where
        T::Native: AsRef<[u8]>,
    {
        for value in column {
            groups.push(self.find(value.map(AsRef::as_ref)));
        }
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
                groups.push(self.find(None));
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
        self.values.check_room(n_rows)?;
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

    fn forget(&mut self) {
        self.values.forget();
        self.dictionary = None;
    }

    fn n_bytes(&self) -> usize {
        let numbers = self.dictionary.as_ref().map_or(0, |(_, n)| n.capacity());
        self.values.n_bytes() + numbers * size_of::<usize>()
    }
}
