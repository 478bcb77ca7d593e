//! An ONNX graph as plain data, which mappers and models write and `mainstem-ml-stages` encodes.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The element type of a tensor, with the number that ONNX gives it (`TensorProto.DataType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum ElementType {
    /// 32-bit float.
    Float = 1,
    /// 32-bit signed integer.
    Int32 = 6,
    /// 64-bit signed integer.
    Int64 = 7,
    /// UTF-8 text.
    String = 8,
    /// Boolean.
    Bool = 9,
    /// 64-bit float.
    Double = 11,
}

/// A size in a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dim {
    /// The number of rows, known only at run time; written as the symbol `N`.
    Rows,
    /// A fixed size.
    Size(usize),
}

/// A constant tensor, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The sizes; empty for a scalar.
    pub dims: Vec<usize>,
    /// The values; as many as the product of `dims`.
    pub values: TensorValues,
}

/// The values of a constant tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorValues {
    /// 32-bit floats.
    Float(Vec<f32>),
    /// 64-bit floats.
    Double(Vec<f64>),
    /// 64-bit integers.
    Int64(Vec<i64>),
    /// UTF-8 text.
    String(Vec<String>),
    /// Booleans.
    Bool(Vec<bool>),
}

/// A named setting of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A 64-bit integer.
    Int(i64),
    /// A 32-bit float.
    Float(f32),
    /// UTF-8 text.
    String(String),
    /// 64-bit integers.
    Ints(Vec<i64>),
    /// 32-bit floats.
    Floats(Vec<f32>),
    /// UTF-8 texts.
    Strings(Vec<String>),
}

/// A tensor in the graph, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(Arc<str>);

impl Value {
    /// The tensor of this name.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// An operator in the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxNode {
    /// The operator's type, such as `Gemm`.
    pub op_type: &'static str,
    /// The domain: empty for ONNX itself, `ai.onnx.ml` for its machine learning operators.
    pub domain: &'static str,
    /// What it reads, in the operator's order.
    pub inputs: Vec<Value>,
    /// What it makes.
    pub outputs: Vec<Value>,
    /// Its settings by name.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// A tensor that enters or leaves the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub element: ElementType,
    /// Its shape.
    pub shape: Vec<Dim>,
}

/// An ONNX graph under construction; operator set 17 of ONNX, 3 of `ai.onnx.ml`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxGraph {
    inputs: Vec<Interface>,
    outputs: Vec<Interface>,
    nodes: Vec<OnnxNode>,
    constants: BTreeMap<Value, Tensor>,
    prefix: String,
}

impl OnnxGraph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty graph whose tensors and nodes are named `prefix` and a number.
    pub fn with_prefix(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }

    /// Declares an input, or gives the one already declared by this name.
    pub fn input(&mut self, name: &str, element: ElementType, shape: &[Dim]) -> Value {
        if !self.inputs.iter().any(|i| i.name == name) {
            self.inputs.push(Interface {
                name: name.into(),
                element,
                shape: shape.into(),
            });
        }
        Value::named(name)
    }

    /// Adds a constant; an equal one is used again.
    pub fn constant(&mut self, tensor: Tensor) -> Value {
        if let Some((value, _)) = self.constants.iter().find(|(_, t)| same_bits(t, &tensor)) {
            return value.clone();
        }
        let value = (self.constants.len()..)
            .map(|n| Value::named(format!("{}c{n}", self.prefix)))
            .find(|name| !self.constants.contains_key(name))
            .unwrap_or_else(|| Value::named(format!("{}c", self.prefix)));
        self.constants.insert(value.clone(), tensor);
        value
    }

    /// A constant 64-bit float, as a scalar.
    pub fn double(&mut self, value: f64) -> Value {
        self.constant(Tensor {
            dims: Vec::new(),
            values: TensorValues::Double(vec![value]),
        })
    }

    /// A constant 64-bit integer, as a scalar.
    pub fn int64(&mut self, value: i64) -> Value {
        self.constant(Tensor {
            dims: Vec::new(),
            values: TensorValues::Int64(vec![value]),
        })
    }

    /// A constant text, as a scalar.
    pub fn text(&mut self, value: &str) -> Value {
        self.constant(Tensor {
            dims: Vec::new(),
            values: TensorValues::String(vec![value.into()]),
        })
    }

    /// Casts to another element type.
    pub fn cast(&mut self, value: &Value, to: ElementType) -> Value {
        let to = Attribute::Int(i64::from(to as i32));
        self.op("Cast", std::slice::from_ref(value), vec![("to", to)])
    }

    /// `then` where `condition` is true, else `otherwise`.
    pub fn select(&mut self, condition: &Value, then: &Value, otherwise: &Value) -> Value {
        let inputs = [condition.clone(), then.clone(), otherwise.clone()];
        self.op("Where", &inputs, Vec::new())
    }

    /// An operator with two inputs and no attributes.
    pub fn binary(&mut self, op_type: &'static str, a: &Value, b: &Value) -> Value {
        self.op(op_type, &[a.clone(), b.clone()], Vec::new())
    }

    /// An operator with one input and no attributes.
    pub fn unary(&mut self, op_type: &'static str, a: &Value) -> Value {
        self.op(op_type, std::slice::from_ref(a), Vec::new())
    }

    /// Adds an ONNX operator with one output.
    pub fn op(
        &mut self,
        op_type: &'static str,
        inputs: &[Value],
        attributes: Vec<(&'static str, Attribute)>,
    ) -> Value {
        self.op_in("", op_type, inputs, attributes)
    }

    /// Adds an operator of a domain with one output.
    pub fn op_in(
        &mut self,
        domain: &'static str,
        op_type: &'static str,
        inputs: &[Value],
        attributes: Vec<(&'static str, Attribute)>,
    ) -> Value {
        let output = Value::named(format!("{}v{}", self.prefix, self.nodes.len()));
        self.nodes.push(OnnxNode {
            op_type,
            domain,
            inputs: inputs.into(),
            outputs: vec![output.clone()],
            attributes,
        });
        output
    }

    /// Drops the constants that no operator reads.
    pub fn prune(&mut self) {
        let nodes = &self.nodes;
        self.constants
            .retain(|name, _| nodes.iter().any(|n| n.inputs.contains(name)));
    }

    /// Makes `value` leave the graph as `name`.
    pub fn output(&mut self, name: &str, value: &Value, element: ElementType, shape: &[Dim]) {
        self.nodes.push(OnnxNode {
            op_type: "Identity",
            domain: "",
            inputs: vec![value.clone()],
            outputs: vec![Value::named(name)],
            attributes: Vec::new(),
        });
        self.outputs.push(Interface {
            name: name.into(),
            element,
            shape: shape.into(),
        });
    }

    /// The inputs, in order of declaration.
    pub fn inputs(&self) -> &[Interface] {
        &self.inputs
    }

    /// The outputs, in order of declaration.
    pub fn outputs(&self) -> &[Interface] {
        &self.outputs
    }

    /// The operators, each after those it reads.
    pub fn nodes(&self) -> &[OnnxNode] {
        &self.nodes
    }

    /// The constants by name.
    pub fn constants(&self) -> &BTreeMap<Value, Tensor> {
        &self.constants
    }
}

/// Equal bit by bit, so that -0.0 and 0.0 stay apart and NaN is found again.
fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    a.dims == b.dims
        && match (&a.values, &b.values) {
            (TensorValues::Float(a), TensorValues::Float(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
            }
            (TensorValues::Double(a), TensorValues::Double(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
            }
            (a, b) => a == b,
        }
}
