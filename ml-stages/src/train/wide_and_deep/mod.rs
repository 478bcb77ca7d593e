//! A network with a wide part, linear in crossed categories, beside a deep part of hidden layers.
//!
//! ```text
//!  features ─┬─ numbers, one-hots ───────────────┐
//!            ├─ indexes ──▶ embeddings ──────────┴▶ hidden layers ─▶ 1 ─┐
//!            └─ wide features ──▶ a weight per category ────────────────┴▶ + ─▶ score
//! ```

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mainstem_engine::artifact::{AnyArtifact, ArtifactId, Artifacts};
use mainstem_engine::{Description, Error, Result, Trainer, TrainingContext, TrainingRows};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::columns::{LayoutRef, TrainingColumns};
use crate::model::Task;

mod export;
mod fit;
mod inputs;
mod minibatch;
mod network;
mod optimizer;

/// Fits the label by a neural network beside a linear model, trained together by AdamW.
///
/// Numbers and one-hot columns go straight to the hidden layers, so scale numbers first
/// (`scale_to_z_score`). An index feature goes through an embedding, learned with the rest; values
/// without a category (-1) have one of their own. Features named in [`WideAndDeep::wide`] go to the wide
/// part instead: a weight per category, or per number. For regression the label is brought to mean 0
/// and standard deviation 1 for training, and the model gives it back in its own unit.
///
/// A null label ends the run with an error that names the row, and so does a loss that is not a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WideAndDeep {
    columns: TrainingColumns,
    task: Task,
    wide: Vec<String>,
    hidden_layers: Vec<usize>,
    embedding_dims: usize,
    ensemble: usize,
    epochs: usize,
    batch_size: usize,
    learning_rate: f64,
    weight_decay: f64,
    seed: u64,
}

impl WideAndDeep {
    /// Learns the number in the column `label`.
    pub fn regression(features: impl Into<LayoutRef>, label: impl Into<String>) -> Self {
        Self {
            columns: TrainingColumns::new(features.into(), label.into()),
            task: Task::Regression,
            wide: Vec::new(),
            hidden_layers: vec![64, 32],
            embedding_dims: 8,
            ensemble: 1,
            epochs: 10,
            batch_size: 512,
            learning_rate: 0.003,
            weight_decay: 0.01,
            seed: 0,
        }
    }

    /// Learns the probability that the column `label` is 1 or true.
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

    /// Sets the features of the wide part, by name; none by default.
    #[must_use]
    pub fn wide(mut self, features: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.wide = features.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the sizes of the hidden layers; 64 and 32 by default. With none the deep part is linear.
    #[must_use]
    pub fn hidden_layers(mut self, sizes: impl IntoIterator<Item = usize>) -> Self {
        self.hidden_layers = sizes.into_iter().collect();
        self
    }

    /// Sets how many numbers stand for a category of an index feature; 8 by default.
    #[must_use]
    pub fn embedding_dims(mut self, dims: usize) -> Self {
        self.embedding_dims = dims;
        self
    }

    /// Sets how many networks are trained, from different random numbers, and averaged; 1 by default.
    #[must_use]
    pub fn ensemble(mut self, networks: usize) -> Self {
        self.ensemble = networks;
        self
    }

    /// Sets how often the rows are passed over; 10 by default.
    #[must_use]
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// Sets how many rows make a step; 512 by default.
    #[must_use]
    pub fn batch_size(mut self, rows: usize) -> Self {
        self.batch_size = rows;
        self
    }

    /// Sets the size of the first step, from which it falls to 0 along a cosine; 0.003 by default.
    #[must_use]
    pub fn learning_rate(mut self, rate: f64) -> Self {
        self.learning_rate = rate;
        self
    }

    /// Sets AdamW's weight decay, of all weights but the biases; 0.01 by default.
    #[must_use]
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.weight_decay = decay;
        self
    }

    /// Sets the seed of the first weights and of the order of rows; 0 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    fn check_options(&self) -> Vec<Error> {
        let at_least_one = [
            ("hidden_layers", self.hidden_layers.iter().copied().min()),
            ("embedding_dims", Some(self.embedding_dims)),
            ("ensemble", Some(self.ensemble)),
            ("epochs", Some(self.epochs)),
            ("batch_size", Some(self.batch_size)),
        ];
        let mut errors: Vec<Error> = at_least_one
            .into_iter()
            .filter(|(_, value)| *value == Some(0))
            .map(|(option, _)| Error::pipeline(format!("{option} must be at least 1, found 0")))
            .collect();
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            let found = self.learning_rate;
            errors.push(
                Error::pipeline(format!("learning_rate must be over 0, found {found}"))
                    .with_hint("Start with 0.003."),
            );
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            let found = self.weight_decay;
            errors.push(Error::pipeline(format!(
                "weight_decay must be 0 or more, found {found}"
            )));
        }
        errors
    }
}

impl Trainer for WideAndDeep {
    fn describe(&self) -> Description {
        Description::new("wide_and_deep", json!(self))
    }

    fn check(&self, input: &SchemaRef) -> Result<()> {
        let mut errors = self.check_options();
        errors.extend(self.columns.check(input).err());
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::all(errors))
        }
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
        let trained = fit::fit(self, &layout, rows, context)?;
        Ok(Arc::new(export::export(self, layout, trained)?))
    }
}

#[cfg(test)]
mod tests;
