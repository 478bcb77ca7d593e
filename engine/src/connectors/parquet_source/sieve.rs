//! Makes full batches of the rows that a predicate keeps.

use std::vec;

use arrow::array::BooleanArray;
use arrow::compute::BatchCoalescer;
use arrow::record_batch::RecordBatch;

use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};

/// Gives the kept rows of batches in order, as batches of [`BATCH_ROWS`] but for the last.
pub(super) struct Sieve {
    /// True for the rows to keep, batch by batch.
    masks: vec::IntoIter<BooleanArray>,
    kept: Option<BatchCoalescer>,
}

impl Sieve {
    pub(super) fn new(masks: Vec<BooleanArray>) -> Self {
        Self {
            masks: masks.into_iter(),
            kept: None,
        }
    }

    /// The next kept rows of the batches that `next` gives; `None` at their end.
    pub(super) fn next(
        &mut self,
        mut next: impl FnMut() -> Result<Option<RecordBatch>>,
    ) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = self.kept.as_mut().and_then(|k| k.next_completed_batch()) {
                return Ok(Some(rows));
            }
            let Some(rows) = next()? else {
                let Some(mut kept) = self.kept.take() else {
                    return Ok(None);
                };
                kept.finish_buffered_batch()?;
                return Ok(kept.next_completed_batch());
            };
            let mask = self.masks.next().filter(|m| m.len() == rows.num_rows());
            let mask = mask.ok_or_else(|| Error::bug("rows and what is kept of them differ"))?;
            let kept = self
                .kept
                .get_or_insert_with(|| BatchCoalescer::new(rows.schema(), BATCH_ROWS));
            kept.push_batch_with_filter(rows, &mask)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{show, table};

    fn sifted(batches: Vec<(RecordBatch, Vec<bool>)>) -> Vec<RecordBatch> {
        let (rows, masks): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
        let mut rows = rows.into_iter();
        let mut sieve = Sieve::new(masks.into_iter().map(BooleanArray::from).collect());
        std::iter::from_fn(|| sieve.next(|| Ok(rows.next())).unwrap()).collect()
    }

    #[test]
    fn kept_rows_of_several_batches_are_given_together() {
        let given = sifted(vec![
            (table("x: 1, 2, null; s: a, b, c"), vec![true, false, true]),
            (table("x: 4; s: d"), vec![false]),
            (table("x: 5, 6; s: null, f"), vec![true, true]),
        ]);
        let given: Vec<String> = given.iter().map(show).collect();
        assert_eq!(given, ["x: 1, null, 5, 6\ns: 'a', 'c', null, 'f'"]);
        assert!(sifted(vec![(table("x: 1"), vec![false])]).is_empty());
        assert!(sifted(Vec::new()).is_empty());
    }

    #[test]
    fn batches_are_full_but_for_the_last() {
        let numbers: Vec<String> = (0..BATCH_ROWS).map(|i| i.to_string()).collect();
        let rows = table(&format!("x: {}", numbers.join(",")));
        let third: Vec<bool> = (0..BATCH_ROWS).map(|i| i % 3 != 1).collect();
        let n_kept = third.iter().filter(|kept| **kept).count();
        let given = sifted(vec![(rows.clone(), third.clone()), (rows, third)]);
        let sizes: Vec<usize> = given.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(sizes, [BATCH_ROWS, 2 * n_kept - BATCH_ROWS]);
    }
}
