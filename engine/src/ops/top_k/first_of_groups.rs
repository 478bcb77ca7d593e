//! The first rows of each of many groups, in bounded memory: at most about twice as many as are wanted.

use arrow::array::{AsArray, BinaryArray, UInt32Array};
use arrow::compute::{interleave_record_batch, take_record_batch};
use arrow::record_batch::RecordBatch;

use crate::batch::BATCH_ROWS;
use crate::error::Result;

/// More rows than these are sorted out, or twice those that were left the last time.
const MIN_ROWS: usize = 2 * BATCH_ROWS;

/// Rows that may be among the first `n` of their group, by the bytes in their last column.
pub(in crate::ops) struct FirstOfGroups {
    n: usize,
    batches: Vec<RecordBatch>,
    /// The group of each row of `batches`, with where it is.
    rows: Vec<(usize, (usize, usize))>,
    /// Of each group that had `n` rows when they were last sorted out, the last of them.
    last: Vec<Option<(usize, usize)>>,
    /// How many rows were left then.
    n_sorted: usize,
    n_bytes: u64,
}

impl FirstOfGroups {
    pub(in crate::ops) fn new(n: usize) -> Self {
        Self {
            n,
            batches: Vec::new(),
            rows: Vec::new(),
            last: Vec::new(),
            n_sorted: 0,
            n_bytes: 0,
        }
    }

    pub(in crate::ops) fn n_rows(&self) -> usize {
        self.rows.len()
    }

    pub(in crate::ops) fn n_bytes(&self) -> u64 {
        let rows = self.rows.capacity() * size_of::<(usize, (usize, usize))>();
        let last = self.last.capacity() * size_of::<Option<(usize, usize)>>();
        self.n_bytes + (rows + last) as u64
    }

    /// Takes in rows, each of its group; the last column are the bytes by which they are ordered.
    pub(in crate::ops) fn add(
        &mut self,
        rows: &RecordBatch,
        groups: &[usize],
        n_groups: usize,
    ) -> Result<()> {
        let order = order_of(rows);
        self.last.resize(n_groups.max(self.last.len()), None);
        let candidates = (0..rows.num_rows()).filter(|&row| match self.last[groups[row]] {
            None => true,
            Some((batch, last)) => order.value(row) < order_of(&self.batches[batch]).value(last),
        });
        let candidates: Vec<u32> = candidates
            .map(|row| u32::try_from(row).unwrap_or(u32::MAX))
            .collect();
        if candidates.is_empty() {
            return Ok(());
        }
        let batch = self.batches.len();
        let of = |(n, row): (usize, &u32)| (groups[*row as usize], (batch, n));
        self.rows.extend(candidates.iter().enumerate().map(of));
        let kept = take_record_batch(rows, &UInt32Array::from(candidates))?;
        self.n_bytes += kept.get_array_memory_size() as u64;
        self.batches.push(kept);
        if self.rows.len() > MIN_ROWS.max(self.n_sorted.saturating_mul(2)) {
            self.sort_out()?;
        }
        Ok(())
    }

    /// Sorts the rows by group and order and drops all but the first `n` of each group.
    fn sort_out(&mut self) -> Result<()> {
        let order: Vec<_> = self.batches.iter().map(order_of).collect();
        let bytes = |&(batch, row): &(usize, usize)| order[batch].value(row);
        self.rows
            .sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| bytes(x).cmp(bytes(y))));
        let (mut group, mut n_of_group) = (usize::MAX, 0);
        let n = self.n;
        self.rows.retain(|(g, _)| {
            n_of_group = if *g == group { n_of_group + 1 } else { 1 };
            group = *g;
            n_of_group <= n
        });
        let sources: Vec<&RecordBatch> = self.batches.iter().collect();
        let mut batches = Vec::with_capacity(self.rows.len().div_ceil(BATCH_ROWS));
        for part in self.rows.chunks(BATCH_ROWS) {
            let places: Vec<(usize, usize)> = part.iter().map(|(_, place)| *place).collect();
            batches.push(interleave_record_batch(&sources, &places)?);
        }
        self.batches = batches;
        self.n_bytes = self
            .batches
            .iter()
            .map(|b| b.get_array_memory_size() as u64)
            .sum();
        let (mut group, mut n_of_group) = (usize::MAX, 0);
        for (at, (g, place)) in self.rows.iter_mut().enumerate() {
            *place = (at / BATCH_ROWS, at % BATCH_ROWS);
            n_of_group = if *g == group { n_of_group + 1 } else { 1 };
            group = *g;
            if n_of_group == n {
                self.last[group] = Some(*place);
            }
        }
        self.n_sorted = self.rows.len();
        Ok(())
    }

    /// The rows by group and order, in batches, with how many each group has.
    pub(in crate::ops) fn sorted(&mut self) -> Result<(&[RecordBatch], Vec<usize>)> {
        if !self.rows.is_empty() {
            self.sort_out()?;
        }
        let mut n_rows = vec![0; self.last.len()];
        for (group, _) in &self.rows {
            n_rows[*group] += 1;
        }
        Ok((&self.batches, n_rows))
    }
}

fn order_of(rows: &RecordBatch) -> &BinaryArray {
    rows.column(rows.num_columns() - 1).as_binary()
}
