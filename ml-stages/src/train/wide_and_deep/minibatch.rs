//! Training rows in memory, and the tensors of some of them.

use candle_core::{Device, Tensor};

use super::inputs::{Inputs, Part};

/// The values of one part for some rows.
#[derive(Default)]
struct PartValues {
    dense: Vec<f32>,
    rows: Vec<u32>,
}

/// As many training rows as the memory budget holds.
#[derive(Default)]
pub(super) struct Block {
    wide: PartValues,
    deep: PartValues,
    labels: Vec<f32>,
    weights: Vec<f32>,
}

impl Block {
    pub(super) fn n_rows(&self) -> usize {
        self.labels.len()
    }

    pub(super) fn push(&mut self, inputs: &Inputs, features: &[f32], label: f32, weight: f32) {
        let Self { wide, deep, .. } = self;
        inputs.wide.take(features, &mut wide.dense, &mut wide.rows);
        inputs.deep.take(features, &mut deep.dense, &mut deep.rows);
        self.labels.push(label);
        self.weights.push(weight);
    }

    /// The sum of the weights of some rows.
    pub(super) fn weight(&self, rows: &[u32]) -> f64 {
        rows.iter()
            .map(|row| f64::from(self.weights[*row as usize]))
            .sum()
    }

    /// The tensors of some rows.
    pub(super) fn minibatch(
        &self,
        inputs: &Inputs,
        rows: &[u32],
    ) -> candle_core::Result<Minibatch> {
        Ok(Minibatch {
            wide: self.wide.gather(&inputs.wide, rows)?,
            deep: self.deep.gather(&inputs.deep, rows)?,
            labels: column(&self.labels, rows)?,
            weights: column(&self.weights, rows)?,
        })
    }
}

impl PartValues {
    fn gather(&self, part: &Part, rows: &[u32]) -> candle_core::Result<PartTensors> {
        Ok(PartTensors {
            dense: matrix(&self.dense, part.dense.len(), rows)?,
            rows: matrix(&self.rows, part.indexes.len(), rows)?,
        })
    }
}

/// What the network reads of some rows.
pub(super) struct Minibatch {
    pub(super) wide: PartTensors,
    pub(super) deep: PartTensors,
    /// `[n, 1]`.
    pub(super) labels: Tensor,
    /// `[n, 1]`.
    pub(super) weights: Tensor,
}

/// What one part reads; `None` where no feature is of the kind.
pub(super) struct PartTensors {
    /// `[n, columns]`.
    pub(super) dense: Option<Tensor>,
    /// Rows of the table, `[n, features]`.
    pub(super) rows: Option<Tensor>,
}

fn column(values: &[f32], rows: &[u32]) -> candle_core::Result<Tensor> {
    let values: Vec<f32> = rows.iter().map(|row| values[*row as usize]).collect();
    Tensor::from_vec(values, (rows.len(), 1), &Device::Cpu)
}

fn matrix<T: candle_core::WithDType>(
    values: &[T],
    width: usize,
    rows: &[u32],
) -> candle_core::Result<Option<Tensor>> {
    if width == 0 {
        return Ok(None);
    }
    let mut picked = Vec::with_capacity(rows.len() * width);
    for row in rows {
        let at = *row as usize * width;
        picked.extend_from_slice(&values[at..at + width]);
    }
    Tensor::from_vec(picked, (rows.len(), width), &Device::Cpu).map(Some)
}
