//! Types of JSON lines: which type fits a sample, and how values are read without losing digits.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::csv_types::parse;
use crate::error::Result;

/// What a value of a sample is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Integer,
    Float,
    Text,
    List(Box<Kind>),
    /// In the order in which the names were met.
    Object(Vec<(String, Kind)>),
}

impl Kind {
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
            (Kind::Integer, Kind::Float) | (Kind::Float, Kind::Integer) => Kind::Float,
            (one, other) if one == other => one,
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
            Kind::Null | Kind::Text => DataType::Utf8,
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

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Float)
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
    let field = |f: &FieldRef| -> FieldRef {
        Arc::new(f.as_ref().clone().with_data_type(read_as(f.data_type())))
    };
    match data_type {
        integer if integer.is_integer() => DataType::Utf8,
        DataType::Dictionary(_, values) => read_as(values),
        DataType::List(items) => DataType::List(field(items)),
        DataType::LargeList(items) => DataType::LargeList(field(items)),
        DataType::FixedSizeList(items, n) => DataType::FixedSizeList(field(items), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
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
            kind.merge(serde_json::from_str(line).unwrap());
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
