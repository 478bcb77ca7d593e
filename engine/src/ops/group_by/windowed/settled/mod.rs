//! Keys in windows whose trigger is asked row by row: any trigger, and windows that merge.
//!
//! ```text
//! states that come ─▶ merged with those at rest, a batch at a time ─▶ at rest again
//!                                    │
//!            trigger of each key and window: rows, watermark, clock ─▶ what fires is noted down
//!                                                                       and evaluated in one go
//! ```

mod chunks;
mod entries;
mod merging;
mod snapshot;

pub(super) use snapshot::{FIRED, WINDOWS, windows_of};

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::record_batch::RecordBatch;

use self::chunks::{Chunks, Place};
use self::entries::{Entries, Fired, NEVER};
use super::pane::{Pane, Timing};
use super::plan::WindowedPlan;
use super::results::Mark;
use crate::batch::BATCH_ROWS;
use crate::error::Result;
use crate::ops::group_by::table::States;
use crate::windowing::{
    Accumulation, CompiledTrigger, TimestampCombiner, Trigger, TriggerContext, Window,
};

/// What time it is, in event time and on the clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) watermark: i64,
    pub(super) processing_time: i64,
}

/// States that come, each for a window.
pub(super) struct Arrivals<'a> {
    /// Keys, then states.
    pub(super) columns: &'a [ArrayRef],
    /// Which of these rows, and into which window; a row may stand here for several.
    pub(super) rows: Vec<(u32, Window)>,
}

/// What is known of keys in windows, and when it leaves.
pub(super) struct Settled {
    plan: Arc<WindowedPlan>,
    trigger: CompiledTrigger,
    uses_clock: bool,
    entries: Entries,
    chunks: Chunks,
    /// Entries to be looked at when the watermark has reached a time.
    timers: BTreeMap<i64, Vec<u32>>,
    /// And when the clock has.
    wakes: BinaryHeap<Reverse<(i64, u32)>>,
    /// What has fired and was not evaluated yet.
    firings: Vec<(usize, Place, Mark)>,
    /// The place of each entry among those of the batch at hand.
    slots: Vec<u32>,
    earliest_hold: Hold,
    numbers: Vec<usize>,
}

/// The earliest event time that a result to come may have.
#[derive(Clone, Copy, Debug)]
enum Hold {
    Known(i64),
    /// The entry that had it is gone.
    Unknown,
}

impl Settled {
    pub(super) fn new(plan: &Arc<WindowedPlan>) -> Result<Self> {
        let trigger = CompiledTrigger::new(&plan.windowing.trigger);
        let states = plan.planned.states.fields();
        Ok(Self {
            entries: Entries::new(plan, trigger.initial_state())?,
            uses_clock: uses_clock(&plan.windowing.trigger),
            trigger,
            chunks: Chunks::new(states[plan.n_keys..].to_vec()),
            timers: BTreeMap::new(),
            wakes: BinaryHeap::new(),
            firings: Vec::new(),
            slots: Vec::new(),
            earliest_hold: Hold::Known(NEVER),
            numbers: Vec::new(),
            plan: Arc::clone(plan),
        })
    }

    pub(super) fn n_bytes(&self) -> usize {
        let timers: usize = self.timers.values().map(Vec::capacity).sum();
        self.entries.n_bytes()
            + self.chunks.n_bytes()
            + timers * size_of::<u32>()
            + self.slots.capacity() * size_of::<u32>()
    }

    /// Takes states in and asks their triggers; sets in `taken` the rows that some window has taken, and gives
    /// how many rows are lost that had been taken before.
    ///
    /// Windows that are over or have finished take none.
    pub(super) fn add(
        &mut self,
        mut arrivals: Arrivals<'_>,
        now: Now,
        taken: &mut [bool],
    ) -> Result<u64> {
        let (keys, states) = arrivals.columns.split_at(self.plan.n_keys);
        let n_rows = arrivals.columns.first().map_or(0, |column| column.len());
        let mut numbers = std::mem::take(&mut self.numbers);
        self.entries.number(keys, n_rows, &mut numbers)?;
        let plan = Arc::clone(&self.plan);
        arrivals
            .rows
            .retain(|(_, window)| plan.expiry(window.end) > now.watermark);
        let mut touched = Touched::default();
        if plan.windowing.window_fn.is_merging() {
            self.merge_windows(&mut arrivals.rows, &numbers, now, &mut touched);
        }
        let mut rows = Vec::with_capacity(arrivals.rows.len());
        let mut groups = Vec::with_capacity(arrivals.rows.len());
        for (row, window) in arrivals.rows {
            let (id, is_new) = self.entries.find_or_add(numbers[row as usize], window);
            if is_new {
                self.schedule(id, now);
            }
            if self.entries.get(id).is_finished {
                continue;
            }
            taken[row as usize] = true;
            groups.push(self.slot(id, &mut touched));
            rows.push(row);
        }
        self.numbers = numbers;
        self.update_states(states, n_rows, &rows, &groups, &touched)?;
        self.note_rows(states, &rows, &groups, &touched, now);
        for id in touched.ids {
            self.slots[id as usize] = u32::MAX;
        }
        Ok(touched.n_lost)
    }

    /// The place of an entry among those of the batch at hand.
    fn slot(&mut self, id: u32, touched: &mut Touched) -> usize {
        if self.slots.len() < self.entries.len() {
            self.slots.resize(self.entries.len(), u32::MAX);
        }
        let slot = &mut self.slots[id as usize];
        if *slot == u32::MAX {
            *slot = u32::try_from(touched.ids.len()).unwrap_or(u32::MAX);
            touched.ids.push(id);
        }
        *slot as usize
    }

    /// Merges what has come with what is at rest.
    fn update_states(
        &mut self,
        arrived: &[ArrayRef],
        n_rows: usize,
        rows: &[u32],
        groups: &[usize],
        touched: &Touched,
    ) -> Result<()> {
        let n_slots = touched.ids.len();
        let mut places = Vec::with_capacity(n_slots);
        let mut slots = Vec::with_capacity(n_slots);
        for (slot, id) in touched.ids.iter().enumerate() {
            let entry = self.entries.get(*id);
            if !entry.place.is_none() {
                places.push(entry.place);
                slots.push(slot);
            }
        }
        for (id, place) in &touched.absorbed {
            let slot = self.slots[*id as usize];
            if slot != u32::MAX && !place.is_none() {
                places.push(*place);
                slots.push(slot as usize);
            }
        }
        if n_slots == 0 {
            return Ok(());
        }
        let mut states = States::new(&self.plan.planned)?;
        if places.len() < n_slots || !touched.absorbed.is_empty() {
            states.make_room(n_slots)?;
        }
        if !places.is_empty() {
            states.merge(&self.chunks.gather(&places)?, &slots, n_slots)?;
        }
        if is_all(rows, n_rows) {
            states.merge(arrived, groups, n_slots)?;
        } else {
            let picked = UInt32Array::from(rows.to_vec());
            let columns = arrived.iter().map(|column| take(column, &picked, None));
            states.merge(&columns.collect::<Result<Vec<_>, _>>()?, groups, n_slots)?;
        }
        let new = self.chunks.append(states.take_states()?);
        for (slot, id) in touched.ids.iter().enumerate() {
            self.release_state(*id);
            self.entries.get_mut(*id).place = new.get(slot);
        }
        Ok(())
    }

    /// Tells triggers of the rows that have come, and lets fire what should.
    fn note_rows(
        &mut self,
        states: &[ArrayRef],
        rows: &[u32],
        groups: &[usize],
        touched: &Touched,
        now: Now,
    ) {
        let plan = Arc::clone(&self.plan);
        let (counts, times) = (plan.counts(states), plan.times(states));
        let mut n_new = vec![0; touched.ids.len()];
        for (row, slot) in rows.iter().zip(groups) {
            let row = *row as usize;
            n_new[*slot] += counts.map_or(1, |counts| counts[row]);
            if let Some(times) = times.filter(|times| times.is_valid(row)) {
                self.hold(touched.ids[*slot], times.value(row));
            }
        }
        for (id, n_new) in touched.ids.iter().zip(n_new) {
            let id = *id;
            // Touched all the same where windows have merged into one that had finished.
            if self.entries.get(id).is_finished {
                continue;
            }
            let last = self.entries.get(id).window.max_timestamp();
            if times.is_none() && last >= now.watermark {
                self.hold(id, last);
            }
            self.entries.get_mut(id).n_pending += n_new;
            let context = self.context(id, now);
            let trigger = self.entries.trigger_mut(id);
            let n_rows = u64::try_from(n_new).unwrap_or(0);
            self.trigger.on_elements(trigger, n_rows, &context);
            if self.trigger.should_fire(trigger, &context) {
                self.fire(id, &context, false, false);
            }
            self.schedule_wake(id, &context);
        }
    }

    /// Takes note of the event time of a row that has come in time.
    fn hold(&mut self, id: u32, time: i64) {
        let entry = self.entries.get_mut(id);
        let combined = match self.plan.windowing.timestamp_combiner {
            _ if entry.hold == NEVER => time,
            TimestampCombiner::Earliest => entry.hold.min(time),
            _ => entry.hold.max(time),
        };
        let was = std::mem::replace(&mut entry.hold, combined);
        self.note_hold(was, combined);
    }

    fn note_hold(&mut self, was: i64, is: i64) {
        if let Hold::Known(earliest) = self.earliest_hold {
            self.earliest_hold = match is.min(earliest) {
                _ if was == earliest && is > was && was != NEVER => Hold::Unknown,
                earliest => Hold::Known(earliest),
            };
        }
    }

    /// The earliest event time that a result to come may have; `i64::MAX` without any.
    pub(super) fn earliest_hold(&self) -> i64 {
        match self.earliest_hold {
            Hold::Known(earliest) => earliest,
            Hold::Unknown => self
                .entries
                .all()
                .map(|(_, e)| e.hold)
                .min()
                .unwrap_or(NEVER),
        }
    }

    /// As [`Settled::earliest_hold`], and remembers it.
    pub(super) fn find_earliest_hold(&mut self) {
        self.earliest_hold = Hold::Known(self.earliest_hold());
    }

    fn context(&self, id: u32, now: Now) -> TriggerContext {
        TriggerContext {
            window: self.entries.get(id).window,
            watermark: now.watermark,
            processing_time: now.processing_time,
        }
    }

    /// Lets a pane of an entry go. `at_end` says that the end of the window made it fire, and nothing else.
    fn fire(&mut self, id: u32, context: &TriggerContext, at_end: bool, closes: bool) {
        let is_over = self.plan.expiry(context.window.end) <= context.watermark;
        let trigger = self.entries.trigger_mut(id);
        let finished = closes || self.trigger.on_fire(trigger, context) || is_over;
        let has_on_time_pane = self.trigger.has_on_time_pane();
        let entry = self.entries.get_mut(id);
        let is_early = context.watermark < entry.window.end;
        let timing = match entry.nonspeculative_index {
            _ if is_early => Timing::Early,
            0 if at_end => Timing::OnTime,
            _ => Timing::Late,
        };
        // A window that was merged may be early again.
        let is_speculative = is_early && entry.nonspeculative_index == 0;
        let pane = Pane {
            timing,
            index: entry.index,
            nonspeculative_index: match is_speculative {
                true => -1,
                false => entry.nonspeculative_index,
            },
            is_first: entry.index == 0,
            is_last: finished,
        };
        entry.index += 1;
        entry.nonspeculative_index += i64::from(!is_speculative);
        entry.n_pending = 0;
        entry.is_finished |= finished;
        let last = entry.window.max_timestamp();
        let held = entry.hold;
        let mark = Mark {
            window: entry.window,
            event_time: if held == NEVER { last } else { held },
            pane,
            diff: 1,
        };
        // Until the end a pane is still to come, which may be without rows of its own.
        if finished || !(is_early && has_on_time_pane) {
            entry.hold = NEVER;
        }
        let (key, place, hold) = (entry.key as usize, entry.place, entry.hold);
        self.note_hold(held, hold);
        self.take_back(id);
        self.firings.push((key, place, mark));
        let is_forgotten = finished || self.plan.windowing.accumulation == Accumulation::Discarding;
        if self.plan.retracts() && !finished {
            let fired = Fired {
                window: mark.window,
                place,
                event_time: mark.event_time,
                pane,
            };
            self.entries.fired.entry(id).or_default().push(fired);
        }
        if is_forgotten {
            self.chunks.release(place);
            self.entries.get_mut(id).place = Place::NONE;
        }
    }

    /// Notes down that what has left of an entry is taken back.
    fn take_back(&mut self, id: u32) {
        let entry = self.entries.get(id);
        let (key, current) = (entry.key as usize, entry.place);
        for fired in self.entries.fired.remove(&id).into_iter().flatten() {
            let mark = Mark {
                window: fired.window,
                event_time: fired.event_time,
                pane: fired.pane,
                diff: -1,
            };
            self.firings.push((key, fired.place, mark));
            if fired.place != current {
                self.chunks.release(fired.place);
            }
        }
    }

    /// Says that the state of an entry is written anew, unless it has left and may be taken back.
    fn release_state(&mut self, id: u32) {
        let place = self.entries.get(id).place;
        let fired = self.entries.fired.get(&id);
        if fired.is_none_or(|fired| fired.iter().all(|f| f.place != place)) {
            self.chunks.release(place);
        }
    }

    /// Sees to it that an entry is looked at when event time next matters to it.
    fn schedule(&mut self, id: u32, now: Now) {
        let entry = self.entries.get_mut(id);
        let end = entry.window.end;
        entry.is_past_end = end <= now.watermark;
        self.schedule_next(id);
    }

    fn schedule_next(&mut self, id: u32) {
        let plan = Arc::clone(&self.plan);
        let entry = self.entries.get_mut(id);
        let next = match entry.is_past_end {
            false => entry.window.end,
            true => plan.expiry(entry.window.end),
        };
        if next < entry.timer {
            entry.timer = next;
            self.timers.entry(next).or_default().push(id);
        } else if entry.timer == NEVER {
            // At the end of input all are looked at.
            self.timers.entry(NEVER).or_default().push(id);
        }
    }

    fn schedule_wake(&mut self, id: u32, context: &TriggerContext) {
        if !self.uses_clock || self.entries.get(id).is_finished {
            return;
        }
        let trigger = self.entries.trigger(id);
        let wake = self.trigger.next_processing_time(trigger, context);
        let entry = self.entries.get_mut(id);
        let was = std::mem::replace(&mut entry.wake, wake.unwrap_or(NEVER));
        if let Some(wake) = wake.filter(|wake| *wake != was) {
            self.wakes.push(Reverse((wake, id)));
        }
    }

    /// Drops what stands first among those to be woken and need not be any more.
    fn forget_wakes(&mut self) {
        while let Some(&Reverse((time, id))) = self.wakes.peek() {
            let entry = self.entries.get(id);
            if entry.is_alive && !entry.is_finished && entry.wake == time {
                return;
            }
            self.wakes.pop();
        }
    }

    /// When [`Settled::wake`] has something to do.
    pub(super) fn wakes_at(&self) -> Option<i64> {
        self.wakes.peek().map(|Reverse((time, _))| *time)
    }

    /// Asks the triggers whose time on the clock has come.
    pub(super) fn wake(&mut self, now: Now) {
        while let Some(&Reverse((time, id))) = self.wakes.peek()
            && time <= now.processing_time
        {
            self.wakes.pop();
            let entry = self.entries.get_mut(id);
            if !entry.is_alive || entry.wake != time || entry.is_finished {
                continue;
            }
            entry.wake = NEVER;
            let context = self.context(id, now);
            if self.trigger.should_fire(self.entries.trigger(id), &context) {
                self.fire(id, &context, false, false);
            }
            self.schedule_wake(id, &context);
        }
    }

    /// Lets everything happen that event time brings until `now.watermark`, in its order.
    pub(super) fn advance(&mut self, now: Now) {
        while let Some(timers) = self.timers.first_entry()
            && *timers.key() <= now.watermark
        {
            let (time, ids) = timers.remove_entry();
            for id in ids {
                if self.entries.get(id).is_alive && self.entries.get(id).timer == time {
                    self.entries.get_mut(id).timer = NEVER;
                    self.look_at(id, time, now);
                }
            }
        }
    }

    fn look_at(&mut self, id: u32, time: i64, now: Now) {
        let now = Now {
            watermark: time,
            ..now
        };
        let end = self.entries.get(id).window.end;
        let context = self.context(id, now);
        if !self.entries.get(id).is_past_end && end <= time {
            let before = TriggerContext {
                watermark: end - 1,
                ..context
            };
            let trigger = self.entries.trigger(id);
            let awaits = self.trigger.next_watermark(trigger, &before).is_some();
            let fires = awaits && self.trigger.should_fire(trigger, &context);
            self.entries.get_mut(id).is_past_end = true;
            if fires && !self.entries.get(id).is_finished {
                self.fire(id, &context, true, false);
                self.schedule_wake(id, &context);
            }
        }
        if self.plan.expiry(end) > time {
            self.schedule_next(id);
            return;
        }
        let entry = self.entries.get(id);
        let says_more = entry.n_pending > 0 || !self.plan.closes_silently();
        if says_more && !entry.is_finished {
            self.fire(id, &context, end == time, true);
        }
        self.forget(id);
    }

    /// Forgets an entry. What has left of it stands.
    fn forget(&mut self, id: u32) {
        self.release_state(id);
        for fired in self.entries.fired.remove(&id).into_iter().flatten() {
            self.chunks.release(fired.place);
        }
        let hold = self.entries.get(id).hold;
        self.note_hold(hold, NEVER);
        self.entries.remove(id);
    }

    /// The results of what has fired, in its order.
    pub(super) fn take_results(&mut self) -> Result<Vec<RecordBatch>> {
        let firings = std::mem::take(&mut self.firings);
        let mut results = Vec::with_capacity(firings.len().div_ceil(BATCH_ROWS));
        for firings in firings.chunks(BATCH_ROWS) {
            results.push(self.results_of(firings)?);
        }
        self.tidy()?;
        Ok(results)
    }

    fn results_of(&self, firings: &[(usize, Place, Mark)]) -> Result<RecordBatch> {
        let keys: Vec<usize> = firings.iter().map(|(key, _, _)| *key).collect();
        let mut columns = self.entries.key_columns(&keys)?;
        let there = firings.iter().enumerate();
        let there = there.filter(|(_, (_, place, _))| !place.is_none());
        let (groups, places): (Vec<usize>, Vec<Place>) =
            there.map(|(n, (_, place, _))| (n, *place)).unzip();
        let mut states = States::new(&self.plan.planned)?;
        if places.len() < firings.len() {
            states.make_room(firings.len())?;
        }
        states.merge(&self.chunks.gather(&places)?, &groups, firings.len())?;
        let key_of = |group: usize| self.entries.key_columns(&keys[group..=group]).ok();
        columns.extend(states.take_values(key_of)?);
        let rows = self.plan.planned.project(columns)?;
        let marks: Vec<Mark> = firings.iter().map(|(_, _, mark)| *mark).collect();
        self.plan.results(&rows, &marks)
    }

    /// Copies states together and forgets keys, where it is time to.
    fn tidy(&mut self) -> Result<()> {
        self.forget_wakes();
        self.entries.forget_keys()?;
        if !self.chunks.is_wasteful() {
            return Ok(());
        }
        let fired = self.entries.fired.values().flatten();
        let fired: Vec<Place> = fired.map(|fired| fired.place).collect();
        let places = self.entries.all().map(|(_, entry)| entry.place);
        let places: Vec<Place> = places.chain(fired).filter(|p| !p.is_none()).collect();
        let new = self.chunks.compact(&places)?;
        let mut next = 0;
        let mut moved = |place: &mut Place| {
            if !place.is_none() {
                *place = new.get(next);
                next += 1;
            }
        };
        for entry in self.entries.all_mut() {
            moved(&mut entry.place);
        }
        for fired in self.entries.fired.values_mut().flatten() {
            moved(&mut fired.place);
        }
        Ok(())
    }

    /// Takes over a window that has just fired for the first time, at its end, with these keys and states.
    pub(super) fn settle(
        &mut self,
        window: Window,
        pane: Pane,
        rows: &RecordBatch,
        results: &RecordBatch,
        now: Now,
    ) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let (keys, states) = rows.columns().split_at(plan.n_keys);
        let mut numbers = std::mem::take(&mut self.numbers);
        self.entries.number(keys, rows.num_rows(), &mut numbers)?;
        let keeps = !pane.is_last && plan.windowing.accumulation != Accumulation::Discarding;
        let places = keeps.then(|| self.chunks.append(states.to_vec()));
        let times = plan.time_of_results(results);
        let counts = plan.counts(states);
        for (row, &key) in numbers.iter().enumerate() {
            let (id, _) = self.entries.find_or_add(key, window);
            let place = places.map_or(Place::NONE, |places| places.get(row));
            let n_rows = counts.map_or(1, |counts| counts[row]);
            let context = TriggerContext {
                window,
                watermark: window.end,
                processing_time: now.processing_time,
            };
            let trigger = self.entries.trigger_mut(id);
            let n_rows = u64::try_from(n_rows).unwrap_or(0);
            self.trigger.on_elements(trigger, n_rows, &context);
            self.trigger.on_fire(trigger, &context);
            let entry = self.entries.get_mut(id);
            entry.place = place;
            entry.index = pane.index + 1;
            entry.nonspeculative_index = pane.nonspeculative_index + 1;
            entry.is_finished = pane.is_last;
            entry.is_past_end = true;
            self.schedule_next(id);
            self.schedule_wake(id, &context);
            if plan.retracts() && !pane.is_last {
                let time = times.filter(|times| times.is_valid(row));
                let event_time = time.map_or(window.max_timestamp(), |times| times.value(row));
                let fired = Fired {
                    window,
                    place,
                    event_time,
                    pane,
                };
                self.entries.fired.insert(id, vec![fired]);
            }
        }
        self.numbers = numbers;
        Ok(())
    }

    /// The pane of a window that fires for the first time, at its end, and not before.
    pub(super) fn pane_on_time(&self, window: Window) -> Pane {
        let context = TriggerContext {
            window,
            watermark: window.end,
            processing_time: 0,
        };
        let mut state = self.trigger.new_state();
        self.trigger.on_elements(&mut state, 1, &context);
        let finished = self.trigger.on_fire(&mut state, &context);
        Pane {
            timing: Timing::OnTime,
            index: 0,
            nonspeculative_index: 0,
            is_first: true,
            is_last: finished || self.plan.expiry(window.end) <= window.end,
        }
    }
}

/// The entries of a batch.
#[derive(Debug, Default)]
struct Touched {
    /// In the order of first sight.
    ids: Vec<u32>,
    /// States of windows that are no more, with the entry which they became a part of.
    absorbed: Vec<(u32, Place)>,
    /// Rows that had not left and never will, because their window has become a part of one that has finished.
    n_lost: u64,
}

/// True if these are all rows, once and in order.
fn is_all(rows: &[u32], n_rows: usize) -> bool {
    rows.len() == n_rows && (0u32..).zip(rows).all(|(n, row)| n == *row)
}

fn uses_clock(trigger: &Trigger) -> bool {
    let inner = |inner: &Option<Box<Trigger>>| inner.as_deref().is_some_and(uses_clock);
    match trigger {
        Trigger::AfterProcessingTime { .. } => true,
        Trigger::AfterWatermark { early, late } => inner(early) || inner(late),
        Trigger::Repeatedly(trigger) => uses_clock(trigger),
        Trigger::AfterAny(all) | Trigger::AfterAll(all) | Trigger::AfterEach(all) => {
            all.iter().any(uses_clock)
        }
        Trigger::OrFinally(trigger, end) => uses_clock(trigger) || uses_clock(end),
        Trigger::Default | Trigger::AfterCount(_) | Trigger::Never => false,
    }
}
