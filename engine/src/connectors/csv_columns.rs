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

/// Takes the values of a chunk of rows.
pub(super) trait CsvColumn {
    /// Takes the value of a row, which is UTF-8; rows that were passed over are null. False where it is none of the
    /// column's: then the row is null too.
    fn push(&mut self, row: usize, value: &[u8]) -> bool;

    /// The values of so many rows, and the text that they were cast from where [`CsvColumn::push`] has not
    /// checked it.
    fn finish(&mut self, n_rows: usize) -> Result<(ArrayRef, Option<ArrayRef>)>;
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
        _ if !is_wanted && holds_any_text(field) => Box::new(Unwanted),
        other => Box::new(Text {
            data_type: other.clone(),
            values: StringBuilder::with_capacity(n_rows, 8 * n_rows),
        }),
    }
}

/// True where each value of a record may be passed over: nobody reads the column, and whatever text stands there, or
/// none, is one of its values.
pub(super) fn is_passed_over(field: &Field, is_wanted: bool) -> bool {
    !is_wanted && field.is_nullable() && holds_any_text(field)
}

fn holds_any_text(field: &Field) -> bool {
    use DataType::{LargeUtf8, Utf8, Utf8View};
    matches!(field.data_type(), Utf8 | LargeUtf8 | Utf8View)
}

/// A type of numbers.
trait Number: Parser {
    /// The number that a text stands for, as Arrow casts it.
    fn read(text: &[u8]) -> Option<Self::Native>;
}

/// What lexical-core takes for an integer Arrow takes for the same, but in twice the time; Arrow takes white space
/// around it, too.
macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn read(text: &[u8]) -> Option<Self::Native> {
                let number = lexical_core::parse(text).ok();
                number.or_else(|| Self::parse(std::str::from_utf8(text).ok()?))
            }
        }
    )*};
}

macro_rules! floats {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn read(text: &[u8]) -> Option<Self::Native> {
                Self::parse(std::str::from_utf8(text).ok()?)
            }
        }
    )*};
}

integers!(Int8Type, Int16Type, Int32Type, Int64Type);
integers!(UInt8Type, UInt16Type, UInt32Type, UInt64Type);
floats!(Float32Type, Float64Type);

/// Numbers, parsed as Arrow casts them from text.
struct Numbers<T: Number>(PrimitiveBuilder<T>);

fn numbers<T: Number>(n_rows: usize) -> Box<dyn CsvColumn> {
    Box::new(Numbers(PrimitiveBuilder::<T>::with_capacity(n_rows)))
}

impl<T: Number> Numbers<T> {
    fn fill(&mut self, n_rows: usize) {
        let n_values = self.0.values_slice().len();
        if n_values < n_rows {
            self.0.append_nulls(n_rows - n_values);
        }
    }
}

impl<T: Number> CsvColumn for Numbers<T> {
    fn push(&mut self, row: usize, value: &[u8]) -> bool {
        let Some(number) = T::read(value) else {
            return false;
        };
        self.fill(row);
        self.0.append_value(number);
        true
    }

    fn finish(&mut self, n_rows: usize) -> Result<(ArrayRef, Option<ArrayRef>)> {
        self.fill(n_rows);
        Ok((Arc::new(self.0.finish()), None))
    }
}

struct Text {
    data_type: DataType,
    values: StringBuilder,
}

impl Text {
    fn fill(&mut self, n_rows: usize) {
        let n_values = self.values.offsets_slice().len() - 1;
        if n_values < n_rows {
            self.values.append_nulls(n_rows - n_values);
        }
    }
}

impl CsvColumn for Text {
    fn push(&mut self, row: usize, value: &[u8]) -> bool {
        let Ok(value) = std::str::from_utf8(value) else {
            return false;
        };
        self.fill(row);
        self.values.append_value(value);
        true
    }

    fn finish(&mut self, n_rows: usize) -> Result<(ArrayRef, Option<ArrayRef>)> {
        self.fill(n_rows);
        let text: ArrayRef = Arc::new(self.values.finish());
        let values = parse(&text, &self.data_type)?;
        let is_lossless = values.null_count() == text.as_string::<i32>().null_count();
        Ok((values, (!is_lossless).then_some(text)))
    }
}

struct Unwanted;

impl CsvColumn for Unwanted {
    fn push(&mut self, _row: usize, _value: &[u8]) -> bool {
        true
    }

    fn finish(&mut self, n_rows: usize) -> Result<(ArrayRef, Option<ArrayRef>)> {
        Ok((Arc::new(NullArray::new(n_rows)), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Fails unless a text is the same number as Arrow casts it to.
    fn check<T: Number>(text: &str) {
        assert_eq!(T::read(text.as_bytes()), T::parse(text), "{text:?}");
    }

    proptest! {
        #[test]
        fn integers_are_what_arrow_casts_them_to(text in "[ \t]?[-+]{0,2}0{0,2}[0-9]{0,21}[ _.e\t]?[0-9]?") {
            check::<Int8Type>(&text);
            check::<Int16Type>(&text);
            check::<Int32Type>(&text);
            check::<Int64Type>(&text);
            check::<UInt8Type>(&text);
            check::<UInt16Type>(&text);
            check::<UInt32Type>(&text);
            check::<UInt64Type>(&text);
        }
    }

    #[test]
    fn integers_at_the_ends_of_their_types() {
        for text in [
            "127",
            "128",
            "-128",
            "-129",
            "255",
            "256",
            "-0",
            "+7",
            "18446744073709551615",
        ] {
            check::<Int8Type>(text);
            check::<Int64Type>(text);
            check::<UInt8Type>(text);
            check::<UInt64Type>(text);
        }
        assert_eq!(Int64Type::read(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(Int64Type::read(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(Int64Type::read(b"9223372036854775808"), None);
    }
}
