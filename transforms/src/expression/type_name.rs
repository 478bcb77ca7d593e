//! Arrow types written by name.

use arrow::datatypes::DataType;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(
    data_type: &DataType,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&data_type.to_string())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<DataType, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse()
        .map_err(|_| D::Error::custom(format!("{name:?} is not the name of an Arrow type")))
}

/// True for text in any of Arrow's forms.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}
