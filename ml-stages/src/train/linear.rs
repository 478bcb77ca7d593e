//! Linear regression: least squares in closed form.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mainstem_engine::artifact::{AnyArtifact, ArtifactId, Artifacts};
use mainstem_engine::{Description, Result, Trainer, TrainingContext, TrainingRows};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::columns::{LayoutRef, TrainingColumns, no_rows};
use super::design::{Design, NormalEquations};
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
        self.columns.check(input)
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
mod tests {
    use super::*;
    use crate::train::testing::{Fixture, constants};
    use expect_test::expect;

    fn rounded(model: &TrainedModel) -> Vec<Vec<f32>> {
        let round = |x: f32| (x * 1e4).round() / 1e4 + 0.0;
        let constants = constants(model).into_iter();
        constants
            .map(|c| c.into_iter().map(round).collect())
            .collect()
    }

    #[test]
    fn a_plane_is_found_again() {
        let fixture = Fixture::new(
            "a: 1000.0, 1001.0, 1002.0, 1003.0; b: 0.0, 1.0, 0.0, 4.0",
            "y: 2001.0, 2000.0, 2005.0, 1995.0",
        );
        let model = fixture
            .train(&LinearRegression::new(&fixture.layout(), "y"))
            .unwrap();
        assert_eq!(rounded(&model), [vec![2.0, -3.0], vec![1.0]]);
        assert!(model.losses[0] < 1e-8, "{:?}", model.losses);
    }

    #[test]
    fn a_category_has_a_coefficient_and_none_has_its_own() {
        let fixture = Fixture::new(
            "color#2: 0.0, 0.0, 1.0, 1.0, -1.0, -1.0; x: 0.0, 1.0, 0.0, 1.0, 0.0, 1.0",
            "y: 1.0, 2.0, 4.0, 5.0, 7.0, 8.0",
        );
        let model = fixture
            .train(&LinearRegression::new(&fixture.layout(), "y"))
            .unwrap();
        // Three lines of slope 1, one per color and one for none: no error is left.
        assert!(model.losses[0] < 1e-8, "{:?}", model.losses);
        assert!((constants(&model)[0][0] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn too_many_columns_are_refused() {
        let fixture = Fixture::new("word#5000: 0.0, 1.0", "y: 1.0, 2.0");
        expect![[r#"
            a linear model takes at most 4096 columns, the features make 5002
              Feature "word" alone makes 5001.
              Hint: Keep fewer categories, or train WideAndDeep, which has no such limit."#]]
        .assert_eq(&fixture.refused(&LinearRegression::new(&fixture.layout(), "y")));
    }

    #[test]
    fn weights_count_as_repeated_rows() {
        let once = Fixture::new("x: 1.0, 2.0, 4.0", "y: 1.0, 3.0, 2.0; w: 2, 1, 0");
        let again = Fixture::new("x: 1.0, 1.0, 2.0", "y: 1.0, 1.0, 3.0");
        let weighted = LinearRegression::new(&once.layout(), "y").weight("w");
        let repeated = LinearRegression::new(&again.layout(), "y");
        assert_eq!(
            rounded(&once.train(&weighted).unwrap()),
            rounded(&again.train(&repeated).unwrap())
        );
    }

    #[test]
    fn no_rows_and_a_missing_number_are_errors() {
        let empty = Fixture::new("x: ", "y: ");
        let spec = LinearRegression::new(&empty.layout(), "y");
        expect![[r#"
            there are no training rows of a weight over 0 to learn "y" from
              Hint: Look for a filter or a join before the trainer that keeps no row."#]]
        .assert_eq(&empty.refused(&spec));
        let missing = Fixture::new("a: 1.0, 2.0; b: 1.0, nan", "y: 1.0, 2.0");
        expect![[r#"
            training row 1: feature "b" is NaN
              Hint: Impute it in the preprocessing, or filter such rows out."#]]
        .assert_eq(&missing.refused(&spec));
    }
}
