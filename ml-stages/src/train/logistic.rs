//! Logistic regression: Newton's method to the maximum of the likelihood.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mainstem_engine::artifact::{AnyArtifact, ArtifactId, Artifacts};
use mainstem_engine::{Description, Error, Result, Trainer, TrainingContext, TrainingRows};
use mainstem_transforms::FeatureLayout;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::columns::{LayoutRef, TrainingColumns, no_rows};
use super::design::{Design, NormalEquations, check_l2};
use super::graph::ModelGraph;
use crate::model::{Task, TrainedModel};

/// A pass each; Newton's method takes 5 to 12 on most data.
const MAX_PASSES: usize = 60;

/// Fits the probability that the label is 1 by the logistic function of a weighted sum of the features.
///
/// Coefficients are as in [`LinearRegression`](super::LinearRegression), with the same limit of 4,096
/// columns. The penalty makes them unique: see [`LogisticRegression::l2`]. The label is Boolean, or 0
/// and 1; a null label or another value ends the run with an error that names the row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogisticRegression {
    columns: TrainingColumns,
    l2: f64,
}

impl LogisticRegression {
    /// Learns the column `label` from the features.
    pub fn new(features: impl Into<LayoutRef>, label: impl Into<String>) -> Self {
        Self {
            columns: TrainingColumns::new(features.into(), label.into()),
            l2: 1.0,
        }
    }

    /// Sets the column that says how much each row counts; all count the same by default.
    #[must_use]
    pub fn weight(mut self, column: impl Into<String>) -> Self {
        self.columns.set_weight(column.into());
        self
    }

    /// Sets the penalty: `l2 / 2` times the squares of all coefficients but the intercept is added to
    /// the sum of log losses; 1 by default, as scikit-learn's `C = 1 / l2`.
    #[must_use]
    pub fn l2(mut self, l2: f64) -> Self {
        self.l2 = l2;
        self
    }

    /// One pass: the loss at `solution` and the equations of the next step.
    fn pass(
        &self,
        solution: &[f64],
        design: &mut Design,
        layout: &FeatureLayout,
        rows: &dyn TrainingRows,
        context: &dyn TrainingContext,
    ) -> Result<Pass> {
        let mut equations = NormalEquations::new(design.n_columns());
        let mut entries = Vec::new();
        let (mut n_rows, mut weight, mut log_loss) = (0, 0.0, 0.0);
        for batch in rows.epoch() {
            context.check()?;
            let examples =
                self.columns
                    .read(&batch?, n_rows, layout, Task::BinaryClassification)?;
            for (row, features) in examples.rows().enumerate() {
                let (w, y) = (examples.weight(row), examples.labels[row]);
                design.expand(features, &mut entries);
                let z: f64 = entries.iter().map(|(j, x)| solution[*j] * x).sum();
                let p = 1.0 / (1.0 + (-z).exp());
                equations.add(&entries, w * p * (1.0 - p), w * (y - p));
                weight += w;
                log_loss += w * (z.max(0.0) - z * y + (-z.abs()).exp().ln_1p());
            }
            n_rows += examples.n_rows() as u64;
        }
        if weight == 0.0 {
            return Err(no_rows(self.columns.label()));
        }
        equations.penalise(self.l2, solution);
        let squares: f64 = solution.iter().skip(1).map(|b| b * b).sum();
        Ok(Pass {
            objective: log_loss + self.l2 / 2.0 * squares,
            log_loss: log_loss / weight,
            equations,
        })
    }
}

struct Pass {
    objective: f64,
    log_loss: f64,
    equations: NormalEquations,
}

impl Trainer for LogisticRegression {
    fn describe(&self) -> Description {
        Description::new("logistic_regression", json!(self))
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
        let mut solution = vec![0.0; design.n_columns()];
        let mut step = solution.clone();
        let mut best = f64::INFINITY;
        for pass in 0..MAX_PASSES {
            let at = self.pass(&solution, &mut design, &layout, rows, context)?;
            context.progress(
                (pass as u64 + 1) * rows.n_rows(),
                MAX_PASSES as u64 * rows.n_rows(),
            );
            if at.objective > best + 1e-9 * best.abs() {
                // Too far: half of the step back.
                for (b, s) in solution.iter_mut().zip(&mut step) {
                    *s /= 2.0;
                    *b -= *s;
                }
                continue;
            }
            best = at.objective;
            let targets = at.equations.targets().clone();
            step = at.equations.solve()?;
            let gain: f64 = step.iter().zip(&targets).map(|(s, t)| s * t).sum();
            if gain <= 1e-10 * (1.0 + best) {
                let mut graph = ModelGraph::new(&layout);
                let score = graph.linear_model(&layout, &design.coefficients(&solution));
                context.progress(rows.n_rows(), rows.n_rows());
                return Ok(Arc::new(TrainedModel {
                    kind: "logistic_regression",
                    task: Task::BinaryClassification,
                    graph: graph.finish(score, Task::BinaryClassification),
                    layout,
                    losses: vec![at.log_loss],
                }));
            }
            solution.iter_mut().zip(&step).for_each(|(b, s)| *b += s);
        }
        Err(Error::data(format!(
            "logistic regression of {:?} has not settled in {MAX_PASSES} passes",
            self.columns.label()
        ))
        .with_hint("Raise `l2`, or scale the features by `scale_to_z_score`."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::testing::{Fixture, constants};
    use expect_test::expect;

    // scikit-learn 1.x: LogisticRegression(C=1, tol=1e-12).fit(X, y); coef_, intercept_, log_loss
    #[test]
    fn coefficients_are_as_scikit_learn_has_them() {
        let fixture = Fixture::new(
            "a: 0.5, 1.5, 2.5, 3.5, -0.5, -1.5, 0.0, 1.0; b: 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0",
            "y: 0, 1, 1, 1, 0, 0, 1, 0",
        );
        let model = fixture
            .train(&LogisticRegression::new(&fixture.layout(), "y"))
            .unwrap();
        let [weights, bias]: [Vec<f32>; 2] = constants(&model).try_into().unwrap();
        for (found, expected) in weights.iter().chain(&bias).zip([
            0.8821633215155987,
            0.14929288715641528,
            -0.8208803418089659,
        ]) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found}");
        }
        assert!((model.losses[0] - 0.44439947132559476).abs() < 1e-6);
    }

    #[test]
    fn separable_rows_settle_by_the_penalty_alone() {
        let fixture = Fixture::new("x: 1.0, 2.0, 3.0, 4.0", "y: false, false, true, true");
        let spec = LogisticRegression::new(&fixture.layout(), "y");
        assert!(fixture.train(&spec).unwrap().losses[0] < 0.5);
        assert!(fixture.train(&spec.l2(1e-3)).unwrap().losses[0] < 0.05);
    }

    #[test]
    fn what_is_refused() {
        let fixture = Fixture::new("x: 1.0, 2.0", "y: 0, null; c: 0.0, 0.5");
        let layout = fixture.layout();
        expect![[r#"
            training row 1: label "y" is null
              Hint: Filter such rows out before training."#]]
        .assert_eq(&fixture.refused(&LogisticRegression::new(&layout, "y")));
        expect![[r#"
            training row 1: label "c" must be 0 or 1, found 0.5
              Hint: A classifier learns the probability of 1: compare the column with the value sought."#]]
        .assert_eq(&fixture.refused(&LogisticRegression::new(&layout, "c")));
        expect!["l2 must be 0 or more, found -1"]
            .assert_eq(&fixture.refused(&LogisticRegression::new(&layout, "c").l2(-1.0)));
    }
}
