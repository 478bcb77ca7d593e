//! What an evaluation has found.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::model::Task;

/// How far predictions are from labels: a table over slices and predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What the predictions mean.
    pub task: Task,
    /// All rows first, then the slices by column and value; a slice of no rows is not there.
    pub slices: Vec<Slice>,
}

/// The rows that share a value of a column, or all rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// `all`, or the column and its value such as `is_male=true`; null is written `null`.
    pub name: String,
    /// How many rows.
    pub n_rows: u64,
    /// Each prediction column, in the order given.
    pub predictions: Vec<Scored>,
}

/// The metrics of one prediction column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The name of the column.
    pub prediction: String,
    /// Its metrics.
    pub metrics: Metrics,
}

/// The metrics of a prediction over a slice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metrics {
    /// Of predicted values.
    Regression {
        /// The root of the mean squared error, in the label's unit.
        rmse: f64,
        /// The mean absolute error.
        mae: f64,
        /// The mean of the label.
        mean_label: f64,
        /// The mean of the prediction.
        mean_prediction: f64,
    },
    /// Of predicted probabilities.
    Classification {
        /// The share of rows where the label is 1 and the prediction over 0.5, or neither.
        accuracy: f64,
        /// The area under the ROC curve, exact, ties counted half; `None` where all labels are equal.
        auc: Option<f64>,
        /// The mean negative logarithm of the probability of what came true, kept within 1e-7 and 1 - 1e-7.
        log_loss: f64,
        /// The share of rows where the label is 1.
        mean_label: f64,
        /// The mean of the prediction.
        mean_prediction: f64,
    },
}

impl Evaluation {
    /// The metrics of a prediction over a slice, such as `all` or `is_male=true`.
    pub fn metrics(&self, slice: &str, prediction: &str) -> Option<Metrics> {
        let slice = self.slices.iter().find(|s| s.name == slice)?;
        let scored = slice
            .predictions
            .iter()
            .find(|s| s.prediction == prediction)?;
        Some(scored.metrics)
    }
}

impl Metrics {
    /// The metrics by name, in the order of their columns; a missing one is `None`.
    pub fn named(self) -> Vec<(&'static str, Option<f64>)> {
        match self {
            Self::Regression {
                rmse,
                mae,
                mean_label,
                mean_prediction,
            } => vec![
                ("rmse", Some(rmse)),
                ("mae", Some(mae)),
                ("mean label", Some(mean_label)),
                ("mean prediction", Some(mean_prediction)),
            ],
            Self::Classification {
                accuracy,
                auc,
                log_loss,
                mean_label,
                mean_prediction,
            } => vec![
                ("accuracy", Some(accuracy)),
                ("auc", auc),
                ("log loss", Some(log_loss)),
                ("mean label", Some(mean_label)),
                ("mean prediction", Some(mean_prediction)),
            ],
        }
    }

    /// The metric `rmse`; `None` for a classification.
    pub fn rmse(self) -> Option<f64> {
        match self {
            Self::Regression { rmse, .. } => Some(rmse),
            Self::Classification { .. } => None,
        }
    }

    /// The metric `accuracy`; `None` for a regression.
    pub fn accuracy(self) -> Option<f64> {
        match self {
            Self::Classification { accuracy, .. } => Some(accuracy),
            Self::Regression { .. } => None,
        }
    }

    /// The metric `auc`; `None` for a regression, and where all labels are equal.
    pub fn auc(self) -> Option<f64> {
        match self {
            Self::Classification { auc, .. } => auc,
            Self::Regression { .. } => None,
        }
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let mut header = vec!["slice", "rows", "prediction"];
        let first = self.slices.first().and_then(|s| s.predictions.first());
        let names = first.map_or_else(Vec::new, |s| s.metrics.named());
        header.extend(names.iter().map(|(name, _)| *name));
        let n_columns = header.len();
        table.set_header(header);
        for slice in &self.slices {
            for (i, scored) in slice.predictions.iter().enumerate() {
                let mut cells = match i {
                    0 => vec![slice.name.clone(), slice.n_rows.to_string()],
                    _ => vec![String::new(), String::new()],
                };
                cells.push(scored.prediction.clone());
                cells.extend(
                    scored
                        .metrics
                        .named()
                        .into_iter()
                        .map(|(_, value)| match value {
                            Some(value) => format!("{value:.4}"),
                            None => "-".into(),
                        }),
                );
                table.add_row(cells);
            }
        }
        for column in (0..n_columns).filter(|c| *c != 0 && *c != 2) {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        f.write_str(&table.to_string())
    }
}
