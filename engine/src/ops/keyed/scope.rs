//! What a call of a keyed transform works on: one key in one window.

use std::fmt;

use arrow::record_batch::RecordBatch;
use serde::Serialize;

use super::cells::{
    Aggregates, AggregatesState, Bag, BagState, Cell, CellValue, Combining, CombiningState, Map,
    MapState, OrderedList, OrderedListState, RowBag, RowBagState, Set, SetState, Value, ValueState,
};
use super::operator::Core;
use super::rows::KeyRows;
use super::timers::{SetTimer, TimeDomain, Timer};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::event_time::MAX_TIME;
use crate::output::Output;
use crate::transform::Watermark;
use crate::windowing::Window;

/// After the end of input a timer may set itself again so often.
const MAX_AFTER_END: u32 = 100_000;

/// One key in one window, at work: its cells and timers, and the way out.
pub struct Scope<'a> {
    pub(super) number: usize,
    pub(super) core: &'a mut Core,
    pub(super) out: &'a mut Output,
    /// The batch that has come in; none while a timer fires.
    pub(super) batch: Option<&'a Batch>,
    /// The event time of what is emitted without one.
    pub(super) time: i64,
    /// How often the timer that fires has set itself again since the input ended.
    pub(super) n_after_end: u32,
}

impl Scope<'_> {
    /// The columns of the key, as one row.
    ///
    /// # Errors
    /// If the key does not fit a batch.
    pub fn key(&self) -> Result<RecordBatch> {
        self.core.key_row(self.number)
    }

    /// The window; that of all time where the collection has none.
    pub fn window(&self) -> Window {
        self.core.scopes.window(self.number)
    }

    /// The event time that the watermark has reached.
    pub fn watermark(&self) -> Watermark {
        self.core.watermark
    }

    /// The time on the clock of the run, in milliseconds since 1970.
    pub fn processing_time(&self) -> i64 {
        self.out.processing_time()
    }

    /// How long late rows count, in milliseconds of event time.
    pub fn allowed_lateness_ms(&self) -> i64 {
        self.core.lateness.allowed_ms()
    }

    /// True if no row will come any more: a timer that sets itself again must stop then.
    pub fn input_ended(&self) -> bool {
        self.core.watermark.is_end()
    }

    /// The value of a cell; errors as those of all cells.
    ///
    /// # Errors
    /// If the cell has not been declared, or as another one.
    pub fn value<T: CellValue>(&mut self, cell: Value<T>) -> Result<ValueState<'_, T>> {
        let scope = self.number;
        let slab = self.cell(&cell)?;
        Ok(ValueState { slab, scope })
    }

    /// The bag of a cell; errors as [`Scope::value`].
    pub fn bag<T: CellValue>(&mut self, cell: Bag<T>) -> Result<BagState<'_, T>> {
        let scope = self.number;
        let slab = self.cell(&cell)?;
        Ok(BagState { slab, scope })
    }

    /// The rows of a cell; errors as [`Scope::value`].
    pub fn row_bag(&mut self, cell: RowBag) -> Result<RowBagState<'_>> {
        let scope = self.number;
        let bags = self.cell(&cell)?;
        Ok(RowBagState { bags, scope })
    }

    /// The set of a cell; errors as [`Scope::value`].
    pub fn set<T: CellValue + Ord>(&mut self, cell: Set<T>) -> Result<SetState<'_, T>> {
        let scope = self.number;
        let slab = self.cell(&cell)?;
        Ok(SetState { slab, scope })
    }

    /// The map of a cell; errors as [`Scope::value`].
    pub fn map<K: CellValue + Ord, V: CellValue>(
        &mut self,
        cell: Map<K, V>,
    ) -> Result<MapState<'_, K, V>> {
        let scope = self.number;
        let slab = self.cell(&cell)?;
        Ok(MapState { slab, scope })
    }

    /// The ordered list of a cell; errors as [`Scope::value`].
    pub fn ordered_list<T: CellValue>(
        &mut self,
        cell: OrderedList<T>,
    ) -> Result<OrderedListState<'_, T>> {
        let scope = self.number;
        let slab = self.cell(&cell)?;
        Ok(OrderedListState { slab, scope })
    }

    /// The accumulator of a cell; errors as [`Scope::value`].
    pub fn combining<I: 'static, A: CellValue>(
        &mut self,
        cell: Combining<I, A>,
    ) -> Result<CombiningState<'_, I, A>> {
        let scope = self.number;
        let slab = self.cell(&cell)?;
        Ok(cell.state(slab, scope))
    }

    /// The aggregates of a cell; errors as [`Scope::value`].
    pub fn aggregates(&mut self, cell: &Aggregates) -> Result<AggregatesState<'_>> {
        let scope = self.number;
        let cells = self.cell(cell)?;
        Ok(AggregatesState { cells, scope })
    }

    fn cell<C: Cell + super::cells::Stored>(&mut self, cell: &C) -> Result<&mut C::Cells> {
        let name = cell.name();
        let place = self.core.cell_names.iter().position(|n| *n == name);
        let cells = place.and_then(|place| self.core.cells.get_mut(place));
        let cells = cells.and_then(|cells| cells.as_any().downcast_mut::<C::Cells>());
        cells.ok_or_else(|| {
            let kind = C::KIND;
            Error::pipeline(format!("{kind} {name:?} is used, which is not declared so"))
                .with_hint("Declare the cell, with the same type, by `Declared::cell`.")
        })
    }

    /// A timer, to be set or cleared.
    ///
    /// # Errors
    /// If it has not been declared.
    pub fn timer(&mut self, timer: Timer) -> Result<TimerState<'_>> {
        let place = self.core.timer_specs.iter().position(|t| *t == timer);
        let place = place.ok_or_else(|| {
            Error::pipeline(format!("{timer:?} is used, which is not declared so"))
                .with_hint("Declare the timer by `Declared::timer`.")
        })?;
        Ok(TimerState {
            scope: self.number,
            place,
            spec: timer,
            tag: "",
            output_time: None,
            time: self.time,
            n_after_end: self.n_after_end,
            core: self.core,
        })
    }

    /// Emits one of the rows at hand, by its place among them; they leave in the order in which they came.
    ///
    /// # Errors
    /// If the transform has not declared that it emits rows.
    pub fn keep(&mut self, rows: &KeyRows<'_>, row: usize) -> Result<()> {
        let place =
            u32::try_from(rows.place(row)).map_err(|_| Error::bug("a batch of too many rows"))?;
        self.core.emitter.keep(place)
    }

    /// Emits one of the rows at hand with the columns of `more` behind its own; as [`Scope::keep`].
    ///
    /// # Errors
    /// If the transform has not declared that it emits rows with such columns.
    pub fn keep_with<T: Serialize + Send + 'static>(
        &mut self,
        rows: &KeyRows<'_>,
        row: usize,
        more: T,
    ) -> Result<()> {
        let place =
            u32::try_from(rows.place(row)).map_err(|_| Error::bug("a batch of too many rows"))?;
        self.core.emitter.keep_with(place, more)
    }

    /// Emits a value, whose fields become columns beside those of the key.
    ///
    /// Its event time is the output time of the timer that fires, or that of the earliest row at hand.
    ///
    /// # Errors
    /// If the transform has not declared that it emits such values.
    pub fn emit<T: Serialize + Send + 'static>(&mut self, value: T) -> Result<()> {
        self.emit_at(self.time, value)
    }

    /// Emits a value of this event time; as [`Scope::emit`].
    ///
    /// What is earlier than the watermark behind comes too late there: hold it back by a timer with an
    /// [output time](TimerState::output_time).
    ///
    /// # Errors
    /// As [`Scope::emit`].
    pub fn emit_at<T: Serialize + Send + 'static>(&mut self, time: i64, value: T) -> Result<()> {
        let Core {
            emitter, scopes, ..
        } = &mut *self.core;
        emitter.value(self.number, time, value, scopes)
    }

    /// Emits rows of the schema that the transform has declared.
    ///
    /// # Errors
    /// If they are of another.
    pub fn emit_batch(&mut self, rows: &RecordBatch) -> Result<()> {
        self.core.emitter.batch(rows)
    }

    /// Counts rows at hand that are left out on purpose.
    pub fn filtered(&mut self, n_rows: usize) {
        self.out.filtered(n_rows);
    }

    /// Refuses one of the rows at hand, with the reason.
    ///
    /// # Errors
    /// As [`Output::reject`].
    pub fn reject(&mut self, rows: &KeyRows<'_>, row: usize, reason: &str) -> Result<()> {
        let Some(batch) = self.batch else {
            return Err(Error::bug("a row was rejected while none is at hand"));
        };
        let place = rows.sorted().places[rows.place(row)] as usize;
        let key = self.core.scopes.show(self.number);
        let of_key = if key.is_empty() {
            String::new()
        } else {
            format!(" ({key})")
        };
        self.out.reject(batch, place, format!("{reason}{of_key}"))
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({})", self.core.scopes.show(self.number))
    }
}

/// A timer of one key and window, to be set or cleared.
#[must_use = "set the timer, or clear it"]
pub struct TimerState<'a> {
    core: &'a mut Core,
    scope: usize,
    place: usize,
    spec: Timer,
    tag: &'a str,
    output_time: Option<i64>,
    time: i64,
    n_after_end: u32,
}

impl<'a> TimerState<'a> {
    /// The one of the family with this tag; that without a tag has the empty one.
    pub fn tagged(mut self, tag: &'a str) -> Self {
        self.tag = tag;
        self
    }

    /// The event time of what the timer will emit: the watermark behind does not pass it before.
    ///
    /// By default that of an event-time timer is its own time, or the last instant of the window if that is
    /// earlier; that of a processing-time timer is the event time of the earliest row at hand.
    pub fn output_time(mut self, time: i64) -> Self {
        self.output_time = Some(time);
        self
    }

    /// When it fires, if it is set.
    pub fn time(&self) -> Option<i64> {
        let timer = self.core.timers.get(self.scope, self.place, self.tag);
        timer.map(|timer| timer.time)
    }

    /// Sets the timer to fire at `time`, or moves it there.
    ///
    /// A time that has passed is due at once, after the rows at hand. Once the input has ended, timers of
    /// processing time are not set any more.
    ///
    /// # Errors
    /// If the window is gone by then, the output time is later than the time, or a timer goes on setting
    /// itself after the end of input.
    pub fn set(self, time: i64) -> Result<()> {
        let window = self.core.scopes.window(self.scope);
        let name = self.spec.name;
        let output_time = match self.spec.domain {
            TimeDomain::EventTime => {
                let latest = self.core.lateness.over_at(window).min(MAX_TIME);
                if time > latest {
                    return Err(Error::pipeline(format!(
                            "timer {name:?} is set to {time}, but what is kept of its window goes at {latest}"
                        ))
                        .with_hint("Set it to the end of the window at most, or allow more lateness."));
                }
                let output_time = self.output_time.unwrap_or(time.min(window.max_timestamp()));
                if output_time > time {
                    return Err(Error::pipeline(format!(
                        "timer {name:?} is set to {time}, before its output time {output_time}"
                    )));
                }
                output_time
            }
            TimeDomain::ProcessingTime if self.core.watermark.is_end() => return Ok(()),
            TimeDomain::ProcessingTime => self.output_time.unwrap_or(self.time),
        };
        let n_after_end = match self.core.watermark.is_end() {
            true => self.n_after_end + 1,
            false => 0,
        };
        if n_after_end > MAX_AFTER_END {
            return Err(Error::pipeline(format!(
                "timer {name:?} has set itself again {MAX_AFTER_END} times since the input ended"
            ))
            .with_hint("Ask `Scope::input_ended` before it is set again."));
        }
        let timer = SetTimer {
            timer: self.place,
            tag: self.tag.into(),
            domain: self.spec.domain,
            time,
            output_time,
            n_after_end,
        };
        self.core.timers.set(self.scope, timer);
        Ok(())
    }

    /// Takes the timer back, if it is set.
    pub fn clear(self) {
        self.core.timers.clear(self.scope, self.place, self.tag);
    }
}

impl fmt::Debug for TimerState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimerState({:?}, {:?})", self.spec, self.tag)
    }
}

/// A timer that fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiredTimer<'a> {
    pub(super) timer: Timer,
    pub(super) tag: &'a str,
    pub(super) time: i64,
    pub(super) output_time: i64,
}

impl FiredTimer<'_> {
    /// True for this timer, whatever its tag.
    pub fn is(&self, timer: Timer) -> bool {
        self.timer == timer
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.timer.name
    }

    /// The tag; empty if it was set without one.
    pub fn tag(&self) -> &str {
        self.tag
    }

    /// The time it was set to.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// The event time of what it emits.
    pub fn output_time(&self) -> i64 {
        self.output_time
    }
}
