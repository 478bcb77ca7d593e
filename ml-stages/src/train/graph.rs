//! The parts of a model's ONNX graph: columns picked, categories looked up, layers.

use mainstem_transforms::onnx_graph::{
    Attribute, Dim, ElementType, OnnxGraph, Tensor, TensorValues, Value,
};
use mainstem_transforms::{FeatureColumn, FeatureKind, FeatureLayout};

use super::design::Coefficients;
use crate::model::{FEATURES, SCORE, Task};

/// A model's graph under construction, from the feature matrix on.
pub(crate) struct ModelGraph {
    graph: OnnxGraph,
    features: Value,
    width: usize,
}

impl ModelGraph {
    pub(crate) fn new(layout: &FeatureLayout) -> Self {
        let width = layout.width();
        let mut graph = OnnxGraph::with_prefix("model_");
        let features = graph.input(FEATURES, ElementType::Float, &[Dim::Rows, Dim::Size(width)]);
        Self {
            graph,
            features,
            width,
        }
    }

    /// A constant of 32-bit floats.
    fn floats(&mut self, dims: &[usize], values: Vec<f32>) -> Value {
        self.graph.constant(Tensor {
            dims: dims.into(),
            values: TensorValues::Float(values),
        })
    }

    fn integers(&mut self, dims: &[usize], values: Vec<i64>) -> Value {
        self.graph.constant(Tensor {
            dims: dims.into(),
            values: TensorValues::Int64(values),
        })
    }

    /// These columns of the matrix, `[N, columns.len()]`.
    pub(crate) fn pick(&mut self, columns: &[usize]) -> Value {
        if columns.iter().copied().eq(0..self.width) {
            return self.features.clone();
        }
        let columns = self.integers(
            &[columns.len()],
            columns.iter().map(|c| *c as i64).collect(),
        );
        let features = self.features.clone();
        self.graph.op(
            "Gather",
            &[features, columns],
            vec![("axis", Attribute::Int(1))],
        )
    }

    /// The rows of a common table for index features, `[N, features.len()]`: feature `i` has its
    /// `depth + 1` rows from `first[i]` on, as `table_row` counts them.
    pub(crate) fn table_rows(&mut self, features: &[FeatureColumn], first: &[usize]) -> Value {
        let columns: Vec<usize> = features.iter().map(|f| f.offset).collect();
        let last = features.iter().map(|f| last_index(f.kind)).collect();
        let first = first.iter().map(|f| *f as i64 + 1).collect();
        let n = features.len();
        let indexes = self.pick(&columns);
        let none = self.floats(&[], vec![-1.0]);
        let last = self.floats(&[1, n], last);
        let first = self.integers(&[1, n], first);
        let indexes = self.graph.op("Max", &[indexes, none], Vec::new());
        let indexes = self.graph.op("Min", &[indexes, last], Vec::new());
        let to = Attribute::Int(ElementType::Int64 as i64);
        let indexes = self.graph.op("Cast", &[indexes], vec![("to", to)]);
        self.graph.op("Add", &[indexes, first], Vec::new())
    }

    /// The sum over the features of a weight per category, `[N, 1]`.
    pub(crate) fn sum_of_weights(&mut self, rows: Value, weights: Vec<f32>) -> Value {
        let table = self.floats(&[weights.len()], weights);
        let picked = self.graph.op("Gather", &[table, rows], Vec::new());
        let axes = self.integers(&[1], vec![1]);
        self.graph.op("ReduceSum", &[picked, axes], Vec::new())
    }

    /// The table's rows of length `dims` side by side, `[N, features * dims]`.
    pub(crate) fn embed(&mut self, rows: Value, dims: usize, table: Vec<f32>) -> Value {
        let table = self.floats(&[table.len() / dims, dims], table);
        let picked = self.graph.op("Gather", &[table, rows], Vec::new());
        self.graph.op("Flatten", &[picked], Vec::new())
    }

    /// Columns side by side.
    pub(crate) fn concat(&mut self, parts: &[Value]) -> Value {
        match parts {
            [part] => part.clone(),
            _ => self
                .graph
                .op("Concat", parts, vec![("axis", Attribute::Int(1))]),
        }
    }

    /// `input * weights + bias`, where weights are `[inputs, bias.len()]` row by row.
    pub(crate) fn linear(&mut self, input: Value, weights: Vec<f32>, bias: Vec<f32>) -> Value {
        let n = bias.len();
        let weights = self.floats(&[weights.len() / n, n], weights);
        let bias = self.floats(&[n], bias);
        self.graph.op("Gemm", &[input, weights, bias], Vec::new())
    }

    pub(crate) fn relu(&mut self, input: Value) -> Value {
        self.graph.op("Relu", &[input], Vec::new())
    }

    fn add(&mut self, a: Value, b: Value) -> Value {
        self.graph.op("Add", &[a, b], Vec::new())
    }

    /// The sum of scores, one after the other; 0 for none.
    pub(crate) fn sum(&mut self, scores: Vec<Value>) -> Value {
        match scores.into_iter().reduce(|a, b| self.add(a, b)) {
            Some(sum) => sum,
            None => self.same_for_all(0.0),
        }
    }

    /// A column of `value` for every row.
    pub(crate) fn same_for_all(&mut self, value: f32) -> Value {
        // Every row's features times 0 keep the number of rows; no value is NaN or infinite.
        let zeros = vec![0.0; self.width];
        let features = self.features.clone();
        self.linear(features, zeros, vec![value])
    }

    /// A linear model over the features.
    pub(crate) fn linear_model(
        &mut self,
        layout: &FeatureLayout,
        coefficients: &Coefficients,
    ) -> Value {
        let mut picked = Vec::new();
        let mut weights = Vec::new();
        let mut indexes = Vec::new();
        let mut first = Vec::new();
        let mut table: Vec<f32> = Vec::new();
        for (column, values) in layout.columns().iter().zip(&coefficients.columns) {
            let values = values.iter().map(|v| *v as f32);
            if let FeatureKind::Index { .. } = column.kind {
                indexes.push(column.clone());
                first.push(table.len());
                table.extend(values);
            } else {
                picked.extend(column.offset..column.offset + column.kind.width());
                weights.extend(values);
            }
        }
        let intercept = coefficients.intercept as f32;
        let dense = if picked.is_empty() {
            self.same_for_all(intercept)
        } else {
            let dense = self.pick(&picked);
            self.linear(dense, weights, vec![intercept])
        };
        if indexes.is_empty() {
            return dense;
        }
        let rows = self.table_rows(&indexes, &first);
        let sparse = self.sum_of_weights(rows, table);
        self.add(dense, sparse)
    }

    /// The graph that gives `score`, `[N, 1]`: a value, or the logit of a probability.
    pub(crate) fn finish(mut self, score: Value, task: Task) -> OnnxGraph {
        let score = match task {
            Task::Regression => score,
            Task::BinaryClassification => self.graph.op("Sigmoid", &[score], Vec::new()),
        };
        self.graph.output(
            SCORE,
            &score,
            ElementType::Float,
            &[Dim::Rows, Dim::Size(1)],
        );
        self.graph
    }
}

fn last_index(kind: FeatureKind) -> f32 {
    match kind {
        FeatureKind::Index { depth } => depth as f32 - 1.0,
        _ => 0.0,
    }
}
