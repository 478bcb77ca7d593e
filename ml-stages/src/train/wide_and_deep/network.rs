//! The network's weights, its forward pass and its loss.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::Rng;
use rand::RngExt;

use super::WideAndDeep;
use super::inputs::Inputs;
use super::minibatch::Minibatch;
use crate::model::Task;

/// A tensor that is learned.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) var: Var,
    /// False for biases, which do not decay.
    pub(super) decays: bool,
}

/// A layer's weights `[inputs, outputs]` and bias `[outputs]`.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) weights: Var,
    pub(super) bias: Var,
}

/// One network of the ensemble.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// `[table rows, dims]`, if there are index features in the deep part.
    pub(super) embeddings: Option<Var>,
    /// The hidden layers, and at last the one that gives the score.
    pub(super) layers: Vec<Layer>,
    /// A weight per category, `[table rows]`.
    pub(super) wide_table: Option<Var>,
    /// A weight per column, `[columns, 1]`.
    pub(super) wide_dense: Option<Var>,
}

impl Network {
    /// A network before training, whose score is about `score` for all rows.
    pub(super) fn new(
        spec: &WideAndDeep,
        inputs: &Inputs,
        score: f32,
        random: &mut impl Rng,
    ) -> Result<Self> {
        let dims = spec.embedding_dims;
        let (deep, wide) = (&inputs.deep, &inputs.wide);
        let embeddings = table(&[deep.n_table_rows, dims], 0.1, random)?;
        let mut width = deep.dense.len() + deep.indexes.len() * dims;
        let mut layers = Vec::new();
        for &size in &spec.hidden_layers {
            // He's bound for layers before a relu.
            let bound = (6.0 / width.max(1) as f32).sqrt();
            layers.push(Layer {
                weights: uniform(&[width, size], bound, random)?,
                bias: Var::zeros(size, DType::F32, &Device::Cpu)?,
            });
            width = size;
        }
        let bound = (3.0 / width.max(1) as f32).sqrt() / 2.0;
        layers.push(Layer {
            weights: uniform(&[width, 1], bound, random)?,
            bias: Var::from_vec(vec![score], 1, &Device::Cpu)?,
        });
        Ok(Self {
            embeddings,
            layers,
            wide_table: zeros(&[wide.n_table_rows])?,
            wide_dense: zeros(&[wide.dense.len(), 1])?,
        })
    }

    /// All that is learned, always in the same order.
    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let weights = self.layers.iter().map(|l| (&l.weights, true));
        let biases = self.layers.iter().map(|l| (&l.bias, false));
        let others = [&self.embeddings, &self.wide_table, &self.wide_dense];
        let others = others.into_iter().flatten().map(|v| (v, true));
        weights
            .chain(biases)
            .chain(others)
            .map(|(var, decays)| Parameter {
                var: var.clone(),
                decays,
            })
            .collect()
    }

    /// The scores, `[n, 1]`: normalised values, or logits.
    pub(super) fn forward(&self, rows: &Minibatch) -> Result<Tensor> {
        let mut parts = Vec::new();
        parts.extend(rows.deep.dense.clone());
        if let (Some(table), Some(at)) = (&self.embeddings, &rows.deep.rows) {
            let (n, features) = at.dims2()?;
            let picked = table.index_select(&at.flatten_all()?, 0)?;
            parts.push(picked.reshape((n, features * table.dim(1)?))?);
        }
        let mut score = match parts.as_slice() {
            [] => self.bias_only(rows)?,
            [part] => self.deep(part.clone())?,
            parts => self.deep(Tensor::cat(parts, 1)?)?,
        };
        if let (Some(table), Some(at)) = (&self.wide_table, &rows.wide.rows) {
            let (n, features) = at.dims2()?;
            let picked = table.index_select(&at.flatten_all()?, 0)?;
            score = (score + picked.reshape((n, features))?.sum_keepdim(1)?)?;
        }
        if let (Some(weights), Some(dense)) = (&self.wide_dense, &rows.wide.dense) {
            score = (score + dense.matmul(weights)?)?;
        }
        Ok(score)
    }

    fn deep(&self, mut x: Tensor) -> Result<Tensor> {
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            x = x.matmul(&layer.weights)?.broadcast_add(&layer.bias)?;
            if i < last {
                x = x.relu()?;
            }
        }
        Ok(x)
    }

    /// Without a deep feature only the last bias is left of the deep part.
    fn bias_only(&self, rows: &Minibatch) -> Result<Tensor> {
        let bias = &self.layers[self.layers.len() - 1].bias;
        rows.labels.zeros_like()?.broadcast_add(bias)
    }
}

/// The sum over rows of the weighted losses, over `total`.
pub(super) fn loss(scores: &Tensor, rows: &Minibatch, total: f64, task: Task) -> Result<Tensor> {
    let losses = match task {
        Task::Regression => (scores - &rows.labels)?.sqr()?,
        Task::BinaryClassification => {
            // max(z, 0) - z y + log(1 + exp(-|z|)): no exp of a large number.
            let rest = (scores.abs()?.neg()?.exp()? + 1.0)?.log()?;
            ((scores.relu()? - (scores * &rows.labels)?)? + rest)?
        }
    };
    (losses * &rows.weights)?.sum_all()? * (1.0 / total)
}

fn zeros(dims: &[usize]) -> Result<Option<Var>> {
    if dims[0] == 0 {
        return Ok(None);
    }
    Var::zeros(dims, DType::F32, &Device::Cpu).map(Some)
}

fn table(dims: &[usize], bound: f32, random: &mut impl Rng) -> Result<Option<Var>> {
    if dims[0] == 0 {
        return Ok(None);
    }
    uniform(dims, bound, random).map(Some)
}

fn uniform(dims: &[usize], bound: f32, random: &mut impl Rng) -> Result<Var> {
    let values = (0..dims.iter().product())
        .map(|_| random.random_range(-bound..bound))
        .collect::<Vec<f32>>();
    Var::from_vec(values, dims, &Device::Cpu)
}
