//! A windowed join at work.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;

use super::gather::{Gather, RowAt, concat_rows, record_batch};
use super::key_numbers::{KeyNumbers, NO_KEY};
use super::late::{as_they_came, late_port};
use super::layout::{Made, Residual, TimeLayout};
use super::panes::{InWindow, PaneId, Panes, Standing, with_number};
use super::state::{foreign, load_number, save_numbers};
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::Result;
use crate::event_time::event_times;
use crate::ops::Side;
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};
use crate::windowing::{Window, WindowFn};

/// The column of a snapshot that says up to which end windows have left with a row.
const LEFT_UP_TO: &str = "$left_up_to";

pub(super) struct WindowedOperator {
    layout: Arc<TimeLayout>,
    residual: Option<Residual>,
    keys: KeyNumbers,
    panes: Panes,
    watermark: i64,
    leaving: Option<Leaving>,
}

/// What was not kept of some rows.
#[derive(Default)]
struct Kept {
    /// The rows of which all windows are over.
    late: Vec<u32>,
    /// How many are in no window.
    n_in_none: usize,
}

/// A window whose results leave.
struct Leaving {
    window: Window,
    left: InWindow,
    right: InWindow,
    /// Whether each row has matched; empty where it does not matter.
    left_matched: Vec<bool>,
    right_matched: Vec<bool>,
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
    pub(super) fn new(layout: Arc<TimeLayout>, windows: Arc<dyn WindowFn>) -> Result<Self> {
        Ok(Self {
            residual: layout.residual()?,
            keys: KeyNumbers::new(&layout.key_types)?,
            panes: Panes::new(windows),
            layout,
            watermark: i64::MIN,
            leaving: None,
        })
    }

    /// Takes rows into their panes.
    fn keep(&mut self, side: Side, rows: &RecordBatch, left_up_to: i64) -> Result<Kept> {
        let mut order: Vec<PaneId> = Vec::new();
        let mut places: HashMap<PaneId, usize> = HashMap::new();
        let mut rows_of: Vec<Vec<u32>> = Vec::new();
        let mut last: Option<(PaneId, usize)> = None;
        for (row, &time) in (0u32..).zip(event_times(rows)?) {
            let place = match last {
                Some((id, place)) if id.stretch.start <= time && time < id.stretch.end => place,
                _ => {
                    let id = PaneId {
                        stretch: self.panes.stretch(time),
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
        let keys = self.keys.number(rows, &self.layout.side(side).keys)?;
        let mut kept = Kept::default();
        for (id, of_pane) in order.into_iter().zip(rows_of) {
            match self.panes.open(id, self.watermark) {
                Standing::Over => kept.late.extend(of_pane),
                Standing::InNone => kept.n_in_none += of_pane.len(),
                Standing::Open if of_pane.len() == rows.num_rows() => {
                    self.panes.push(id, side, rows.clone(), keys.clone())?;
                }
                Standing::Open => {
                    let keys = of_pane.iter().map(|&row| keys[row as usize]).collect();
                    let rows = take_record_batch(rows, &UInt32Array::from(of_pane))?;
                    self.panes.push(id, side, rows, keys)?;
                }
            }
        }
        Ok(kept)
    }

    /// Some results of a window to a lot; the window, if it has more.
    fn add(&self, mut leaving: Leaving, lot: &mut Lot) -> Result<Option<Leaving>> {
        let kind = self.layout.kind;
        let (left, right): (Vec<Option<usize>>, Vec<Option<usize>>) = match leaving.at {
            At::Pairs { .. } => {
                let pairs = leaving.pairs();
                let pairs = self.passing(&leaving, pairs)?;
                leaving.mark(&pairs);
                pairs.into_iter().map(|(l, r)| (Some(l), Some(r))).unzip()
            }
            At::Unmatched(side, row) => {
                let rows = match kind.keeps_unmatched(side) {
                    true => leaving.unmatched(side, row),
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
        lot.windows
            .resize(lot.windows.len() + left.len(), leaving.window);
        lot.left.add(&leaving.left, &left);
        lot.right.add(&leaving.right, &right);
        let is_over = match leaving.at {
            At::Unmatched(Side::Right, row) => row >= leaving.right.rows.len(),
            _ => false,
        };
        Ok((!is_over).then_some(leaving))
    }

    fn send(&self, lot: Lot, out: &mut Output) -> Result<()> {
        let Lot {
            left,
            right,
            windows,
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
        leaving: &Leaving,
        pairs: Vec<(usize, usize)>,
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
        )?;
        let numbered = pairs.iter().enumerate();
        let passing = numbered.filter(|(i, _)| passes.is_valid(*i) && passes.value(*i));
        Ok(passing.map(|(_, pair)| *pair).collect())
    }

    fn let_keys_go(&mut self) -> Result<()> {
        if self.watermark == i64::MAX {
            self.keys = KeyNumbers::new(&self.layout.key_types)?;
        } else if self.keys.len() > 2 * self.panes.n_rows() + BATCH_ROWS {
            let mut is_kept = vec![false; self.keys.len()];
            self.panes.mark(&mut is_kept);
            let new_numbers = self.keys.keep(&is_kept)?;
            self.panes.renumber(&new_numbers);
        }
        Ok(())
    }
}

impl Leaving {
    fn new(window: Window, left: InWindow, right: InWindow) -> Self {
        Self {
            left_matched: vec![false; left.rows.len()],
            right_matched: vec![false; right.rows.len()],
            window,
            left,
            right,
            at: At::Pairs {
                left: 0,
                right: 0,
                nth: 0,
            },
        }
    }

    /// A lot of pairs with equal keys.
    fn pairs(&mut self) -> Vec<(usize, usize)> {
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
        while pairs.len() < BATCH_ROWS {
            // Rows with a null key stand last, and have no pairs.
            let Some(&(key, _)) = lefts.get(left).filter(|(key, _)| *key != NO_KEY) else {
                self.at = At::Unmatched(Side::Left, 0);
                return pairs;
            };
            while rights.get(right).is_some_and(|(other, _)| *other < key) {
                right += 1;
            }
            match rights.get(right + nth) {
                Some((other, _)) if *other == key => {
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
    fn unmatched(&mut self, side: Side, row: usize) -> Vec<usize> {
        let matched = match side {
            Side::Left => &self.left_matched,
            Side::Right => &self.right_matched,
        };
        let mut rows = Vec::new();
        let mut row = row;
        while row < matched.len() && rows.len() < BATCH_ROWS {
            if !matched[row] {
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
        let side = if port == 0 { Side::Left } else { Side::Right };
        let mut batch = batch;
        if !self.layout.kind.keeps_unmatched(side)
            && let Some(has_key) = self.layout.side(side).has_key(batch.rows())?
        {
            out.filtered(has_key.false_count());
            batch = batch.filter(&has_key)?;
        }
        let rows = self.layout.side(side).project(batch.rows())?;
        let Kept { late, n_in_none } = self.keep(side, &rows, i64::MIN)?;
        out.filtered(n_in_none);
        if !late.is_empty() {
            let late = take_record_batch(batch.rows(), &UInt32Array::from(late))?;
            out.push_late(late_port(side), as_they_came(batch.derive(late))?);
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        if watermark.0 <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark.0;
        self.resume(out)
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        let mut lot = Lot::default();
        while lot.windows.len() < BATCH_ROWS {
            let leaving = match self.leaving.take() {
                Some(leaving) => leaving,
                None => match self.panes.next_over(self.watermark) {
                    Some((window, left, right)) => Leaving::new(window, left, right),
                    None => {
                        self.send(lot, out)?;
                        return self.let_keys_go();
                    }
                },
            };
            self.leaving = self.add(leaving, &mut lot)?;
        }
        out.more_follows();
        self.send(lot, out)
    }

    fn state_bytes(&self) -> u64 {
        self.panes.n_bytes() + self.keys.n_bytes() as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = vec![save_numbers("progress", &[("watermark", self.watermark)])?];
        for side in [Side::Left, Side::Right] {
            let of_side = self.layout.side(side);
            let schema = with_number(&of_side.schema, LEFT_UP_TO);
            let all = self.panes.all(side, self.watermark);
            let rows = all.iter().map(|(up_to, rows)| {
                let n_rows = rows.num_rows();
                let up_to: ArrayRef = Arc::new(Int64Array::from(vec![*up_to; n_rows]));
                let columns = [rows.columns(), &[up_to]].concat();
                record_batch(&schema, columns, n_rows)
            });
            let rows = concat_rows(&schema, &rows.collect::<Result<Vec<_>>>()?)?;
            parts.extend(StatePart::by_key(side.name(), &rows, &of_side.key_names)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let progress = state.iter().filter(|part| part.table == "progress");
        let watermarks = progress.map(|part| load_number(part, "watermark"));
        let watermarks = watermarks.collect::<Result<Vec<i64>>>()?;
        self.watermark = watermarks.into_iter().min().unwrap_or(self.watermark);
        for part in state {
            let side = match part.table.as_str() {
                "left" => Side::Left,
                "right" => Side::Right,
                "progress" => continue,
                _ => return Err(foreign(part)),
            };
            let rows = self.layout.side(side).project(&part.rows);
            let rows = rows.map_err(|_| foreign(part))?;
            let up_to = part.rows.column_by_name(LEFT_UP_TO);
            let up_to = up_to.and_then(|c| c.as_primitive_opt::<Int64Type>());
            let up_to = up_to.ok_or_else(|| foreign(part))?.values();
            let mut order: Vec<u32> = (0u32..).take(rows.num_rows()).collect();
            order.sort_by_key(|&row| up_to[row as usize]);
            let same = |a: &u32, b: &u32| up_to[*a as usize] == up_to[*b as usize];
            for of_one in order.chunk_by(same) {
                let left_up_to = up_to[of_one[0] as usize];
                let rows = take_record_batch(&rows, &UInt32Array::from(of_one.to_vec()))?;
                self.keep(side, &rows, left_up_to)?;
            }
        }
        Ok(())
    }
}
