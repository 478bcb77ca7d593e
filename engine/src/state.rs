//! What an operator keeps, as rows: to be saved, and to be dealt to another number of workers.

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::runner::key_groups;

/// How many groups keys are dealt to; groups, and not keys, are dealt to workers.
pub const KEY_GROUPS: usize = 128;

/// A part of an operator's state.
#[derive(Clone, Debug, PartialEq)]
pub struct StatePart {
    /// What the rows are, in the operator's own words.
    pub table: String,
    /// The key group they belong to: they are restored on the worker that has this group. `None` for what
    /// every worker must know, which each gives and each gets from all.
    pub key_group: Option<u8>,
    /// The rows.
    pub rows: RecordBatch,
}

impl StatePart {
    /// Rows that every worker must know.
    pub fn of_worker(table: impl Into<String>, rows: RecordBatch) -> Self {
        Self {
            table: table.into(),
            key_group: None,
            rows,
        }
    }

    /// Rows by the key group of the values in their columns `keys`, as the exchange deals them. Without keys
    /// all are in group 0, which is worker 0's.
    ///
    /// # Errors
    /// If a column is not there, or of a type that rows are not dealt by.
    pub fn by_key(table: &str, rows: &RecordBatch, keys: &[String]) -> Result<Vec<Self>> {
        let groups = match keys {
            [] => vec![0; rows.num_rows()],
            keys => key_groups(rows, keys)?,
        };
        let mut places: Vec<Vec<u32>> = vec![Vec::new(); KEY_GROUPS];
        for (row, group) in (0u32..).zip(groups) {
            places[usize::from(group)].push(row);
        }
        let mut parts = Vec::new();
        for (group, rows_of) in (0u8..).zip(places) {
            if !rows_of.is_empty() {
                parts.push(Self {
                    table: table.to_owned(),
                    key_group: Some(group),
                    rows: take_record_batch(rows, &UInt32Array::from(rows_of))?,
                });
            }
        }
        Ok(parts)
    }

    /// The parts that each of `n_workers` workers restores.
    pub fn deal(parts: &[Self], n_workers: usize) -> Vec<Vec<Self>> {
        let of = |worker: usize| {
            let mine = |part: &&Self| match part.key_group {
                Some(group) => worker_of(group, n_workers) == worker,
                None => true,
            };
            parts.iter().filter(mine).cloned().collect()
        };
        (0..n_workers).map(of).collect()
    }
}

/// The worker that has a key group.
pub(crate) fn worker_of(group: u8, n_workers: usize) -> usize {
    usize::from(group) * n_workers / KEY_GROUPS
}
