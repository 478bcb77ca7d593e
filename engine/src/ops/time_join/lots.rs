//! How much is put together at once, by rows and by bytes: rows may be so wide that as many as usual would be more than
//! the offsets of one array can tell.

use arrow::record_batch::RecordBatch;

use super::gather::{RowAt, n_bytes};
use crate::batch::BATCH_ROWS;
use crate::ops::{LOT_BYTES, Lot, Widths};

/// How wide the rows of some batches are, by their place.
#[derive(Default)]
pub(super) struct RowWidths {
    /// None of a batch without a wide row.
    chunks: Vec<Option<Widths>>,
    n_wide: usize,
}

impl RowWidths {
    pub(super) fn of(batches: &[RecordBatch]) -> Self {
        let mut widths = Self::default();
        batches.iter().for_each(|rows| widths.push(rows));
        widths
    }

    /// Those of a batch behind the others.
    pub(super) fn push(&mut self, rows: &RecordBatch) {
        let widths = Widths::of(std::slice::from_ref(rows));
        self.n_wide += usize::from(widths.is_some());
        self.chunks.push(widths);
    }

    /// Forgets those of the last batch.
    pub(super) fn pop(&mut self) {
        let last = self.chunks.pop().flatten();
        self.n_wide -= usize::from(last.is_some());
    }

    /// Forgets those of a batch, none of whose rows is asked for any more.
    pub(super) fn forget(&mut self, chunk: usize) {
        if let Some(widths) = self.chunks.get_mut(chunk) {
            self.n_wide -= usize::from(widths.take().is_some());
        }
    }

    /// True if no row is wide.
    pub(super) fn is_narrow(&self) -> bool {
        self.n_wide == 0
    }

    /// The bytes of a row; 0 where no row of its batch is wide, and of no row.
    pub(super) fn at(&self, place: RowAt) -> u64 {
        let widths = self.chunks.get(place.chunk as usize);
        let widths = widths.and_then(Option::as_ref);
        widths.map_or(0, |widths| widths.of_row(place.row))
    }

    pub(super) fn n_bytes(&self) -> u64 {
        let chunks = self.chunks.iter().flatten();
        chunks.map(Widths::n_bytes).sum()
    }
}

/// Cuts rows of these widths, so that no part is of much more bytes than a lot.
pub(super) fn cut<T>(rows: &[T], width: impl Fn(&T) -> u64) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut lot = Lot::default();
        let fitting = rest.iter().take_while(|row| {
            let fits = !lot.is_full();
            lot.take(width(row));
            fits
        });
        let (part, others) = rest.split_at(fitting.count());
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// True if the last two of some batches are small enough to be made one, so that single rows do not make as many.
pub(super) fn are_small(before: &RecordBatch, last: &RecordBatch) -> bool {
    before.num_rows() + last.num_rows() <= BATCH_ROWS
        && before.num_rows() <= 2 * last.num_rows()
        && n_bytes(before) + n_bytes(last) <= LOT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray};
    use std::sync::Arc;

    /// A third of a lot each, but for one that is more than a lot.
    #[test]
    fn wide_rows_are_cut_by_their_bytes() {
        let lengths = [3, 3, 3, 9, 3, 1];
        let third = usize::try_from(LOT_BYTES / 9).unwrap();
        let texts = lengths.map(|length| "x".repeat(length * third));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(&texts));
        let rows = RecordBatch::try_from_iter([("text", texts)]).unwrap();
        let widths = RowWidths::of(std::slice::from_ref(&rows));
        let places: Vec<RowAt> = (0..6).map(|row| RowAt::new(0, row)).collect();
        let lots: Vec<usize> = cut(&places, |at| widths.at(*at))
            .map(<[RowAt]>::len)
            .collect();
        assert_eq!(lots, [4, 2]);
        let none = RowWidths::of(&[crate::testing::table("a: 1, 2, 3")]);
        assert_eq!(cut(&places, |at| none.at(*at)).count(), 1);
        assert!(!are_small(&rows.slice(0, 1), &rows.slice(3, 1)));
        assert!(are_small(&rows.slice(0, 1), &rows.slice(1, 1)));
    }
}
