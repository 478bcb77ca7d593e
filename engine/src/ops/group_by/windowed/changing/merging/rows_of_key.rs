//! The rows of one key, and the windows that they make.

use std::collections::{BTreeMap, BTreeSet};

use crate::ops::group_by::windowed::changing::open_window::Fired;
use crate::windowing::{Window, WindowFn};

/// What an entry of a tree takes besides its bytes, about.
const ENTRY_BYTES: usize = 64;

/// The rows that opened one window, by the bytes of their values; each with how often it is there, which is less than
/// not at all where it was taken back before it came.
pub(super) type Rows = BTreeMap<Box<[u8]>, i64>;

/// The rows of a key that may still change.
#[derive(Debug)]
pub(super) struct RowsOfKey {
    /// By the window that a row opens.
    rows: BTreeMap<Window, Rows>,
    /// Of rows that opened windows which are over: those that were taken back and not added.
    owed: BTreeMap<Window, Rows>,
    /// Changes that came too late, of rows that opened windows which are not forgotten yet.
    early: BTreeMap<Window, Rows>,
    /// What these have become.
    pub(super) merged: BTreeMap<Window, Merged>,
    /// When the watermark next matters to them; `i64::MAX` without any.
    pub(super) timer: i64,
    /// The earliest event time that a result of a window which has not ended may have; `i64::MAX` where that of the
    /// window is given.
    pub(super) hold: i64,
    n_bytes: usize,
}

/// A window that others have become, or one that stands alone.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    pub(super) fired: Fired,
    /// As [`RowsOfKey::hold`], of this window.
    pub(super) hold: i64,
    /// The bytes of the result that has left and was not taken back; there if `fired` has a pane.
    pub(super) result: Option<Box<[u8]>>,
}

impl Default for Merged {
    fn default() -> Self {
        Self {
            fired: Fired::default(),
            hold: i64::MAX,
            result: None,
        }
    }
}

/// What a change of rows has made of windows.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Those that are no more.
    pub(super) gone: Vec<(Window, Merged)>,
    /// Those that are new, or of other rows than before.
    pub(super) other: Vec<Window>,
}

impl Default for RowsOfKey {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            owed: BTreeMap::new(),
            early: BTreeMap::new(),
            merged: BTreeMap::new(),
            timer: i64::MAX,
            hold: i64::MAX,
            n_bytes: 0,
        }
    }
}

impl RowsOfKey {
    /// How many bytes of memory they take, about.
    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes + self.merged.len() * (ENTRY_BYTES + size_of::<Merged>())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.owed.is_empty() && self.early.is_empty()
    }

    /// Changes how often a row is there that opens this window.
    pub(super) fn add(&mut self, window: Window, row: &[u8], times: i64) {
        add(&mut self.rows, &mut self.n_bytes, window, row, times);
    }

    /// Takes note of a change that came too late, of a row that opens this window.
    pub(super) fn settle(&mut self, window: Window, row: &[u8], times: i64, is_over: bool) {
        if !is_over || self.rows.contains_key(&window) {
            self.restore_early(window, row, times);
        } else if self
            .owed
            .get(&window)
            .is_some_and(|of| of.contains_key(row))
        {
            self.restore_owed(window, row, times);
        }
    }

    pub(super) fn restore_early(&mut self, window: Window, row: &[u8], times: i64) {
        add(&mut self.early, &mut self.n_bytes, window, row, times);
    }

    pub(super) fn restore_owed(&mut self, window: Window, row: &[u8], times: i64) {
        add(&mut self.owed, &mut self.n_bytes, window, row, times);
    }

    /// The first window that owes a row.
    pub(super) fn owes(&self) -> Option<Window> {
        self.owed.keys().next().copied()
    }

    /// The windows that changes which came too late wait for, where no row does.
    pub(super) fn only_early(&self) -> impl Iterator<Item = Window> {
        let windows = self.early.keys().copied();
        windows.filter(|window| !self.rows.contains_key(window))
    }

    /// All rows, those that are owed, and those of changes that came too late, with the windows that they open.
    pub(super) fn all(&self) -> [&BTreeMap<Window, Rows>; 3] {
        [&self.rows, &self.owed, &self.early]
    }

    /// The rows that open one of these windows.
    pub(super) fn of(&self, windows: &[Window]) -> impl Iterator<Item = (&[u8], i64)> {
        let rows = windows.iter().filter_map(|window| self.rows.get(window));
        rows.flatten().map(|(row, n)| (&**row, *n))
    }

    /// The windows that rows make which are there, each with those that it was made of.
    pub(super) fn windows(&self, window_fn: &dyn WindowFn) -> BTreeMap<Window, Vec<Window>> {
        let is_there = |rows: &Rows| rows.values().any(|n| *n > 0);
        let there = self.rows.iter().filter(|(_, rows)| is_there(rows));
        let there: Vec<Window> = there.map(|(window, _)| *window).collect();
        let mut made: BTreeMap<Window, Vec<Window>> = BTreeMap::new();
        let mut alone: BTreeSet<Window> = there.iter().copied().collect();
        if there.len() > 1 {
            for (from, into) in window_fn.merge(&there) {
                for window in &from {
                    alone.remove(window);
                }
                made.entry(into).or_default().extend(from);
            }
        }
        for window in alone {
            made.entry(window).or_default().push(window);
        }
        made
    }

    /// Finds out what windows have become by changes of rows that opened these.
    pub(super) fn change(
        &mut self,
        changed: &BTreeSet<Window>,
        now: &BTreeMap<Window, Vec<Window>>,
    ) -> Changes {
        let mut changes = Changes::default();
        let gone: Vec<Window> = self.merged.keys().copied().collect();
        for window in gone.into_iter().filter(|w| !now.contains_key(w)) {
            if let Some(merged) = self.merged.remove(&window) {
                changes.gone.push((window, merged));
            }
        }
        for window in now.keys() {
            let is_new = !self.merged.contains_key(window);
            if is_new {
                self.merged.insert(*window, Merged::default());
            }
            // Also of one that is no more: what windows have become covers them.
            let from = Window {
                start: window.start,
                end: i64::MIN,
            };
            let within = changed.range(from..);
            let mut within = within.take_while(|of| of.start < window.end);
            if is_new || within.any(|of| of.end <= window.end) {
                changes.other.push(*window);
            }
        }
        changes
    }

    /// Takes note of the times of rows in windows that have not ended: of those that have come in time, each with the
    /// window that it opened, and of those in windows that are no more.
    pub(super) fn hold(&mut self, came: &[(Window, i64)], gone: &[(Window, Merged)]) {
        let gone = gone.iter().map(|(window, merged)| (*window, merged.hold));
        for (of, time) in came.iter().copied().chain(gone) {
            let from = Window {
                start: i64::MIN,
                end: i64::MIN,
            };
            let to = Window {
                start: of.end,
                end: i64::MIN,
            };
            let over = self.merged.range_mut(from..to);
            for (_, merged) in over.filter(|(window, _)| window.end > of.start) {
                if !merged.fired.is_past_end {
                    merged.hold = merged.hold.min(time);
                }
            }
        }
    }

    /// Forgets the rows that opened these windows, but for those that were taken back and not added, not even too late.
    pub(super) fn forget(&mut self, windows: &[Window]) {
        let bytes_of = |rows: &Rows| -> usize {
            let rows = rows.keys().map(|row| row.len() + ENTRY_BYTES);
            rows.sum::<usize>() + ENTRY_BYTES
        };
        for window in windows {
            let rows = self.rows.remove(window);
            let early = self.early.remove(window).unwrap_or_default();
            if !early.is_empty() {
                self.n_bytes -= bytes_of(&early);
            }
            let Some(rows) = rows else { continue };
            self.n_bytes -= bytes_of(&rows);
            for (row, n) in rows.iter().filter(|(_, n)| **n < 0) {
                let n = n + early.get(row).copied().unwrap_or_default();
                if n < 0 {
                    self.restore_owed(*window, row, n);
                }
            }
        }
    }

    /// The windows opened by rows of which none is there.
    pub(super) fn without_rows(&self) -> impl Iterator<Item = Window> {
        let is_there = |rows: &Rows| rows.values().any(|n| *n > 0);
        let without = self.rows.iter().filter(move |(_, rows)| !is_there(rows));
        without.map(|(window, _)| *window)
    }
}

/// Changes how often a row is there, of those that open this window.
fn add(
    of: &mut BTreeMap<Window, Rows>,
    n_bytes: &mut usize,
    window: Window,
    row: &[u8],
    times: i64,
) {
    if times == 0 {
        return;
    }
    let rows = of.entry(window).or_insert_with(|| {
        *n_bytes += ENTRY_BYTES;
        Rows::new()
    });
    match rows.get_mut(row) {
        Some(n) if *n + times == 0 => {
            rows.remove(row);
            *n_bytes -= row.len() + ENTRY_BYTES;
            if rows.is_empty() {
                of.remove(&window);
                *n_bytes -= ENTRY_BYTES;
            }
        }
        Some(n) => *n += times,
        None => {
            rows.insert(row.into(), times);
            *n_bytes += row.len() + ENTRY_BYTES;
        }
    }
}
