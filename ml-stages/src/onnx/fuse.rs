//! Joins preprocessing and model into one graph that takes the raw columns.

use std::collections::HashMap;

use mainstem_engine::{Error, Result};
use mainstem_transforms::onnx_graph::{Dim, ElementType, OnnxGraph, Value};

use crate::model::{FEATURES, SCORE};

/// How the tensors of a fused graph are named, besides its inputs and outputs.
pub(crate) const FUSED_PREFIX: &str = "mainstem/";

/// Continues `preprocess`, whose feature matrix is `matrix` and `width` wide, with `model`.
///
/// The inputs are the raw columns; the outputs are [`FEATURES`], the matrix, and [`SCORE`].
/// The model's operators keep their order, so the fused score is the model's score of the matrix.
///
/// # Errors
/// A pipeline error if a raw column is named like an output or like an inner tensor, and a bug if the
/// model has another input than [`FEATURES`] or no output [`SCORE`].
pub fn fuse(
    mut preprocess: OnnxGraph,
    matrix: &Value,
    width: usize,
    model: &OnnxGraph,
) -> Result<OnnxGraph> {
    for input in preprocess.inputs() {
        let name = &input.name;
        if name == FEATURES || name == SCORE || name.starts_with(FUSED_PREFIX) {
            return Err(Error::pipeline(format!(
                "the raw column {name:?} is named like a tensor of the fused graph"
            ))
            .with_hint("Rename the column before it is preprocessed."));
        }
    }
    if model.inputs().len() != 1 {
        return Err(Error::bug("a model's graph must have one input"));
    }
    let mut known: HashMap<Value, Value> = HashMap::new();
    known.insert(Value::named(FEATURES), matrix.clone());
    for (value, tensor) in model.constants() {
        let there = preprocess.constant(tensor.clone());
        known.insert(value.clone(), there);
    }
    for node in model.nodes() {
        let inputs = node
            .inputs
            .iter()
            .map(|v| {
                known.get(v).cloned().ok_or_else(|| {
                    Error::bug(format!("a model reads {:?} before it is made", v.name()))
                })
            })
            .collect::<Result<Vec<Value>>>()?;
        let [output] = node.outputs.as_slice() else {
            return Err(Error::bug("a model's operator must have one output"));
        };
        let made = if node.op_type == "Identity" {
            inputs[0].clone()
        } else {
            preprocess.op_in(node.domain, node.op_type, &inputs, node.attributes.clone())
        };
        known.insert(output.clone(), made);
    }
    let score = known
        .get(&Value::named(SCORE))
        .cloned()
        .ok_or_else(|| Error::bug(format!("a model has no output {SCORE:?}")))?;
    let shape = |width| [Dim::Rows, Dim::Size(width)];
    preprocess.output(FEATURES, matrix, ElementType::Float, &shape(width));
    preprocess.output(SCORE, &score, ElementType::Float, &shape(1));
    Ok(preprocess)
}
