//! What a query has answered, in a form in which answers in any order of rows can be compared.

use std::error::Error;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::contest::Run;

/// Relative difference that another order of additions may make.
const TOLERANCE: f64 = 1e-9;

/// An answer: its rows, the sum of its first column, and of that column times each other one.
///
/// The products tie values to their keys. A text counts as the number it ends in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) n_rows: u64,
    pub(crate) sums: Vec<f64>,
}

/// What a child or a peer prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answered {
    #[serde(flatten)]
    pub(crate) run: Run,
    pub(crate) answer: Answer,
}

impl Answer {
    /// # Errors
    /// If a column is neither numbers nor text that ends in one.
    pub(crate) fn of(batches: &[RecordBatch]) -> Result<Self, Box<dyn Error>> {
        let n_columns = batches.first().map_or(0, RecordBatch::num_columns);
        let mut sums = vec![0.0; n_columns];
        for rows in batches {
            let columns = rows.columns().iter().map(|c| numbers(c));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            for (sum, column) in sums.iter_mut().zip(&columns).take(1) {
                *sum += column.iter().sum::<f64>();
            }
            for (sum, column) in sums.iter_mut().zip(&columns).skip(1) {
                *sum += columns[0]
                    .iter()
                    .zip(column)
                    .map(|(a, b)| (a + 1.0) * b)
                    .sum::<f64>();
            }
        }
        let n_rows = batches.iter().map(|b| b.num_rows() as u64).sum();
        Ok(Self { n_rows, sums })
    }

    /// Whether both are the same answer.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let near =
            |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0);
        self.n_rows == other.n_rows
            && self.sums.len() == other.sums.len()
            && self.sums.iter().zip(&other.sums).all(near)
    }
}

fn numbers(column: &dyn Array) -> Result<Vec<f64>, Box<dyn Error>> {
    if matches!(
        column.data_type(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _)
    ) {
        let texts = cast(column, &DataType::Utf8)?;
        let number = |text: Option<&str>| -> Result<f64, Box<dyn Error>> {
            let digits = text.unwrap_or_default().rsplit('-').next();
            Ok(digits.unwrap_or_default().parse()?)
        };
        return texts.as_string::<i32>().iter().map(number).collect();
    }
    let numbers = cast(column, &DataType::Float64)?;
    Ok(numbers.as_primitive::<Float64Type>().values().to_vec())
}
