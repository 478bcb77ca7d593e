//! Types of CSV columns: how text becomes values, and which type fits a sample.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options, nullif};
use arrow::datatypes::{DataType, TimeUnit};

use crate::error::Result;

/// The values that the text stands for; null where it stands for none of the type, and for null.
///
/// An instant with more digits than its type has is none of it, nor is one with a time of the day a date: the cast
/// would cut them off.
pub(crate) fn parse(text: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    let values = cast_with_options(text, data_type, &options)?;
    let Some(text) = text.as_string_opt::<i32>() else {
        return Ok(values);
    };
    let is_cut: BooleanArray = match (data_type, second_digits(data_type)) {
        (DataType::Date32, _) => text.iter().map(|t| Some(t.is_some_and(has_time))).collect(),
        (_, Some(n_digits)) => {
            let is_cut = |text: &str| n_second_digits(text) > n_digits;
            text.iter().map(|t| Some(t.is_some_and(is_cut))).collect()
        }
        _ => return Ok(values),
    };
    match is_cut.true_count() {
        0 => Ok(values),
        _ => Ok(nullif(&values, &is_cut)?),
    }
}

/// How many digits of a second instants of this type have.
fn second_digits(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => Some(0),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some(3),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some(6),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(9),
        _ => None,
    }
}

/// True for a time other than midnight behind a day.
fn has_time(text: &str) -> bool {
    let time = text
        .split_once(['T', 't', ' '])
        .map_or("", |(_, time)| time);
    time.bytes().any(|b| matches!(b, b'1'..=b'9'))
}

/// How many digits of a second an instant needs that is written so.
fn n_second_digits(text: &str) -> usize {
    let Some((_, rest)) = text.split_once('.') else {
        return 0;
    };
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap_or_default().trim_end_matches('0').len()
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
    let timestamp = |unit| DataType::Timestamp(unit, None);
    for (data_type, looks_so) in [
        (DataType::Int64, any as fn(&str) -> bool),
        (DataType::Float64, is_float),
        (DataType::Boolean, is_boolean),
        (DataType::Date32, is_date),
        (timestamp(TimeUnit::Microsecond), any),
        // Where more digits are needed than those: only the years 1677 to 2262 have them.
        (timestamp(TimeUnit::Nanosecond), any),
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
        assert_eq!(
            infer(&[Some("2001-01-31 10:00:00.123456000Z"), Some("0001-01-01")]),
            "Timestamp(µs)"
        );
        assert_eq!(
            infer(&[Some("2001-01-31T10:00:00.1234567"), Some("2001-01-31")]),
            "Timestamp(ns)"
        );
        assert_eq!(infer(&[Some("2001-01-31T10:00:00.1234567891")]), "Utf8");
        assert_eq!(
            infer(&[Some("2001-01-31T10:00:00.123456789"), Some("0001-01-01")]),
            "Utf8"
        );
        assert_eq!(infer(&[Some("1"), Some("one")]), "Utf8");
        assert_eq!(infer(&[None, None]), "Utf8");
        assert_eq!(infer(&[]), "Utf8");
    }
}
