//! What windows that overlap share beyond their slices: sums of slices that are made once.
//!
//! ```text
//! slices      | a | b | c | d | e | f |
//! suffixes    a+b+c+d, b+c+d, c+d, d
//! back                        e+f            window b to f = (b+c+d) + (e+f)
//! ```
//!
//! A window of many slices is two of these sums. When no suffix is left for a window, those of its slices are
//! made anew, from the last to the first, and the back is empty again. It is the queue of two stacks, which
//! needs no way to take a slice out of a sum (K. Tangwongsan, M. Hirzel, S. Schneider and K.-L. Wu, "General
//! incremental sliding-window aggregation", 2015).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::plan::WindowedPlan;
use crate::error::Result;
use crate::ops::group_by::table::GroupTable;
use crate::windowing::Window;

/// Sums of neighbouring slices, as keys and states.
pub(super) struct Overlap {
    plan: Arc<WindowedPlan>,
    /// By the start of its first slice, the sum of that slice and all after it until the back begins.
    suffixes: BTreeMap<i64, Vec<RecordBatch>>,
    back: Vec<RecordBatch>,
    /// The start of the last slice that is in a sum.
    last: Option<i64>,
}

impl Overlap {
    pub(super) fn new(plan: &Arc<WindowedPlan>) -> Self {
        Self {
            plan: Arc::clone(plan),
            suffixes: BTreeMap::new(),
            back: Vec::new(),
            last: None,
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        let rows = self.suffixes.values().flatten().chain(&self.back);
        rows.map(RecordBatch::get_array_memory_size).sum()
    }

    /// Says that rows come to a slice; what it is a part of is forgotten.
    pub(super) fn changes(&mut self, span: Window) {
        if self.last.is_some_and(|last| span.start <= last) {
            self.forget();
        }
    }

    pub(super) fn forget(&mut self) {
        self.suffixes.clear();
        self.back.clear();
        self.last = None;
    }

    /// The sum of these slices, those of a window in their order, with their keys and states. A later call is
    /// for a window that neither starts nor ends earlier.
    pub(super) fn sum(&mut self, slices: &[(Window, &[RecordBatch])]) -> Result<GroupTable> {
        let Some((first, _)) = slices.first() else {
            return self.table();
        };
        // No later window starts before this one.
        self.suffixes = self.suffixes.split_off(&first.start);
        if !self.suffixes.contains_key(&first.start) {
            self.turn_round(slices)?;
        }
        let last = self.last;
        let new = slices
            .iter()
            .filter(|(span, _)| last.is_none_or(|last| span.start > last));
        let mut new = new.peekable();
        if new.peek().is_some() {
            let mut table = self.table()?;
            merge_all(&mut table, &self.back)?;
            for (span, rows) in new {
                merge_all(&mut table, rows)?;
                self.last = Some(span.start);
            }
            self.back = table.take_states()?;
        }
        let mut table = self.table()?;
        if let Some(suffix) = self.suffixes.get(&first.start) {
            merge_all(&mut table, suffix)?;
        }
        merge_all(&mut table, &self.back)?;
        Ok(table)
    }

    fn turn_round(&mut self, slices: &[(Window, &[RecordBatch])]) -> Result<()> {
        self.forget();
        let mut sum = Vec::new();
        for (span, rows) in slices.iter().rev() {
            let mut table = self.table()?;
            merge_all(&mut table, rows)?;
            merge_all(&mut table, &sum)?;
            sum = table.take_states()?;
            self.suffixes.insert(span.start, sum.clone());
        }
        self.last = slices.last().map(|(span, _)| span.start);
        Ok(())
    }

    fn table(&self) -> Result<GroupTable> {
        GroupTable::new(&self.plan.planned)
    }
}

/// Keys and states into a table.
pub(super) fn merge_all(table: &mut GroupTable, rows: &[RecordBatch]) -> Result<()> {
    rows.iter().try_for_each(|rows| table.merge(rows))
}
