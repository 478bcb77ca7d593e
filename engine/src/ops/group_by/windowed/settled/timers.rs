//! What is done when a time has come, in event time and on the clock.

use std::cmp::Reverse;

use super::entries::NEVER;
use super::{Now, Settled};
use crate::windowing::{Trigger, TriggerContext};

impl Settled {
    /// Sees to it that an entry is looked at when event time next matters to it.
    pub(super) fn schedule(&mut self, id: u32, now: Now) {
        let entry = self.entries.get_mut(id);
        let end = entry.window.end;
        entry.is_past_end = end <= now.watermark;
        self.schedule_next(id);
    }

    pub(super) fn schedule_next(&mut self, id: u32) {
        let entry = self.entries.get_mut(id);
        let next = match entry.is_past_end {
            false => entry.window.end,
            true => self.plan.expiry(entry.window.end),
        };
        if next < entry.timer {
            entry.timer = next;
            self.look_at_in_time(next, id);
        } else if entry.timer == NEVER {
            // At the end of input all are looked at.
            self.look_at_in_time(NEVER, id);
        }
    }

    /// Entries of one time are looked at in the order in which they were put here.
    pub(super) fn look_at_in_time(&mut self, time: i64, id: u32) {
        self.timers.push(Reverse((time, self.n_timers, id)));
        self.n_timers += 1;
    }

    pub(super) fn schedule_wake(&mut self, id: u32, context: &TriggerContext) {
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
    pub(super) fn forget_wakes(&mut self) {
        while let Some(&Reverse((time, id))) = self.wakes.peek() {
            let entry = self.entries.get(id);
            if entry.is_alive && !entry.is_finished && entry.wake == time {
                return;
            }
            self.wakes.pop();
        }
    }

    /// When [`Settled::wake`] has something to do.
    pub(in crate::ops::group_by::windowed) fn wakes_at(&self) -> Option<i64> {
        self.wakes.peek().map(|Reverse((time, _))| *time)
    }

    /// Asks the triggers whose time on the clock has come.
    pub(in crate::ops::group_by::windowed) fn wake(&mut self, now: Now) {
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
    pub(in crate::ops::group_by::windowed) fn advance(&mut self, now: Now) {
        // What is put here on the way for a time that has come is looked at before what is of later times.
        while let Some(&Reverse((time, _, id))) = self.timers.peek()
            && time <= now.watermark
        {
            self.timers.pop();
            let entry = self.entries.get_mut(id);
            if entry.is_alive && entry.timer == time {
                entry.timer = NEVER;
                self.look_at(id, time, now);
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
    pub(super) fn forget(&mut self, id: u32) {
        self.release_state(id);
        for fired in self.entries.fired.remove(&id).into_iter().flatten() {
            self.chunks.release(fired.place);
        }
        let hold = self.entries.get(id).hold;
        self.note_hold(hold, NEVER);
        self.entries.remove(id);
    }
}

/// True if the trigger may want to hear of the time that passes.
pub(super) fn uses_clock(trigger: &Trigger) -> bool {
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
