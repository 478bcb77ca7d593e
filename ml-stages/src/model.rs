//! A trained model: an ONNX graph from the feature matrix to a score, and what the score means.

use mainstem_transforms::FeatureLayout;
use mainstem_transforms::onnx_graph::OnnxGraph;
use serde::{Deserialize, Serialize};

/// The name of the model graph's only input: 32-bit floats of shape `[N, layout.width()]`.
pub const FEATURES: &str = "features";
/// The name of the model graph's only output: 32-bit floats of shape `[N, 1]`.
pub const SCORE: &str = "score";

/// What a score means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// The score is the predicted value, in the label's unit.
    Regression,
    /// The score is the probability that the label is 1 (true).
    BinaryClassification,
}

/// What a trainer ends in.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedModel {
    /// The trainer's kind, such as `wide_and_deep`.
    pub kind: &'static str,
    /// What the score means.
    pub task: Task,
    /// The features that it takes, as they stand in its input.
    pub layout: FeatureLayout,
    /// From [`FEATURES`] to [`SCORE`].
    pub graph: OnnxGraph,
    /// The mean loss of each epoch; one value for a trainer that solves in closed form.
    pub losses: Vec<f64>,
}
