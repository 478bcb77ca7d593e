//! An as-of join at work.
//!
//! ```text
//!             ahead of the watermark            behind it
//! features    waiting, in chunks  ────────────▶ the newest of each key
//!                                    by time ──┐      │
//! rows        waiting, in chunks  ─────────────┴──▶ answered
//! ```
//!
//! When the watermark moves, the features and rows that it has passed are brought into the order of time
//! and gone through together: a feature becomes the newest of its key, a row takes the newest of its key.
//! Changes of a table become versions of its rows first, one of a key and instant.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray};
use arrow::compute::{cast, not};
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use super::gather::{Gather, RowAt, concat_rows};
use super::held_rows::HeldRows;
use super::key_numbers::{KeyNumbers, NO_KEY};
use super::late::{as_they_came, late_port};
use super::latest::{Latest, LatestRows};
use super::layout::{Made, TimeLayout};
use super::state::{foreign, load_number, load_rows, save_numbers, save_rows};
use super::waiting::{Released, Waiting};
use crate::batch::{BATCH_ROWS, Batch};
use crate::changelog::is_changelog;
use crate::error::Result;
use crate::event_time::event_times;
use crate::expression::Expression;
use crate::ops::Side;
use crate::ops::rows_by_time::not_before;
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};

pub(super) struct AsOfOperator {
    layout: Arc<TimeLayout>,
    ttl_ms: Option<i64>,
    is_in_order: bool,
    created: Option<Expression>,
    deleted: Option<Expression>,
    keys: KeyNumbers,
    rows: Waiting,
    features: Waiting,
    /// Where the features are changes of a table, what it holds.
    held: Option<HeldRows>,
    latest: LatestRows,
    watermark: i64,
    /// The watermark at which features were last dropped for their age.
    dropped_at: i64,
    /// What was restored may be of operators that had not heard of the watermark yet.
    is_behind: bool,
    answered: Answered,
}

/// Rows with their answers that are still to leave.
#[derive(Default)]
struct Answered {
    rows: VecDeque<(Batch, Vec<Answer>)>,
    /// The batches in which the features are.
    chunks: Vec<RecordBatch>,
}

/// Where the feature of a row is; `None` where what is kept does not tell.
type Answer = Option<RowAt>;

impl AsOfOperator {
    pub(super) fn new(
        layout: Arc<TimeLayout>,
        ttl_ms: Option<i64>,
        is_in_order: bool,
        created: Option<Expression>,
        deleted: Option<Expression>,
    ) -> Result<Self> {
        let right = &layout.right.schema;
        let held = is_changelog(right).then(|| HeldRows::new(right));
        Ok(Self {
            held: held.transpose()?,
            keys: KeyNumbers::new(&layout.key_types)?,
            latest: LatestRows::new(&layout.right.schema),
            layout,
            ttl_ms,
            is_in_order,
            created,
            deleted,
            rows: Waiting::default(),
            features: Waiting::default(),
            watermark: i64::MIN,
            dropped_at: i64::MIN,
            is_behind: false,
            answered: Answered::default(),
        })
    }

    /// The answer for a row, where the newest feature up to its time is this one.
    fn answer(&self, latest: Latest, time: i64) -> Answer {
        if latest.at.is_none() || latest.time < self.oldest(time) {
            Some(RowAt::NONE)
        } else {
            (latest.time <= time).then_some(latest.at)
        }
    }

    /// The answer for a row behind the watermark, where the newest feature up to the watermark is this one.
    ///
    /// Does not depend on when features were dropped, nor on the keys of other rows.
    fn answer_late(&self, latest: Latest, time: i64) -> Answer {
        let is_kept = !latest.at.is_none() && latest.time >= self.oldest(self.watermark);
        if is_kept {
            (latest.time <= time).then_some(latest.at)
        } else {
            // Where features are let go, there may have been one.
            let all_are_kept = self.ttl_ms.is_none() && self.deleted.is_none();
            all_are_kept.then_some(RowAt::NONE)
        }
    }

    /// The event time of the oldest feature that counts at `time`.
    fn oldest(&self, time: i64) -> i64 {
        self.ttl_ms.map_or(i64::MIN, |ttl| time.saturating_sub(ttl))
    }

    /// Sends rows with their answers, and those that have none to the late ones, where they are to be as in
    /// `late`.
    fn send(
        &self,
        batch: Batch,
        late: Option<&Batch>,
        answers: &[Answer],
        chunks: &[RecordBatch],
        out: &mut Output,
    ) -> Result<()> {
        let known: Vec<RowAt> = answers.iter().flatten().copied().collect();
        let batch = if known.len() == answers.len() {
            batch
        } else {
            let is_known: BooleanArray = answers.iter().map(|a| Some(a.is_some())).collect();
            let late = late.unwrap_or(&batch).filter(&not(&is_known)?)?;
            out.push_late(late_port(Side::Left), as_they_came(late)?);
            batch.filter(&is_known)?
        };
        let rows = self.layout.rows(
            &Gather::all(batch.rows()),
            &Gather::new(chunks, &known),
            None,
            Made::default(),
            known.len(),
        )?;
        out.push(batch.with_columns(rows));
        Ok(())
    }

    /// Does what operators before a restart would have done, had they heard of the watermark in time.
    fn catch_up(&mut self, out: &mut Output) -> Result<()> {
        if std::mem::take(&mut self.is_behind) {
            self.pass()?;
            self.let_go()?;
            while !self.answered.rows.is_empty() {
                self.resume(out)?;
            }
        }
        Ok(())
    }

    /// Goes through features and rows in the order of time, up to the watermark.
    fn pass(&mut self) -> Result<()> {
        let rows = self.rows.release(self.watermark)?;
        let features = self.features.release(self.watermark)?;
        if rows.is_empty() && features.is_empty() {
            return Ok(());
        }
        let features = self.versions(features)?;
        self.latest.make_room(self.keys.len());
        let mut chunks = self.latest.chunks().to_vec();
        let first_chunk = chunks.len();
        chunks.extend(features.iter().map(|f| f.batch.rows().clone()));
        let fresh = Fresh::new(&features, first_chunk);
        let order = self.in_order(&features)?;
        let deleted = self.deleted(&features)?;

        let mut answers: Vec<Answer> =
            vec![Some(RowAt::NONE); rows.iter().map(|r| r.keys.len()).sum()];
        let row_keys: Vec<u32> = rows.iter().flat_map(|r| r.keys.iter().copied()).collect();
        let mut next = order.iter().peekable();
        for &(time, row) in &by_time(&rows) {
            while let Some(&(at_time, n)) = next.next_if(|(at, _)| *at <= time) {
                self.take_in(&fresh, n as usize, at_time, &deleted);
            }
            let key = row_keys[row as usize];
            if key != NO_KEY {
                answers[row as usize] = self.answer(self.latest.get(key), time);
            }
        }
        for &(time, n) in next {
            self.take_in(&fresh, n as usize, time, &deleted);
        }
        self.keep_newest(&fresh, &chunks)?;

        let mut rest = answers.as_slice();
        for Released { batch, keys, .. } in rows {
            let (of_batch, others) = rest.split_at(keys.len());
            rest = others;
            self.answered.rows.push_back((batch, of_batch.to_vec()));
        }
        self.answered.chunks = chunks;
        Ok(())
    }

    /// A feature becomes the newest of its key.
    fn take_in(&mut self, fresh: &Fresh, n: usize, time: i64, deleted: &[bool]) {
        let key = fresh.keys[n];
        if time < self.latest.get(key).time {
            return;
        }
        if deleted.get(n) == Some(&true) {
            self.latest.set(key, Latest::NONE);
        } else {
            let at = fresh.places[n];
            self.latest.set(key, Latest { time, at });
        }
    }

    /// Copies the features that are the newest of their key out of those that have come.
    fn keep_newest(&mut self, fresh: &Fresh, chunks: &[RecordBatch]) -> Result<()> {
        let both = fresh.places.iter().zip(&fresh.keys);
        let (newest, keys): (Vec<RowAt>, Vec<u32>) = both
            .filter(|(at, key)| self.latest.get(**key).at == **at)
            .unzip();
        let rows = Gather::new(chunks, &newest).rows(&self.layout.right.schema)?;
        self.latest.add(rows, keys)
    }

    /// The features by time; of those of one time, the one that counts comes last.
    fn in_order(&self, features: &[Released]) -> Result<Vec<(i64, u32)>> {
        let mut order = by_time(features);
        let is_tied = order.windows(2).any(|two| two[0].0 == two[1].0);
        let is_known = self.created.is_none() && self.is_in_order;
        // Of a table there is one version of a key and instant.
        if !is_tied || is_known || self.held.is_some() {
            return Ok(order);
        }
        let created = self.created(features.iter().map(|f| f.batch.rows()))?;
        let values = match self.is_in_order {
            true => None,
            false => Some(self.values(features)?),
        };
        let value = |n: u32| values.as_ref().map(|v| v.value(n as usize));
        for of_one_time in order.chunk_by_mut(|a, b| a.0 == b.0) {
            if of_one_time.len() > 1 {
                let created = |n: u32| created.get(n as usize);
                of_one_time.sort_by(|&(_, a), &(_, b)| {
                    let by_creation = created(a).cmp(&created(b));
                    by_creation.then_with(|| value(a).cmp(&value(b)))
                });
            }
        }
        Ok(order)
    }

    /// What the changes of a table make of it; other features are versions already.
    fn versions(&mut self, features: Vec<Released>) -> Result<Vec<Released>> {
        let created = match self.held.is_some() {
            true => self.created(features.iter().map(|f| f.batch.rows()))?,
            false => return Ok(features),
        };
        match &mut self.held {
            Some(held) => held.take_in(&features, &created),
            None => Ok(features),
        }
    }

    /// When each row was created; empty where nothing says so.
    fn created<'a>(
        &self,
        features: impl Iterator<Item = &'a RecordBatch>,
    ) -> Result<Vec<Option<i64>>> {
        let mut created = Vec::new();
        if let Some(of_row) = &self.created {
            for rows in features {
                let values = cast(&of_row.evaluate(rows)?, &DataType::Int64)?;
                created.extend(values.as_primitive::<Int64Type>());
            }
        }
        Ok(created)
    }

    /// The values of features as bytes that are ordered as they are, but for columns that have no order.
    fn values(&self, features: &[Released]) -> Result<BinaryArray> {
        let schema = &self.layout.right.schema;
        let numbered = schema.fields().iter().enumerate();
        let ordered = numbered.map(|(i, f)| (i, SortField::new(f.data_type().clone())));
        let ordered =
            ordered.filter(|(_, f)| RowConverter::supports_fields(std::slice::from_ref(f)));
        let (columns, fields): (Vec<usize>, Vec<SortField>) = ordered.unzip();
        let rows: Vec<RecordBatch> = features.iter().map(|f| f.batch.rows().clone()).collect();
        let rows = concat_rows(schema, &rows)?.project(&columns)?;
        let values = RowConverter::new(fields)?.convert_columns(rows.columns())?;
        Ok(values.try_into_binary()?)
    }

    /// Of each feature, whether it says that there is no row any more; empty where none does.
    fn deleted(&self, features: &[Released]) -> Result<Vec<bool>> {
        let mut all = Vec::new();
        if let Some(deleted) = &self.deleted {
            for feature in features {
                let mask = deleted.evaluate_mask(feature.batch.rows())?;
                all.extend((0..mask.len()).map(|i| mask.is_valid(i) && mask.value(i)));
            }
        }
        Ok(all)
    }

    /// Lets go what no row can need any more.
    fn let_go(&mut self) -> Result<()> {
        if self.watermark == i64::MAX {
            self.latest = LatestRows::new(&self.layout.right.schema);
            if let Some(held) = &mut self.held {
                held.check_end()?;
                *held = HeldRows::new(&self.layout.right.schema)?;
            }
            self.keys = KeyNumbers::new(&self.layout.key_types)?;
            return Ok(());
        }
        if let Some(ttl) = self.ttl_ms
            && self.watermark.saturating_sub(self.dropped_at) > ttl / 4
        {
            let oldest = self.oldest(self.watermark);
            self.latest.drop_if(|time| time < oldest)?;
            self.dropped_at = self.watermark;
        }
        let n_held = self.held.as_ref().map_or(0, HeldRows::n_keys);
        let n_waiting = self.rows.n_rows() + self.features.n_rows();
        let n_needed = self.latest.n_live().max(n_held) + n_waiting;
        if self.keys.len() > 2 * n_needed + BATCH_ROWS {
            let mut is_kept = vec![false; self.keys.len()];
            self.latest.mark(&mut is_kept);
            if let Some(held) = &self.held {
                held.mark(&mut is_kept);
            }
            for key in self.rows.keys().chain(self.features.keys()) {
                if key != NO_KEY {
                    is_kept[key as usize] = true;
                }
            }
            let new_numbers = self.keys.keep(&is_kept)?;
            self.latest.renumber(&new_numbers);
            if let Some(held) = &mut self.held {
                held.renumber(&new_numbers);
            }
            self.rows.renumber(&new_numbers);
            self.features.renumber(&new_numbers);
        }
        Ok(())
    }

    /// Answers rows behind the watermark, as far as what is kept tells.
    fn send_late(&mut self, late: &Batch, out: &mut Output) -> Result<()> {
        let of_side = &self.layout.left;
        let rows = of_side.project(late.rows())?;
        let keys = self.keys.number(&rows, &of_side.keys)?;
        let numbered = keys.iter().zip(event_times(&rows)?);
        let answers: Vec<Answer> = numbered
            .map(|(&key, &time)| match key {
                NO_KEY => Some(RowAt::NONE),
                key => self.answer_late(self.latest.get(key), time),
            })
            .collect();
        let batch = late.clone().with_columns(rows);
        self.send(batch, Some(late), &answers, self.latest.chunks(), out)
    }

    fn wait(&mut self, side: Side, batch: Batch) -> Result<()> {
        let times = event_times(batch.rows())?.to_vec();
        let places = &self.layout.side(side).keys;
        let keys = self.keys.number(batch.rows(), places)?;
        match side {
            Side::Left => self.rows.push(batch, keys, times),
            Side::Right => self.features.push(batch, keys, times),
        }
    }
}

impl Operator for AsOfOperator {
    fn on_batch(&mut self, port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        let side = if port == 0 { Side::Left } else { Side::Right };
        let mut batch = batch;
        if side == Side::Right && self.held.is_some() {
            // A change that comes late takes effect at the watermark under which it was sent, as everywhere.
            let now = self.watermark.max(batch.watermark().0);
            let rows = not_before(batch.rows().clone(), now)?;
            batch = batch.with_columns(rows);
        }
        let times = event_times(batch.rows())?;
        let on_time: BooleanArray = times.iter().map(|t| Some(*t >= self.watermark)).collect();
        if on_time.false_count() > 0 {
            let late = batch.filter(&not(&on_time)?)?;
            batch = batch.filter(&on_time)?;
            match side {
                Side::Left => self.send_late(&late, out)?,
                Side::Right => out.push_late(late_port(side), as_they_came(late)?),
            }
        }
        let of_side = self.layout.side(side);
        let rows = of_side.project(batch.rows())?;
        batch = batch.with_columns(rows);
        if side == Side::Right
            && let Some(has_key) = of_side.has_key(batch.rows())?
        {
            out.filtered(has_key.false_count());
            batch = batch.filter(&has_key)?;
        }
        self.wait(side, batch)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        if watermark.0 <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark.0;
        self.pass()?;
        self.let_go()?;
        self.resume(out)
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        let mut n_sent = 0;
        while n_sent < BATCH_ROWS
            && let Some((batch, answers)) = self.answered.rows.pop_front()
        {
            n_sent += answers.len();
            self.send(batch, None, &answers, &self.answered.chunks, out)?;
        }
        match self.answered.rows.is_empty() {
            true => self.answered = Answered::default(),
            false => out.more_follows(),
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        let of_answers: usize = self.answered.rows.iter().map(|(_, a)| a.len()).sum();
        self.rows.n_bytes()
            + self.features.n_bytes()
            + self.latest.n_bytes()
            + self.held.as_ref().map_or(0, HeldRows::n_bytes) as u64
            + (self.keys.n_bytes() + of_answers * size_of::<Answer>()) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let TimeLayout { left, right, .. } = &*self.layout;
        let mut parts = save_rows("rows", left, &self.rows.all()?)?;
        parts.extend(save_rows("features", right, &self.features.all()?)?);
        let latest = self.latest.all()?;
        parts.extend(StatePart::by_key("latest", &latest, &right.key_names)?);
        for rows in self.held.iter().map(HeldRows::all) {
            for rows in rows? {
                parts.extend(StatePart::by_key("held", &rows, &right.key_names)?);
            }
        }
        parts.push(save_numbers("progress", &[("watermark", self.watermark)])?);
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let layout = Arc::clone(&self.layout);
        let mut watermark = None;
        for part in state {
            match part.table.as_str() {
                "rows" => {
                    for batch in load_rows(part, &layout.left)? {
                        self.wait(Side::Left, batch)?;
                    }
                }
                "features" => {
                    for batch in load_rows(part, &layout.right)? {
                        self.wait(Side::Right, batch)?;
                    }
                }
                "latest" => {
                    let rows = layout
                        .right
                        .project(&part.rows)
                        .map_err(|_| foreign(part))?;
                    let keys = self.keys.number(&rows, &layout.right.keys)?;
                    self.latest.make_room(self.keys.len());
                    for (n, (&key, &time)) in keys.iter().zip(event_times(&rows)?).enumerate() {
                        // Where the row stands is said when it is added.
                        let at = RowAt::new(0, n);
                        self.latest.set(key, Latest { time, at });
                    }
                    self.latest.add(rows, keys)?;
                }
                "held" => {
                    let rows = layout
                        .right
                        .project(&part.rows)
                        .map_err(|_| foreign(part))?;
                    let keys = self.keys.number(&rows, &layout.right.keys)?;
                    let created = self.created([&rows].into_iter())?;
                    let held = self.held.as_mut().ok_or_else(|| foreign(part))?;
                    if !held.restore(&part.rows, &rows, &keys, &created)? {
                        return Err(foreign(part));
                    }
                }
                "progress" => {
                    let of_part = load_number(part, "watermark")?;
                    // The latest: who had heard of it has let go what nobody could see any more.
                    watermark = Some(watermark.map_or(of_part, |w: i64| w.max(of_part)));
                }
                _ => return Err(foreign(part)),
            }
        }
        self.watermark = watermark.unwrap_or(self.watermark);
        self.is_behind = true;
        Ok(())
    }
}

/// The features that the watermark has passed.
struct Fresh {
    keys: Vec<u32>,
    places: Vec<RowAt>,
}

impl Fresh {
    fn new(features: &[Released], first_chunk: usize) -> Self {
        let places = features
            .iter()
            .enumerate()
            .flat_map(|(n, f)| (0..f.keys.len()).map(move |row| RowAt::new(first_chunk + n, row)));
        Self {
            keys: features
                .iter()
                .flat_map(|f| f.keys.iter().copied())
                .collect(),
            places: places.collect(),
        }
    }
}

/// The rows of all batches by time, each as its number; those of one time as they stand.
fn by_time(released: &[Released]) -> Vec<(i64, u32)> {
    let times = released.iter().flat_map(|r| r.times.iter().copied());
    let mut order: Vec<(i64, u32)> = times.zip(0u32..).collect();
    if !order.is_sorted() {
        // Stable, and quick where there are long runs in order.
        order.sort_by_key(|(time, _)| *time);
    }
    order
}
