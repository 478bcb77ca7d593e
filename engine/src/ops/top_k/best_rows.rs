//! The rows of each key that come first.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use super::bytes_of;
use super::first_of_groups::FirstOfGroups;
use crate::error::Result;
use crate::keys::{Keys, keys_of};
use crate::state::StatePart;

/// Rows that may be among the first `n` of their key.
pub(super) struct BestRows {
    n: usize,
    keys: Box<dyn Keys>,
    groups: Vec<usize>,
    first: FirstOfGroups,
}

impl BestRows {
    pub(super) fn new(n: usize) -> Result<Self> {
        Ok(Self {
            n,
            keys: keys_of(&[DataType::Binary])?,
            groups: Vec::new(),
            first: FirstOfGroups::new(n),
        })
    }

    pub(super) fn n_rows(&self) -> usize {
        self.first.n_rows()
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.first.n_bytes() + self.keys.n_bytes() as u64
    }

    /// Takes in rows whose last columns are the bytes of their key and of their order.
    pub(super) fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let (keys, _) = bytes_of(rows);
        let key: ArrayRef = Arc::new(keys.clone());
        self.keys
            .number(&[key], rows.num_rows(), &mut self.groups)?;
        self.first.add(rows, &self.groups, self.keys.len())
    }

    /// The rows as [`BestRows::restore`] takes them.
    pub(super) fn parts(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = Vec::new();
        let (sorted, _) = self.first.sorted()?;
        for rows in sorted {
            parts.extend(StatePart::by_key("best", rows, &[])?);
        }
        Ok(parts)
    }

    pub(super) fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        state.iter().try_for_each(|part| self.add(&part.rows))
    }

    /// The rows by group and order, in batches; none are left.
    pub(super) fn take(&mut self) -> Result<Vec<RecordBatch>> {
        let batches = self.first.sorted()?.0.to_vec();
        *self = Self::new(self.n)?;
        Ok(batches)
    }
}
