//! Types of tf.Example: what a feature holds, and the columns that it can become.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Schema};
use tfrecord::FeatureKind;

/// What the list of a feature holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    Int64,
    Float32,
    Bytes,
    /// Bytes that are UTF-8.
    Text,
}

impl Values {
    /// The values from which those of a type are made; `None` where there are none.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Int64,
            integer if integer.is_integer() => Self::Int64,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Self::Float32,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Bytes,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Dictionary(_, values) if **values == DataType::Utf8 => Self::Text,
            _ => return None,
        })
    }

    /// The type that holds the values as they are.
    pub(crate) fn data_type(self) -> DataType {
        match self {
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Bytes => DataType::Binary,
            Self::Text => DataType::Utf8,
        }
    }

    pub(crate) fn fit(self, feature: &FeatureKind) -> bool {
        matches!(
            (self, feature),
            (Self::Int64, FeatureKind::I64(_))
                | (Self::Float32, FeatureKind::F32(_))
                | (Self::Bytes | Self::Text, FeatureKind::Bytes(_))
        )
    }
}

/// A column, and how it is made from features.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) values: Values,
    pub(crate) is_list: bool,
}

impl Column {
    /// `None` where no feature can become such a column.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        let (values, is_list) = match data_type {
            // Items are taken as they are.
            DataType::List(items) => {
                let values = Values::of(items.data_type())?;
                (values.data_type() == *items.data_type()).then_some(())?;
                (values, true)
            }
            other => (Values::of(other)?, false),
        };
        Some(Self { values, is_list })
    }
}

/// How many values a feature has.
pub(crate) fn n_values(feature: &FeatureKind) -> usize {
    match feature {
        FeatureKind::Bytes(values) => values.len(),
        FeatureKind::F32(values) => values.len(),
        FeatureKind::I64(values) => values.len(),
    }
}

/// What a feature holds, in words.
pub(crate) fn described(feature: &FeatureKind) -> &'static str {
    match feature {
        FeatureKind::Bytes(_) => "bytes",
        FeatureKind::F32(_) => "floats",
        FeatureKind::I64(_) => "integers",
    }
}

/// What a sample tells of the features, by their names.
#[derive(Default)]
pub(crate) struct Sample(BTreeMap<String, Column>);

impl Sample {
    /// Takes a feature in. Of one that holds now this and now that, what was first stays.
    pub(crate) fn add(&mut self, name: String, feature: &FeatureKind) {
        let values = match feature {
            FeatureKind::I64(_) => Values::Int64,
            FeatureKind::F32(_) => Values::Float32,
            FeatureKind::Bytes(values) => {
                match values.iter().all(|v| std::str::from_utf8(v).is_ok()) {
                    true => Values::Text,
                    false => Values::Bytes,
                }
            }
        };
        let is_list = n_values(feature) > 1;
        let column = self.0.entry(name).or_insert(Column { values, is_list });
        column.is_list |= is_list;
        if (column.values, values) == (Values::Text, Values::Bytes) {
            column.values = Values::Bytes;
        }
    }

    /// The columns in the order of their names: those of a tf.Example have no order.
    pub(crate) fn schema(&self) -> Schema {
        let field = |(name, column): (&String, &Column)| {
            let values = column.values.data_type();
            let data_type = match column.is_list {
                true => DataType::new_list(values, true),
                false => values,
            };
            Field::new(name, data_type, true)
        };
        Schema::new(self.0.iter().map(field).collect::<Vec<_>>())
    }
}
