//! Types of JSON lines: which type fits a sample, and how values are read without losing digits.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, ListArray, StructArray, make_array, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, Schema};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::csv_types::{is_float, parse};
use super::json_lines_reader::read_rows;
use crate::error::Result;

/// What a value of a sample is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Integer,
    Float,
    /// A number beyond all integers, until it is known how it is written.
    Large,
    Text,
    List(Box<Kind>),
    /// In the order in which the names were met.
    Object(Vec<(String, Kind)>),
}

impl Kind {
    /// What the values of a line are; nothing if it is no JSON.
    pub(crate) fn of(line: &[u8]) -> Option<Self> {
        let mut kind: Self = serde_json::from_slice(line).ok()?;
        if let Some(DataType::Struct(large)) = kind.large() {
            let written = read_rows(&Arc::new(Schema::new(large)), &[line]);
            let written = written.map(|rows| Arc::new(StructArray::from(rows)) as ArrayRef);
            kind.tell_apart(written.ok().as_ref());
        }
        Some(kind)
    }

    /// The type by which what is large is read as it is written; nothing where there is none.
    fn large(&self) -> Option<DataType> {
        match self {
            Kind::Large => Some(DataType::Utf8),
            Kind::List(items) => Some(DataType::new_list(items.large()?, true)),
            Kind::Object(fields) => {
                let field =
                    |(name, kind): &(String, Kind)| Some(Field::new(name, kind.large()?, true));
                let fields: Fields = fields.iter().filter_map(field).collect();
                (!fields.is_empty()).then_some(DataType::Struct(fields))
            }
            _ => None,
        }
    }

    /// Makes text of whole numbers, and floats of the other large ones.
    fn tell_apart(&mut self, written: Option<&ArrayRef>) {
        match self {
            Kind::Large => {
                let texts = written.and_then(|array| array.as_string_opt::<i32>());
                // Where it cannot be seen, text loses nothing.
                *self = match texts {
                    Some(texts) if texts.iter().flatten().all(is_float) => Kind::Float,
                    _ => Kind::Text,
                };
            }
            Kind::List(items) => {
                let lists = written.and_then(|array| array.as_list_opt::<i32>());
                items.tell_apart(lists.map(ListArray::values));
            }
            Kind::Object(fields) => {
                let columns = written.and_then(|array| array.as_struct_opt());
                for (name, kind) in fields {
                    kind.tell_apart(columns.and_then(|columns| columns.column_by_name(name)));
                }
            }
            _ => {}
        }
    }

    /// What holds both. Where one is nested and the other is something else, the first stays: values of
    /// the second are bad rows.
    pub(crate) fn merge(&mut self, other: Kind) {
        let merged = match (std::mem::replace(self, Kind::Null), other) {
            (Kind::Null, kind) | (kind, Kind::Null) => kind,
            (Kind::List(mut items), Kind::List(more)) => {
                items.merge(*more);
                Kind::List(items)
            }
            (Kind::Object(mut fields), Kind::Object(more)) => {
                for (name, kind) in more {
                    merge_field(&mut fields, name, kind);
                }
                Kind::Object(fields)
            }
            (nested @ (Kind::List(_) | Kind::Object(_)), _) => nested,
            (flat, Kind::List(_) | Kind::Object(_)) => flat,
            (one, other) if one == other => one,
            (Kind::Integer, Kind::Float) | (Kind::Float, Kind::Integer) => Kind::Float,
            (Kind::Large, Kind::Integer | Kind::Float)
            | (Kind::Integer | Kind::Float, Kind::Large) => Kind::Large,
            _ => Kind::Text,
        };
        *self = merged;
    }

    /// The columns, if it is an object.
    pub(crate) fn schema(&self) -> Schema {
        match self {
            Kind::Object(fields) => Schema::new(columns(fields)),
            _ => Schema::empty(),
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Kind::Null | Kind::Large | Kind::Text => DataType::Utf8,
            Kind::Boolean => DataType::Boolean,
            Kind::Integer => DataType::Int64,
            Kind::Float => DataType::Float64,
            Kind::List(items) => DataType::new_list(items.data_type(), true),
            // A struct without fields cannot be written to most formats, nor is there anything in it.
            Kind::Object(fields) if fields.is_empty() => DataType::Utf8,
            Kind::Object(fields) => DataType::Struct(columns(fields)),
        }
    }
}

fn columns(fields: &[(String, Kind)]) -> Fields {
    let column = |(name, kind): &(String, Kind)| Field::new(name, kind.data_type(), true);
    fields.iter().map(column).collect()
}

fn merge_field(fields: &mut Vec<(String, Kind)>, name: String, kind: Kind) {
    match fields.iter_mut().find(|(n, _)| *n == name) {
        Some((_, there)) => there.merge(kind),
        None => fields.push((name, kind)),
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Boolean)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Integer)
    }

    /// A whole number that is too long for an integer becomes text: as a float it would be another one.
    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(match i64::try_from(value) {
            Ok(_) => Kind::Integer,
            Err(_) => Kind::Text,
        })
    }

    /// The parser gives a whole number as a float where it is too long for any integer.
    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(match value.abs() < -(i64::MIN as f64) {
            true => Kind::Float,
            false => Kind::Large,
        })
    }

    fn visit_str<E>(self, _: &str) -> Result<Kind, E> {
        Ok(Kind::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut kind = Kind::Null;
        while let Some(item) = items.next_element()? {
            kind.merge(item);
        }
        Ok(Kind::List(Box::new(kind)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, kind)) = entries.next_entry()? {
            merge_field(&mut fields, name, kind);
        }
        Ok(Kind::Object(fields))
    }
}

/// The type by which values are read before they become those of the column.
///
/// Whole numbers are read as text: the parser would take `1.5` for 1.
pub(crate) fn read_as(data_type: &DataType) -> DataType {
    as_text(data_type, &DataType::is_integer)
}

/// The type by which it is seen how values are written that the parser may have read as others:
/// see [`is_misread`].
pub(crate) fn written_as(data_type: &DataType) -> DataType {
    as_text(data_type, &|t| t.is_floating() || t.is_temporal())
}

/// The type with text in the place of some types.
fn as_text(data_type: &DataType, is_text: &impl Fn(&DataType) -> bool) -> DataType {
    let field = |f: &FieldRef| -> FieldRef {
        let data_type = as_text(f.data_type(), is_text);
        Arc::new(f.as_ref().clone().with_data_type(data_type))
    };
    match data_type {
        found if is_text(found) => DataType::Utf8,
        DataType::Dictionary(_, values) => as_text(values, is_text),
        DataType::List(items) => DataType::List(field(items)),
        DataType::LargeList(items) => DataType::LargeList(field(items)),
        DataType::FixedSizeList(items, n) => DataType::FixedSizeList(field(items), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

/// True if a date or a time is in the type, however deep.
pub(crate) fn has_times(data_type: &DataType) -> bool {
    let of_fields = |fields: &Fields| fields.iter().any(|f| has_times(f.data_type()));
    match data_type {
        DataType::List(items)
        | DataType::LargeList(items)
        | DataType::FixedSizeList(items, _)
        | DataType::Map(items, _) => has_times(items.data_type()),
        DataType::Struct(fields) => of_fields(fields),
        other => other.is_temporal(),
    }
}

/// True if a value is infinite.
pub(crate) fn has_infinite(read: &ArrayData) -> bool {
    match read.data_type().is_floating() {
        true => infinite(read).any(|infinite| infinite),
        false => read.child_data().iter().any(has_infinite),
    }
}

/// True if a value is not what is written: a number too large for a float, which the parser reads as infinite,
/// or one that is not written as a whole number in the place of a date or a time, of which it reads the whole part.
pub(crate) fn is_misread(read: &ArrayData, written: &ArrayData) -> bool {
    let written_array = make_array(written.clone());
    let Some(texts) = written_array.as_string_opt::<i32>() else {
        let mut inside = read.child_data().iter().zip(written.child_data());
        return inside.any(|(read, written)| is_misread(read, written));
    };
    if read.data_type().is_floating() {
        let has_digit = |text: &str| text.bytes().any(|b| b.is_ascii_digit());
        let mut both = infinite(read).zip(texts);
        return both.any(|(infinite, text)| infinite && text.is_some_and(has_digit));
    }
    let is_other = |text: &str| text.contains(['.', 'e', 'E']) && text.parse::<f64>().is_ok();
    read.data_type().is_temporal() && texts.iter().flatten().any(is_other)
}

/// Whether each value is infinite.
fn infinite(read: &ArrayData) -> impl Iterator<Item = bool> {
    let values = cast(&make_array(read.clone()), &DataType::Float64);
    let values = values.unwrap_or_else(|_| new_null_array(&DataType::Float64, read.len()));
    let values = values.as_primitive::<Float64Type>().clone();
    (0..values.len()).map(move |i| values.is_valid(i) && values.value(i).is_infinite())
}

/// The values of a column as it is promised; `None` where one of them got lost on the way.
pub(crate) fn convert(read: &ArrayRef, data_type: &DataType) -> Result<Option<ArrayRef>> {
    if read.data_type() == data_type {
        return Ok(Some(Arc::clone(read)));
    }
    let values = parse(read, data_type)?;
    let before = n_nulls(&read.to_data());
    let plain = match data_type {
        DataType::Dictionary(_, plain) => parse(&values, plain)?,
        _ => Arc::clone(&values),
    };
    Ok((n_nulls(&plain.to_data()) <= before).then_some(values))
}

fn n_nulls(data: &ArrayData) -> usize {
    data.null_count() + data.child_data().iter().map(n_nulls).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(lines: &[&str]) -> String {
        let mut kind = Kind::Null;
        for line in lines {
            kind.merge(Kind::of(line.as_bytes()).unwrap());
        }
        let schema = kind.schema();
        let columns = schema.fields().iter();
        let shown: Vec<String> = columns
            .map(|f| format!("{}: {}", f.name(), f.data_type()))
            .collect();
        shown.join(", ")
    }

    #[test]
    fn the_type_that_holds_all_values_is_taken_in_the_order_of_the_file() {
        assert_eq!(
            infer(&[r#"{"b": 1, "a": null}"#, r#"{"c": true, "b": 2.5}"#]),
            "b: Float64, a: Utf8, c: Boolean"
        );
        assert_eq!(infer(&[r#"{"a": 1}"#, r#"{"a": "x"}"#]), "a: Utf8");
        assert_eq!(infer(&[r#"{"a": 18446744073709551615}"#]), "a: Utf8");
        assert_eq!(infer(&[r#"{"a": 18446744073709551616}"#]), "a: Utf8");
        assert_eq!(infer(&[r#"{"a": 1e300}"#, r#"{"a": 1}"#]), "a: Float64");
        assert_eq!(
            infer(&[r#"{"a": []}"#, r#"{"a": [1]}"#, r#"{"a": null}"#]),
            "a: List(Int64)"
        );
        assert_eq!(infer(&[r#"{"a": [1]}"#, r#"{"a": 2}"#]), "a: List(Int64)");
        assert_eq!(
            infer(&[r#"{"a": {"x": 1}}"#, r#"{"a": {"y": [{}], "x": 0.5}}"#]),
            r#"a: Struct("x": Float64, "y": List(Utf8))"#
        );
        assert_eq!(infer(&["3", "[]"]), "");
    }
}
