//! Rows of one side, found by key and a stretch of time.
//!
//! ```text
//! key ──▶ its latest stretch of time ──┐
//! (earlier stretch, key) ──────────────┴─▶ newest row ──▶ the row before it ──▶ …   chains of row numbers
//! row number ──▶ its time, key, and place in a batch
//! ```
//!
//! A stretch is as long as the interval of the join, so that whatever a row may match is in at most two of
//! them, in whatever order rows come, and a frequent key costs no more than the rows it is near to.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use hashbrown::HashMap;
use std::sync::Arc;

use super::gather::{Gather, RowAt, concat_rows, n_bytes};
use super::key_numbers::{NO_KEY, renumber};
use super::lots::{RowWidths, are_small, cut};
use crate::batch::BATCH_ROWS;
use crate::error::Result;

/// The end of a chain.
pub(super) const NO_ROW: u32 = u32::MAX;

/// So many rows that are over are kept for each that is not, but for their columns, since to number all others
/// anew costs more than their few bytes.
const OVER_FOR_EACH: usize = 4;

/// Rows that may still match.
pub(super) struct NearRows {
    schema: SchemaRef,
    /// How long a stretch of time is.
    width: i64,
    /// By the number of the key; nearly all that is asked for is here, without a hash.
    latest: Vec<Latest>,
    /// The newest rows in other stretches than the latest of their key.
    earlier: HashMap<(i64, u32), u32>,
    /// By the number of the row.
    before: Vec<u32>,
    times: Vec<i64>,
    keys: Vec<u32>,
    places: Vec<RowAt>,
    matched: Vec<bool>,
    chunks: Vec<Chunk>,
    /// The rows of the chunks; none of those that are over.
    batches: Vec<RecordBatch>,
    widths: RowWidths,
    /// Rows with an earlier time are over.
    horizon: i64,
    n_over: usize,
    n_bytes: u64,
}

/// The latest stretch of a key, and the newest row in it.
#[derive(Clone, Copy)]
struct Latest {
    stretch: i64,
    row: u32,
}

impl Latest {
    const NONE: Self = Self {
        stretch: i64::MIN,
        row: NO_ROW,
    };
}

/// Rows that stand together in a batch.
struct Chunk {
    /// The number of its first row.
    first: u32,
    /// Its rows by time.
    order: Vec<u32>,
    /// How many of them are over.
    n_over: usize,
}

impl NearRows {
    pub(super) fn new(schema: &SchemaRef, width: i64) -> Self {
        Self {
            schema: SchemaRef::clone(schema),
            width: width.max(1),
            latest: Vec::new(),
            earlier: HashMap::new(),
            before: Vec::new(),
            times: Vec::new(),
            keys: Vec::new(),
            places: Vec::new(),
            matched: Vec::new(),
            chunks: Vec::new(),
            batches: Vec::new(),
            widths: RowWidths::default(),
            horizon: i64::MIN,
            n_over: 0,
            n_bytes: 0,
        }
    }

    /// Takes in rows, which get the numbers from the result on.
    pub(super) fn push(
        &mut self,
        rows: RecordBatch,
        keys: Vec<u32>,
        times: &[i64],
        matched: Vec<bool>,
    ) -> Result<u32> {
        let first = number(self.times.len());
        let chunk = self.batches.len();
        let mut stretch = self.stretch_around(times.first().copied().unwrap_or(0));
        for (row, (&key, &time)) in keys.iter().zip(times).enumerate() {
            let number = first + number(row);
            if !stretch.holds(time) {
                stretch = self.stretch_around(time);
            }
            let before = match key {
                NO_KEY => NO_ROW,
                key => self.set_newest(stretch.number, key, number),
            };
            self.before.push(before);
            self.places.push(RowAt::new(chunk, row));
        }
        self.times.extend_from_slice(times);
        self.keys.extend(keys);
        self.matched.extend(matched);
        self.add_chunk(first, rows);
        self.put_together()?;
        Ok(first)
    }

    pub(super) fn stretch_around(&self, time: i64) -> Stretch {
        Stretch::around(time, self.width)
    }

    /// Makes a row the newest of its key in a stretch, and gives the one that was it.
    fn set_newest(&mut self, stretch: i64, key: u32, row: u32) -> u32 {
        let key_at = key as usize;
        if key_at >= self.latest.len() {
            self.latest.resize(key_at + 1, Latest::NONE);
        }
        let latest = &mut self.latest[key_at];
        if stretch < latest.stretch {
            let before = self.earlier.insert((stretch, key), row);
            return before.unwrap_or(NO_ROW);
        }
        let was = std::mem::replace(latest, Latest { stretch, row });
        if was.stretch == stretch {
            return was.row;
        }
        if was.row != NO_ROW {
            self.earlier.insert((was.stretch, key), was.row);
        }
        NO_ROW
    }

    fn add_chunk(&mut self, first: u32, rows: RecordBatch) {
        let times = &self.times[first as usize..];
        let mut order: Vec<u32> = (0u32..).take(times.len()).collect();
        if !times.is_sorted() {
            order.sort_by_key(|&row| times[row as usize]);
        }
        let n_over = order.partition_point(|&row| times[row as usize] < self.horizon);
        self.n_over += n_over;
        self.n_bytes += n_bytes(&rows);
        self.chunks.push(Chunk {
            first,
            order,
            n_over,
        });
        self.widths.push(&rows);
        self.batches.push(rows);
    }

    /// Puts small batches together, so that single rows do not make as many.
    fn put_together(&mut self) -> Result<()> {
        while let [.., before, last] = self.batches.as_slice()
            && are_small(before, last)
            && before.num_rows() > 0
        {
            let both = concat_rows(&self.schema, &[before.clone(), last.clone()])?;
            for _ in 0..2 {
                if let (Some(chunk), Some(rows)) = (self.chunks.pop(), self.batches.pop()) {
                    self.widths.pop();
                    self.n_over -= chunk.n_over;
                    self.n_bytes -= n_bytes(&rows);
                }
            }
            let chunk = self.batches.len();
            let first = self.times.len() - both.num_rows();
            for (row, place) in self.places[first..].iter_mut().enumerate() {
                *place = RowAt::new(chunk, row);
            }
            self.add_chunk(number(first), both);
        }
        Ok(())
    }

    /// The first and the last stretch of the times from `low` to `high`; `hint` is one that may hold `low`.
    pub(super) fn stretches(&self, low: i64, high: i64, hint: &mut Stretch) -> (i64, i64) {
        if !hint.holds(low) {
            *hint = Stretch::around(low, self.width);
        }
        match hint.holds(high) {
            true => (hint.number, hint.number),
            false => (hint.number, high.div_euclid(self.width)),
        }
    }

    /// The newest row of a key in a stretch.
    pub(super) fn newest(&self, stretch: i64, key: u32) -> u32 {
        match self.latest.get(key as usize) {
            Some(latest) if latest.stretch == stretch => latest.row,
            Some(latest) if latest.stretch > stretch && !self.earlier.is_empty() => {
                let newest = self.earlier.get(&(stretch, key));
                newest.copied().unwrap_or(NO_ROW)
            }
            _ => NO_ROW,
        }
    }

    /// The row of the same key and stretch that came before this one.
    pub(super) fn before(&self, row: u32) -> u32 {
        self.before[row as usize]
    }

    pub(super) fn time(&self, row: u32) -> i64 {
        self.times[row as usize]
    }

    pub(super) fn key(&self, row: u32) -> u32 {
        self.keys[row as usize]
    }

    pub(super) fn place(&self, row: u32) -> RowAt {
        self.places[row as usize]
    }

    /// The bytes of a row; 0 where no row is wide that came with it.
    pub(super) fn width(&self, row: u32) -> u64 {
        match self.widths.is_narrow() {
            true => 0,
            false => self.widths.at(self.place(row)),
        }
    }

    pub(super) fn set_matched(&mut self, row: u32) {
        self.matched[row as usize] = true;
    }

    /// The number after that of the last row.
    pub(super) fn end(&self) -> u32 {
        number(self.times.len())
    }

    /// The batches that the places of rows are in.
    pub(super) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Rows with a time before `horizon` are over; gives the numbers of those that have not matched.
    pub(super) fn pass(&mut self, horizon: i64) -> Vec<u32> {
        let mut unmatched = Vec::new();
        self.horizon = self.horizon.max(horizon);
        for chunk in &mut self.chunks {
            let time = |row: u32| self.times[(chunk.first + row) as usize];
            while let Some(&row) = chunk.order.get(chunk.n_over)
                && time(row) < self.horizon
            {
                let row = chunk.first + row;
                if !self.matched[row as usize] {
                    unmatched.push(row);
                }
                chunk.n_over += 1;
                self.n_over += 1;
            }
        }
        unmatched
    }

    /// Frees the memory of rows that are over, once it is worth it.
    pub(super) fn let_go(&mut self) -> Result<()> {
        for (n, (chunk, rows)) in self.chunks.iter().zip(&mut self.batches).enumerate() {
            if chunk.n_over == chunk.order.len() && rows.num_rows() > 0 {
                self.n_bytes -= n_bytes(rows);
                *rows = RecordBatch::new_empty(SchemaRef::clone(&self.schema));
                self.widths.forget(n);
            }
        }
        if self.n_over > OVER_FOR_EACH * (self.n_rows() + BATCH_ROWS) {
            self.begin_anew()?;
        }
        Ok(())
    }

    /// Numbers the rows anew that are not over.
    fn begin_anew(&mut self) -> Result<()> {
        let rows = self.left();
        let mut anew = Self::new(&self.schema, self.width);
        anew.horizon = self.horizon;
        let lots = rows.chunks(BATCH_ROWS);
        for rows in lots.flat_map(|rows| cut(rows, |row| self.width(*row))) {
            let places: Vec<RowAt> = rows.iter().map(|&row| self.place(row)).collect();
            let times: Vec<i64> = rows.iter().map(|&row| self.time(row)).collect();
            anew.push(
                Gather::new(&self.batches, &places).rows(&self.schema)?,
                rows.iter().map(|&row| self.key(row)).collect(),
                &times,
                rows.iter().map(|&row| self.matched[row as usize]).collect(),
            )?;
        }
        *self = anew;
        Ok(())
    }

    /// The numbers of the rows that are not over.
    fn left(&self) -> Vec<u32> {
        let numbered = (0u32..).zip(&self.times);
        let left = numbered.filter(|(_, time)| **time >= self.horizon);
        left.map(|(row, _)| row).collect()
    }

    /// The rows that are not over, with whether they have matched; wide ones in several batches.
    pub(super) fn all(&self) -> Result<Vec<(RecordBatch, ArrayRef)>> {
        let rows = self.left();
        let lots = cut(&rows, |row| self.width(*row));
        let all = lots.map(|rows| {
            let places: Vec<RowAt> = rows.iter().map(|&row| self.place(row)).collect();
            let matched = rows.iter().map(|&row| Some(self.matched[row as usize]));
            let matched: ArrayRef = Arc::new(matched.collect::<BooleanArray>());
            let rows = Gather::new(&self.batches, &places).rows(&self.schema)?;
            Ok((rows, matched))
        });
        all.collect()
    }

    /// Marks the keys of the rows that are not over.
    pub(super) fn mark(&self, is_kept: &mut [bool]) {
        for row in self.left() {
            if self.key(row) != NO_KEY {
                is_kept[self.key(row) as usize] = true;
            }
        }
    }

    /// Gives keys their new numbers.
    pub(super) fn renumber(&mut self, new_numbers: &[u32]) -> Result<()> {
        renumber(&mut self.keys, new_numbers);
        self.begin_anew()
    }

    /// How many rows are not over.
    pub(super) fn n_rows(&self) -> usize {
        self.times.len() - self.n_over
    }

    pub(super) fn n_bytes(&self) -> u64 {
        let of_row = 3 * size_of::<u32>() + size_of::<i64>() + size_of::<RowAt>() + 1;
        let of_entry = size_of::<((i64, u32), u32)>() + 1;
        let of_keys = self.latest.capacity() * size_of::<Latest>();
        let of_earlier = self.earlier.capacity() * of_entry;
        self.n_bytes
            + self.widths.n_bytes()
            + (self.times.capacity() * of_row + of_keys + of_earlier) as u64
    }
}

/// A stretch of time; rows mostly follow each other in one, so that few of them need a division.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    number: i64,
    start: i64,
    /// How long it is; 0 of one that begins before time does, which is asked for anew each time.
    width: i64,
}

impl Stretch {
    fn around(time: i64, width: i64) -> Self {
        let number = time.div_euclid(width);
        match number.checked_mul(width) {
            Some(start) => Self {
                number,
                start,
                width,
            },
            None => Self {
                number,
                start: time,
                width: 0,
            },
        }
    }

    fn holds(self, time: i64) -> bool {
        time.checked_sub(self.start)
            .is_some_and(|behind| 0 <= behind && behind < self.width)
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(NO_ROW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times() -> impl Strategy<Value = i64> {
        prop_oneof![-50i64..50, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
    }

    proptest! {
        /// A hint saves a division and changes nothing, also where time begins and ends.
        #[test]
        fn stretches_are_the_same_whatever_the_hint(
            low in times(),
            reach in prop_oneof![1i64..30, Just(i64::MAX)],
            hint in times(),
        ) {
            let rows = NearRows::new(&Arc::new(arrow::datatypes::Schema::empty()), reach);
            let high = low.saturating_add(reach);
            let mut stretch = rows.stretch_around(hint);
            let expected = (low.div_euclid(reach), high.div_euclid(reach));
            prop_assert_eq!(rows.stretches(low, high, &mut stretch), expected);
            prop_assert_eq!(rows.stretches(low, high, &mut stretch), expected);
        }
    }

    /// Rows come in any order of their stretches; each chain has those of one stretch, the newest first.
    #[test]
    fn the_newest_row_of_a_key_in_a_stretch_is_found() {
        let times = [12i64, 3, 15, 4, 13, 25];
        let rows = crate::testing::table("event_time: 12, 3, 15, 4, 13, 25");
        let mut near = NearRows::new(&rows.schema(), 10);
        near.push(rows, vec![0; 6], &times, vec![false; 6]).unwrap();
        let chain = |stretch| {
            let mut found = Vec::new();
            let mut row = near.newest(stretch, 0);
            while row != NO_ROW {
                found.push(times[row as usize]);
                row = near.before(row);
            }
            found
        };
        assert_eq!(chain(0), [4, 3]);
        assert_eq!(chain(1), [13, 15, 12]);
        assert_eq!(chain(2), [25]);
        assert!(chain(3).is_empty());
        assert_eq!(near.newest(1, 1), NO_ROW);
    }
}
