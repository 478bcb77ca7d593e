//! Which feature goes to which part of the network.

use mainstem_engine::{Error, Result};
use mainstem_transforms::{FeatureColumn, FeatureKind, FeatureLayout};

use crate::train::design::table_row;

/// The features of one part: columns taken as they are, and indexes into a common table.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// Columns of the feature matrix.
    pub(super) dense: Vec<usize>,
    pub(super) indexes: Vec<FeatureColumn>,
    /// The first row of each index feature in the table.
    pub(super) first: Vec<usize>,
    pub(super) n_table_rows: usize,
}

impl Part {
    fn push(&mut self, column: &FeatureColumn) {
        match column.kind {
            FeatureKind::Index { depth } => {
                self.indexes.push(column.clone());
                self.first.push(self.n_table_rows);
                self.n_table_rows += depth + 1;
            }
            kind => self
                .dense
                .extend(column.offset..column.offset + kind.width()),
        }
    }

    /// Appends a row's values to those of the rows before it.
    pub(super) fn take(&self, features: &[f32], dense: &mut Vec<f32>, rows: &mut Vec<u32>) {
        dense.extend(self.dense.iter().map(|column| features[*column]));
        rows.extend(self.indexes.iter().zip(&self.first).map(|(column, first)| {
            let depth = match column.kind {
                FeatureKind::Index { depth } => depth,
                _ => 0,
            };
            (first + table_row(features[column.offset], depth)) as u32
        }));
    }
}

/// The features of both parts.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub(super) wide: Part,
    pub(super) deep: Part,
}

impl Inputs {
    pub(super) fn new(layout: &FeatureLayout, wide: &[String]) -> Result<Self> {
        let errors: Vec<Error> = wide
            .iter()
            .filter(|name| layout.find(name).is_none())
            .map(|name| unknown(name, layout))
            .collect();
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        let mut inputs = Self {
            wide: Part::default(),
            deep: Part::default(),
        };
        for column in layout.columns() {
            if wide.contains(&column.name) {
                inputs.wide.push(column);
            } else {
                inputs.deep.push(column);
            }
        }
        Ok(inputs)
    }

    /// How many bytes a row takes in memory, with its label and weight.
    pub(super) fn bytes_per_row(&self) -> usize {
        let values = |p: &Part| p.dense.len() + p.indexes.len();
        4 * (values(&self.wide) + values(&self.deep) + 2)
    }
}

fn unknown(name: &str, layout: &FeatureLayout) -> Error {
    let there: Vec<String> = layout
        .columns()
        .iter()
        .map(|c| format!("{:?}", c.name))
        .collect();
    Error::pipeline(format!("wide feature {name:?} is not there"))
        .with_detail(format!("The features are {}.", there.join(", ")))
}
