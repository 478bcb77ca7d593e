//! Rows of one side by number, each of which is let go on its own.
//!
//! ```text
//! chunk [0 1 2 3 4]   chunk [5 9]   chunk [10 11 12]      the rows of a chunk go on counting from the one before;
//!                           └ 6 to 8 have gone            what is half empty is copied, what is small put together
//! ```

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::gather::{RowAt, concat_rows, n_bytes};
use super::lots::are_small;
use crate::error::{Error, Result};

/// Rows that are kept, each until all who want it have let it go.
pub(super) struct KeptRows {
    schema: SchemaRef,
    /// In the order of their rows' numbers.
    chunks: Vec<Chunk>,
    /// The number of the next row.
    next: u64,
    n_rows: usize,
    n_bytes: u64,
}

struct Chunk {
    /// Ascending.
    numbers: Vec<u64>,
    /// How many still want each row.
    wanted: Vec<u32>,
    n_wanted: usize,
    rows: RecordBatch,
    n_bytes: u64,
}

impl KeptRows {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        Self {
            schema: SchemaRef::clone(schema),
            chunks: Vec::new(),
            next: 0,
            n_rows: 0,
            n_bytes: 0,
        }
    }

    /// Takes in rows, each `wanted` so many times, and gives the number of the first; the others follow.
    pub(super) fn push(&mut self, rows: RecordBatch, wanted: Vec<u32>) -> Result<u64> {
        let first = self.next;
        self.next += rows.num_rows() as u64;
        self.n_rows += rows.num_rows();
        if rows.num_rows() > 0 {
            let chunk = Chunk::new((first..self.next).collect(), wanted, rows);
            self.n_bytes += chunk.n_bytes;
            self.chunks.push(chunk);
            put_together(&mut self.chunks, &self.schema, &mut self.n_bytes)?;
        }
        Ok(first)
    }

    /// Batches that hold these rows, and where each stands in them.
    pub(super) fn places(
        &self,
        numbers: impl Iterator<Item = u64>,
    ) -> Result<(Vec<RecordBatch>, Vec<RowAt>)> {
        let mut used = vec![usize::MAX; self.chunks.len()];
        let mut batches = Vec::new();
        let mut places = Vec::new();
        for number in numbers {
            let (chunk, row) = self.find(number)?;
            if used[chunk] == usize::MAX {
                used[chunk] = batches.len();
                batches.push(self.chunks[chunk].rows.clone());
            }
            places.push(RowAt::new(used[chunk], row));
        }
        Ok((batches, places))
    }

    /// Lets rows go, a row once for each time that it is named.
    pub(super) fn let_go(&mut self, numbers: impl Iterator<Item = u64>) -> Result<()> {
        for number in numbers {
            let (chunk, row) = self.find(number)?;
            let chunk = &mut self.chunks[chunk];
            let wanted = &mut chunk.wanted[row];
            *wanted = wanted.saturating_sub(1);
            if *wanted == 0 {
                chunk.n_wanted -= 1;
                self.n_rows -= 1;
            }
        }
        let mut left = Vec::with_capacity(self.chunks.len());
        self.n_bytes = 0;
        for chunk in std::mem::take(&mut self.chunks) {
            if chunk.n_wanted > 0 {
                let chunk = chunk.without_the_gone()?;
                self.n_bytes += chunk.n_bytes;
                left.push(chunk);
                put_together(&mut left, &self.schema, &mut self.n_bytes)?;
            }
        }
        self.chunks = left;
        Ok(())
    }

    fn find(&self, number: u64) -> Result<(usize, usize)> {
        let begins_later = |chunk: &Chunk| chunk.numbers.first().is_some_and(|n| *n > number);
        let after = self.chunks.partition_point(|chunk| !begins_later(chunk));
        let chunk = after.checked_sub(1);
        let row = chunk.and_then(|at| self.chunks[at].numbers.binary_search(&number).ok());
        match (chunk, row) {
            (Some(chunk), Some(row)) => Ok((chunk, row)),
            _ => Err(Error::bug("a row is wanted that has gone")),
        }
    }

    /// How many rows are wanted still.
    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

/// Puts the last chunks together while they are small, so that single rows do not make as many.
fn put_together(chunks: &mut Vec<Chunk>, schema: &SchemaRef, n_bytes: &mut u64) -> Result<()> {
    while let [.., before, last] = chunks.as_slice()
        && are_small(&before.rows, &last.rows)
        && let (Some(last), Some(mut before)) = (chunks.pop(), chunks.pop())
    {
        *n_bytes -= before.n_bytes + last.n_bytes;
        before.numbers.extend(last.numbers);
        before.wanted.extend(last.wanted);
        let rows = concat_rows(schema, &[before.rows, last.rows])?;
        let both = Chunk::new(before.numbers, before.wanted, rows);
        *n_bytes += both.n_bytes;
        chunks.push(both);
    }
    Ok(())
}

impl Chunk {
    fn new(numbers: Vec<u64>, wanted: Vec<u32>, rows: RecordBatch) -> Self {
        let of_row = size_of::<u64>() + size_of::<u32>();
        Self {
            n_wanted: wanted.iter().filter(|n| **n > 0).count(),
            n_bytes: n_bytes(&rows) + (numbers.len() * of_row) as u64,
            numbers,
            wanted,
            rows,
        }
    }

    /// The rows that are wanted, once the others are most.
    fn without_the_gone(self) -> Result<Self> {
        if self.n_wanted * 2 > self.numbers.len() {
            return Ok(self);
        }
        let is_wanted: BooleanArray = self.wanted.iter().map(|n| Some(*n > 0)).collect();
        let numbers = self.numbers.iter().zip(&self.wanted);
        let numbers = numbers.filter(|(_, n)| **n > 0).map(|(number, _)| *number);
        let numbers = numbers.collect();
        let rows = filter_record_batch(&self.rows, &is_wanted)?;
        let wanted = self.wanted.into_iter().filter(|n| *n > 0).collect();
        Ok(Self::new(numbers, wanted, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{show, table};

    fn shown(kept: &KeptRows, numbers: &[u64]) -> String {
        use super::super::gather::Gather;
        let (batches, places) = kept.places(numbers.iter().copied()).unwrap();
        let rows = Gather::new(&batches, &places).rows(&kept.schema).unwrap();
        show(&rows)
    }

    #[test]
    fn rows_are_found_whatever_has_gone_before_and_after_them() {
        let rows = table("a: 0, 1, 2, 3, 4, 5, 6, 7");
        let mut kept = KeptRows::new(&rows.schema());
        assert_eq!(kept.push(rows.slice(0, 5), vec![1; 5]).unwrap(), 0);
        assert_eq!(kept.push(rows.slice(5, 1), vec![2]).unwrap(), 5);
        assert_eq!(kept.push(rows.slice(6, 2), vec![1, 1]).unwrap(), 6);
        assert_eq!(shown(&kept, &[7, 0, 5, 0]), "a: 7, 0, 5, 0");
        kept.let_go([0, 1, 2, 4, 5].into_iter()).unwrap();
        assert_eq!(kept.n_rows(), 4);
        assert_eq!(shown(&kept, &[7, 5, 3]), "a: 7, 5, 3");
        assert!(kept.places([4].into_iter()).is_err());
        kept.let_go([5, 7].into_iter()).unwrap();
        assert_eq!(shown(&kept, &[3, 6]), "a: 3, 6");
        kept.let_go([3, 6].into_iter()).unwrap();
        assert_eq!((kept.n_rows(), kept.n_bytes()), (0, 0));
    }

    #[test]
    fn single_rows_do_not_make_as_many_chunks_nor_do_few_that_stay() {
        let rows = table("a: 1");
        let mut kept = KeptRows::new(&rows.schema());
        for _ in 0..1000 {
            kept.push(rows.clone(), vec![1]).unwrap();
        }
        assert!(kept.chunks.len() < 20, "{} chunks", kept.chunks.len());
        let bytes = kept.n_bytes();
        for tens in 0..100 {
            kept.let_go((1..10).map(|n| tens * 10 + n)).unwrap();
        }
        assert_eq!(kept.n_rows(), 100);
        assert!(kept.chunks.len() < 20, "{} chunks", kept.chunks.len());
        assert!(kept.n_bytes() * 4 < bytes, "{} of {bytes}", kept.n_bytes());
        assert!(kept.places((0..100).map(|n| n * 10)).is_ok());
    }
}
