//! The columns of a CSV file while its rows are read, each by the way that is shortest for its type.
//!
//! ```text
//! field ─▶ Numbers    parsed at once
//!       ─▶ Text       kept as it is, and cast to its type with all others of its chunk
//!       ─▶ Unwanted   text that nobody reads: only that it is none or some
//! ```
//!
//! A column that nobody reads is checked as any other, so that a row is bad whatever is asked of it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, NullArray, PrimitiveBuilder, StringBuilder};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::csv_types::parse;
use crate::error::Result;

/// Takes one value for each row of a chunk.
pub(super) trait CsvColumn {
    /// Takes a value that is there; false where it is none of the column's, of which a null is kept.
    fn push(&mut self, value: &str) -> bool;

    fn push_null(&mut self);

    /// How many values it has taken.
    fn len(&self) -> usize;

    /// The values, and the text that they were cast from where [`CsvColumn::push`] has not checked it.
    fn finish(&mut self) -> Result<(ArrayRef, Option<ArrayRef>)>;
}

/// A column for the values of a field, `n_rows` of them at a time.
pub(super) fn column_of(field: &Field, is_wanted: bool, n_rows: usize) -> Box<dyn CsvColumn> {
    match field.data_type() {
        DataType::Int8 => numbers::<Int8Type>(n_rows),
        DataType::Int16 => numbers::<Int16Type>(n_rows),
        DataType::Int32 => numbers::<Int32Type>(n_rows),
        DataType::Int64 => numbers::<Int64Type>(n_rows),
        DataType::UInt8 => numbers::<UInt8Type>(n_rows),
        DataType::UInt16 => numbers::<UInt16Type>(n_rows),
        DataType::UInt32 => numbers::<UInt32Type>(n_rows),
        DataType::UInt64 => numbers::<UInt64Type>(n_rows),
        DataType::Float32 => numbers::<Float32Type>(n_rows),
        DataType::Float64 => numbers::<Float64Type>(n_rows),
        // Any text is one of theirs.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if !is_wanted => {
            Box::new(Unwanted { n_rows: 0 })
        }
        other => Box::new(Text {
            data_type: other.clone(),
            values: StringBuilder::with_capacity(n_rows, 8 * n_rows),
        }),
    }
}

/// Numbers, parsed as Arrow casts them from text.
struct Numbers<T: Parser>(PrimitiveBuilder<T>);

fn numbers<T: Parser>(n_rows: usize) -> Box<dyn CsvColumn> {
    Box::new(Numbers(PrimitiveBuilder::<T>::with_capacity(n_rows)))
}

impl<T: Parser> CsvColumn for Numbers<T> {
    fn push(&mut self, value: &str) -> bool {
        let number = T::parse(value);
        self.0.append_option(number);
        number.is_some()
    }

    fn push_null(&mut self) {
        self.0.append_null();
    }

    fn len(&self) -> usize {
        self.0.values_slice().len()
    }

    fn finish(&mut self) -> Result<(ArrayRef, Option<ArrayRef>)> {
        Ok((Arc::new(self.0.finish()), None))
    }
}

struct Text {
    data_type: DataType,
    values: StringBuilder,
}

impl CsvColumn for Text {
    fn push(&mut self, value: &str) -> bool {
        self.values.append_value(value);
        true
    }

    fn push_null(&mut self) {
        self.values.append_null();
    }

    fn len(&self) -> usize {
        self.values.offsets_slice().len() - 1
    }

    fn finish(&mut self) -> Result<(ArrayRef, Option<ArrayRef>)> {
        let text: ArrayRef = Arc::new(self.values.finish());
        let values = parse(&text, &self.data_type)?;
        let is_lossless = values.null_count() == text.as_string::<i32>().null_count();
        Ok((values, (!is_lossless).then_some(text)))
    }
}

struct Unwanted {
    n_rows: usize,
}

impl CsvColumn for Unwanted {
    fn push(&mut self, _value: &str) -> bool {
        self.n_rows += 1;
        true
    }

    fn push_null(&mut self) {
        self.n_rows += 1;
    }

    fn len(&self) -> usize {
        self.n_rows
    }

    fn finish(&mut self) -> Result<(ArrayRef, Option<ArrayRef>)> {
        let n_rows = std::mem::take(&mut self.n_rows);
        Ok((Arc::new(NullArray::new(n_rows)), None))
    }
}
