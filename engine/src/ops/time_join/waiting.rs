//! Rows that wait for the watermark to pass their event time.
//!
//! ```text
//! split 0   chunk ─ chunk ─ chunk        a chunk: rows as they came, their keys and times,
//! split 1   chunk ─ chunk                and their order by time with a mark: before it all have gone
//! ```
//!
//! Each row is sorted within its chunk once and taken out once. Small chunks are put together, each row
//! a few times at most, so that single rows do not make as many batches.

use std::collections::BTreeMap;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;

use super::gather::concat_rows;
use super::key_numbers::renumber;
use crate::batch::{BATCH_ROWS, Batch, SplitKey};
use crate::error::Result;

/// Rows of one side that wait.
#[derive(Default)]
pub(super) struct Waiting {
    splits: BTreeMap<SplitKey, Vec<Chunk>>,
    n_rows: usize,
    n_bytes: u64,
}

/// Rows whose time has come, in the order of their split.
pub(super) struct Released {
    pub(super) batch: Batch,
    pub(super) keys: Vec<u32>,
    pub(super) times: Vec<i64>,
}

struct Chunk {
    batch: Batch,
    keys: Vec<u32>,
    times: Vec<i64>,
    /// The rows by time; rows of one time in the order in which they came.
    order: Vec<u32>,
    /// How many of `order` have gone.
    next: usize,
    n_bytes: u64,
}

impl Waiting {
    /// Takes in rows with the numbers of their keys and their event times.
    pub(super) fn push(&mut self, batch: Batch, keys: Vec<u32>, times: Vec<i64>) -> Result<()> {
        if batch.n_rows() == 0 {
            return Ok(());
        }
        self.n_rows += batch.n_rows();
        // What waits counts as state, and not against the source, which may have to go on for it to leave.
        let chunk = Chunk::new(batch.with_permit(None), keys, times);
        self.n_bytes += chunk.n_bytes;
        let chunks = self.splits.entry(chunk.batch.split_key()).or_default();
        chunks.push(chunk);
        while let [.., before, last] = chunks.as_slice()
            && before.n_left() + last.n_left() <= BATCH_ROWS
            && before.n_left() <= 2 * last.n_left()
            && let (Some(last), Some(before)) = (chunks.pop(), chunks.pop())
        {
            self.n_bytes -= before.n_bytes + last.n_bytes;
            let both = before.with(last)?;
            self.n_bytes += both.n_bytes;
            chunks.push(both);
        }
        Ok(())
    }

    /// Takes out the rows with a time before `end`, in the order of the splits.
    pub(super) fn release(&mut self, end: i64) -> Result<Vec<Released>> {
        let mut all = Vec::new();
        for chunks in self.splits.values_mut() {
            let mut is_over = false;
            for chunk in chunks.iter_mut() {
                if let Some(released) = chunk.release(end)? {
                    self.n_rows -= released.keys.len();
                    all.push(released);
                    let before = chunk.n_bytes;
                    chunk.shrink()?;
                    self.n_bytes += chunk.n_bytes;
                    self.n_bytes -= before;
                    is_over |= chunk.n_left() == 0;
                }
            }
            if is_over {
                chunks.retain(|c| c.n_left() > 0);
            }
        }
        self.splits.retain(|_, chunks| !chunks.is_empty());
        Ok(all)
    }

    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The numbers of all keys that wait, some more than once.
    pub(super) fn keys(&self) -> impl Iterator<Item = u32> + '_ {
        let chunks = self.splits.values().flatten();
        chunks.flat_map(|c| c.order[c.next..].iter().map(|&row| c.keys[row as usize]))
    }

    /// Gives all rows the new numbers of their keys.
    pub(super) fn renumber(&mut self, new_numbers: &[u32]) {
        for chunk in self.splits.values_mut().flatten() {
            renumber(&mut chunk.keys, new_numbers);
        }
    }

    /// All rows, in the order of the splits; nothing changes by it.
    pub(super) fn all(&self) -> Result<Vec<Batch>> {
        let chunks = self.splits.values().flatten();
        chunks.map(|c| Ok(c.left(c.n_left())?.batch)).collect()
    }
}

impl Chunk {
    fn new(batch: Batch, keys: Vec<u32>, times: Vec<i64>) -> Self {
        let mut order: Vec<u32> = (0u32..).take(times.len()).collect();
        if !times.is_sorted() {
            order.sort_by_key(|&row| times[row as usize]);
        }
        let of_row = size_of::<u32>() * 2 + size_of::<i64>();
        Self {
            n_bytes: batch.n_bytes() + (of_row * times.len()) as u64,
            batch,
            keys,
            times,
            order,
            next: 0,
        }
    }

    fn n_left(&self) -> usize {
        self.order.len() - self.next
    }

    fn release(&mut self, end: i64) -> Result<Option<Released>> {
        let left = &self.order[self.next..];
        let n = left.partition_point(|&row| self.times[row as usize] < end);
        if n == 0 {
            return Ok(None);
        }
        let released = self.left(n)?;
        self.next += n;
        Ok(Some(released))
    }

    /// The first `n` of the rows that are left.
    fn left(&self, n: usize) -> Result<Released> {
        if n == self.order.len() {
            return Ok(Released {
                batch: self.batch.clone(),
                keys: self.keys.clone(),
                times: self.times.clone(),
            });
        }
        let rows = &self.order[self.next..self.next + n];
        let indices = UInt32Array::from(rows.to_vec());
        let taken = take_record_batch(self.batch.rows(), &indices)?;
        Ok(Released {
            batch: self.batch.derive(taken),
            keys: rows.iter().map(|&row| self.keys[row as usize]).collect(),
            times: rows.iter().map(|&row| self.times[row as usize]).collect(),
        })
    }

    /// Lets the rows go that have been released, once they are most.
    fn shrink(&mut self) -> Result<()> {
        let n_left = self.n_left();
        if n_left > 0 && self.next > n_left {
            let Released { batch, keys, times } = self.left(n_left)?;
            *self = Self::new(batch, keys, times);
        } else if n_left == 0 {
            self.n_bytes = 0;
        }
        Ok(())
    }

    /// These rows and then others of the same split.
    fn with(&self, other: Self) -> Result<Self> {
        let a = self.left(self.n_left())?;
        let b = other.left(other.n_left())?;
        let schema = a.batch.rows().schema();
        let rows = concat_rows(&schema, &[a.batch.rows().clone(), b.batch.rows().clone()])?;
        let keys = [a.keys, b.keys].concat();
        let times = [a.times, b.times].concat();
        Ok(Self::new(a.batch.derive(rows), keys, times))
    }
}
