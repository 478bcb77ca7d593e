//! Predicts the same for every row: what any other model has to beat.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mainstem_engine::artifact::{AnyArtifact, ArtifactId, Artifacts};
use mainstem_engine::{Description, Result, Trainer, TrainingContext, TrainingRows};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::columns::{LayoutRef, TrainingColumns, no_rows};
use super::graph::ModelGraph;
use crate::model::{Task, TrainedModel};

/// Predicts the mean of the label, or the share of 1 in it, for every row.
///
/// A null label ends the run with an error that names the row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstantBaseline {
    columns: TrainingColumns,
    task: Task,
}

impl ConstantBaseline {
    /// Predicts the mean of the column `label`.
    pub fn regression(features: impl Into<LayoutRef>, label: impl Into<String>) -> Self {
        Self {
            columns: TrainingColumns::new(features.into(), label.into()),
            task: Task::Regression,
        }
    }

    /// Predicts the share of rows in which the column `label` is 1 or true.
    pub fn classification(features: impl Into<LayoutRef>, label: impl Into<String>) -> Self {
        Self {
            task: Task::BinaryClassification,
            ..Self::regression(features, label)
        }
    }

    /// Sets the column that says how much each row counts; all count the same by default.
    #[must_use]
    pub fn weight(mut self, column: impl Into<String>) -> Self {
        self.columns.set_weight(column.into());
        self
    }
}

impl Trainer for ConstantBaseline {
    fn describe(&self) -> Description {
        Description::new("constant_baseline", json!(self))
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
        let (mut n_rows, mut weight, mut sum, mut squares) = (0, 0.0, 0.0, 0.0);
        for batch in rows.epoch() {
            context.check()?;
            let examples = self.columns.read(&batch?, n_rows, &layout, self.task)?;
            for (row, y) in examples.labels.iter().enumerate() {
                weight += examples.weight(row);
                sum += examples.weight(row) * y;
                squares += examples.weight(row) * y * y;
            }
            n_rows += examples.n_rows() as u64;
            context.progress(n_rows, rows.n_rows());
        }
        if weight == 0.0 {
            return Err(no_rows(self.columns.label()));
        }
        let mean = sum / weight;
        let (value, loss) = match self.task {
            Task::Regression => (mean, (squares / weight - mean * mean).max(0.0)),
            Task::BinaryClassification => {
                // Kept finite where all labels are equal.
                let p = mean.clamp(1e-7, 1.0 - 1e-7);
                let entropy = -(mean * p.ln() + (1.0 - mean) * (1.0 - p).ln());
                ((p / (1.0 - p)).ln(), entropy)
            }
        };
        let mut graph = ModelGraph::new(&layout);
        let score = graph.same_for_all(value as f32);
        Ok(Arc::new(TrainedModel {
            kind: "constant_baseline",
            task: self.task,
            graph: graph.finish(score, self.task),
            layout,
            losses: vec![loss],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::testing::{Fixture, constants};
    use expect_test::expect;

    #[test]
    fn the_mean_and_the_base_rate() {
        let fixture = Fixture::new(
            "x: 1.0, 2.0, 3.0",
            "y: 1.0, 2.0, 6.0; hit: true, false, true",
        );
        let mean = fixture
            .train(&ConstantBaseline::regression(&fixture.layout(), "y"))
            .unwrap();
        assert_eq!(constants(&mean), [vec![0.0], vec![3.0]]);
        assert!((mean.losses[0] - 14.0 / 3.0).abs() < 1e-12);
        let share = fixture
            .train(&ConstantBaseline::classification(&fixture.layout(), "hit"))
            .unwrap();
        assert_eq!(fixture.predict(&mean), [3.0; 3]);
        for found in fixture.predict(&share) {
            assert!((found - 2.0 / 3.0).abs() < 1e-6, "{found}");
        }
    }

    #[test]
    fn weights_count() {
        let fixture = Fixture::new("x: 1.0, 2.0", "y: 1.0, 2.0; w: 3, 1");
        let spec = ConstantBaseline::regression(&fixture.layout(), "y").weight("w");
        assert_eq!(
            constants(&fixture.train(&spec).unwrap()),
            [vec![0.0], vec![1.25]]
        );
    }

    #[test]
    fn what_is_refused() {
        let fixture = Fixture::new("x: 1.0, 2.0", "y: 1.0, null; c: 1, 2; s: a, b; w: 1, -1");
        let layout = fixture.layout();
        expect![[r#"
            training row 1: label "y" is null
              Hint: Filter such rows out before training."#]]
        .assert_eq(&fixture.refused(&ConstantBaseline::regression(&layout, "y")));
        expect![[r#"
            training row 1: label "c" must be 0 or 1, found 2
              Hint: A classifier learns the probability of 1: compare the column with the value sought."#]]
        .assert_eq(&fixture.refused(&ConstantBaseline::classification(&layout, "c")));
        expect![[r#"
            label "s" must be numeric or Boolean, found Utf8
              Hint: Add a column that compares or casts it, by `with_column`."#]]
        .assert_eq(&fixture.refused(&ConstantBaseline::regression(&layout, "s")));
        expect![[r#"
            training row 1: weight "w" must be 0 or more, found -1"#]]
        .assert_eq(&fixture.refused(&ConstantBaseline::regression(&layout, "c").weight("w")));
        expect![[r#"
            there are no training rows of a weight over 0 to learn "c" from
              Hint: Look for a filter or a join before the trainer that keeps no row."#]]
        .assert_eq(
            &Fixture::new("x: ", "c: ").refused(&ConstantBaseline::regression(&layout, "c")),
        );
    }
}
