//! Sums over labels and predictions that merge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evaluation::Metrics;
use crate::model::Task;

/// How near to 0 and 1 a probability is taken in the log loss.
const CLIP: f64 = 1e-7;

/// The rows of one slice seen so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SliceSums {
    pub(super) n_rows: u64,
    label: f64,
    /// One for each prediction column.
    pub(super) predictions: Vec<Sums>,
}

/// The rows of one slice and one prediction seen so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    prediction: f64,
    /// Squared errors, or log losses.
    losses: f64,
    /// Absolute errors, or rows that are right.
    others: f64,
    /// Rows with label 1 and with label 0 for each score, by the score's rank; classification only.
    scores: BTreeMap<u32, (u64, u64)>,
}

impl SliceSums {
    pub(super) fn new(n_predictions: usize) -> Self {
        Self {
            predictions: vec![Sums::default(); n_predictions],
            ..Self::default()
        }
    }

    pub(super) fn add_label(&mut self, label: f64) {
        self.n_rows += 1;
        self.label += label;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.n_rows += other.n_rows;
        self.label += other.label;
        for (sums, other) in self.predictions.iter_mut().zip(other.predictions) {
            sums.prediction += other.prediction;
            sums.losses += other.losses;
            sums.others += other.others;
            for (rank, (positive, negative)) in other.scores {
                let count = sums.scores.entry(rank).or_default();
                count.0 += positive;
                count.1 += negative;
            }
        }
    }

    pub(super) fn metrics(&self, prediction: usize, task: Task) -> Metrics {
        let n = self.n_rows as f64;
        let sums = &self.predictions[prediction];
        let (mean_label, mean_prediction) = (self.label / n, sums.prediction / n);
        match task {
            Task::Regression => Metrics::Regression {
                rmse: (sums.losses / n).sqrt(),
                mae: sums.others / n,
                mean_label,
                mean_prediction,
            },
            Task::BinaryClassification => Metrics::Classification {
                accuracy: sums.others / n,
                auc: area_under_curve(&sums.scores),
                log_loss: sums.losses / n,
                mean_label,
                mean_prediction,
            },
        }
    }
}

impl Sums {
    pub(super) fn add(&mut self, label: f64, prediction: f32, task: Task) {
        let p = f64::from(prediction);
        self.prediction += p;
        match task {
            Task::Regression => {
                self.losses += (p - label) * (p - label);
                self.others += (p - label).abs();
            }
            Task::BinaryClassification => {
                let positive = label == 1.0;
                let of_truth = if positive { p } else { 1.0 - p };
                self.losses -= of_truth.clamp(CLIP, 1.0 - CLIP).ln();
                self.others += f64::from(u8::from((p > 0.5) == positive));
                let count = self.scores.entry(rank(prediction)).or_default();
                count.0 += u64::from(positive);
                count.1 += u64::from(!positive);
            }
        }
    }
}

/// An integer in the order of the floats, equal for equal floats.
fn rank(score: f32) -> u32 {
    // -0.0 + 0.0 is 0.0.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

/// The share of pairs of a 1 and a 0 in which the 1 has the higher score; equal scores count half.
fn area_under_curve(scores: &BTreeMap<u32, (u64, u64)>) -> Option<f64> {
    let (mut positives, mut below, mut twice_won) = (0u64, 0u64, 0u128);
    for (positive, negative) in scores.values() {
        twice_won += u128::from(*positive) * u128::from(2 * below + negative);
        positives += positive;
        below += negative;
    }
    let pairs = u128::from(positives) * u128::from(below);
    (pairs > 0).then(|| twice_won as f64 / 2.0 / pairs as f64)
}
