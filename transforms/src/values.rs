//! A column on its way through mappers, and what it means.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use mainstem_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::expression::is_text;
use crate::layout::FeatureKind;

/// The index of a category that was not seen while fitting, where no other place was asked for.
pub const UNKNOWN: i64 = -1;
/// The index of a missing value; it becomes null where a column is shown and NaN in the matrix.
pub const MISSING: i64 = -2;

/// A column between two mappers.
#[derive(Clone, Debug)]
pub enum Values {
    /// Numbers; NaN is a missing value.
    Numbers(Vec<f64>),
    /// Text in any of Arrow's forms, dictionaries too; null and the empty text are missing values.
    Text(ArrayRef),
    /// Categories by index; [`UNKNOWN`] and [`MISSING`] stand for themselves.
    Indexes(Vec<i64>),
}

/// What a column means, as far as a schema can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Numbers; Booleans are 0 and 1.
    Number,
    /// Text.
    Text,
    /// Categories by index.
    Index,
    /// Categories as one column each.
    OneHot,
}

/// What a column means once it has been fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Numbers.
    Number,
    /// Text.
    Text,
    /// Categories by index, from 0 to `depth - 1`, and [`UNKNOWN`] where `unknown`.
    Index {
        /// How many categories have a place of their own.
        depth: usize,
        /// Whether [`UNKNOWN`] may occur.
        unknown: bool,
    },
    /// Categories as `depth` columns.
    OneHot {
        /// How many categories.
        depth: usize,
    },
}

impl Kind {
    /// How many places the categories take together, with one at the end for unknown ones.
    pub fn slots(self) -> usize {
        match self {
            Self::Index { depth, unknown } => depth + usize::from(unknown),
            Self::OneHot { depth } => depth,
            Self::Number | Self::Text => 1,
        }
    }

    /// What it is in the feature matrix; `None` for text, which cannot stand there.
    pub(crate) fn feature_kind(self) -> Option<FeatureKind> {
        match self {
            Self::Number => Some(FeatureKind::Number),
            Self::Text => None,
            Self::Index { .. } => Some(FeatureKind::Index {
                depth: self.slots(),
            }),
            Self::OneHot { depth } => Some(FeatureKind::OneHot { depth }),
        }
    }

    /// What a schema can tell of it.
    pub fn shape(self) -> Shape {
        match self {
            Self::Number => Shape::Number,
            Self::Text => Shape::Text,
            Self::Index { .. } => Shape::Index,
            Self::OneHot { .. } => Shape::OneHot,
        }
    }
}

impl Shape {
    /// The word for messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Number => "numbers",
            Self::Text => "text",
            Self::Index => "an index",
            Self::OneHot => "a one-hot feature",
        }
    }

    /// What a column of this type can be; `None` where it must be cast first.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        if is_text(data_type) {
            Some(Self::Text)
        } else if data_type.is_integer()
            || matches!(
                data_type,
                DataType::Float32 | DataType::Float64 | DataType::Boolean
            )
        {
            Some(Self::Number)
        } else {
            None
        }
    }
}

fn mixed(expected: &str) -> Error {
    Error::bug(format!("a mapper was given another column than {expected}"))
}

impl Values {
    /// An Arrow column as values: null becomes the missing value.
    ///
    /// # Errors
    /// If the type has not been accepted by [`Shape::of`].
    pub(crate) fn from_array(array: &ArrayRef) -> Result<Self> {
        match array.data_type() {
            DataType::Float64 => Ok(Self::Numbers(numbers(array.as_primitive::<Float64Type>()))),
            DataType::Float32 => Ok(Self::Numbers(widen(
                array,
                array.as_primitive::<Float32Type>().values(),
                |x| f64::from(*x),
            ))),
            DataType::Int64 => Ok(Self::Numbers(widen(
                array,
                array.as_primitive::<Int64Type>().values(),
                |x| *x as f64,
            ))),
            DataType::Int32 => Ok(Self::Numbers(widen(
                array,
                array.as_primitive::<Int32Type>().values(),
                |x| f64::from(*x),
            ))),
            DataType::Boolean => Ok(Self::Numbers(flags(array.as_boolean()))),
            other if is_text(other) => Ok(Self::Text(ArrayRef::clone(array))),
            other if other.is_integer() => {
                let wide = cast(array, &DataType::Float64)?;
                Ok(Self::Numbers(numbers(wide.as_primitive::<Float64Type>())))
            }
            other => Err(Error::bug(format!("a feature started from {other}"))),
        }
    }

    /// The numbers.
    ///
    /// # Errors
    /// A bug if it is another column.
    pub fn numbers(&self) -> Result<&[f64]> {
        match self {
            Self::Numbers(values) => Ok(values),
            _ => Err(mixed("numbers")),
        }
    }

    /// The text.
    ///
    /// # Errors
    /// A bug if it is another column.
    pub fn text(&self) -> Result<&ArrayRef> {
        match self {
            Self::Text(values) => Ok(values),
            _ => Err(mixed("text")),
        }
    }

    /// The indexes.
    ///
    /// # Errors
    /// A bug if it is another column.
    pub fn indexes(&self) -> Result<&[i64]> {
        match self {
            Self::Indexes(values) => Ok(values),
            _ => Err(mixed("indexes")),
        }
    }

    /// The column as analyzers see it and as it is shown: Float64, text or Int64; missing is null.
    pub(crate) fn to_array(&self) -> ArrayRef {
        match self {
            Self::Numbers(values) => std::sync::Arc::new(
                values
                    .iter()
                    .map(|x| (!x.is_nan()).then_some(*x))
                    .collect::<Float64Array>(),
            ),
            Self::Text(values) => ArrayRef::clone(values),
            Self::Indexes(values) => std::sync::Arc::new(
                values
                    .iter()
                    .map(|i| (*i != MISSING).then_some(*i))
                    .collect::<Int64Array>(),
            ),
        }
    }
}

fn numbers(array: &Float64Array) -> Vec<f64> {
    match array.nulls() {
        None => array.values().to_vec(),
        Some(_) => array.iter().map(|x| x.unwrap_or(f64::NAN)).collect(),
    }
}

fn flags(array: &BooleanArray) -> Vec<f64> {
    array
        .iter()
        .map(|x| x.map_or(f64::NAN, |x| f64::from(u8::from(x))))
        .collect()
}

fn widen<T>(array: &ArrayRef, values: &[T], number: impl Fn(&T) -> f64) -> Vec<f64> {
    let mut numbers: Vec<f64> = values.iter().map(number).collect();
    if array.null_count() > 0 {
        for (i, x) in numbers.iter_mut().enumerate() {
            if array.is_null(i) {
                *x = f64::NAN;
            }
        }
    }
    numbers
}
