//! Panes that leave, and those that are taken back.

use arrow::record_batch::RecordBatch;

use super::Settled;
use super::chunks::Place;
use super::entries::{Fired, NEVER};
use crate::batch::BATCH_ROWS;
use crate::error::Result;
use crate::ops::group_by::table::States;
use crate::ops::group_by::windowed::pane::{Pane, Timing};
use crate::ops::group_by::windowed::results::Mark;
use crate::windowing::{Accumulation, TriggerContext, Window};

impl Settled {
    /// Lets a pane of an entry go. `at_end` says that the end of the window made it fire, and nothing else.
    pub(super) fn fire(&mut self, id: u32, context: &TriggerContext, at_end: bool, closes: bool) {
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
        let is_said = self.plan.says_all_at_once && self.is_said(id, &mark);
        if is_said && finished {
            self.forget_fired(id);
        }
        if !is_said {
            self.take_back(id);
            self.firings.push((key, place, mark));
        }
        let is_forgotten = finished || self.plan.windowing.accumulation == Accumulation::Discarding;
        if self.plan.retracts() && !finished && !is_said {
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

    /// True if this pane would say what has left already.
    fn is_said(&self, id: u32, mark: &Mark) -> bool {
        match self.entries.fired.get(&id) {
            // Of windows that have merged, each said that a row was in it alone.
            Some(fired) => matches!(fired.as_slice(), [one] if one.window == mark.window),
            None => !mark.pane.is_first,
        }
    }

    /// Forgets what has left of an entry, which stands.
    pub(super) fn forget_fired(&mut self, id: u32) {
        let current = self.entries.get(id).place;
        for fired in self.entries.fired.remove(&id).into_iter().flatten() {
            if fired.place != current {
                self.chunks.release(fired.place);
            }
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

    /// The results of what has fired, in its order.
    pub(in crate::ops::group_by::windowed) fn take_results(&mut self) -> Result<Vec<RecordBatch>> {
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

    /// The pane of a window that fires for the first time, at its end, and not before.
    pub(in crate::ops::group_by::windowed) fn pane_on_time(&self, window: Window) -> Pane {
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
