//! Rows by the stretches of time in which all rows are in the same windows.
//!
//! ```text
//! windows     ├─────────── w1 ───────────┤
//!                        ├─────────── w2 ───────────┤
//! panes       ├─── p1 ───┼───── p2 ──────┼─── p3 ───┤      a row is kept once, in its pane
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;

use super::gather::{RowAt, concat_rows, n_bytes, record_batch};
use super::key_numbers::{KeyNumbers, NO_KEY};
use super::layout::TimeLayout;
use super::lots::are_small;
use super::open_windows::{InWindow, Kept, OpenWindows, Over, Windows, with_numbers};
use super::state::foreign;
use crate::error::Result;
use crate::event_time::event_times;
use crate::ops::{LOT_BYTES, Side};
use crate::state::StatePart;
use crate::windowing::{Window, WindowFn};

/// The column of a snapshot that says up to which end windows have left with a row.
const LEFT_UP_TO: &str = "$left_up_to";

/// Which rows a pane holds: those of a stretch of time, whose windows that end later are still to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PaneId {
    stretch: Window,
    /// Windows that end no later have left already, with these rows.
    left_up_to: i64,
}

/// What becomes of the rows of a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// They count in a window that is still to leave.
    Open,
    /// All of their windows have left.
    Over,
    /// They are in no window.
    InNone,
}

/// Rows in their panes, and the windows that are still to leave.
pub(super) struct Panes {
    windows_of: Arc<dyn WindowFn>,
    layout: Arc<TimeLayout>,
    panes: BTreeMap<PaneId, Pane>,
    /// By the end of the window, then by its start.
    open: BTreeMap<(i64, i64), Vec<PaneId>>,
    n_bytes: u64,
}

#[derive(Default)]
struct Pane {
    left: PaneRows,
    right: PaneRows,
    n_open: usize,
}

/// Rows of one side.
#[derive(Default)]
struct PaneRows {
    chunks: Vec<RecordBatch>,
}

impl Panes {
    pub(super) fn new(windows_of: Arc<dyn WindowFn>, layout: &Arc<TimeLayout>) -> Self {
        Self {
            windows_of,
            layout: Arc::clone(layout),
            panes: BTreeMap::new(),
            open: BTreeMap::new(),
            n_bytes: 0,
        }
    }

    /// The stretch of time around `time` in which all rows are in the same windows.
    fn stretch(&self, time: i64) -> Window {
        let instant = Window {
            start: time,
            end: time + 1,
        };
        self.windows_of.pane_of(time).unwrap_or(instant)
    }

    /// What becomes of rows of the pane at this watermark; one that takes rows in is opened.
    fn open(&mut self, id: PaneId, watermark: i64) -> Standing {
        if self.panes.contains_key(&id) {
            return Standing::Open;
        }
        let mut windows = Vec::new();
        self.windows_of.assign(id.stretch.start, &mut windows);
        if windows.is_empty() {
            return Standing::InNone;
        }
        windows.retain(|w| w.end > watermark.max(id.left_up_to));
        if windows.is_empty() {
            return Standing::Over;
        }
        let n_open = windows.len();
        for window in windows {
            let panes = self.open.entry((window.end, window.start)).or_default();
            panes.push(id);
        }
        let pane = Pane {
            n_open,
            ..Pane::default()
        };
        self.panes.insert(id, pane);
        Standing::Open
    }

    /// Takes in rows of a pane that is open.
    fn push(&mut self, id: PaneId, side: Side, rows: RecordBatch) -> Result<()> {
        let pane = self.panes.entry(id).or_default();
        let of_side = match side {
            Side::Left => &mut pane.left,
            Side::Right => &mut pane.right,
        };
        self.n_bytes += n_bytes(&rows);
        of_side.chunks.push(rows);
        while let [.., before, last] = of_side.chunks.as_slice()
            && are_small(before, last)
            && let (Some(last), Some(before)) = (of_side.chunks.pop(), of_side.chunks.pop())
        {
            self.n_bytes -= n_bytes(&before) + n_bytes(&last);
            let both = concat_rows(&before.schema(), &[before.clone(), last])?;
            self.n_bytes += n_bytes(&both);
            of_side.chunks.push(both);
        }
        Ok(())
    }

    /// Takes rows into their panes, of whose windows those up to `left_up_to` have left.
    fn keep(
        &mut self,
        side: Side,
        rows: &RecordBatch,
        left_up_to: i64,
        watermark: i64,
    ) -> Result<Kept> {
        let mut order: Vec<PaneId> = Vec::new();
        let mut places: HashMap<PaneId, usize> = HashMap::new();
        let mut rows_of: Vec<Vec<u32>> = Vec::new();
        let mut last: Option<(PaneId, usize)> = None;
        for (row, &time) in (0u32..).zip(event_times(rows)?) {
            let place = match last {
                Some((id, place)) if id.stretch.contains(time) => place,
                _ => {
                    let id = PaneId {
                        stretch: self.stretch(time),
                        left_up_to,
                    };
                    let place = *places.entry(id).or_insert_with(|| {
                        order.push(id);
                        rows_of.push(Vec::new());
                        order.len() - 1
                    });
                    last = Some((id, place));
                    place
                }
            };
            rows_of[place].push(row);
        }
        let mut kept = Kept::default();
        for (id, of_pane) in order.into_iter().zip(rows_of) {
            match self.open(id, watermark) {
                Standing::Over => kept.late.extend(of_pane),
                Standing::InNone => kept.n_in_none += of_pane.len(),
                Standing::Open if of_pane.len() == rows.num_rows() => {
                    self.push(id, side, rows.clone())?;
                }
                Standing::Open => {
                    let rows = take_record_batch(rows, &UInt32Array::from(of_pane))?;
                    self.push(id, side, rows)?;
                }
            }
        }
        Ok(kept)
    }

    /// The rows of both sides by the number of their key among those of the smaller side.
    ///
    /// So most rows of the larger side are only looked up, and those that match none have no number.
    fn numbered(
        &self,
        left: Vec<RecordBatch>,
        right: Vec<RecordBatch>,
    ) -> Result<(InWindow, InWindow)> {
        let n_rows = |rows: &[RecordBatch]| rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        let (n_left, n_right) = (n_rows(&left), n_rows(&right));
        let mut keys = KeyNumbers::new(&self.layout.key_types)?;
        keys.expect(n_left.min(n_right));
        let mut numbered = |side: Side, batches: Vec<RecordBatch>| -> Result<InWindow> {
            let of_side = &self.layout.side(side).keys;
            let numbers = batches.iter().map(|rows| keys.number(rows, of_side));
            let numbers: Vec<Vec<u32>> = numbers.collect::<Result<_>>()?;
            keys.freeze();
            let keeps_all = self.layout.kind.keeps_unmatched(side);
            let rows = by_number(&numbers, keys.len(), keeps_all);
            Ok(InWindow { batches, rows })
        };
        if n_left <= n_right {
            let left = numbered(Side::Left, left)?;
            Ok((left, numbered(Side::Right, right)?))
        } else {
            let right = numbered(Side::Right, right)?;
            Ok((numbered(Side::Left, left)?, right))
        }
    }
}

/// The places of rows in the order of their numbers, which are less than `n_keys`, by batch; rows without a number come
/// last, or not at all. Rows of one number stay in order.
fn by_number(numbers: &[Vec<u32>], n_keys: usize, keeps_all: bool) -> Vec<(u32, RowAt)> {
    // Where the next row of each number goes; those without one have the place behind the last.
    let slot = |number: u32| (number as usize).min(n_keys);
    let mut next = vec![0usize; n_keys + 1];
    for &number in numbers.iter().flatten() {
        next[slot(number)] += 1;
    }
    let mut n_rows = 0;
    for of_number in &mut next {
        let first = n_rows;
        n_rows += std::mem::replace(of_number, first);
    }
    if !keeps_all {
        n_rows = next[n_keys];
    }
    let mut rows = vec![(NO_KEY, RowAt::NONE); n_rows];
    for (batch, of_batch) in numbers.iter().enumerate() {
        for (row, &number) in of_batch.iter().enumerate() {
            if number != NO_KEY || keeps_all {
                let at = &mut next[slot(number)];
                rows[*at] = (number, RowAt::new(batch, row));
                *at += 1;
            }
        }
    }
    rows
}

impl OpenWindows for Panes {
    fn take_in(&mut self, side: Side, rows: &RecordBatch, watermark: i64) -> Result<Kept> {
        self.keep(side, rows, i64::MIN, watermark)
    }

    fn next_over(&mut self, watermark: i64) -> Result<Option<Over>> {
        let Some(entry) = self.open.first_entry() else {
            return Ok(None);
        };
        let &(end, start) = entry.key();
        if end > watermark {
            return Ok(None);
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for id in entry.remove() {
            let Some(pane) = self.panes.get_mut(&id) else {
                continue;
            };
            left.extend_from_slice(&pane.left.chunks);
            right.extend_from_slice(&pane.right.chunks);
            pane.n_open -= 1;
            if pane.n_open == 0 {
                let rows = pane.left.chunks.iter().chain(&pane.right.chunks);
                self.n_bytes -= rows.map(n_bytes).sum::<u64>();
                self.panes.remove(&id);
            }
        }
        let (left, right) = self.numbered(left, right)?;
        Ok(Some(Over {
            windows: Windows::One(Window { start, end }),
            left,
            right,
        }))
    }

    fn save(&self, side: Side, left_up_to: i64) -> Result<Vec<RecordBatch>> {
        let schema = with_numbers(&self.layout.side(side).schema, &[LEFT_UP_TO]);
        let mut all = Vec::new();
        let mut part: Vec<RecordBatch> = Vec::new();
        let mut part_bytes = 0;
        for (id, pane) in &self.panes {
            let of_side = match side {
                Side::Left => &pane.left,
                Side::Right => &pane.right,
            };
            let up_to = id.left_up_to.max(left_up_to);
            for rows in &of_side.chunks {
                let n_rows = rows.num_rows();
                let up_to: ArrayRef = Arc::new(Int64Array::from(vec![up_to; n_rows]));
                let columns = [rows.columns(), &[up_to]].concat();
                part.push(record_batch(&schema, columns, n_rows)?);
                part_bytes += n_bytes(rows);
                if part_bytes >= LOT_BYTES {
                    all.push(concat_rows(&schema, &part)?);
                    (part, part_bytes) = (Vec::new(), 0);
                }
            }
        }
        all.push(concat_rows(&schema, &part)?);
        Ok(all)
    }

    fn load(&mut self, side: Side, part: &StatePart, rows: RecordBatch) -> Result<()> {
        let up_to = part.rows.column_by_name(LEFT_UP_TO);
        let up_to = up_to.and_then(|c| c.as_primitive_opt::<Int64Type>());
        let up_to = up_to.ok_or_else(|| foreign(part))?.values();
        let mut order: Vec<u32> = (0u32..).take(rows.num_rows()).collect();
        order.sort_by_key(|&row| up_to[row as usize]);
        let same = |a: &u32, b: &u32| up_to[*a as usize] == up_to[*b as usize];
        for of_one in order.chunk_by(same) {
            let left_up_to = up_to[of_one[0] as usize];
            let rows = take_record_batch(&rows, &UInt32Array::from(of_one.to_vec()))?;
            // What ends up to the watermark of whoever saved it has left, and nothing else.
            self.keep(side, &rows, left_up_to, i64::MIN)?;
        }
        Ok(())
    }

    fn n_bytes(&self) -> u64 {
        let of_pane = size_of::<PaneId>() + size_of::<Pane>();
        let of_window = size_of::<(i64, i64)>() + size_of::<Vec<PaneId>>();
        let of_all = self.panes.len() * of_pane + self.open.len() * of_window;
        self.n_bytes + of_all as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_by_number_and_those_without_one_last_or_not_at_all() {
        let numbers = [vec![2, NO_KEY, 0], vec![], vec![0, 2, NO_KEY, 0]];
        let at = |number: u32, batch: usize, row: usize| (number, RowAt::new(batch, row));
        let numbered = [
            at(0, 0, 2),
            at(0, 2, 0),
            at(0, 2, 3),
            at(2, 0, 0),
            at(2, 2, 1),
        ];
        assert_eq!(by_number(&numbers, 3, false), numbered);
        let without = [at(NO_KEY, 0, 1), at(NO_KEY, 2, 2)];
        assert_eq!(
            by_number(&numbers, 3, true),
            [&numbered[..], &without].concat()
        );
        assert!(by_number(&[], 0, true).is_empty());
    }
}
