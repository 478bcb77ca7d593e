//! Rows by the stretches of time in which all rows are in the same windows.
//!
//! ```text
//! windows     ├─────────── w1 ───────────┤
//!                        ├─────────── w2 ───────────┤
//! panes       ├─── p1 ───┼───── p2 ──────┼─── p3 ───┤      a row is kept once, in its pane
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::gather::{RowAt, concat_rows, n_bytes};
use super::key_numbers::renumber;
use crate::batch::BATCH_ROWS;
use crate::error::Result;
use crate::ops::Side;
use crate::windowing::{Window, WindowFn};

/// Which rows a pane holds: those of a stretch of time, whose windows that end later are still to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PaneId {
    pub(super) stretch: Window,
    /// Windows that end no later have left already, with these rows.
    pub(super) left_up_to: i64,
}

/// What becomes of the rows of a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// They count in a window that is still to leave.
    Open,
    /// All of their windows have left.
    Over,
    /// They are in no window.
    InNone,
}

/// Rows in their panes, and the windows that are still to leave.
pub(super) struct Panes {
    windows_of: Arc<dyn WindowFn>,
    panes: BTreeMap<PaneId, Pane>,
    /// By the end of the window, then by its start.
    open: BTreeMap<(i64, i64), Vec<PaneId>>,
    n_rows: usize,
    n_bytes: u64,
}

#[derive(Default)]
struct Pane {
    left: PaneRows,
    right: PaneRows,
    n_open: usize,
}

/// Rows of one side and the numbers of their keys.
#[derive(Default)]
struct PaneRows {
    chunks: Vec<(RecordBatch, Vec<u32>)>,
}

/// The rows of a side in a window.
#[derive(Default)]
pub(super) struct InWindow {
    pub(super) batches: Vec<RecordBatch>,
    /// Key and place of each row, ordered by key.
    pub(super) rows: Vec<(u32, RowAt)>,
}

impl Panes {
    pub(super) fn new(windows_of: Arc<dyn WindowFn>) -> Self {
        Self {
            windows_of,
            panes: BTreeMap::new(),
            open: BTreeMap::new(),
            n_rows: 0,
            n_bytes: 0,
        }
    }

    /// The stretch of time around `time` in which all rows are in the same windows.
    pub(super) fn stretch(&self, time: i64) -> Window {
        let instant = Window {
            start: time,
            end: time + 1,
        };
        self.windows_of.pane_of(time).unwrap_or(instant)
    }

    /// What becomes of rows of the pane at this watermark; one that takes rows in is opened.
    pub(super) fn open(&mut self, id: PaneId, watermark: i64) -> Standing {
        if self.panes.contains_key(&id) {
            return Standing::Open;
        }
        let mut windows = Vec::new();
        self.windows_of.assign(id.stretch.start, &mut windows);
        if windows.is_empty() {
            return Standing::InNone;
        }
        windows.retain(|w| w.end > watermark.max(id.left_up_to));
        if windows.is_empty() {
            return Standing::Over;
        }
        let n_open = windows.len();
        for window in windows {
            let panes = self.open.entry((window.end, window.start)).or_default();
            panes.push(id);
        }
        let pane = Pane {
            n_open,
            ..Pane::default()
        };
        self.panes.insert(id, pane);
        Standing::Open
    }

    /// Takes in rows of a pane that is open.
    pub(super) fn push(
        &mut self,
        id: PaneId,
        side: Side,
        rows: RecordBatch,
        keys: Vec<u32>,
    ) -> Result<()> {
        let pane = self.panes.entry(id).or_default();
        self.n_rows += keys.len();
        let of_side = match side {
            Side::Left => &mut pane.left,
            Side::Right => &mut pane.right,
        };
        self.n_bytes += n_bytes(&rows);
        of_side.chunks.push((rows, keys));
        while let [.., (before, _), (last, _)] = of_side.chunks.as_slice()
            && before.num_rows() + last.num_rows() <= BATCH_ROWS
            && before.num_rows() <= 2 * last.num_rows()
            && let (Some(last), Some(before)) = (of_side.chunks.pop(), of_side.chunks.pop())
        {
            self.n_bytes -= n_bytes(&before.0) + n_bytes(&last.0);
            let both = concat_rows(&before.0.schema(), &[before.0.clone(), last.0])?;
            self.n_bytes += n_bytes(&both);
            of_side.chunks.push((both, [before.1, last.1].concat()));
        }
        Ok(())
    }

    /// Takes out the window that ends first, if `watermark` has passed its end.
    pub(super) fn next_over(&mut self, watermark: i64) -> Option<(Window, InWindow, InWindow)> {
        let entry = self.open.first_entry()?;
        let &(end, start) = entry.key();
        if end > watermark {
            return None;
        }
        let (mut left, mut right) = (InWindow::default(), InWindow::default());
        for id in entry.remove() {
            let Some(pane) = self.panes.get_mut(&id) else {
                continue;
            };
            left.add(&pane.left);
            right.add(&pane.right);
            pane.n_open -= 1;
            if pane.n_open == 0 {
                for (rows, keys) in pane.left.chunks.iter().chain(&pane.right.chunks) {
                    self.n_rows -= keys.len();
                    self.n_bytes -= n_bytes(rows);
                }
                self.panes.remove(&id);
            }
        }
        left.rows.sort_by_key(|(key, _)| *key);
        right.rows.sort_by_key(|(key, _)| *key);
        Some((Window { start, end }, left, right))
    }

    /// All rows of a side, with up to when windows have left with them where the watermark is this one.
    pub(super) fn all(&self, side: Side, watermark: i64) -> Vec<(i64, RecordBatch)> {
        let mut all = Vec::new();
        for (id, pane) in &self.panes {
            let rows = match side {
                Side::Left => &pane.left,
                Side::Right => &pane.right,
            };
            let up_to = id.left_up_to.max(watermark);
            all.extend(rows.chunks.iter().map(|(rows, _)| (up_to, rows.clone())));
        }
        all
    }

    /// Marks the keys of all rows.
    pub(super) fn mark(&self, is_kept: &mut [bool]) {
        let panes = self.panes.values();
        let chunks = panes.flat_map(|p| p.left.chunks.iter().chain(&p.right.chunks));
        for &key in chunks.flat_map(|(_, keys)| keys) {
            if let Some(kept) = is_kept.get_mut(key as usize) {
                *kept = true;
            }
        }
    }

    /// Gives keys their new numbers.
    pub(super) fn renumber(&mut self, new_numbers: &[u32]) {
        for pane in self.panes.values_mut() {
            for (_, keys) in pane.left.chunks.iter_mut().chain(&mut pane.right.chunks) {
                renumber(keys, new_numbers);
            }
        }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn n_bytes(&self) -> u64 {
        let of_pane = size_of::<PaneId>() + size_of::<Pane>();
        let of_window = size_of::<(i64, i64)>() + size_of::<Vec<PaneId>>();
        let of_all = self.panes.len() * of_pane + self.open.len() * of_window;
        self.n_bytes + (of_all + self.n_rows * size_of::<u32>()) as u64
    }
}

impl InWindow {
    fn add(&mut self, of_pane: &PaneRows) {
        for (rows, keys) in &of_pane.chunks {
            let chunk = self.batches.len();
            let numbered = keys.iter().enumerate();
            self.rows
                .extend(numbered.map(|(row, &key)| (key, RowAt::new(chunk, row))));
            self.batches.push(rows.clone());
        }
    }
}

/// The schema of rows with a column of whole numbers behind.
pub(super) fn with_number(schema: &SchemaRef, name: &str) -> SchemaRef {
    use arrow::datatypes::{DataType, Field, Schema};
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(name, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}
