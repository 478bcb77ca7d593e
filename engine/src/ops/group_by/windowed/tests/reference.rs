//! A plain implementation: all rows of each key and window in a list, looked through at every step.
//!
//! It asks the same triggers, which have tests of their own, and shares nothing else with the operators.

use std::collections::BTreeMap;

use crate::windowing::{
    Accumulation, Closing, CompiledTrigger, TimestampCombiner, TriggerContext, Window, Windowing,
};

/// A row: key, event time, value.
pub(super) type Row = (Option<String>, i64, Option<i64>);

/// What leaves of the rows of a key and window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// How many values there are, and their sum.
    Sums,
    /// The key, unless it has left.
    Once,
    /// So many of the least values, null last.
    Least(usize),
}

pub(super) struct Reference {
    shown: Shown,
    windowing: Windowing,
    trigger: CompiledTrigger,
    watermark: i64,
    clock: i64,
    open: BTreeMap<(Option<String>, Window), Open>,
    pub(super) late: u64,
    in_none: u64,
}

struct Open {
    rows: Vec<Option<i64>>,
    n_pending: u64,
    times: Vec<i64>,
    n_fired: i64,
    n_not_early: i64,
    finished: bool,
    asked_at_end: bool,
    wake: Option<i64>,
    trigger: Vec<i64>,
    /// The lines that have left and stand, each with the window that it named.
    fired: Vec<(Window, String)>,
}

impl Reference {
    pub(super) fn new(windowing: &Windowing, shown: Shown) -> Self {
        Self {
            shown,
            trigger: CompiledTrigger::new(&windowing.trigger),
            windowing: windowing.clone(),
            watermark: i64::MIN,
            clock: 0,
            open: BTreeMap::new(),
            late: 0,
            in_none: 0,
        }
    }

    fn expiry(&self, window: Window) -> i64 {
        window
            .end
            .saturating_add(self.windowing.allowed_lateness_ms)
    }

    fn context(&self, window: Window, watermark: i64) -> TriggerContext {
        TriggerContext {
            window,
            watermark,
            processing_time: self.clock,
        }
    }

    pub(super) fn rows(&mut self, rows: &[Row]) -> Vec<String> {
        let mut windows: Vec<Vec<Window>> = Vec::new();
        for (_, time, _) in rows {
            let mut of = Vec::new();
            self.windowing.window_fn.assign(*time, &mut of);
            // Not late, but in no window at all.
            self.in_none += u64::from(of.is_empty());
            of.retain(|window| self.expiry(*window) > self.watermark);
            windows.push(of);
        }
        if self.windowing.window_fn.is_merging() {
            self.merge(rows, &mut windows);
        }
        let mut touched: BTreeMap<(Option<String>, Window), Vec<&Row>> = BTreeMap::new();
        for (row, of) in rows.iter().zip(&windows) {
            let mut is_taken = false;
            for window in of {
                let id = (row.0.clone(), *window);
                if self.open.get(&id).is_none_or(|open| !open.finished) {
                    touched.entry(id).or_default().push(row);
                    is_taken = true;
                }
            }
            self.late += u64::from(!is_taken);
        }
        self.late -= std::mem::take(&mut self.in_none);
        let mut made = Vec::new();
        for (id, rows) in touched {
            let context = self.context(id.1, self.watermark);
            let combiner = self.windowing.timestamp_combiner;
            let open = self.open.entry(id.clone()).or_insert_with(|| Open {
                rows: Vec::new(),
                n_pending: 0,
                times: Vec::new(),
                n_fired: 0,
                n_not_early: 0,
                finished: false,
                asked_at_end: id.1.end <= self.watermark,
                wake: None,
                trigger: self.trigger.new_state(),
                fired: Vec::new(),
            });
            open.rows.extend(rows.iter().map(|(_, _, x)| *x));
            open.n_pending += rows.len() as u64;
            if combiner != TimestampCombiner::EndOfWindow {
                let times = rows.iter().map(|(_, time, _)| *time);
                open.times
                    .extend(times.filter(|time| *time >= self.watermark));
            }
            let n_rows = rows.len() as u64;
            self.trigger
                .on_elements(&mut open.trigger, n_rows, &context);
            if self.trigger.should_fire(&open.trigger, &context) {
                self.fire(&id, self.watermark, false, false, &mut made);
            }
            self.set_wake(&id);
        }
        made.sort();
        made
    }

    fn merge(&mut self, rows: &[Row], windows: &mut [Vec<Window>]) {
        let keys: std::collections::BTreeSet<_> = rows.iter().map(|row| row.0.clone()).collect();
        for key in keys {
            let there = self.open.keys().filter(|(of, _)| *of == key);
            let mut all: Vec<Window> = there.map(|(_, window)| *window).collect();
            let came = rows
                .iter()
                .zip(windows.iter())
                .filter(|(row, _)| row.0 == key);
            all.extend(came.flat_map(|(_, of)| of));
            all.sort();
            all.dedup();
            for (from, into) in self.windowing.window_fn.merge(&all) {
                for (row, of) in rows.iter().zip(windows.iter_mut()) {
                    if row.0 == key {
                        for window in of.iter_mut().filter(|w| from.contains(w)) {
                            *window = into;
                        }
                    }
                }
                self.merge_open(&key, &from, into);
            }
        }
    }

    fn merge_open(&mut self, key: &Option<String>, from: &[Window], into: Window) {
        let same = self.open.contains_key(&(key.clone(), into));
        let mut parts = Vec::new();
        for window in from {
            parts.extend(
                self.open
                    .remove(&(key.clone(), *window))
                    .map(|o| (*window, o)),
            );
        }
        if parts.is_empty() {
            return;
        }
        // The one whose place in the order of firings is kept, where there is one.
        if let Some(at) = parts.iter().position(|(window, _)| *window == into) {
            parts.swap(0, at);
        }
        let context = self.context(into, self.watermark);
        let mut parts = parts.into_iter().map(|(_, open)| open);
        let mut merged = parts.next().unwrap();
        if !same {
            (merged.n_fired, merged.n_not_early) = (0, 0);
        }
        for part in parts {
            merged.rows.extend(part.rows);
            merged.times.extend(part.times);
            merged.n_pending += part.n_pending;
            merged.finished |= part.finished;
            merged.fired.extend(part.fired);
            self.trigger
                .on_merge(&mut merged.trigger, [part.trigger.as_slice()], &context);
        }
        merged.asked_at_end = into.end <= self.watermark;
        if merged.finished {
            self.late += std::mem::take(&mut merged.n_pending);
        }
        let id = (key.clone(), into);
        self.open.insert(id.clone(), merged);
        self.set_wake(&id);
    }

    fn set_wake(&mut self, id: &(Option<String>, Window)) {
        let context = self.context(id.1, self.watermark);
        let open = self.open.get_mut(id).unwrap();
        if !open.finished {
            open.wake = self.trigger.next_processing_time(&open.trigger, &context);
        }
    }

    fn fire(
        &mut self,
        id: &(Option<String>, Window),
        watermark: i64,
        at_end: bool,
        closes: bool,
        made: &mut Vec<String>,
    ) {
        let context = self.context(id.1, watermark);
        let is_over = self.expiry(id.1) <= watermark;
        let open = self.open.get_mut(id).unwrap();
        let finished = closes || self.trigger.on_fire(&mut open.trigger, &context) || is_over;
        let window = id.1;
        let is_early = watermark < window.end;
        let timing = match open.n_not_early {
            _ if is_early => "early",
            0 if at_end => "on_time",
            _ => "late",
        };
        let n_not_early = match is_early && open.n_not_early == 0 {
            true => -1,
            false => {
                open.n_not_early += 1;
                open.n_not_early - 1
            }
        };
        let time = match self.windowing.timestamp_combiner {
            TimestampCombiner::EndOfWindow => None,
            TimestampCombiner::Earliest => open.times.iter().min(),
            TimestampCombiner::Latest => open.times.iter().max(),
        };
        let time = *time.unwrap_or(&(window.end - 1));
        if finished || !is_early || !self.trigger.has_on_time_pane() {
            open.times.clear();
        }
        let mut of_window = match window {
            Window::GLOBAL => format!("global at {time}"),
            Window { start, end } => format!("[{start}, {end}) at {time}"),
        };
        of_window = of_window.replace(&format!("at {}", crate::event_time::MAX_TIME), "at the end");
        let once = self.windowing.trigger == crate::windowing::Trigger::Default
            && self.windowing.allowed_lateness_ms == 0;
        if !once {
            of_window += &format!(" {timing} {}/{n_not_early}", open.n_fired);
            of_window += if open.n_fired == 0 { " first" } else { "" };
            of_window += if finished { " last" } else { "" };
        }
        let retracts = self.windowing.accumulation == Accumulation::AccumulatingAndRetracting;
        let is_said = self.shown == Shown::Once
            && match retracts {
                true => open.fired.len() == 1 && open.fired[0].0 == window,
                false => open.n_fired > 0,
            };
        let key = id.0.as_deref().unwrap_or("null");
        let lines = lines_of(self.shown, &open.rows);
        let lines = lines.iter().map(|line| format!("{key}{line} {of_window}"));
        let lines: Vec<String> = lines.filter(|_| !is_said).collect();
        open.n_fired += 1;
        open.n_pending = 0;
        open.finished |= finished;
        match self.windowing.accumulation {
            Accumulation::AccumulatingAndRetracting if is_said => {}
            Accumulation::AccumulatingAndRetracting => {
                made.extend(open.fired.drain(..).map(|(_, fired)| format!("{fired} -1")));
                made.extend(lines.iter().map(|line| format!("{line} 1")));
                open.fired
                    .extend(lines.into_iter().map(|line| (window, line)));
            }
            Accumulation::Accumulating => made.extend(lines),
            Accumulation::Discarding => {
                open.rows.clear();
                made.extend(lines);
            }
        }
        if finished {
            open.rows.clear();
            open.fired.clear();
        }
    }

    pub(super) fn watermark(&mut self, watermark: i64) -> Vec<String> {
        let mut made = Vec::new();
        let ids: Vec<_> = self.open.keys().cloned().collect();
        for id in ids {
            let end = id.1.end;
            if end <= watermark && !self.open[&id].asked_at_end {
                let before = self.context(id.1, end - 1);
                let at = self.context(id.1, end);
                let open = self.open.get_mut(&id).unwrap();
                open.asked_at_end = true;
                let awaits = self
                    .trigger
                    .next_watermark(&open.trigger, &before)
                    .is_some();
                if awaits && !open.finished && self.trigger.should_fire(&open.trigger, &at) {
                    self.fire(&id, end, true, false, &mut made);
                    self.set_wake(&id);
                }
            }
            let expiry = self.expiry(id.1);
            if expiry <= watermark {
                let open = &self.open[&id];
                let more = open.n_pending > 0 || self.windowing.closing == Closing::FireAlways;
                if more && !open.finished {
                    self.fire(&id, expiry, expiry == end, true, &mut made);
                }
                self.open.remove(&id);
            }
        }
        self.watermark = watermark;
        made.sort();
        made
    }

    pub(super) fn clock(&mut self, clock: i64) -> Vec<String> {
        self.clock = clock;
        let mut made = Vec::new();
        let ids: Vec<_> = self.open.keys().cloned().collect();
        for id in ids {
            let context = self.context(id.1, self.watermark);
            let open = self.open.get_mut(&id).unwrap();
            if open.finished || open.wake.is_none_or(|wake| wake > clock) {
                continue;
            }
            open.wake = None;
            if self.trigger.should_fire(&open.trigger, &context) {
                self.fire(&id, self.watermark, false, false, &mut made);
            }
            self.set_wake(&id);
        }
        made.sort();
        made
    }
}

/// The lines of these rows, without key and window.
fn lines_of(shown: Shown, rows: &[Option<i64>]) -> Vec<String> {
    match shown {
        Shown::Sums => {
            let there: Vec<i64> = rows.iter().flatten().copied().collect();
            let sum = match there.is_empty() {
                true => "null".to_owned(),
                false => there.iter().sum::<i64>().to_string(),
            };
            vec![format!(" {} {sum}", there.len())]
        }
        Shown::Once => vec![String::new()],
        Shown::Least(n_rows) => {
            let mut rows = rows.to_vec();
            rows.sort_by_key(|x| (x.is_none(), *x));
            let text = |x: Option<i64>| x.map_or(" null".to_owned(), |x| format!(" {x}"));
            rows.into_iter().take(n_rows).map(text).collect()
        }
    }
}
