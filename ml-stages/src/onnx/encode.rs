//! Writes a graph as the bytes of an ONNX file.

use std::collections::BTreeMap;

use mainstem_transforms::onnx_graph::{
    Attribute, Dim, Interface, OnnxGraph, OnnxNode, Tensor, TensorValues,
};
use prost::Message;

use super::proto::{
    AttributeProto, DimProto, DimValue, GraphProto, ModelProto, NodeProto, OperatorSetId,
    ShapeProto, StringEntry, TensorProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// The version of the file format: that of operator set 17.
const IR_VERSION: i64 = 8;
/// The versions of the operator sets, ONNX's own first.
const OPERATOR_SETS: [(&str, i64); 2] = [("", 17), ("ai.onnx.ml", 3)];
/// The symbol of the number of rows.
const ROWS: &str = "N";

/// The bytes of an ONNX file that holds `graph` under `name`, with `metadata` as its properties.
///
/// Equal graphs give equal bytes. An operator set is imported only where a node uses it.
pub fn encode(graph: &OnnxGraph, name: &str, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    model(graph, name, metadata).encode_to_vec()
}

fn model(graph: &OnnxGraph, name: &str, metadata: &BTreeMap<String, String>) -> ModelProto {
    let used = |domain: &str| domain.is_empty() || graph.nodes().iter().any(|n| n.domain == domain);
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "mainstem".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(GraphProto {
            name: name.into(),
            node: graph.nodes().iter().map(node).collect(),
            initializer: graph
                .constants()
                .iter()
                .map(|(value, tensor)| constant(value.name(), tensor))
                .collect(),
            input: graph.inputs().iter().map(interface).collect(),
            output: graph.outputs().iter().map(interface).collect(),
        }),
        opset_import: OPERATOR_SETS
            .iter()
            .filter(|(domain, _)| used(domain))
            .map(|&(domain, version)| OperatorSetId {
                domain: domain.into(),
                version,
            })
            .collect(),
        metadata_props: metadata
            .iter()
            .map(|(key, value)| StringEntry {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
    }
}

fn interface(interface: &Interface) -> ValueInfoProto {
    let dim = interface
        .shape
        .iter()
        .map(|dim| DimProto {
            value: Some(match dim {
                Dim::Rows => DimValue::Symbol(ROWS.into()),
                Dim::Size(size) => DimValue::Size(*size as i64),
            }),
        })
        .collect();
    ValueInfoProto {
        name: interface.name.clone(),
        kind: Some(TypeProto {
            tensor: Some(TensorTypeProto {
                element: interface.element as i32,
                shape: Some(ShapeProto { dim }),
            }),
        }),
    }
}

fn node(node: &OnnxNode) -> NodeProto {
    let names = |values: &[mainstem_transforms::onnx_graph::Value]| -> Vec<String> {
        values.iter().map(|v| v.name().to_owned()).collect()
    };
    let output = names(&node.outputs);
    NodeProto {
        input: names(&node.inputs),
        // The first output names the node: it is unique in the graph.
        name: output.first().cloned().unwrap_or_default(),
        output,
        op_type: node.op_type.into(),
        attribute: node
            .attributes
            .iter()
            .map(|(n, a)| attribute(n, a))
            .collect(),
        domain: node.domain.into(),
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto {
        name: name.into(),
        ..AttributeProto::default()
    };
    proto.kind = match value {
        Attribute::Float(f) => {
            proto.f = Some(*f);
            1
        }
        Attribute::Int(i) => {
            proto.i = Some(*i);
            2
        }
        Attribute::String(s) => {
            proto.s = Some(s.clone().into_bytes());
            3
        }
        Attribute::Floats(floats) => {
            proto.floats.clone_from(floats);
            6
        }
        Attribute::Ints(ints) => {
            proto.ints.clone_from(ints);
            7
        }
        Attribute::Strings(strings) => {
            proto.strings = strings.iter().map(|s| s.clone().into_bytes()).collect();
            8
        }
    };
    proto
}

fn constant(name: &str, tensor: &Tensor) -> TensorProto {
    use mainstem_transforms::onnx_graph::ElementType as E;
    let mut proto = TensorProto {
        name: name.into(),
        dims: tensor.dims.iter().map(|&d| d as i64).collect(),
        ..TensorProto::default()
    };
    let (element, raw) = match &tensor.values {
        TensorValues::Float(v) => (E::Float, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        TensorValues::Double(v) => (E::Double, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        TensorValues::Int64(v) => (E::Int64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        TensorValues::Bool(v) => (E::Bool, v.iter().map(|&x| u8::from(x)).collect()),
        TensorValues::String(v) => {
            proto.data_type = E::String as i32;
            proto.string_data = v.iter().map(|s| s.clone().into_bytes()).collect();
            return proto;
        }
    };
    proto.data_type = element as i32;
    proto.raw_data = Some(raw);
    proto
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstem_transforms::onnx_graph::ElementType;

    fn every_kind() -> OnnxGraph {
        let mut graph = OnnxGraph::with_prefix("g/");
        let city = graph.input("city", ElementType::String, &[Dim::Rows, Dim::Size(1)]);
        let id = graph.op_in(
            "ai.onnx.ml",
            "LabelEncoder",
            &[city],
            vec![
                (
                    "keys_strings",
                    Attribute::Strings(vec!["a".into(), "ü".into()]),
                ),
                ("values_floats", Attribute::Floats(vec![0.0, 1.5])),
                ("default_float", Attribute::Float(-0.0)),
                ("unused", Attribute::String("x".into())),
            ],
        );
        let constants = [
            TensorValues::Float(vec![f32::NAN, -0.0]),
            TensorValues::Double(vec![1.0, f64::MIN_POSITIVE]),
            TensorValues::Int64(vec![-1, i64::MAX]),
            TensorValues::Bool(vec![true, false]),
            TensorValues::String(vec!["".into(), "b".into()]),
        ];
        for values in constants {
            graph.constant(Tensor {
                dims: vec![2],
                values,
            });
        }
        let axis = graph.constant(Tensor {
            dims: vec![],
            values: TensorValues::Float(vec![2.0]),
        });
        let sum = graph.op(
            "Add",
            &[id, axis],
            vec![
                ("axes", Attribute::Ints(vec![-1, 0])),
                ("to", Attribute::Int(1)),
            ],
        );
        graph.output(
            "score",
            &sum,
            ElementType::Float,
            &[Dim::Rows, Dim::Size(1)],
        );
        graph
    }

    #[test]
    fn what_is_written_is_read_again() {
        let graph = every_kind();
        let metadata = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let bytes = encode(&graph, "test", &metadata);
        let read = ModelProto::decode(&*bytes).unwrap();
        // NaN is not equal to itself, so bytes are compared.
        assert_eq!(read.encode_to_vec(), bytes);
        let sets: Vec<&str> = read.opset_import.iter().map(|o| &*o.domain).collect();
        assert_eq!(sets, ["", "ai.onnx.ml"]);
        let proto = read.graph.unwrap();
        assert_eq!(proto.node.len(), 3);
        let kinds: Vec<i32> = proto.node[0].attribute.iter().map(|a| a.kind).collect();
        assert_eq!(kinds, [8, 6, 1, 3]);
        assert_eq!(
            proto.node[0].attribute[2].f.map(f32::to_bits),
            Some((-0.0f32).to_bits())
        );
        let types: Vec<i32> = proto.initializer.iter().map(|t| t.data_type).collect();
        assert_eq!(types, [1, 11, 7, 9, 8, 1]);
        let scalar = &proto.initializer[5];
        assert_eq!(
            (scalar.dims.len(), scalar.raw_data.as_deref()),
            (0, Some(&[0, 0, 0, 64][..]))
        );
        let shape = proto.input[0]
            .kind
            .clone()
            .and_then(|k| k.tensor)
            .and_then(|t| t.shape)
            .unwrap();
        let dims: Vec<DimValue> = shape.dim.into_iter().filter_map(|d| d.value).collect();
        assert_eq!(dims, [DimValue::Symbol("N".into()), DimValue::Size(1)]);
    }

    #[test]
    fn equal_graphs_give_equal_bytes() {
        let metadata = BTreeMap::new();
        assert_eq!(
            encode(&every_kind(), "test", &metadata),
            encode(&every_kind(), "test", &metadata)
        );
    }
}
