//! A windowed join at work.

use std::sync::Arc;

use arrow::array::{BooleanArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;

use super::gather::{Gather, RowAt};
use super::key_numbers::NO_KEY;
use super::late::{as_they_came, late_port};
use super::layout::{Made, Residual, TimeLayout};
use super::lots::RowWidths;
use super::merging_windows::MergingWindows;
use super::open_windows::{InWindow, Kept, OpenWindows, Over, Windows};
use super::panes::Panes;
use super::state::{foreign, load_number, save_numbers};
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::Result;
use crate::ops::{Lot as Bytes, Side};
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};
use crate::windowing::{Window, WindowFn};

pub(super) struct WindowedOperator {
    layout: Arc<TimeLayout>,
    residual: Option<Residual>,
    windows: Box<dyn OpenWindows>,
    watermark: i64,
    /// What was restored may be of operators that had not heard of the watermark yet.
    is_behind: bool,
    leaving: Option<Leaving>,
}

/// Windows whose results leave.
struct Leaving {
    windows: Windows,
    left: InWindow,
    right: InWindow,
    /// Whether each row has matched; empty where it does not matter.
    left_matched: Vec<bool>,
    right_matched: Vec<bool>,
    left_widths: RowWidths,
    right_widths: RowWidths,
    at: At,
}

/// How far a window has come.
#[derive(Clone, Copy)]
enum At {
    /// At the pairs of this left row; the right rows with its key or a later one begin at `right`, of which
    /// `nth` have been paired with it.
    Pairs {
        left: usize,
        right: usize,
        nth: usize,
    },
    /// At this row of those that have matched none.
    Unmatched(Side, usize),
}

impl WindowedOperator {
    pub(super) fn new(layout: Arc<TimeLayout>, window_fn: Arc<dyn WindowFn>) -> Result<Self> {
        let windows: Box<dyn OpenWindows> = match window_fn.is_merging() {
            true => Box::new(MergingWindows::new(window_fn, &layout)?),
            false => Box::new(Panes::new(window_fn, &layout)),
        };
        Ok(Self {
            residual: layout.residual()?,
            windows,
            layout,
            watermark: i64::MIN,
            is_behind: false,
            leaving: None,
        })
    }

    /// Some results of windows to a lot; the windows, if they have more.
    fn add(
        &self,
        mut leaving: Leaving,
        lot: &mut Lot,
        out: &mut Output,
    ) -> Result<Option<Leaving>> {
        let kind = self.layout.kind;
        let (left, right): (Vec<Option<usize>>, Vec<Option<usize>>) = match leaving.at {
            At::Pairs { .. } => {
                let pairs = leaving.pairs(&mut lot.bytes);
                let pairs = self.passing(&mut leaving, pairs, out)?;
                leaving.mark(&pairs);
                pairs.into_iter().map(|(l, r)| (Some(l), Some(r))).unzip()
            }
            At::Unmatched(side, row) => {
                let rows = match kind.keeps_unmatched(side) {
                    true => leaving.unmatched(side, row, &mut lot.bytes),
                    false => leaving.skip(side),
                };
                let none = vec![None; rows.len()];
                let rows: Vec<Option<usize>> = rows.into_iter().map(Some).collect();
                match side {
                    Side::Left => (rows, none),
                    Side::Right => (none, rows),
                }
            }
        };
        let rows = left.iter().zip(&right);
        lot.windows
            .extend(rows.map(|(l, r)| leaving.window(*l, *r)));
        lot.left.add(&leaving.left, &left);
        lot.right.add(&leaving.right, &right);
        let is_over = match leaving.at {
            At::Unmatched(Side::Right, row) => row >= leaving.right.rows.len(),
            _ => false,
        };
        Ok((!is_over).then_some(leaving))
    }

    /// Lets windows leave that have ended, a lot at a time; true if more are to leave.
    fn leave(&mut self, out: &mut Output) -> Result<bool> {
        let mut lot = Lot::default();
        while lot.windows.len() < BATCH_ROWS && !lot.bytes.is_full() {
            let leaving = match self.leaving.take() {
                Some(leaving) => leaving,
                None => match self.windows.next_over(self.watermark)? {
                    Some(over) => Leaving::new(over),
                    None => {
                        self.send(lot, out)?;
                        self.windows.tidy()?;
                        return Ok(false);
                    }
                },
            };
            self.leaving = self.add(leaving, &mut lot, out)?;
        }
        self.send(lot, out)?;
        Ok(true)
    }

    /// Does what operators before a restart would have done, had they heard of the watermark in time.
    fn catch_up(&mut self, out: &mut Output) -> Result<()> {
        if std::mem::take(&mut self.is_behind) {
            while self.leave(out)? {}
        }
        Ok(())
    }

    fn send(&self, lot: Lot, out: &mut Output) -> Result<()> {
        let Lot {
            left,
            right,
            windows,
            ..
        } = lot;
        let n_rows = windows.len();
        if n_rows == 0 {
            return Ok(());
        }
        let has_left: BooleanArray = left.rows.iter().map(|at| Some(!at.is_none())).collect();
        let made = Made {
            event_times: windows.iter().map(|w| w.max_timestamp()).collect(),
            windows,
        };
        let rows = self.layout.rows(
            &Gather::new(&left.batches, &left.rows),
            &Gather::new(&right.batches, &right.rows),
            Some(&has_left),
            made,
            n_rows,
        )?;
        out.push(Batch::new(rows).inexact());
        Ok(())
    }

    /// The pairs that meet the filter.
    fn passing(
        &self,
        leaving: &mut Leaving,
        pairs: Vec<(usize, usize)>,
        out: &mut Output,
    ) -> Result<Vec<(usize, usize)>> {
        let Some(residual) = self.residual.as_ref().filter(|_| !pairs.is_empty()) else {
            return Ok(pairs);
        };
        let places = |of: fn(&(usize, usize)) -> usize, rows: &InWindow| -> Vec<RowAt> {
            pairs.iter().map(|pair| rows.rows[of(pair)].1).collect()
        };
        let passes = residual.passes(
            &Gather::new(&leaving.left.batches, &places(|p| p.0, &leaving.left)),
            &Gather::new(&leaving.right.batches, &places(|p| p.1, &leaving.right)),
            pairs.len(),
            out,
        )?;
        let those = |is_wanted: &dyn Fn(usize) -> bool| -> Vec<(usize, usize)> {
            let wanted = pairs.iter().enumerate().filter(|(i, _)| is_wanted(*i));
            wanted.map(|(_, pair)| *pair).collect()
        };
        // Nobody knows of the rows of a pair on which it fails that they match none.
        leaving.mark(&those(&|pair| passes.failed(pair)));
        Ok(those(&|pair| passes.passes(pair)))
    }
}

impl Leaving {
    fn new(over: Over) -> Self {
        let Over {
            windows,
            left,
            right,
        } = over;
        Self {
            left_matched: vec![false; left.rows.len()],
            right_matched: vec![false; right.rows.len()],
            left_widths: RowWidths::of(&left.batches),
            right_widths: RowWidths::of(&right.batches),
            windows,
            left,
            right,
            at: At::Pairs {
                left: 0,
                right: 0,
                nth: 0,
            },
        }
    }

    /// The window of a result, which is that of its rows.
    fn window(&self, left: Option<usize>, right: Option<usize>) -> Window {
        let number = match (left, right) {
            (Some(row), _) => self.left.rows[row].0,
            (None, Some(row)) => self.right.rows[row].0,
            (None, None) => 0,
        };
        self.windows.of(number)
    }

    /// A lot of pairs with equal keys.
    fn pairs(&mut self, bytes: &mut Bytes) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        let At::Pairs {
            mut left,
            mut right,
            mut nth,
        } = self.at
        else {
            return pairs;
        };
        let (lefts, rights) = (&self.left.rows, &self.right.rows);
        let is_narrow = self.left_widths.is_narrow() && self.right_widths.is_narrow();
        while pairs.len() < BATCH_ROWS && !bytes.is_full() {
            // Rows with a null key stand last, and have no pairs.
            let Some(&(key, at)) = lefts.get(left).filter(|(key, _)| *key != NO_KEY) else {
                self.at = At::Unmatched(Side::Left, 0);
                return pairs;
            };
            while rights.get(right).is_some_and(|(other, _)| *other < key) {
                right += 1;
            }
            match rights.get(right + nth) {
                Some((other, right_at)) if *other == key => {
                    if !is_narrow {
                        bytes.take(self.left_widths.at(at) + self.right_widths.at(*right_at));
                    }
                    pairs.push((left, right + nth));
                    nth += 1;
                }
                _ => {
                    left += 1;
                    nth = 0;
                }
            }
        }
        self.at = At::Pairs { left, right, nth };
        pairs
    }

    fn mark(&mut self, pairs: &[(usize, usize)]) {
        for &(left, right) in pairs {
            self.left_matched[left] = true;
            self.right_matched[right] = true;
        }
    }

    /// A lot of rows of a side that have matched none, from `row` on.
    fn unmatched(&mut self, side: Side, row: usize, bytes: &mut Bytes) -> Vec<usize> {
        let (matched, widths, of_side) = match side {
            Side::Left => (&self.left_matched, &self.left_widths, &self.left),
            Side::Right => (&self.right_matched, &self.right_widths, &self.right),
        };
        let mut rows = Vec::new();
        let mut row = row;
        while row < matched.len() && rows.len() < BATCH_ROWS && !bytes.is_full() {
            if !matched[row] {
                bytes.take(widths.at(of_side.rows[row].1));
                rows.push(row);
            }
            row += 1;
        }
        let is_over = row >= matched.len();
        self.at = match side {
            Side::Left if is_over => At::Unmatched(Side::Right, 0),
            side => At::Unmatched(side, row),
        };
        rows
    }

    /// Passes the rows of a side over.
    fn skip(&mut self, side: Side) -> Vec<usize> {
        self.at = match side {
            Side::Left => At::Unmatched(Side::Right, 0),
            Side::Right => At::Unmatched(Side::Right, self.right.rows.len()),
        };
        Vec::new()
    }
}

/// Results on their way out, perhaps of several windows.
#[derive(Default)]
struct Lot {
    left: LotSide,
    right: LotSide,
    windows: Vec<Window>,
    bytes: Bytes,
}

/// The rows of one side in a lot.
#[derive(Default)]
struct LotSide {
    batches: Vec<RecordBatch>,
    rows: Vec<RowAt>,
}

impl LotSide {
    fn add(&mut self, of_window: &InWindow, rows: &[Option<usize>]) {
        let first = self.batches.len();
        let place = |row: &Option<usize>| match row {
            Some(row) => of_window.rows[*row].1.after(first),
            None => RowAt::NONE,
        };
        self.rows.extend(rows.iter().map(place));
        if rows.iter().any(Option::is_some) {
            self.batches.extend(of_window.batches.iter().cloned());
        }
    }
}

impl Operator for WindowedOperator {
    fn on_batch(&mut self, port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        let side = if port == 0 { Side::Left } else { Side::Right };
        let mut batch = batch;
        if !self.layout.kind.keeps_unmatched(side)
            && let Some(has_key) = self.layout.side(side).has_key(batch.rows())?
        {
            out.filtered(has_key.false_count());
            batch = batch.filter(&has_key)?;
        }
        let rows = self.layout.side(side).project(batch.rows())?;
        let kept = self.windows.take_in(side, &rows, self.watermark)?;
        let Kept { late, n_in_none } = kept;
        out.filtered(n_in_none);
        if !late.is_empty() {
            let late = take_record_batch(batch.rows(), &UInt32Array::from(late))?;
            out.push_late(late_port(side), as_they_came(batch.derive(late))?);
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        if watermark.0 <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark.0;
        self.resume(out)
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        if self.leave(out)? {
            out.more_follows();
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        self.windows.n_bytes()
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = vec![save_numbers("progress", &[("watermark", self.watermark)])?];
        let left_up_to = match self.is_behind {
            true => i64::MIN,
            false => self.watermark,
        };
        for side in [Side::Left, Side::Right] {
            let of_side = self.layout.side(side);
            for rows in self.windows.save(side, left_up_to)? {
                parts.extend(StatePart::by_key(side.name(), &rows, &of_side.key_names)?);
            }
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let progress = state.iter().filter(|part| part.table == "progress");
        let watermarks = progress.map(|part| load_number(part, "watermark"));
        let watermarks = watermarks.collect::<Result<Vec<i64>>>()?;
        // The latest: who had heard of it has let go what nobody could match any more.
        self.watermark = watermarks.into_iter().max().unwrap_or(self.watermark);
        self.is_behind = true;
        for part in state {
            let side = match part.table.as_str() {
                "left" => Side::Left,
                "right" => Side::Right,
                "progress" => continue,
                _ => return Err(foreign(part)),
            };
            let rows = self.layout.side(side).project(&part.rows);
            let rows = rows.map_err(|_| foreign(part))?;
            self.windows.load(side, part, rows)?;
        }
        Ok(())
    }
}
