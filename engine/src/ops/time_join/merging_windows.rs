//! Windows of each key's own that become one as rows of either side come, as sessions do.
//!
//! ```text
//! left    ●─────gap─────┤                          the row of the right side in the middle makes one window
//! right         ○─────gap─────┤                    of what would else be two: all three rows are in it
//! left                    ●─────gap─────┤
//!         ├────────── one window ───────┤
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;

use super::gather::{Gather, record_batch};
use super::kept_rows::KeptRows;
use super::key_numbers::{KeyNumbers, NO_KEY};
use super::layout::TimeLayout;
use super::lots::{RowWidths, cut};
use super::open_windows::{InWindow, Kept, OpenWindows, Over, Windows, with_numbers};
use super::state::foreign;
use crate::batch::BATCH_ROWS;
use crate::error::Result;
use crate::event_time::event_times;
use crate::ops::Side;
use crate::state::StatePart;
use crate::windowing::{Window, WindowFn};

/// The columns of a snapshot that say which window a row is in.
const WINDOW: [&str; 2] = ["$window_start", "$window_end"];

/// Rows in the windows of their keys.
pub(super) struct MergingWindows {
    window_fn: Arc<dyn WindowFn>,
    layout: Arc<TimeLayout>,
    keys: KeyNumbers,
    left: KeptRows,
    right: KeptRows,
    /// By key and window. A null key equals none, so windows of rows without a key do not merge.
    windows: BTreeMap<(u32, Window), Members>,
    /// End, key and start of each window.
    due: BTreeSet<(i64, u32, i64)>,
    /// How often rows are in windows.
    n_members: usize,
}

/// The numbers of the rows of a window.
#[derive(Default)]
struct Members {
    left: Vec<u64>,
    right: Vec<u64>,
}

impl Members {
    fn of(&mut self, side: Side) -> &mut Vec<u64> {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    /// Takes in those of another window, the fewer to the more.
    fn absorb(&mut self, mut other: Self) {
        for side in [Side::Left, Side::Right] {
            let (own, others) = (self.of(side), other.of(side));
            if own.len() < others.len() {
                std::mem::swap(own, others);
            }
            own.append(others);
        }
    }
}

impl MergingWindows {
    pub(super) fn new(window_fn: Arc<dyn WindowFn>, layout: &Arc<TimeLayout>) -> Result<Self> {
        Ok(Self {
            window_fn,
            keys: KeyNumbers::new(&layout.key_types)?,
            left: KeptRows::new(&layout.left.schema),
            right: KeptRows::new(&layout.right.schema),
            layout: Arc::clone(layout),
            windows: BTreeMap::new(),
            due: BTreeSet::new(),
            n_members: 0,
        })
    }

    fn rows_of(&mut self, side: Side) -> &mut KeptRows {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    fn members(&mut self, key: u32, window: Window) -> &mut Members {
        self.windows.entry((key, window)).or_insert_with(|| {
            self.due.insert((window.end, key, window.start));
            Members::default()
        })
    }

    fn take_out(&mut self, key: u32, window: Window) -> Members {
        self.due.remove(&(window.end, key, window.start));
        self.windows.remove(&(key, window)).unwrap_or_default()
    }

    /// Makes one what belongs together of the windows of a key.
    fn merge(&mut self, key: u32) {
        let at = |time| Window {
            start: time,
            end: time,
        };
        let of_key = (key, at(i64::MIN))..=(key, at(i64::MAX));
        let windows = self.windows.range(of_key);
        let windows: Vec<Window> = windows.map(|((_, window), _)| *window).collect();
        if windows.len() < 2 {
            return;
        }
        for (merged, into) in self.window_fn.merge(&windows) {
            let mut all = Members::default();
            for window in merged {
                all.absorb(self.take_out(key, window));
            }
            self.members(key, into).absorb(all);
        }
    }

    /// Gives keys their new numbers.
    fn renumber(&mut self, new_numbers: &[u32]) {
        // A row without a key has no number, and keeps none.
        let new = |key: u32| new_numbers.get(key as usize).copied().unwrap_or(key);
        let windows = std::mem::take(&mut self.windows).into_iter();
        self.windows = windows.map(|((key, w), m)| ((new(key), w), m)).collect();
        let due = std::mem::take(&mut self.due).into_iter();
        self.due = due
            .map(|(end, key, start)| (end, new(key), start))
            .collect();
    }

    /// Lets the rows of a side go, each in the window of its number.
    fn leave(&mut self, side: Side, rows: Vec<(u32, u64)>) -> Result<InWindow> {
        let kept = self.rows_of(side);
        let numbers = || rows.iter().map(|(_, row)| *row);
        let (batches, places) = kept.places(numbers())?;
        kept.let_go(numbers())?;
        self.n_members -= rows.len();
        let windows = rows.iter().map(|(window, _)| *window);
        Ok(InWindow {
            batches,
            rows: windows.zip(places).collect(),
        })
    }
}

impl OpenWindows for MergingWindows {
    fn take_in(&mut self, side: Side, rows: &RecordBatch, watermark: i64) -> Result<Kept> {
        let keys = self.keys.number(rows, &self.layout.side(side).keys)?;
        let mut kept = Kept::default();
        let mut taken: Vec<u32> = Vec::new();
        let mut wanted: Vec<u32> = Vec::new();
        let mut members: Vec<(u32, Window, u64)> = Vec::new();
        let mut windows = Vec::new();
        for (row, &time) in (0u32..).zip(event_times(rows)?) {
            windows.clear();
            self.window_fn.assign(time, &mut windows);
            if windows.is_empty() {
                kept.n_in_none += 1;
                continue;
            }
            windows.retain(|window| window.end > watermark);
            if windows.is_empty() {
                kept.late.push(row);
                continue;
            }
            let (key, nth) = (keys[row as usize], taken.len() as u64);
            members.extend(windows.iter().map(|window| (key, *window, nth)));
            wanted.push(u32::try_from(windows.len()).unwrap_or(u32::MAX));
            taken.push(row);
        }
        let rows = match taken.len() == rows.num_rows() {
            true => rows.clone(),
            false => take_record_batch(rows, &UInt32Array::from(taken))?,
        };
        let first = self.rows_of(side).push(rows, wanted)?;
        self.n_members += members.len();
        let mut touched: Vec<u32> = Vec::new();
        for (key, window, nth) in members {
            self.members(key, window).of(side).push(first + nth);
            touched.push(key);
        }
        touched.sort_unstable();
        touched.dedup();
        for key in touched.into_iter().filter(|key| *key != NO_KEY) {
            self.merge(key);
        }
        Ok(kept)
    }

    /// Takes out windows by their ends, of any keys, as long as their rows are not many.
    fn next_over(&mut self, watermark: i64) -> Result<Option<Over>> {
        let mut windows = Vec::new();
        let (mut left, mut right) = (Vec::new(), Vec::new());
        while left.len() + right.len() < BATCH_ROWS
            && let Some(&(end, key, start)) = self.due.first()
            && end <= watermark
        {
            let window = Window { start, end };
            let mut members = self.take_out(key, window);
            windows.push(window);
            for (rows, side) in [(&mut left, Side::Left), (&mut right, Side::Right)] {
                if side == Side::Right && key == NO_KEY {
                    // Another number, for rows without a key match none.
                    windows.push(window);
                }
                let number = u32::try_from(windows.len() - 1).unwrap_or(u32::MAX);
                let of_side = members.of(side);
                // In the order in which they came.
                of_side.sort_unstable();
                rows.extend(of_side.iter().map(|row| (number, *row)));
            }
        }
        if windows.is_empty() {
            return Ok(None);
        }
        Ok(Some(Over {
            windows: Windows::ByNumber(windows),
            left: self.leave(Side::Left, left)?,
            right: self.leave(Side::Right, right)?,
        }))
    }

    fn save(&self, side: Side, _left_up_to: i64) -> Result<Vec<RecordBatch>> {
        let kept = match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        };
        let mut numbers = Vec::new();
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for ((_, window), members) in &self.windows {
            let of_side = match side {
                Side::Left => &members.left,
                Side::Right => &members.right,
            };
            numbers.extend_from_slice(of_side);
            starts.resize(numbers.len(), window.start);
            ends.resize(numbers.len(), window.end);
        }
        let (batches, places) = kept.places(numbers.into_iter())?;
        let schema = &self.layout.side(side).schema;
        let edges = [starts, ends].map(|edges| Arc::new(Int64Array::from(edges)) as ArrayRef);
        let mut start = 0;
        let widths = RowWidths::of(&batches);
        let lots = cut(&places, |place| widths.at(*place)).map(|places| {
            let rows = Gather::new(&batches, places).rows(schema)?;
            let n_rows = places.len();
            let edges = edges.each_ref().map(|edges| edges.slice(start, n_rows));
            start += n_rows;
            let columns = [rows.columns(), &edges].concat();
            record_batch(&with_numbers(schema, &WINDOW), columns, n_rows)
        });
        lots.collect()
    }

    fn load(&mut self, side: Side, part: &StatePart, rows: RecordBatch) -> Result<()> {
        let edges = WINDOW.map(|name| {
            let column = part.rows.column_by_name(name);
            column.and_then(|c| c.as_primitive_opt::<Int64Type>())
        });
        let [Some(starts), Some(ends)] = edges else {
            return Err(foreign(part));
        };
        let n_rows = rows.num_rows();
        let keys = self.keys.number(&rows, &self.layout.side(side).keys)?;
        let first = self.rows_of(side).push(rows, vec![1; n_rows])?;
        self.n_members += n_rows;
        for (row, key) in keys.into_iter().enumerate() {
            let window = Window {
                start: starts.value(row),
                end: ends.value(row),
            };
            let members = self.members(key, window).of(side);
            members.push(first + row as u64);
        }
        Ok(())
    }

    /// Forgets keys without rows, once they are most.
    fn tidy(&mut self) -> Result<()> {
        let n_rows = self.left.n_rows() + self.right.n_rows();
        if self.windows.is_empty() {
            self.keys = KeyNumbers::new(&self.layout.key_types)?;
        } else if self.keys.len() > 2 * n_rows + BATCH_ROWS {
            let mut is_kept = vec![false; self.keys.len()];
            for (key, _) in self.windows.keys() {
                if let Some(kept) = is_kept.get_mut(*key as usize) {
                    *kept = true;
                }
            }
            let new_numbers = self.keys.keep(&is_kept)?;
            self.renumber(&new_numbers);
        }
        Ok(())
    }

    fn n_bytes(&self) -> u64 {
        let of_window = size_of::<(u32, Window, Members)>() + size_of::<(i64, u32, i64)>();
        let own = self.windows.len() * of_window + self.n_members * size_of::<u64>();
        self.left.n_bytes() + self.right.n_bytes() + (own + self.keys.n_bytes()) as u64
    }
}
