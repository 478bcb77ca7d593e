//! An interval join at work.
//!
//! A row that comes is kept with its side and looks for its partners among the rows of the other side that
//! have come already. So each pair is found once, by the one of the two that comes last.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use super::gather::{Gather, RowAt, record_batch};
use super::key_numbers::{KeyNumbers, NO_KEY};
use super::late::{as_they_came, late_port};
use super::layout::{Made, Residual, TimeLayout};
use super::lots::cut;
use super::near_rows::{NO_ROW, NearRows, Stretch};
use super::state::{foreign, load_number, save_numbers};
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::Result;
use crate::event_time::event_times;
use crate::ops::{Lot, Side};
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};

/// The column of a snapshot that says whether a row has matched.
const MATCHED: &str = "$matched";

pub(super) struct IntervalOperator {
    layout: Arc<TimeLayout>,
    before: i64,
    after: i64,
    residual: Option<Residual>,
    keys: KeyNumbers,
    left: NearRows,
    right: NearRows,
    watermark: i64,
    /// What was restored may be of operators that had not heard of the watermark yet.
    is_behind: bool,
    looking: Option<Looking>,
    leaving: Vec<Leaving>,
}

/// Rows of one side on their way through the rows of the other.
struct Looking {
    side: Side,
    /// The row that looks.
    row: u32,
    /// The next stretch of time it looks in, and the last.
    stretches: (i64, i64),
    /// The first stretch of the row before, which is mostly that of this one.
    hint: Stretch,
    /// The next row of the other side that it looks at.
    other: u32,
}

/// Rows that have matched none, on their way out.
struct Leaving {
    side: Side,
    batches: Vec<RecordBatch>,
    rows: Vec<LeavingRow>,
}

struct LeavingRow {
    at: RowAt,
    time: i64,
    n_bytes: u64,
}

impl IntervalOperator {
    pub(super) fn new(layout: Arc<TimeLayout>, before: i64, after: i64) -> Result<Self> {
        let width = before.saturating_add(after);
        Ok(Self {
            residual: layout.residual()?,
            keys: KeyNumbers::new(&layout.key_types)?,
            left: NearRows::new(&layout.left.schema, width),
            right: NearRows::new(&layout.right.schema, width),
            layout,
            before,
            after,
            watermark: i64::MIN,
            is_behind: false,
            looking: None,
            leaving: Vec::new(),
        })
    }

    fn rows(&self, side: Side) -> &NearRows {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    fn rows_mut(&mut self, side: Side) -> &mut NearRows {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    /// How long after a row of this side a partner may come, and how long before it.
    fn reach(&self, side: Side) -> (i64, i64) {
        match side {
            Side::Left => (self.after, self.before),
            Side::Right => (self.before, self.after),
        }
    }

    fn keep(&mut self, side: Side, rows: RecordBatch, matched: Option<Vec<bool>>) -> Result<u32> {
        let keys = self.keys.number(&rows, &self.layout.side(side).keys)?;
        let times = event_times(&rows)?.to_vec();
        let matched = matched.unwrap_or_else(|| vec![false; keys.len()]);
        self.rows_mut(side).push(rows, keys, &times, matched)
    }

    /// A lot of pairs.
    fn look(&mut self, mut looking: Looking, out: &mut Output) -> Result<()> {
        let side = looking.side;
        let (own, others) = (self.rows(side), self.rows(side.other()));
        let (ahead, back) = self.reach(side);
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        let mut lot = Lot::default();
        let has_room = |pairs: &[(u32, u32)], lot: &Lot| pairs.len() < BATCH_ROWS && !lot.is_full();
        let end = own.end();
        while looking.row < end && has_room(&pairs, &lot) {
            let time = own.time(looking.row);
            let (low, high) = (time.saturating_sub(back), time.saturating_add(ahead));
            let width = own.width(looking.row);
            while looking.other != NO_ROW && has_room(&pairs, &lot) {
                let at = others.time(looking.other);
                if low <= at && at <= high {
                    pairs.push((looking.row, looking.other));
                    lot.take(width + others.width(looking.other));
                }
                looking.other = others.before(looking.other);
            }
            if looking.other == NO_ROW {
                looking.go_on(own, others, (ahead, back));
            }
        }
        let is_over = looking.row >= end;
        self.looking = (!is_over).then_some(looking);
        self.push_pairs(side, &pairs, out)
    }

    /// Takes note that the rows of these pairs have matched, where somebody asks for those that have not.
    fn set_matched(&mut self, left: &[u32], right: &[u32], is_wanted: impl Fn(usize) -> bool) {
        for (side, rows) in [(Side::Left, left), (Side::Right, right)] {
            if self.layout.kind.keeps_unmatched(side) {
                for (_, row) in rows.iter().enumerate().filter(|(pair, _)| is_wanted(*pair)) {
                    self.rows_mut(side).set_matched(*row);
                }
            }
        }
    }

    fn push_pairs(&mut self, side: Side, pairs: &[(u32, u32)], out: &mut Output) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let (own, others): (Vec<u32>, Vec<u32>) = pairs.iter().copied().unzip();
        let (mut left, mut right) = match side {
            Side::Left => (own, others),
            Side::Right => (others, own),
        };
        let places = |rows: &[u32], of: &NearRows| -> Vec<RowAt> {
            rows.iter().map(|&row| of.place(row)).collect()
        };
        if let Some(residual) = &self.residual {
            let passes = residual.passes(
                &Gather::new(self.left.batches(), &places(&left, &self.left)),
                &Gather::new(self.right.batches(), &places(&right, &self.right)),
                left.len(),
                out,
            )?;
            // Nobody knows of the rows of a pair on which it fails that they match none.
            self.set_matched(&left, &right, |pair| passes.failed(pair));
            let keep = |rows: &[u32]| -> Vec<u32> {
                let numbered = rows.iter().enumerate();
                let kept = numbered.filter(|(i, _)| passes.passes(*i));
                kept.map(|(_, row)| *row).collect()
            };
            (left, right) = (keep(&left), keep(&right));
        }
        self.set_matched(&left, &right, |_| true);
        let times = left.iter().zip(&right);
        let times = times.map(|(&l, &r)| self.left.time(l).max(self.right.time(r)));
        let made = Made {
            event_times: times.collect(),
            windows: Vec::new(),
        };
        let rows = self.layout.rows(
            &Gather::new(self.left.batches(), &places(&left, &self.left)),
            &Gather::new(self.right.batches(), &places(&right, &self.right)),
            None,
            made,
            left.len(),
        )?;
        out.push(Batch::new(rows).inexact());
        Ok(())
    }

    /// A lot of rows that have matched none.
    fn push_unmatched(&mut self, out: &mut Output) -> Result<()> {
        let Some(mut leaving) = self.leaving.pop() else {
            return Ok(());
        };
        let most = leaving.rows.len().min(BATCH_ROWS);
        let lot = cut(&leaving.rows[..most], |row| row.n_bytes).next();
        let n = lot.map_or(0, <[LeavingRow]>::len);
        let rows = leaving.rows.drain(..n).map(|row| (row.at, row.time));
        let (places, event_times): (Vec<RowAt>, Vec<i64>) = rows.unzip();
        let no_rows = vec![RowAt::NONE; n];
        let there = Gather::new(&leaving.batches, &places);
        let not_there = Gather::new(&[], &no_rows);
        let is_left = leaving.side == Side::Left;
        let (left, right) = match is_left {
            true => (&there, &not_there),
            false => (&not_there, &there),
        };
        let has_left = BooleanArray::from(vec![is_left; n]);
        let made = Made {
            event_times,
            windows: Vec::new(),
        };
        let rows = self.layout.rows(left, right, Some(&has_left), made, n)?;
        out.push(Batch::new(rows).inexact());
        if !leaving.rows.is_empty() {
            self.leaving.push(leaving);
        }
        Ok(())
    }

    /// Lets go of the rows of one side that no partner can come for any more.
    fn pass(&mut self, side: Side) -> Result<()> {
        let (ahead, _) = self.reach(side);
        let horizon = match self.watermark {
            i64::MAX => i64::MAX,
            watermark => watermark.saturating_sub(ahead),
        };
        let unmatched = self.rows_mut(side).pass(horizon);
        if self.layout.kind.keeps_unmatched(side) && !unmatched.is_empty() {
            let rows = self.rows(side);
            self.leaving.push(Leaving {
                side,
                batches: rows.batches().to_vec(),
                rows: unmatched
                    .iter()
                    .map(|&row| LeavingRow {
                        at: rows.place(row),
                        time: rows.time(row),
                        n_bytes: rows.width(row),
                    })
                    .collect(),
            });
        }
        self.rows_mut(side).let_go()
    }

    /// Lets go of all that the watermark has passed.
    fn pass_all(&mut self) -> Result<()> {
        self.pass(Side::Left)?;
        self.pass(Side::Right)?;
        if Watermark(self.watermark).is_end() {
            // What still has to leave is in `leaving`.
            let new = Self::new(Arc::clone(&self.layout), self.before, self.after)?;
            (self.left, self.right, self.keys) = (new.left, new.right, new.keys);
        }
        self.let_keys_go()
    }

    /// Does what operators before a restart would have done, had they heard of the watermark in time.
    fn catch_up(&mut self, out: &mut Output) -> Result<()> {
        if std::mem::take(&mut self.is_behind) {
            self.pass_all()?;
            while !self.leaving.is_empty() {
                self.push_unmatched(out)?;
            }
        }
        Ok(())
    }

    fn let_keys_go(&mut self) -> Result<()> {
        let n_needed = self.left.n_rows() + self.right.n_rows();
        if self.keys.len() > 2 * n_needed + BATCH_ROWS {
            let mut is_kept = vec![false; self.keys.len()];
            self.left.mark(&mut is_kept);
            self.right.mark(&mut is_kept);
            let new_numbers = self.keys.keep(&is_kept)?;
            self.left.renumber(&new_numbers)?;
            self.right.renumber(&new_numbers)?;
        }
        Ok(())
    }
}

impl Looking {
    /// To the next stretch of time, or to the next row.
    fn go_on(&mut self, own: &NearRows, others: &NearRows, (ahead, back): (i64, i64)) {
        if self.stretches.0 > self.stretches.1 {
            self.row += 1;
            if self.row >= own.end() {
                return;
            }
            self.begin(own, others, (ahead, back));
            return;
        }
        self.other = others.newest(self.stretches.0, own.key(self.row));
        self.stretches.0 += 1;
    }

    fn begin(&mut self, own: &NearRows, others: &NearRows, (ahead, back): (i64, i64)) {
        let time = own.time(self.row);
        self.stretches = match own.key(self.row) {
            NO_KEY => (1, 0),
            _ => {
                let (low, high) = (time.saturating_sub(back), time.saturating_add(ahead));
                others.stretches(low, high, &mut self.hint)
            }
        };
    }
}

impl Operator for IntervalOperator {
    fn on_batch(&mut self, port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        let side = if port == 0 { Side::Left } else { Side::Right };
        let mut batch = batch;
        let times = event_times(batch.rows())?;
        let on_time: BooleanArray = times.iter().map(|t| Some(*t >= self.watermark)).collect();
        if on_time.false_count() > 0 {
            let late = batch.filter(&not(&on_time)?)?;
            out.push_late(late_port(side), as_they_came(late)?);
            batch = batch.filter(&on_time)?;
        }
        let mut rows = self.layout.side(side).project(batch.rows())?;
        if !self.layout.kind.keeps_unmatched(side) {
            let has_key = self.layout.side(side).has_key(&rows)?;
            if let Some(has_key) = has_key {
                out.filtered(has_key.false_count());
                rows = filter_record_batch(&rows, &has_key)?;
            }
        }
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let first = self.keep(side, rows, None)?;
        let mut looking = Looking {
            side,
            row: first,
            stretches: (1, 0),
            hint: self.rows(side.other()).stretch_around(self.watermark),
            other: NO_ROW,
        };
        looking.begin(self.rows(side), self.rows(side.other()), self.reach(side));
        self.looking = Some(looking);
        self.resume(out)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        if watermark.0 <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark.0;
        self.pass_all()?;
        self.resume(out)
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        match self.looking.take() {
            Some(looking) => self.look(looking, out)?,
            None => self.push_unmatched(out)?,
        }
        if self.looking.is_some() || !self.leaving.is_empty() {
            out.more_follows();
        }
        Ok(())
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        if input.is_end() {
            return input;
        }
        let held = [Side::Left, Side::Right]
            .into_iter()
            .filter(|side| self.layout.kind.keeps_unmatched(*side))
            .map(|side| self.reach(side).0);
        Watermark(input.0.saturating_sub(held.max().unwrap_or(0)))
    }

    fn state_bytes(&self) -> u64 {
        self.left.n_bytes() + self.right.n_bytes() + self.keys.n_bytes() as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = vec![save_numbers("progress", &[("watermark", self.watermark)])?];
        for side in [Side::Left, Side::Right] {
            for (rows, matched) in self.rows(side).all()? {
                let mut fields = rows.schema().fields().to_vec();
                fields.push(Arc::new(Field::new(MATCHED, DataType::Boolean, false)));
                let mut columns = rows.columns().to_vec();
                columns.push(matched);
                let rows = record_batch(&Arc::new(Schema::new(fields)), columns, rows.num_rows())?;
                let keys = &self.layout.side(side).key_names;
                parts.extend(StatePart::by_key(side.name(), &rows, keys)?);
            }
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let mut watermark = None;
        for part in state {
            let side = match part.table.as_str() {
                "left" => Side::Left,
                "right" => Side::Right,
                "progress" => {
                    let of_part = load_number(part, "watermark")?;
                    // The latest: who had heard of it has let go what nobody could match any more.
                    watermark = Some(watermark.map_or(of_part, |w: i64| w.max(of_part)));
                    continue;
                }
                _ => return Err(foreign(part)),
            };
            let rows = self.layout.side(side).project(&part.rows);
            let rows = rows.map_err(|_| foreign(part))?;
            let matched = part.rows.column_by_name(MATCHED);
            let matched = matched.and_then(|m| m.as_boolean_opt());
            let matched = matched.ok_or_else(|| foreign(part))?;
            self.keep(side, rows, Some(matched.values().iter().collect()))?;
        }
        self.watermark = watermark.unwrap_or(self.watermark);
        self.is_behind = true;
        Ok(())
    }
}
