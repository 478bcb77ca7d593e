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
mod firing;
mod merging;
mod snapshot;
mod timers;

pub(super) use snapshot::{FIRED, WINDOWS, windows_of};

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::record_batch::RecordBatch;

use self::chunks::{Chunks, Place};
use self::entries::{Entries, Fired, NEVER};
use self::timers::uses_clock;
use super::pane::Pane;
use super::plan::WindowedPlan;
use super::results::Mark;
use crate::error::Result;
use crate::ops::group_by::table::States;
use crate::windowing::{Accumulation, CompiledTrigger, TimestampCombiner, TriggerContext, Window};

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
    timers: BinaryHeap<Reverse<(i64, u64, u32)>>,
    /// How many timers there have been, so that each has a number.
    n_timers: u64,
    /// And when the clock has.
    wakes: BinaryHeap<Reverse<(i64, u32)>>,
    /// What has fired and was not evaluated yet.
    firings: Vec<(usize, Place, Mark)>,
    /// The place of each entry among those of the batch at hand.
    slots: Vec<u32>,
    /// The event times that results to come may have, and how many entries have each.
    holds: BTreeMap<i64, usize>,
    numbers: Vec<usize>,
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
            timers: BinaryHeap::new(),
            n_timers: 0,
            wakes: BinaryHeap::new(),
            firings: Vec::new(),
            slots: Vec::new(),
            holds: BTreeMap::new(),
            numbers: Vec::new(),
            plan: Arc::clone(plan),
        })
    }

    pub(super) fn n_bytes(&self) -> usize {
        // Asked after every call, so that nothing is looked through.
        let per_entry = size_of::<u32>() + size_of::<(i64, u64, u32)>() + size_of::<(i64, u32)>();
        self.entries.n_bytes() + self.chunks.n_bytes() + self.entries.len() * per_entry
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

    /// Says that the event time which an entry may give its next result was one and is another.
    fn note_hold(&mut self, was: i64, is: i64) {
        if was == is {
            return;
        }
        if let Some(n) = self.holds.get_mut(&was) {
            *n -= 1;
            if *n == 0 {
                self.holds.remove(&was);
            }
        }
        if is != NEVER {
            *self.holds.entry(is).or_default() += 1;
        }
    }

    /// The earliest event time that a result to come may have; `i64::MAX` without any.
    pub(super) fn earliest_hold(&self) -> i64 {
        self.holds.keys().next().copied().unwrap_or(NEVER)
    }

    fn context(&self, id: u32, now: Now) -> TriggerContext {
        TriggerContext {
            window: self.entries.get(id).window,
            watermark: now.watermark,
            processing_time: now.processing_time,
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

    /// Copies states together and forgets keys, where it is time to.
    fn tidy(&mut self) -> Result<()> {
        self.forget_wakes();
        self.entries.forget_keys()?;
        if let Some(numbers) = self.entries.forget_entries() {
            let new = |id: u32| Some(numbers[id as usize]).filter(|id| *id != u32::MAX);
            let timers = std::mem::take(&mut self.timers).into_iter();
            let timers = timers.filter_map(|Reverse((at, n, id))| Some(Reverse((at, n, new(id)?))));
            self.timers = timers.collect();
            let wakes = std::mem::take(&mut self.wakes).into_iter();
            let wakes = wakes.filter_map(|Reverse((at, id))| Some(Reverse((at, new(id)?))));
            self.wakes = wakes.collect();
            self.slots = Vec::new();
        }
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
        let expiry = plan.expiry(window.end);
        let mut timed = Vec::with_capacity(numbers.len());
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
            entry.timer = expiry;
            timed.push(id);
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
        for id in timed {
            self.look_at_in_time(expiry, id);
        }
        self.numbers = numbers;
        Ok(())
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
