//! The feature matrix as ONNX nodes.

use crate::onnx_graph::{Attribute, ElementType, OnnxGraph, Tensor, TensorValues, Value};
use crate::values::{Kind, MISSING, UNKNOWN};

/// Casts each feature to FLOAT columns and sets them side by side: `[N, width]`.
pub(crate) fn concat<'a>(
    features: impl IntoIterator<Item = (&'a Value, Kind)>,
    graph: &mut OnnxGraph,
) -> Value {
    let columns: Vec<Value> = features
        .into_iter()
        .filter(|(_, kind)| !matches!(kind, Kind::OneHot { depth: 0 }))
        .map(|(value, kind)| columns(value, kind, graph))
        .collect();
    graph.op("Concat", &columns, vec![("axis", Attribute::Int(1))])
}

fn columns(value: &Value, kind: Kind, graph: &mut OnnxGraph) -> Value {
    match kind {
        Kind::Number | Kind::Text => graph.cast(value, ElementType::Float),
        Kind::Index { depth, unknown } => {
            let missing = graph.int64(MISSING);
            let is_missing = graph.binary("Equal", value, &missing);
            let place = if unknown {
                let (none, last) = (graph.int64(UNKNOWN), graph.int64(depth as i64));
                let is_unknown = graph.binary("Equal", value, &none);
                graph.select(&is_unknown, &last, value)
            } else {
                value.clone()
            };
            let place = graph.cast(&place, ElementType::Float);
            let nan = graph.constant(Tensor {
                dims: Vec::new(),
                values: TensorValues::Float(vec![f32::NAN]),
            });
            graph.select(&is_missing, &nan, &place)
        }
        Kind::OneHot { depth } => {
            let places = graph.constant(Tensor {
                dims: vec![1, depth],
                values: TensorValues::Int64((0..depth as i64).collect()),
            });
            let is_place = graph.binary("Equal", value, &places);
            graph.cast(&is_place, ElementType::Float)
        }
    }
}
