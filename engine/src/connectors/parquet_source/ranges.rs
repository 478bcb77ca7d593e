//! Rows of a split that are read, as ranges.

use std::ops::Range;

use arrow::array::{BooleanArray, BooleanBufferBuilder};
use arrow::buffer::BooleanBuffer;
use arrow::util::bit_iterator::BitSliceIterator;

use crate::source::RowsRead;

/// Ranges of rows, in order, none empty, with rows left out between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds rows after all that are there.
    pub(super) fn push(&mut self, rows: Range<u64>) {
        match self.0.last_mut() {
            _ if rows.is_empty() => {}
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => self.0.push(rows),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    pub(super) fn n_rows(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one range, where there is only one.
    fn only(&self) -> Option<&Range<u64>> {
        match self.0.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The rows that are in `within`.
    pub(super) fn clip(&self, within: Range<u64>) -> Self {
        let mut clipped = Self::default();
        for range in &self.0 {
            clipped.push(range.start.max(within.start)..range.end.min(within.end));
        }
        clipped
    }

    /// The rows among these, taken one after the other, for which the masks are true.
    pub(super) fn filter(&self, masks: &[BooleanArray]) -> Self {
        let mut kept = Self::default();
        let mut rest = Cursor::new(self);
        for mask in masks {
            let values = mask.values();
            let mut done = 0;
            let runs = BitSliceIterator::new(values.values(), values.offset(), values.len());
            for (start, end) in runs {
                rest.advance((start - done) as u64, |_| {});
                rest.advance((end - start) as u64, |rows| kept.push(rows));
                done = end;
            }
            rest.advance((values.len() - done) as u64, |_| {});
        }
        kept
    }
}

/// The runs of rows, one after the other, that masks keep.
pub(super) fn n_runs(masks: &[BooleanArray]) -> u64 {
    let mut n_runs = 0;
    let mut was_kept = 0;
    for mask in masks.iter().filter(|mask| !mask.is_empty()) {
        let words = mask.values().bit_chunks();
        for word in words.iter_padded() {
            n_runs += u64::from((word & !(word << 1 | was_kept)).count_ones());
            was_kept = word >> 63;
        }
        was_kept = u64::from(mask.value(mask.len() - 1));
    }
    n_runs
}

/// Goes through the rows that a source gives, batch by batch.
#[derive(Clone, Debug)]
pub(super) enum Places {
    InRanges(Cursor),
    Kept(Kept),
}

impl Places {
    pub(super) fn of(ranges: &Ranges) -> Self {
        Self::InRanges(Cursor::new(ranges))
    }

    /// The rows of ranges, taken one after the other, for which the masks are true.
    pub(super) fn kept(ranges: &Ranges, masks: &[BooleanArray]) -> Self {
        let Some(range) = ranges.only() else {
            return Self::of(&ranges.filter(masks));
        };
        let n_rows = masks.iter().map(BooleanArray::len).sum();
        let mut all = BooleanBufferBuilder::new(n_rows);
        masks.iter().for_each(|m| all.append_buffer(m.values()));
        Self::Kept(Kept {
            first_row: range.start,
            mask: all.finish(),
            at: 0,
        })
    }

    /// The places of the next `n_rows` rows, and where the last of them ends.
    pub(super) fn take(&mut self, n_rows: usize) -> (RowsRead, u64) {
        match self {
            Self::InRanges(cursor) => cursor.take(n_rows as u64),
            Self::Kept(kept) => kept.take(n_rows),
        }
    }
}

/// Goes through the rows of one range that a mask keeps.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    first_row: u64,
    mask: BooleanBuffer,
    at: usize,
}

impl Kept {
    fn take(&mut self, n_rows: usize) -> (RowsRead, u64) {
        let place = |at: usize| self.first_row + at as u64;
        let start = match n_rows {
            0 => self.at,
            _ => self
                .mask
                .find_nth_set_bit_position(self.at, 1)
                .saturating_sub(1),
        };
        let end = self.mask.find_nth_set_bit_position(self.at, n_rows);
        let leaves_out = end - start > n_rows;
        let of_batch = || BooleanArray::new(self.mask.slice(start, end - start), None);
        let rows = RowsRead {
            first_row: place(start),
            mask: leaves_out.then(of_batch),
        };
        self.at = end;
        (rows, self.first_row + end as u64)
    }
}

/// Goes through the rows of ranges, batch by batch.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    ranges: std::vec::IntoIter<Range<u64>>,
    open: Range<u64>,
}

impl Cursor {
    fn new(ranges: &Ranges) -> Self {
        Self {
            ranges: ranges.0.clone().into_iter(),
            open: 0..0,
        }
    }

    /// The places of the next `n_rows` rows, and where the last of them ends.
    fn take(&mut self, n_rows: u64) -> (RowsRead, u64) {
        let mut taken = Vec::new();
        self.advance(n_rows, |rows| taken.push(rows));
        let (first_row, end) = match (taken.first(), taken.last()) {
            (Some(first), Some(last)) => (first.start, last.end),
            _ => (self.open.start, self.open.start),
        };
        let mask = (taken.len() > 1).then(|| {
            let mut bits = BooleanBufferBuilder::new((end - first_row) as usize);
            for rows in &taken {
                bits.append_n((rows.start - first_row) as usize - bits.len(), false);
                bits.append_n((rows.end - rows.start) as usize, true);
            }
            BooleanArray::new(bits.finish(), None)
        });
        (RowsRead { first_row, mask }, end)
    }

    fn advance(&mut self, mut n_rows: u64, mut each: impl FnMut(Range<u64>)) {
        while n_rows > 0 {
            if self.open.is_empty() {
                match self.ranges.next() {
                    Some(next) => self.open = next,
                    None => return,
                }
            }
            let end = self.open.end.min(self.open.start + n_rows);
            n_rows -= end - self.open.start;
            each(self.open.start..end);
            self.open.start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    fn ranges(of: &[Range<u64>]) -> Ranges {
        let mut ranges = Ranges::default();
        of.iter().for_each(|r| ranges.push(r.clone()));
        ranges
    }

    #[test]
    fn neighbours_become_one_range_and_empty_ones_none() {
        let of = ranges(&[0..3, 3..5, 7..7, 9..10]);
        expect!["Ranges([0..5, 9..10])"].assert_eq(&format!("{of:?}"));
        expect!["Ranges([2..5])"].assert_eq(&format!("{:?}", of.clip(2..9)));
        assert_eq!(of.n_rows(), 6);
    }

    #[test]
    fn masks_speak_of_the_rows_that_were_read() {
        let of = ranges(&[0..3, 10..14]);
        let masks = [vec![true, false], vec![true, true, true, false, true]];
        let kept = of.filter(&masks.map(BooleanArray::from));
        expect!["Ranges([0..1, 2..3, 10..12, 13..14])"].assert_eq(&format!("{kept:?}"));
    }

    #[test]
    fn a_batch_knows_the_places_of_its_rows() {
        let mut cursor = Cursor::new(&ranges(&[2..4, 6..7, 9..20]));
        let taken: Vec<String> = [1, 3, 5, 100]
            .into_iter()
            .map(|n| {
                let (RowsRead { first_row, mask }, end) = cursor.take(n);
                let mask: Option<String> = mask.map(|m| {
                    let bit = |b: bool| if b { '1' } else { '0' };
                    m.values().iter().map(bit).collect()
                });
                format!("{first_row}..{end} {}", mask.unwrap_or_default())
            })
            .collect();
        expect![[r#"
            2..3 
            3..10 1001001"#]]
        .assert_eq(&taken[..2].join("\n"));
        expect![[r#"
            10..15 
            15..20 "#]]
        .assert_eq(&taken[2..].join("\n"));
    }

    #[test]
    fn runs_go_on_from_one_mask_to_the_next() {
        let masks = |of: &[&str]| -> Vec<BooleanArray> {
            let mask = |bits: &&str| bits.chars().map(|b| Some(b == '1')).collect();
            of.iter().map(mask).collect()
        };
        assert_eq!(n_runs(&masks(&["0110", "", "101"])), 3);
        assert_eq!(n_runs(&masks(&["011", "", "101"])), 2);
        let long = "1".repeat(200);
        assert_eq!(n_runs(&masks(&[&long, &long])), 1);
        assert_eq!(n_runs(&masks(&[])), 0);
    }

    proptest! {
        /// A mask tells of the same places as the ranges that it keeps, and ranges of as many as there are runs.
        #[test]
        fn masks_keep_the_places_of_their_ranges(
            first_row in 0u64..1_000,
            bits in prop::collection::vec(prop::bool::weighted(0.3), 0..400),
            cuts in prop::collection::vec(1usize..200, 0..5),
            takes in prop::collection::vec(0usize..60, 0..20),
        ) {
            let mut masks = Vec::new();
            let mut rest = bits.as_slice();
            for cut in cuts {
                let (mask, later) = rest.split_at(cut.min(rest.len()));
                masks.push(BooleanArray::from(mask.to_vec()));
                rest = later;
            }
            masks.push(BooleanArray::from(rest.to_vec()));
            let mut whole = Ranges::default();
            whole.push(first_row..first_row + bits.len() as u64);
            let kept = whole.filter(&masks);
            prop_assert_eq!(n_runs(&masks), kept.iter().count() as u64);
            let (mut by_mask, mut by_ranges) = (Places::kept(&whole, &masks), Places::of(&kept));
            let mut n_left = bits.iter().filter(|kept| **kept).count();
            for n in takes {
                let n = n.min(n_left);
                n_left -= n;
                let (found, expected) = (by_mask.take(n), by_ranges.take(n));
                if n > 0 {
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
