//! Which rows of a table have been matched, by all workers of a phase.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A bit per row, and who gives which rows at the end.
///
/// They belong to the operators of one phase, which share them; the next phase starts anew.
#[derive(Debug, Default)]
pub(super) struct Marks {
    bits: Vec<AtomicU64>,
    parts_taken: AtomicUsize,
}

impl Marks {
    pub(super) fn new(n_rows: usize) -> Self {
        Self {
            bits: (0..n_rows.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            parts_taken: AtomicUsize::new(0),
        }
    }

    pub(super) fn is_set(&self, row: u32) -> bool {
        self.bits[row as usize / 64].load(Relaxed) & bit(row) != 0
    }

    /// Relaxed is enough: marks are read once the engine has told every worker that all input is over.
    pub(super) fn set(&self, row: u32) {
        // A look first, so that workers do not fight over rows that many match.
        if !self.is_set(row) {
            self.bits[row as usize / 64].fetch_or(bit(row), Relaxed);
        }
    }

    /// Marks rows of one key, which are always marked together.
    pub(super) fn set_all(&self, rows: &[u32]) {
        if let Some(first) = rows.first()
            && !self.is_set(*first)
        {
            rows.iter().for_each(|row| self.set(*row));
        }
    }

    /// The number of a part of the table that no other worker has taken.
    pub(super) fn take_part(&self) -> usize {
        self.parts_taken.fetch_add(1, Relaxed)
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.bits.len() as u64 * 8
    }
}

fn bit(row: u32) -> u64 {
    1 << (row % 64)
}
