//! Event times to slices: the stretches of time that windows are put together from.
//!
//! ```text
//! sliding windows   |-------- w1 --------|
//!                             |-------- w2 --------|
//! slices            |--- a ---|--- b ----|--- c ---|      w1 = a + b, w2 = b + c
//! ```
//!
//! A row is aggregated once, in its slice, and a window is the sum of its slices. Where a window function
//! knows no such stretches, or merges windows, each of a row's windows is a slice.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::event_time::{Extent, extent};
use crate::windowing::{Window, WindowFn, Windowing};

/// So many rows are looked at together: they mostly lie in one slice.
const NEAR_ROWS: usize = 64;

/// A stretch of time, and the windows over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) span: Window,
    /// The end of the first of its windows to end; `i64::MAX` where no window is over it.
    pub(super) first_end: i64,
    /// The end of the last of them; `i64::MIN` where no window is over it.
    pub(super) last_end: i64,
}

impl Slice {
    pub(super) fn has_windows(self) -> bool {
        self.first_end <= self.last_end
    }
}

/// How long windows take rows in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lateness {
    allowed_ms: i64,
}

impl Lateness {
    pub(super) fn of(windowing: &Windowing) -> Self {
        Self {
            allowed_ms: windowing.allowed_lateness_ms,
        }
    }

    /// When a window with this end takes no more rows and is forgotten.
    pub(super) fn expiry(self, end: i64) -> i64 {
        end.saturating_add(self.allowed_ms)
    }

    /// True if some window over the slice still takes rows.
    pub(super) fn takes(self, slice: &Slice, watermark: i64) -> bool {
        slice.has_windows() && self.expiry(slice.last_end) > watermark
    }
}

/// When rows of a batch count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'a> {
    watermark: i64,
    /// When each takes effect, where that is not at once.
    effects: Option<&'a [i64]>,
}

impl<'a> Now<'a> {
    /// All at once.
    pub(super) fn at(watermark: i64) -> Self {
        Self {
            watermark,
            effects: None,
        }
    }

    /// Each at a time of its own, but none before the watermark.
    pub(super) fn each(watermark: i64, effects: &'a [i64]) -> Self {
        Self {
            watermark,
            effects: Some(effects),
        }
    }

    /// When this row does.
    pub(super) fn of(self, row: usize) -> i64 {
        let effect = self.effects.map_or(self.watermark, |effects| effects[row]);
        effect.max(self.watermark)
    }

    /// When the last of them does.
    pub(super) fn last(self) -> i64 {
        let extent = self.effects.and_then(extent);
        extent.map_or(self.watermark, |(_, last)| self.watermark.max(last))
    }
}

/// What becomes of the rows of a batch.
#[derive(Debug)]
pub(super) struct Fates {
    /// Some window still takes the row.
    pub(super) taken: Vec<bool>,
    /// The row is too late for all of its windows.
    pub(super) late: Vec<bool>,
}

/// The keys in windows of a batch.
#[derive(Debug)]
pub(super) struct Merged {
    /// Which of them each entry is in.
    pub(super) groups: Vec<usize>,
    /// An entry of each.
    pub(super) first: Vec<u32>,
}

/// The rows of a batch by slice.
#[derive(Debug, Default)]
pub(super) struct Sliced {
    /// In the order of first sight.
    pub(super) slices: Vec<Slice>,
    /// The slice of each row, as a place in `slices`; empty where all rows are in the first.
    pub(super) of: Vec<u32>,
    /// Which rows these are; `None` for all, each once and in order.
    pub(super) rows: Option<Vec<u32>>,
}

impl Sliced {
    /// The rows and their slices where `is_wanted` is true of the slice.
    pub(super) fn retain(&mut self, n_rows: usize, is_wanted: impl Fn(&Slice) -> bool) {
        if self.slices.iter().all(&is_wanted) {
            return;
        }
        let wanted: Vec<bool> = self.slices.iter().map(is_wanted).collect();
        self.retain_entries(n_rows, |_, slice| wanted[slice]);
    }

    /// The rows and their slices of which some window still takes the row.
    pub(super) fn retain_taken(&mut self, n_rows: usize, lateness: Lateness, now: Now<'_>) {
        let last = now.last();
        if self.slices.iter().all(|slice| lateness.takes(slice, last)) {
            return;
        }
        let slices = std::mem::take(&mut self.slices);
        self.retain_entries(n_rows, |row, slice| {
            lateness.takes(&slices[slice], now.of(row as usize))
        });
        self.slices = slices;
    }

    /// The entries of rows and slices, the latter as a place in `slices`, of which `is_wanted` is true.
    fn retain_entries(&mut self, n_rows: usize, is_wanted: impl Fn(u32, usize) -> bool) {
        let all = (0u32..).take(n_rows);
        let rows = self.rows.take().unwrap_or_else(|| all.collect());
        if self.of.is_empty() {
            self.of = vec![0; rows.len()];
        }
        let (rows, of) = rows
            .into_iter()
            .zip(&self.of)
            .filter(|(row, slice)| is_wanted(*row, **slice as usize))
            .unzip();
        self.rows = Some(rows);
        self.of = of;
    }

    /// Puts the windows that `window_fn` makes one, among those of the same key, in place of what they were.
    ///
    /// Gives the keys in windows that there are now.
    pub(super) fn merge(
        &mut self,
        window_fn: &dyn WindowFn,
        key_of: impl Fn(usize) -> usize,
        n_rows: usize,
    ) -> Merged {
        let n_entries = self.n_entries(n_rows);
        let (order, ends) = by_key(n_entries, |n| key_of(self.row_of(n)));
        let mut places: HashMap<Window, u32> = HashMap::new();
        let mut slices: Vec<Slice> = Vec::new();
        let mut of = vec![0; n_entries];
        let mut merged = Merged {
            groups: vec![0; n_entries],
            first: Vec::new(),
        };
        let mut of_key: Vec<(Window, u32)> = Vec::new();
        let mut windows: Vec<Window> = Vec::new();
        let mut start = 0;
        for end in ends {
            let entries = &order[std::mem::replace(&mut start, end)..end];
            of_key.clear();
            let span = |n: &u32| (self.slices[self.slice_of(*n as usize)].span, *n);
            of_key.extend(entries.iter().map(span));
            // Rows come about in the order of time, and then their windows do.
            if !of_key.is_sorted_by_key(|(window, _)| *window) {
                of_key.sort_unstable();
            }
            windows.clear();
            windows.extend(of_key.iter().map(|(window, _)| *window));
            windows.dedup();
            let mut spans = windows.clone();
            if windows.len() > 1 {
                for (from, into) in window_fn.merge(&windows) {
                    for from in from {
                        if let Ok(at) = windows.binary_search(&from) {
                            spans[at] = into;
                        }
                    }
                }
            }
            let mut entries = of_key.iter().peekable();
            // Windows that have become one mostly follow each other; where not, they are two groups of one window.
            let mut last = None;
            for (window, span) in windows.iter().zip(spans) {
                let place = *places.entry(span).or_insert_with(|| {
                    slices.push(Slice {
                        span,
                        first_end: span.end,
                        last_end: span.end,
                    });
                    u32::try_from(slices.len() - 1).unwrap_or(u32::MAX)
                });
                if last.replace(place) != Some(place) {
                    merged.first.extend(entries.peek().map(|(_, n)| *n));
                }
                while let Some((_, n)) = entries.next_if(|(of, _)| of == window) {
                    of[*n as usize] = place;
                    merged.groups[*n as usize] = merged.first.len() - 1;
                }
            }
        }
        self.slices = slices;
        self.of = of;
        merged
    }

    /// The rows of each slice, where all of them are there and those of a slice follow each other.
    pub(super) fn ranges(&self) -> Option<Vec<Range<usize>>> {
        if self.rows.is_some() || self.of.is_empty() || !self.of.is_sorted() {
            return None;
        }
        let mut start = 0;
        let ranges = (0..self.slices.len()).map(|slice| {
            let end = self.of.partition_point(|of| *of as usize <= slice);
            std::mem::replace(&mut start, end)..end
        });
        Some(ranges.collect())
    }

    /// How many entries there are, of a batch of so many rows.
    pub(super) fn n_entries(&self, n_rows: usize) -> usize {
        self.rows.as_ref().map_or(n_rows, Vec::len)
    }

    /// The row of the entry `n`.
    pub(super) fn row_of(&self, n: usize) -> usize {
        self.rows.as_ref().map_or(n, |rows| rows[n] as usize)
    }

    /// What becomes of each row; `None` where some window takes each.
    pub(super) fn fates(&self, n_rows: usize, lateness: Lateness, now: Now<'_>) -> Option<Fates> {
        let last = now.last();
        let mut slices = self.slices.iter();
        if self.rows.is_none() && slices.all(|slice| lateness.takes(slice, last)) {
            return None;
        }
        let mut taken = vec![false; n_rows];
        let mut late = vec![false; n_rows];
        for n in 0..self.n_entries(n_rows) {
            let (row, slice) = (self.row_of(n), &self.slices[self.slice_of(n)]);
            taken[row] |= lateness.takes(slice, now.of(row));
            late[row] |= slice.has_windows();
        }
        for (late, taken) in late.iter_mut().zip(&taken) {
            *late &= !taken;
        }
        Some(Fates { taken, late })
    }

    /// The slice of the entry `n`.
    pub(super) fn slice_of(&self, n: usize) -> usize {
        self.of.get(n).map_or(0, |slice| *slice as usize)
    }
}

/// Finds the slices of rows, and the windows of slices.
#[derive(Debug)]
pub(super) struct Slicer {
    window_fn: Arc<dyn WindowFn>,
    has_panes: bool,
    windows: Vec<Window>,
}

impl Slicer {
    pub(super) fn new(window_fn: &Arc<dyn WindowFn>) -> Self {
        Self {
            window_fn: Arc::clone(window_fn),
            has_panes: has_panes(&**window_fn),
            windows: Vec::new(),
        }
    }

    /// The slices of rows at these times, of which the earliest and the latest may be known.
    pub(super) fn slice(&mut self, times: &[i64], known: Extent) -> Sliced {
        match self.has_panes {
            true => self.by_pane(times, known),
            false => self.by_window(times),
        }
    }

    /// The windows over a slice, in their order.
    pub(super) fn windows(&mut self, span: Window) -> &[Window] {
        self.windows.clear();
        match self.has_panes {
            true => self.window_fn.assign(span.start, &mut self.windows),
            false => self.windows.push(span),
        }
        &self.windows
    }

    /// The slice with this span.
    pub(super) fn slice_at(&mut self, span: Window) -> Slice {
        let ends = self.windows(span).iter().map(|window| window.end);
        Slice {
            span,
            first_end: ends.clone().min().unwrap_or(i64::MAX),
            last_end: ends.max().unwrap_or(i64::MIN),
        }
    }

    fn pane_at(&mut self, time: i64) -> Slice {
        // A pane of another window function than that which was asked first: it stands alone.
        let alone = Window {
            start: time,
            end: time + 1,
        };
        let span = self.window_fn.pane_of(time).unwrap_or(alone);
        self.slice_at(span)
    }

    fn by_pane(&mut self, times: &[i64], known: Extent) -> Sliced {
        let mut sliced = Sliced::default();
        let Some((first, last)) = known.or_else(|| extent(times)) else {
            return sliced;
        };
        let slice = self.pane_at(first);
        sliced.slices.push(slice);
        if last < slice.span.end {
            return sliced;
        }
        sliced.of.reserve(times.len());
        let mut places: BTreeMap<i64, u32> = BTreeMap::from([(slice.span.start, 0)]);
        let (mut at, mut span) = (0u32, slice.span);
        for near in times.chunks(NEAR_ROWS) {
            if extent(near).is_some_and(|(least, most)| span.start <= least && most < span.end) {
                sliced.of.resize(sliced.of.len() + near.len(), at);
                continue;
            }
            for &time in near {
                if time < span.start || time >= span.end {
                    at = self.place_of(time, &mut places, &mut sliced.slices);
                    span = sliced.slices[at as usize].span;
                }
                sliced.of.push(at);
            }
        }
        sliced
    }

    fn place_of(
        &mut self,
        time: i64,
        places: &mut BTreeMap<i64, u32>,
        slices: &mut Vec<Slice>,
    ) -> u32 {
        if let Some((_, &at)) = places.range(..=time).next_back()
            && time < slices[at as usize].span.end
        {
            return at;
        }
        let slice = self.pane_at(time);
        // A batch has far fewer rows than a number has values.
        let at = u32::try_from(slices.len()).unwrap_or(u32::MAX);
        places.insert(slice.span.start, at);
        slices.push(slice);
        at
    }

    fn by_window(&mut self, times: &[i64]) -> Sliced {
        let mut sliced = Sliced::default();
        let mut rows = Vec::with_capacity(times.len());
        let mut places: HashMap<Window, u32> = HashMap::new();
        // The time of the row before, and where the slices of its entries begin.
        let mut last: Option<(i64, usize)> = None;
        for (row, &time) in (0u32..).zip(times) {
            let begin = sliced.of.len();
            if let Some((_, from)) = last.filter(|(of, _)| *of == time) {
                sliced.of.extend_from_within(from..);
                rows.resize(sliced.of.len(), row);
                last = Some((time, begin));
                continue;
            }
            last = Some((time, begin));
            self.windows.clear();
            self.window_fn.assign(time, &mut self.windows);
            for &span in &self.windows {
                let slices = &mut sliced.slices;
                let at = *places.entry(span).or_insert_with(|| {
                    slices.push(Slice {
                        span,
                        first_end: span.end,
                        last_end: span.end,
                    });
                    u32::try_from(slices.len() - 1).unwrap_or(u32::MAX)
                });
                rows.push(row);
                sliced.of.push(at);
            }
        }
        let is_in_one = rows.len() == times.len() && (0u32..).zip(&rows).all(|(n, row)| n == *row);
        sliced.rows = (!is_in_one).then_some(rows);
        sliced
    }
}

/// The entries ordered by key, those of one key in their order, and where the entries of each key end.
fn by_key(n_entries: usize, key_of: impl Fn(usize) -> usize) -> (Vec<u32>, Vec<usize>) {
    let mut ends: Vec<usize> = Vec::new();
    for n in 0..n_entries {
        let key = key_of(n);
        if key >= ends.len() {
            ends.resize(key + 1, 0);
        }
        ends[key] += 1;
    }
    // First where each key begins; each entry moves that on by one.
    let mut n_before = 0;
    for end in &mut ends {
        n_before += std::mem::replace(end, n_before);
    }
    let mut order = vec![0; n_entries];
    for (n, entry) in (0..n_entries).zip(0u32..) {
        let next = &mut ends[key_of(n)];
        order[*next] = entry;
        *next += 1;
    }
    (order, ends)
}

/// True if rows are aggregated once for all windows they are in.
pub(super) fn has_panes(window_fn: &dyn WindowFn) -> bool {
    !window_fn.is_merging() && window_fn.pane_of(0).is_some()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However rows stand, each is in the slice around its time, and ranges say what the slices of rows do.
        #[test]
        fn ranges_are_the_rows_of_each_slice(
            steps in prop::collection::vec(0i64..40, 1..400),
            swapped in prop::option::of((0usize..400, 0usize..400)),
        ) {
            let mut times: Vec<i64> = steps
                .iter()
                .scan(0, |at, step| {
                    *at += step / 20 * step;
                    Some(*at)
                })
                .collect();
            if let Some((a, b)) = swapped {
                let n = times.len();
                times.swap(a % n, b % n);
            }
            let windowing = Windowing::fixed(Duration::from_millis(100));
            let sliced = Slicer::new(&windowing.window_fn).slice(&times, None);
            let slice_of = |row: usize| sliced.slices[sliced.slice_of(row)].span;
            for (row, &time) in times.iter().enumerate() {
                let start = time - time % 100;
                prop_assert_eq!(slice_of(row), Window { start, end: start + 100 });
            }
            let in_order = times.is_sorted_by_key(|time| time / 100);
            match sliced.ranges() {
                Some(ranges) => {
                    prop_assert_eq!(ranges.len(), sliced.slices.len());
                    let rows: Vec<usize> = ranges.iter().cloned().flatten().collect();
                    prop_assert_eq!(rows, (0..times.len()).collect::<Vec<_>>());
                    for (slice, rows) in sliced.slices.iter().zip(ranges) {
                        prop_assert!(rows.clone().all(|row| slice_of(row) == slice.span));
                    }
                }
                None => prop_assert!(!in_order || sliced.slices.len() == 1),
            }
        }
    }
}
