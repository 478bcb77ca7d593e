//! A keyed transform at work on one worker.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, not, take, take_record_batch};
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;

use super::cells::Cells;
use super::emit::Emitter;
use super::expiry::Expiry;
use super::lateness::Lateness;
use super::plan::Plan;
use super::process::Keyed;
use super::rows::{KeyRows, ScopeRanges, SortedRows, sorted_by_scope};
use super::scope::{FiredTimer, Scope};
use super::scopes::Scopes;
use super::timers::{TimeDomain, Timer, Timers};
use super::{KeyedTransform, saved};
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::{Error, Result};
use crate::event_time::{EVENT_TIME, MAX_TIME, event_times, extent};
use crate::keys::normal;
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};
use crate::windowing::Window;

/// The port of rows that come too late.
const LATE: usize = 1;

/// What is kept on a worker.
pub(super) struct Core {
    pub(super) plan: Arc<Plan>,
    pub(super) scopes: Scopes,
    pub(super) cell_names: Vec<&'static str>,
    pub(super) cells: Vec<Box<dyn Cells>>,
    pub(super) timer_specs: Vec<Timer>,
    pub(super) timers: Timers,
    pub(super) expiry: Option<Expiry>,
    pub(super) lateness: Lateness,
    pub(super) emitter: Emitter,
    pub(super) watermark: Watermark,
    /// What was over by this watermark has been forgotten.
    released: Watermark,
}

impl Core {
    fn new(plan: &Arc<Plan>) -> Result<Self> {
        let cells = plan.cells.iter().map(|cell| (cell.build)());
        Ok(Self {
            plan: Arc::clone(plan),
            scopes: Scopes::new(plan.key_fields.clone(), plan.lateness.is_windowed)?,
            cell_names: plan.cells.iter().map(|cell| cell.name).collect(),
            cells: cells.collect::<Result<_>>()?,
            timer_specs: plan.timers.clone(),
            timers: Timers::default(),
            expiry: plan.lateness.kept_ms().map(Expiry::new),
            lateness: plan.lateness.clone(),
            emitter: Emitter::new(
                plan.emits.clone(),
                Arc::clone(&plan.output),
                plan.lateness.is_windowed,
            ),
            watermark: Watermark::START,
            released: Watermark::START,
        })
    }

    pub(super) fn key_row(&self, scope: usize) -> Result<RecordBatch> {
        let schema = Arc::new(Schema::new(self.plan.key_fields.clone()));
        let columns = self.scopes.key_columns(&[scope])?;
        let one = RecordBatchOptions::new().with_row_count(Some(1));
        Ok(RecordBatch::try_new_with_options(schema, columns, &one)?)
    }

    /// The error with the key and the window it is about.
    pub(super) fn of_key(&self, scope: usize, error: Error) -> Error {
        match self.scopes.show(scope) {
            key if key.is_empty() => error,
            key => error.with_detail(format!("The key is {key}.")),
        }
    }

    pub(super) fn make_room(&mut self) {
        let n_scopes = self.scopes.len();
        self.cells.iter_mut().for_each(|c| c.make_room(n_scopes));
        self.timers.make_room(n_scopes);
        if let Some(expiry) = &mut self.expiry {
            expiry.make_room(n_scopes);
        }
    }

    /// Frees a scope of which nothing is kept.
    fn settle(&mut self, scope: usize) {
        let is_empty = self.timers.of(scope).is_empty()
            && self.cells.iter().all(|cells| cells.is_empty(scope));
        if is_empty {
            self.forget(scope);
        }
    }

    /// Forgets all that is kept of a scope.
    fn forget(&mut self, scope: usize) {
        for cells in &mut self.cells {
            if !cells.is_empty(scope) {
                cells.clear(scope);
            }
        }
        self.timers.clear_scope(scope);
        if let Some(expiry) = &mut self.expiry {
            expiry.clear(scope);
        }
        self.scopes.free(scope);
    }

    /// Forgets what the watermark says is over.
    fn release(&mut self) -> Result<()> {
        let Watermark(watermark) = self.watermark;
        let over = match self.watermark.is_end() {
            true => self.scopes.live(),
            false if self.lateness.is_windowed && self.released < self.watermark => {
                let lateness = self.lateness.clone();
                self.scopes
                    .take_over(|window| lateness.over_at(window) <= watermark)
            }
            false => Vec::new(),
        };
        self.released = self.watermark;
        over.into_iter().for_each(|scope| self.forget(scope));
        if let Some(kept) = self.scopes.compact()? {
            self.cells.iter_mut().for_each(|cells| cells.keep(&kept));
            self.timers.keep(&kept);
            if let Some(expiry) = &mut self.expiry {
                expiry.keep(&kept);
            }
            self.make_room();
        }
        Ok(())
    }

    fn n_bytes(&self) -> usize {
        let cells: usize = self.cells.iter().map(|cells| cells.n_bytes()).sum();
        let expiry = self.expiry.as_ref().map_or(0, Expiry::n_bytes);
        self.scopes.n_bytes() + cells + self.timers.n_bytes() + expiry
    }
}

/// The operator of one worker.
pub(super) struct ProcessOperator<T> {
    keyed: Arc<Keyed<T>>,
    core: Core,
    /// What the watermark was before timers began to fire that have not all fired yet.
    before_firing: Option<Watermark>,
    /// What was restored of operators that had not heard of the watermark yet may have timers that are due.
    is_behind: bool,
    scopes: Vec<usize>,
    local_of: Vec<u32>,
    /// How many of the rows that were sorted last are in no window.
    n_in_none: usize,
}

impl<T: KeyedTransform> ProcessOperator<T> {
    pub(super) fn new(keyed: &Arc<Keyed<T>>, plan: &Arc<Plan>) -> Result<Self> {
        Ok(Self {
            keyed: Arc::clone(keyed),
            core: Core::new(plan)?,
            before_firing: None,
            is_behind: false,
            scopes: Vec::new(),
            local_of: Vec::new(),
            n_in_none: 0,
        })
    }

    /// The rows without those that come too late, which leave as they came.
    fn without_late(&self, batch: Batch, out: &mut Output) -> Result<Batch> {
        let Core {
            lateness,
            plan,
            watermark,
            ..
        } = &self.core;
        let Some(late) = lateness.late(batch.rows(), watermark.0)? else {
            return Ok(batch);
        };
        let those = batch.filter(&late)?;
        let rows = plan.visible(those.rows())?;
        out.push_late(LATE, those.with_columns(rows));
        batch.filter(&not(&late)?)
    }

    /// Of each row and window the place of the row and the number of the window; `None` without windows.
    fn assign(&mut self, rows: &RecordBatch) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
        let Core {
            lateness,
            scopes,
            watermark,
            ..
        } = &mut self.core;
        self.n_in_none = 0;
        if !lateness.is_windowed {
            return Ok(None);
        }
        let window_fn = &lateness.windowing.window_fn;
        let times = event_times(rows)?;
        let mut places = Vec::with_capacity(times.len());
        let mut numbers = Vec::with_capacity(times.len());
        let mut windows: Vec<Window> = Vec::new();
        let mut current: Vec<u32> = Vec::new();
        let mut stretch: Option<Window> = None;
        for (row, &time) in (0u32..).zip(times) {
            let same = stretch.is_some_and(|s| s.start <= time && time < s.end);
            if !same {
                windows.clear();
                window_fn.assign(time, &mut windows);
                windows.retain(|window| lateness.over_at(*window) > watermark.0);
                current.clear();
                current.extend(windows.iter().map(|window| scopes.window_number(*window)));
                stretch = window_fn.pane_of(time);
            }
            self.n_in_none += usize::from(current.is_empty());
            for &number in &current {
                places.push(row);
                numbers.push(number);
            }
        }
        Ok(Some((places, numbers)))
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let Plan {
            key_places,
            key_fields,
            ..
        } = &*self.core.plan;
        let keys = key_places.iter().zip(key_fields).map(|(place, field)| {
            let values = rows.column(*place);
            if values.data_type() == field.data_type() {
                return normal(values);
            }
            normal(&cast(values, field.data_type())?)
        });
        keys.collect()
    }

    /// The rows by scope, and where those of each stand.
    fn sort(&mut self, batch: &Batch) -> Result<(SortedRows, ScopeRanges)> {
        let rows = batch.rows();
        let mut keys = self.keys(rows)?;
        let assigned = self.assign(rows)?;
        let n_rows = match &assigned {
            Some((places, _)) => {
                let places = UInt32Array::from(places.clone());
                for key in &mut keys {
                    *key = take(key, &places, None)?;
                }
                places.len()
            }
            None => rows.num_rows(),
        };
        let windows = assigned.as_ref().map(|(_, numbers)| numbers.as_slice());
        let core = &mut self.core;
        core.scopes
            .number(&keys, windows, n_rows, &mut self.scopes)?;
        core.make_room();
        if self.local_of.len() < core.scopes.len() {
            self.local_of.resize(core.scopes.len(), u32::MAX);
        }
        let (mut order, ranges) = sorted_by_scope(&self.scopes, &mut self.local_of);
        if let Some((places, _)) = &assigned {
            for place in &mut order {
                *place = places[*place as usize];
            }
        }
        let visible = core.plan.visible(rows)?;
        let in_order = ranges.len() <= 1 && n_rows == rows.num_rows();
        let rows = match in_order {
            true => visible,
            false => take_record_batch(&visible, &UInt32Array::from(order.clone()))?,
        };
        let sorted = SortedRows {
            rows,
            places: order,
            typed: None,
        };
        Ok((sorted, ranges))
    }

    /// Takes in rows that are in time.
    fn take_in(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let (mut sorted, mut ranges) = self.sort(&batch)?;
        let mut batch = batch;
        let plan = Arc::clone(&self.core.plan);
        if let Some(reads) = &plan.reads {
            sorted.typed = reads.read(&sorted.rows);
            if sorted.typed.is_none() {
                batch = reads.good_rows(batch, out)?;
                (sorted, ranges) = self.sort(&batch)?;
                sorted.typed = reads.read(&sorted.rows);
            }
        }
        out.filtered(self.n_in_none);
        let times = sorted.rows.column_by_name(EVENT_TIME).is_some();
        let times = times.then(|| event_times(&sorted.rows)).transpose()?;
        for (number, range) in ranges {
            self.core.scopes.enliven(number);
            let mut time = MAX_TIME;
            if let Some((earliest, latest)) = times.and_then(|t| extent(&t[range.clone()])) {
                time = earliest;
                if let Some(expiry) = &mut self.core.expiry {
                    expiry.touch(number, latest);
                }
            }
            let mut scope = Scope {
                number,
                core: &mut self.core,
                out,
                batch: Some(&batch),
                time,
                n_after_end: 0,
            };
            let rows = KeyRows::new(&sorted, range);
            self.keyed
                .transform
                .on_rows(&mut scope, &rows)
                .map_err(|error| self.core.of_key(number, error))?;
            self.core.settle(number);
        }
        self.core.emitter.finish_kept(&sorted)?;
        self.go_on(Some(&batch), out)
    }

    /// Does all that operators before a restart would have done, had they heard of the watermark in time.
    fn catch_up(&mut self, out: &mut Output) -> Result<()> {
        if std::mem::take(&mut self.is_behind) {
            while self.fire_and_send(None, out)? {}
            self.core.release()?;
        }
        Ok(())
    }

    /// Fires what is due and sends what has been emitted; true if more may be due.
    fn fire_and_send(&mut self, origin: Option<&Batch>, out: &mut Output) -> Result<bool> {
        let more = self.fire(out)?;
        if !more {
            self.before_firing = None;
        }
        for rows in self.core.emitter.take(&self.core.scopes)? {
            out.push(match origin {
                Some(batch) => batch.derive(rows),
                None => Batch::new(rows).inexact(),
            });
        }
        Ok(more)
    }

    /// Fires what is due, forgets what is over, and sends what has been emitted.
    fn go_on(&mut self, origin: Option<&Batch>, out: &mut Output) -> Result<()> {
        if self.fire_and_send(origin, out)? {
            out.more_follows();
            return Ok(());
        }
        self.core.release()?;
        if self.core.scopes.len() < self.local_of.len() {
            self.local_of = Vec::new();
        }
        Ok(())
    }

    /// Fires timers in the order of their times, and ends lives; true if more may be due when a batch is full.
    fn fire(&mut self, out: &mut Output) -> Result<bool> {
        let mut n_fired = 0;
        loop {
            // A timer that sets itself to the same time again and again must not keep the worker for ever.
            if n_fired.max(self.core.emitter.n_rows()) >= BATCH_ROWS {
                return Ok(true);
            }
            n_fired += 1;
            let Watermark(watermark) = self.core.watermark;
            let timer = self.core.timers.next(TimeDomain::EventTime);
            let end = self.core.expiry.as_mut().and_then(Expiry::next);
            if let Some((end, number)) = end
                && end <= watermark
                && timer.is_none_or(|timer| timer > end)
            {
                self.core.forget(number);
                continue;
            }
            let timers = &mut self.core.timers;
            let mut due = timers.take_due(TimeDomain::EventTime, watermark);
            if due.is_none() && !self.core.watermark.is_end() {
                due = timers.take_due(TimeDomain::ProcessingTime, out.processing_time());
            }
            let Some((number, set)) = due else {
                return Ok(false);
            };
            let fired = FiredTimer {
                timer: self.core.timer_specs[set.timer],
                tag: &set.tag,
                time: set.time,
                output_time: set.output_time,
            };
            let mut scope = Scope {
                number,
                core: &mut self.core,
                out,
                batch: None,
                time: set.output_time,
                n_after_end: set.n_after_end,
            };
            self.keyed
                .transform
                .on_timer(&mut scope, fired)
                .map_err(|error| self.core.of_key(number, error))?;
            self.core.settle(number);
        }
    }
}

impl<T: KeyedTransform> Operator for ProcessOperator<T> {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        let batch = self.without_late(batch, out)?;
        if batch.n_rows() == 0 {
            return Ok(());
        }
        self.take_in(batch, out)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.catch_up(out)?;
        if watermark > self.core.watermark {
            self.before_firing.get_or_insert(self.core.watermark);
            self.core.watermark = watermark;
            if watermark.is_end() {
                // No rows come any more.
                self.scopes = Vec::new();
                self.local_of = Vec::new();
            }
            self.go_on(None, out)?;
        }
        Ok(())
    }

    fn on_processing_time(&mut self, out: &mut Output) -> Result<()> {
        self.go_on(None, out)
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        self.go_on(None, out)
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        let input = self.before_firing.map_or(input, |before| before.min(input));
        match self.core.timers.hold() {
            Some(hold) => input.min(Watermark(hold)),
            None => input,
        }
    }

    fn wakes_at(&self) -> Option<i64> {
        match self.core.watermark.is_end() {
            true => None,
            false => self.core.timers.next(TimeDomain::ProcessingTime),
        }
    }

    fn state_bytes(&self) -> u64 {
        let at_hand = self.scopes.capacity() * size_of::<usize>()
            + self.local_of.capacity() * size_of::<u32>();
        (self.core.n_bytes() + at_hand) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        saved::save(&mut self.core)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let least = saved::restore(&mut self.core, state)?;
        let timer = self.core.timers.next(TimeDomain::EventTime);
        let end = self.core.expiry.as_mut().and_then(Expiry::next);
        let mut due = timer.into_iter().chain(end.map(|(end, _)| end));
        // Also of one that was saved while its timers fired.
        let is_due = due.any(|time| time <= self.core.watermark.0);
        self.is_behind = is_due || least < self.core.watermark;
        if self.is_behind {
            self.before_firing = Some(least);
        }
        Ok(())
    }
}
