//! Raw columns as data: name and type, all of which may be null.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mainstem_engine::expression::check_column;
use mainstem_engine::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::expression::{is_text, type_name};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    name: String,
    #[serde(with = "type_name")]
    data_type: DataType,
}

/// The columns `names` of rows; text of any form is Utf8, as its form makes no difference.
///
/// # Errors
/// A pipeline error for each that is not there.
pub(crate) fn project(schema: &Schema, names: &[String]) -> Result<SchemaRef> {
    let (mut fields, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match check_column(name, schema) {
            Ok(place) => {
                let data_type = match schema.field(place).data_type() {
                    text if is_text(text) => DataType::Utf8,
                    other => other.clone(),
                };
                fields.push(Field::new(name, data_type, true));
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(Arc::new(Schema::new(fields)))
    } else {
        Err(Error::all(errors))
    }
}

pub(crate) fn serialize<S: Serializer>(
    schema: &SchemaRef,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let column = |f: &Arc<Field>| Column {
        name: f.name().clone(),
        data_type: f.data_type().clone(),
    };
    serializer.collect_seq(schema.fields().iter().map(column))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SchemaRef, D::Error> {
    let columns = Vec::<Column>::deserialize(deserializer)?;
    let fields = columns
        .into_iter()
        .map(|c| Field::new(c.name, c.data_type, true));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

pub(crate) fn to_json(schema: &SchemaRef) -> Result<String> {
    let mut text = Vec::new();
    serialize(schema, &mut serde_json::Serializer::new(&mut text))?;
    String::from_utf8(text).map_err(|_| Error::bug("a schema was not written as text"))
}

pub(crate) fn from_json(text: &str) -> Result<SchemaRef> {
    Ok(deserialize(&mut serde_json::Deserializer::from_str(text))?)
}
