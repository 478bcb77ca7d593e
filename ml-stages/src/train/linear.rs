//! Linear regression: least squares in closed form.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mainstem_engine::artifact::{AnyArtifact, ArtifactId, Artifacts};
use mainstem_engine::{Description, Result, Trainer, TrainingContext, TrainingRows};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::columns::{LayoutRef, TrainingColumns, no_rows};
use super::design::{Design, NormalEquations, check_l2};
use super::graph::ModelGraph;
use crate::model::{Task, TrainedModel};

/// Fits the label by a weighted sum of the features, with the least sum of squared errors.
///
/// A number has one coefficient; a one-hot or an index feature has one per category, an index one
/// more for rows without a category (-1). Where features depend on each other, as a full set of one-hot
/// columns does on the intercept, the coefficients are those of the smallest squares nearly (a
/// ridge of 1e-10, relative), and the predictions are the same. A null label ends the run with an
/// error that names the row.
///
/// The features are read once, in order, into the normal equations in 64-bit floats: at most 4,096
/// columns, in 128 MiB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearRegression {
    columns: TrainingColumns,
    l2: f64,
}

impl LinearRegression {
    /// Learns the column `label` from the features.
    pub fn new(features: impl Into<LayoutRef>, label: impl Into<String>) -> Self {
        Self {
            columns: TrainingColumns::new(features.into(), label.into()),
            l2: 0.0,
        }
    }

    /// Sets the column that says how much each row counts; all count the same by default.
    #[must_use]
    pub fn weight(mut self, column: impl Into<String>) -> Self {
        self.columns.set_weight(column.into());
        self
    }

    /// Sets the penalty: `l2 / 2` times the squares of all coefficients but the intercept is added to
    /// half the sum of squared errors; 0 by default.
    #[must_use]
    pub fn l2(mut self, l2: f64) -> Self {
        self.l2 = l2;
        self
    }
}

impl Trainer for LinearRegression {
    fn describe(&self) -> Description {
        Description::new("linear_regression", json!(self))
    }

    fn check(&self, input: &SchemaRef) -> Result<()> {
        self.columns.check(input)?;
        check_l2(self.l2)
    }

    fn needs(&self) -> Vec<ArtifactId> {
        self.columns.needs()
    }

    fn reads(&self) -> Option<Vec<String>> {
        Some(self.columns.names())
    }

    fn train(
        &self,
        artifacts: &Artifacts,
        rows: &dyn TrainingRows,
        context: &dyn TrainingContext,
    ) -> Result<AnyArtifact> {
        let layout = self.columns.layout(artifacts)?;
        let mut design = Design::new(&layout)?;
        let mut equations = NormalEquations::new(design.n_columns());
        let mut entries = Vec::new();
        let (mut n_rows, mut weight, mut squares) = (0, 0.0, 0.0);
        // As the design does with numbers: a label of little spread keeps its digits.
        let mut origin: Option<f64> = None;
        for batch in rows.epoch() {
            context.check()?;
            let examples = self
                .columns
                .read(&batch?, n_rows, &layout, Task::Regression)?;
            for (row, features) in examples.rows().enumerate() {
                let w = examples.weight(row);
                let y = examples.labels[row] - *origin.get_or_insert(examples.labels[row]);
                design.expand(features, &mut entries);
                equations.add(&entries, w, w * y);
                weight += w;
                squares += w * y * y;
            }
            n_rows += examples.n_rows() as u64;
            context.progress(n_rows, rows.n_rows());
        }
        if weight == 0.0 {
            return Err(no_rows(self.columns.label()));
        }
        let targets = equations.targets().clone();
        equations.penalise(self.l2, &vec![0.0; design.n_columns()]);
        let solution = equations.solve()?;
        let explained: f64 = solution.iter().zip(&targets).map(|(b, t)| b * t).sum();
        let mut graph = ModelGraph::new(&layout);
        let mut coefficients = design.coefficients(&solution);
        coefficients.intercept += origin.unwrap_or(0.0);
        let score = graph.linear_model(&layout, &coefficients);
        Ok(Arc::new(TrainedModel {
            kind: "linear_regression",
            task: Task::Regression,
            graph: graph.finish(score, Task::Regression),
            layout,
            losses: vec![((squares - explained) / weight).max(0.0)],
        }))
    }
}

#[cfg(test)]
mod tests;
