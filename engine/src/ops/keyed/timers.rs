//! Timers: calls at an instant of event time or of processing time.
//!
//! ```text
//! set ─▶ timers of the scope, by name and tag
//!    ├─▶ all timers in the order of their times: which is due next
//!    └─▶ holds: what the watermark behind may not pass before they have fired
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// Which time a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeDomain {
    /// The watermark: all rows that are earlier have come.
    EventTime,
    /// The clock of the run.
    ProcessingTime,
}

/// A timer to be set for each key and window, or a family of them, which are told apart by a tag.
///
/// ```
/// use mainstem_engine::ops::keyed::Timer;
/// const EXPIRY: Timer = Timer::event_time("expiry");
/// const RETRY: Timer = Timer::processing_time("retry");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    pub(super) name: &'static str,
    pub(super) domain: TimeDomain,
}

impl Timer {
    /// A timer that fires when the watermark reaches its time.
    pub const fn event_time(name: &'static str) -> Self {
        Self {
            name,
            domain: TimeDomain::EventTime,
        }
    }

    /// A timer that fires when the clock of the run reaches its time.
    pub const fn processing_time(name: &'static str) -> Self {
        Self {
            name,
            domain: TimeDomain::ProcessingTime,
        }
    }

    /// The name, the same in saved state.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Which time it goes by.
    pub fn domain(&self) -> TimeDomain {
        self.domain
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer({:?}, {:?})", self.name, self.domain)
    }
}

/// A timer that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetTimer {
    /// The place of the timer among those declared.
    pub(super) timer: usize,
    pub(super) tag: Box<str>,
    pub(super) domain: TimeDomain,
    pub(super) time: i64,
    /// The event time of what it will emit.
    pub(super) output_time: i64,
    /// How often it has set itself again since the input ended.
    pub(super) n_after_end: u32,
}

impl SetTimer {
    fn id(&self) -> (usize, &str) {
        (self.timer, &self.tag)
    }

    /// The watermark behind must not pass this before the timer has fired. One whose output is not earlier
    /// than itself holds nothing: the watermark stands before it anyway.
    fn hold(&self) -> Option<i64> {
        let holds = self.domain == TimeDomain::ProcessingTime || self.output_time < self.time;
        holds.then_some(self.output_time)
    }

    fn due(&self, scope: usize) -> Due {
        Due {
            time: self.time,
            timer: self.timer,
            scope,
            tag: self.tag.clone(),
        }
    }
}

/// When a timer is due: first by time, then by the place of the timer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    time: i64,
    timer: usize,
    scope: usize,
    tag: Box<str>,
}

/// The timers of all scopes of a worker.
#[derive(Default)]
pub(super) struct Timers {
    /// By scope, in the order of timer and tag.
    set: Vec<Vec<SetTimer>>,
    event_time: BTreeSet<Due>,
    processing_time: BTreeSet<Due>,
    holds: BTreeMap<i64, usize>,
    tag_bytes: usize,
}

impl Timers {
    pub(super) fn make_room(&mut self, n_scopes: usize) {
        if self.set.len() < n_scopes {
            self.set.resize_with(n_scopes, Vec::new);
        }
    }

    /// The timers of a scope.
    pub(super) fn of(&self, scope: usize) -> &[SetTimer] {
        &self.set[scope]
    }

    /// The timer of this place and tag, if it is set.
    pub(super) fn get(&self, scope: usize, timer: usize, tag: &str) -> Option<&SetTimer> {
        let place = self.place(scope, timer, tag).ok()?;
        Some(&self.set[scope][place])
    }

    fn place(&self, scope: usize, timer: usize, tag: &str) -> Result<usize, usize> {
        self.set[scope].binary_search_by(|t| t.id().cmp(&(timer, tag)))
    }

    /// Sets a timer, or moves it.
    pub(super) fn set(&mut self, scope: usize, timer: SetTimer) {
        match self.place(scope, timer.timer, &timer.tag) {
            Ok(place) if self.set[scope][place] == timer => {}
            Ok(place) => {
                let old = std::mem::replace(&mut self.set[scope][place], timer.clone());
                self.leave(scope, &old);
                self.enter(scope, &timer);
            }
            Err(place) => {
                self.enter(scope, &timer);
                self.set[scope].insert(place, timer);
            }
        }
    }

    /// Takes a timer back; `None` if it is not set.
    pub(super) fn clear(&mut self, scope: usize, timer: usize, tag: &str) -> Option<SetTimer> {
        let place = self.place(scope, timer, tag).ok()?;
        let old = self.set[scope].remove(place);
        self.leave(scope, &old);
        Some(old)
    }

    /// Takes all timers of a scope back.
    pub(super) fn clear_scope(&mut self, scope: usize) {
        for old in std::mem::take(&mut self.set[scope]) {
            self.leave(scope, &old);
        }
    }

    /// Takes the earliest timer of this domain that is due at `time`, with its scope.
    pub(super) fn take_due(&mut self, domain: TimeDomain, time: i64) -> Option<(usize, SetTimer)> {
        let first = self
            .queue(domain)
            .first()
            .filter(|first| first.time <= time)?;
        let Due {
            timer, scope, tag, ..
        } = first.clone();
        self.clear(scope, timer, &tag).map(|timer| (scope, timer))
    }

    /// The time of the earliest timer of this domain.
    pub(super) fn next(&self, domain: TimeDomain) -> Option<i64> {
        let queue = match domain {
            TimeDomain::EventTime => &self.event_time,
            TimeDomain::ProcessingTime => &self.processing_time,
        };
        queue.first().map(|first| first.time)
    }

    /// What the watermark behind may not pass.
    pub(super) fn hold(&self) -> Option<i64> {
        self.holds.keys().next().copied()
    }

    /// Keeps these scopes, in this order.
    pub(super) fn keep(&mut self, scopes: &[usize]) {
        let mut old = std::mem::take(self);
        self.set = scopes
            .iter()
            .map(|scope| std::mem::take(&mut old.set[*scope]))
            .collect();
        let set = std::mem::take(&mut self.set);
        for (scope, timers) in set.iter().enumerate() {
            timers.iter().for_each(|timer| self.enter(scope, timer));
        }
        self.set = set;
    }

    pub(super) fn n_bytes(&self) -> usize {
        let n_set = self.event_time.len() + self.processing_time.len();
        let each = size_of::<SetTimer>() + 2 * size_of::<Due>();
        self.set.capacity() * size_of::<Vec<SetTimer>>() + n_set * each + 2 * self.tag_bytes
    }

    fn queue(&mut self, domain: TimeDomain) -> &mut BTreeSet<Due> {
        match domain {
            TimeDomain::EventTime => &mut self.event_time,
            TimeDomain::ProcessingTime => &mut self.processing_time,
        }
    }

    fn enter(&mut self, scope: usize, timer: &SetTimer) {
        self.queue(timer.domain).insert(timer.due(scope));
        self.tag_bytes += timer.tag.len();
        if let Some(hold) = timer.hold() {
            *self.holds.entry(hold).or_default() += 1;
        }
    }

    fn leave(&mut self, scope: usize, timer: &SetTimer) {
        self.queue(timer.domain).remove(&timer.due(scope));
        self.tag_bytes -= timer.tag.len();
        if let Some(hold) = timer.hold()
            && let Some(n) = self.holds.get_mut(&hold)
        {
            *n -= 1;
            if *n == 0 {
                self.holds.remove(&hold);
            }
        }
    }
}
