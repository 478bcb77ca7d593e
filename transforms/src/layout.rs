//! Where each feature stands in the feature matrix.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

/// What a column of the feature matrix means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// A number: one column.
    Number,
    /// A category as `depth` columns, of which at most one is 1.
    OneHot {
        /// How many categories.
        depth: usize,
    },
    /// A category as its index, `0.0` to `depth - 1.0`, in one column.
    ///
    /// Exact in 32-bit floats, so `depth` is at most 2^24.
    Index {
        /// How many categories.
        depth: usize,
    },
}

impl FeatureKind {
    /// How many columns it takes.
    pub fn width(self) -> usize {
        match self {
            Self::Number | Self::Index { .. } => 1,
            Self::OneHot { depth } => depth,
        }
    }
}

/// A feature and its columns in the matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureColumn {
    /// The feature's name.
    pub name: String,
    /// Its first column.
    pub offset: usize,
    /// What it means.
    pub kind: FeatureKind,
}

/// The columns of the feature matrix, a row of which is `width()` 32-bit floats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureLayout {
    columns: Vec<FeatureColumn>,
}

impl FeatureLayout {
    /// The features one after the other, in this order.
    pub fn new(features: impl IntoIterator<Item = (String, FeatureKind)>) -> Self {
        let mut offset = 0;
        let columns = features
            .into_iter()
            .map(|(name, kind)| {
                let column = FeatureColumn { name, offset, kind };
                offset += kind.width();
                column
            })
            .collect();
        Self { columns }
    }

    /// The features, in order.
    pub fn columns(&self) -> &[FeatureColumn] {
        &self.columns
    }

    /// How many floats a row takes.
    pub fn width(&self) -> usize {
        self.columns.last().map_or(0, |c| c.offset + c.kind.width())
    }

    /// The feature of this name.
    pub fn find(&self, name: &str) -> Option<&FeatureColumn> {
        self.columns.iter().find(|c| c.name == name)
    }
}

/// The name of the column that holds the feature matrix.
pub const FEATURES_COLUMN: &str = "features";

/// The type of the column that holds the feature matrix: a list of 32-bit floats per row, no nulls.
///
/// The number of floats is the layout's width, known only once the preprocessing is fitted; the values
/// of all rows of a batch lie one after the other in one buffer, as a model wants them.
pub fn features_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Float32, false)))
}
