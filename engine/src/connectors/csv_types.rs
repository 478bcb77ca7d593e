//! Types of CSV columns: how text becomes values, and which type fits a sample.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};

use crate::error::Result;

/// The values that the text stands for; null where it stands for none of the type, and for null.
pub(crate) fn parse(text: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    Ok(cast_with_options(text, data_type, &options)?)
}

/// The beginning of a value, for messages.
pub(crate) fn excerpt(value: &str) -> String {
    const MAX_CHARACTERS: usize = 200;
    match value.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// The narrowest type that holds all values of a sample; Utf8 where there are none.
pub(crate) fn infer_type(sample: &ArrayRef) -> Result<DataType> {
    let text = sample.as_string::<i32>();
    if text.null_count() == text.len() {
        return Ok(DataType::Utf8);
    }
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    for (data_type, looks_so) in [
        (DataType::Int64, any as fn(&str) -> bool),
        (DataType::Float64, is_float),
        (DataType::Boolean, is_boolean),
        (DataType::Date32, is_date),
        (timestamp, any),
    ] {
        if all(text, looks_so) && parse(sample, &data_type)?.null_count() == text.null_count() {
            return Ok(data_type);
        }
    }
    Ok(DataType::Utf8)
}

fn all(text: &StringArray, looks_so: fn(&str) -> bool) -> bool {
    text.iter().flatten().all(looks_so)
}

fn any(_: &str) -> bool {
    true
}

/// A whole number that is too long for an integer stays text: as a float it would be another one.
pub(crate) fn is_float(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    !digits.bytes().all(|b| b.is_ascii_digit()) || value.parse::<i64>().is_ok()
}

/// Stricter than the parser: a column of `f` and `m` must not turn out Boolean by its first rows.
fn is_boolean(value: &str) -> bool {
    value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false")
}

/// The parser takes a timestamp for a date too, and would drop its time.
fn is_date(value: &str) -> bool {
    value.len() == "2001-01-31".len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn infer(values: &[Option<&str>]) -> String {
        let sample: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        infer_type(&sample).unwrap().to_string()
    }

    #[test]
    fn the_narrowest_type_that_holds_all_values_is_taken() {
        assert_eq!(infer(&[Some("1"), None, Some("-7")]), "Int64");
        assert_eq!(infer(&[Some("1"), Some("2.5"), Some("1e3")]), "Float64");
        assert_eq!(infer(&[Some("99999999999999999999"), Some("1.5")]), "Utf8");
        assert_eq!(infer(&[Some("True"), Some("false")]), "Boolean");
        assert_eq!(infer(&[Some("f"), Some("n")]), "Utf8");
        assert_eq!(infer(&[Some("2001-01-31"), None]), "Date32");
        assert_eq!(
            infer(&[Some("2001-01-31"), Some("2001-01-31 10:00:00")]),
            "Timestamp(µs)"
        );
        assert_eq!(infer(&[Some("1"), Some("one")]), "Utf8");
        assert_eq!(infer(&[None, None]), "Utf8");
        assert_eq!(infer(&[]), "Utf8");
    }
}
