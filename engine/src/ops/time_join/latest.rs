//! The newest row of each key, in few batches.
//!
//! New rows come as batches of their own; a batch is put together with the one before it when it is not
//! much smaller, and all of them when most rows have been replaced. So each row is copied a few times
//! at most, and the memory stays within twice that of the rows that are the newest of their key.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::gather::{Gather, RowAt, n_bytes};
use super::key_numbers::{NO_KEY, renumber};
use crate::batch::BATCH_ROWS;
use crate::error::Result;

/// Batches with more rows are not put together with others, so that texts stay within their offsets.
const MAX_ROWS: usize = 1 << 20;

/// The newest row of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latest {
    pub(super) time: i64,
    pub(super) at: RowAt,
}

impl Latest {
    pub(super) const NONE: Self = Self {
        time: i64::MIN,
        at: RowAt::NONE,
    };
}

/// The newest row of each key.
pub(super) struct LatestRows {
    schema: SchemaRef,
    /// By the number of the key.
    latest: Vec<Latest>,
    chunks: Vec<RecordBatch>,
    /// The key of each row of each chunk. A row counts while it is the newest of its key.
    keys: Vec<Vec<u32>>,
    n_live: usize,
    n_rows: usize,
    n_bytes: u64,
}

impl LatestRows {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        Self {
            schema: SchemaRef::clone(schema),
            latest: Vec::new(),
            chunks: Vec::new(),
            keys: Vec::new(),
            n_live: 0,
            n_rows: 0,
            n_bytes: 0,
        }
    }

    /// Makes room for keys with numbers below `n_keys`.
    pub(super) fn make_room(&mut self, n_keys: usize) {
        if self.latest.len() < n_keys {
            self.latest.resize(n_keys, Latest::NONE);
        }
    }

    /// The batches; [`RowAt`] counts them.
    pub(super) fn chunks(&self) -> &[RecordBatch] {
        &self.chunks
    }

    pub(super) fn get(&self, key: u32) -> Latest {
        match self.latest.get(key as usize) {
            Some(latest) => *latest,
            None => Latest::NONE,
        }
    }

    /// Sets the newest row of a key, which is in no batch of these yet; [`LatestRows::add`] brings it in.
    pub(super) fn set(&mut self, key: u32, latest: Latest) {
        let slot = &mut self.latest[key as usize];
        self.n_live += usize::from(!latest.at.is_none());
        self.n_live -= usize::from(!slot.at.is_none());
        *slot = latest;
    }

    /// Brings in rows, each the newest of its key: the newest so far point to them.
    pub(super) fn add(&mut self, rows: RecordBatch, keys: Vec<u32>) -> Result<()> {
        if rows.num_rows() == 0 {
            return self.tidy();
        }
        self.push(rows, keys);
        self.tidy()
    }

    fn push(&mut self, rows: RecordBatch, keys: Vec<u32>) {
        let chunk = self.chunks.len();
        for (row, &key) in keys.iter().enumerate() {
            self.latest[key as usize].at = RowAt::new(chunk, row);
        }
        self.n_rows += rows.num_rows();
        self.n_bytes += n_bytes(&rows);
        self.chunks.push(rows);
        self.keys.push(keys);
    }

    /// Drops the rows of keys for which `is_over` is true, given their time.
    pub(super) fn drop_if(&mut self, is_over: impl Fn(i64) -> bool) -> Result<()> {
        for latest in &mut self.latest {
            if !latest.at.is_none() && is_over(latest.time) {
                *latest = Latest::NONE;
                self.n_live -= 1;
            }
        }
        self.tidy()
    }

    fn tidy(&mut self) -> Result<()> {
        if self.n_rows > 2 * self.n_live + BATCH_ROWS {
            return self.merge_from(0);
        }
        while let [.., before, last] = self.chunks.as_slice()
            && before.num_rows() + last.num_rows() <= MAX_ROWS
            && before.num_rows() <= 2 * last.num_rows()
        {
            self.merge_from(self.chunks.len() - 2)?;
        }
        Ok(())
    }

    /// Puts the live rows of the chunks from `first` on together.
    fn merge_from(&mut self, first: usize) -> Result<()> {
        let mut rows: Vec<RowAt> = Vec::new();
        let mut keys: Vec<u32> = Vec::new();
        for (n, of_chunk) in self.keys[first..].iter().enumerate() {
            for (row, &key) in of_chunk.iter().enumerate() {
                let at = RowAt::new(first + n, row);
                if key != NO_KEY && self.latest[key as usize].at == at {
                    rows.push(at);
                    keys.push(key);
                }
            }
        }
        let mut merged = Vec::new();
        for (rows, keys) in rows.chunks(MAX_ROWS).zip(keys.chunks(MAX_ROWS)) {
            let together = Gather::new(&self.chunks, rows).rows(&self.schema)?;
            merged.push((together, keys.to_vec()));
        }
        for chunk in self.chunks.drain(first..) {
            self.n_rows -= chunk.num_rows();
            self.n_bytes -= n_bytes(&chunk);
        }
        self.keys.truncate(first);
        for (rows, keys) in merged {
            self.push(rows, keys);
        }
        Ok(())
    }

    /// How many keys have a row.
    pub(super) fn n_live(&self) -> usize {
        self.n_live
    }

    /// Marks the keys that have a row.
    pub(super) fn mark(&self, is_kept: &mut [bool]) {
        for (kept, latest) in is_kept.iter_mut().zip(&self.latest) {
            *kept |= !latest.at.is_none();
        }
    }

    /// Gives keys their new numbers; those that have none have no row.
    pub(super) fn renumber(&mut self, new_numbers: &[u32]) {
        let mut latest = vec![Latest::NONE; new_numbers.len()];
        for (of_key, &new) in self.latest.iter().zip(new_numbers) {
            if new != NO_KEY {
                latest[new as usize] = *of_key;
            }
        }
        self.latest = latest;
        for keys in &mut self.keys {
            renumber(keys, new_numbers);
        }
    }

    /// All rows that are the newest of their key.
    pub(super) fn all(&self) -> Result<RecordBatch> {
        let live = self.latest.iter().map(|l| l.at).filter(|at| !at.is_none());
        let rows: Vec<RowAt> = live.collect();
        Gather::new(&self.chunks, &rows).rows(&self.schema)
    }

    pub(super) fn n_bytes(&self) -> u64 {
        let of_keys = self.latest.capacity() * size_of::<Latest>();
        self.n_bytes + (of_keys + self.n_rows * size_of::<u32>()) as u64
    }
}
