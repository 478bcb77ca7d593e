//! What a Predictor says about itself, as `manifest.json`.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use mainstem_engine::{Error, Result};
use mainstem_transforms::onnx_graph::{ElementType, OnnxGraph};
use mainstem_transforms::{FeatureLayout, FittedPreprocess};
use serde::{Deserialize, Serialize};

use crate::model::Task;

/// The version of the folder's layout that this release writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What a Predictor says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the folder's layout.
    pub format_version: u32,
    /// What wrote it, with its version.
    pub created_by: String,
    /// The kind of the trainer, such as `wide_and_deep`.
    pub model_kind: String,
    /// What a score means.
    pub task: Task,
    /// The raw columns it takes.
    pub inputs: Vec<RawInput>,
    /// Where each feature stands in the matrix.
    pub layout: FeatureLayout,
    /// The hash of the fitted preprocessing.
    pub preprocess_fingerprint: String,
    /// The most rows that are given to the model at once.
    ///
    /// Larger batches are cut into this many rows, so that scores do not depend on how rows arrive.
    pub minibatch_rows: usize,
    /// The mean loss of each epoch.
    pub losses: Vec<f64>,
    /// How good the model is, as the pipeline has measured it; null where it has not.
    pub metrics: serde_json::Value,
    /// What `golden.arrow` holds.
    pub golden: Golden,
    /// Why there is no `fused.onnx`; `None` where there is one.
    pub fused_refused: Option<String>,
    /// The SHA-256 of each other file of the folder.
    pub files: BTreeMap<String, String>,
}

/// A raw column, and how it enters `fused.onnx`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawInput {
    /// The column's name, also that of the ONNX input, whose shape is `[N, 1]`.
    pub name: String,
    /// The Arrow type.
    pub data_type: String,
    /// Whether nulls were expected.
    pub nullable: bool,
    /// The element type of the ONNX input.
    pub onnx_type: OnnxType,
    /// What stands for null in ONNX, which has none.
    pub null_as: NullAs,
}

/// The element type of a raw ONNX input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnnxType {
    /// 64-bit float, for every number.
    Double,
    /// UTF-8 text.
    String,
    /// Boolean.
    Bool,
}

/// What stands for null in a raw ONNX input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullAs {
    /// NaN.
    Nan,
    /// The empty text.
    EmptyText,
    /// Nothing does: a row with null cannot be given to `fused.onnx`.
    Nothing,
}

/// What `golden.arrow` holds: raw rows, the features and the score of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// How many rows.
    pub n_rows: usize,
    /// The back-end that scored them.
    pub backend: String,
    /// Differences of scores are relative to the score, and to no less than this.
    ///
    /// Zero for probabilities. For regression, whose scores may pass through zero, the mean magnitude.
    pub score_floor: f64,
}

/// The raw columns of `fitted`; the types of those that `graph` takes are as it says.
pub(super) fn raw_inputs(
    fitted: &FittedPreprocess,
    graph: Option<&OnnxGraph>,
) -> Result<Vec<RawInput>> {
    let schema = fitted.input_schema();
    let inputs = schema.fields().iter().map(|field| {
        let element = graph
            .and_then(|g| g.inputs().iter().find(|i| &i.name == field.name()))
            .map(|i| i.element);
        let onnx_type = match element {
            Some(ElementType::Double) => OnnxType::Double,
            Some(ElementType::String) => OnnxType::String,
            Some(ElementType::Bool) => OnnxType::Bool,
            None => type_by_rule(field.data_type()),
            Some(other) => {
                return Err(Error::bug(format!(
                    "the raw column {:?} enters ONNX as {other:?}",
                    field.name()
                )));
            }
        };
        Ok(RawInput {
            name: field.name().clone(),
            data_type: field.data_type().to_string(),
            nullable: field.is_nullable(),
            onnx_type,
            null_as: match onnx_type {
                OnnxType::Double => NullAs::Nan,
                OnnxType::String => NullAs::EmptyText,
                OnnxType::Bool => NullAs::Nothing,
            },
        })
    });
    inputs.collect()
}

fn type_by_rule(data_type: &DataType) -> OnnxType {
    match data_type {
        DataType::Boolean => OnnxType::Bool,
        t if t.is_numeric() => OnnxType::Double,
        _ => OnnxType::String,
    }
}
