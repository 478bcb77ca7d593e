//! Which rows come too late, and when what is kept of a window goes.

use arrow::array::BooleanArray;
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::event_time::event_times;
use crate::windowing::{GlobalWindow, Window, WindowFn, Windowing};

/// How long rows count.
#[derive(Clone, Debug)]
pub(super) struct Lateness {
    pub(super) windowing: Windowing,
    pub(super) is_windowed: bool,
    /// How long something is kept after its last row, in event time, without the allowed lateness.
    pub(super) ttl_ms: Option<i64>,
    /// By how much the watermark may have passed a row, without the allowed lateness.
    late_after_ms: Option<i64>,
}

impl Lateness {
    pub(super) fn new(
        windowing: &Windowing,
        ttl_ms: Option<i64>,
        late_after_ms: Option<i64>,
    ) -> Self {
        Self {
            windowing: windowing.clone(),
            is_windowed: windowing.window_fn.describe() != GlobalWindow.describe(),
            ttl_ms,
            late_after_ms,
        }
    }

    /// True if rows need an event time.
    pub(super) fn needs_times(&self) -> bool {
        self.is_windowed || self.ttl_ms.is_some() || self.late_after_ms.is_some()
    }

    /// How long late rows count, in milliseconds.
    pub(super) fn allowed_ms(&self) -> i64 {
        self.windowing.allowed_lateness_ms
    }

    /// How long something is kept after its last row.
    pub(super) fn kept_ms(&self) -> Option<i64> {
        self.ttl_ms.map(|ttl| ttl.saturating_add(self.allowed_ms()))
    }

    /// What releases what is kept, for people.
    pub(super) fn released(&self) -> String {
        match (self.ttl_ms, self.is_windowed) {
            (Some(ttl), _) => format!("{ttl} ms after the last row of a key"),
            (None, true) => "when the window is over".into(),
            (None, false) => "when cells are empty and no timer is set".into(),
        }
    }

    /// What is kept and what releases it, for people.
    pub(super) fn keeps(&self) -> String {
        let by_lateness = match self.allowed_ms() {
            0 => "",
            _ => " and the lateness",
        };
        match (self.ttl_ms, self.is_windowed) {
            (Some(ttl), _) => {
                format!(
                    "cells and timers of a key until the watermark passes its last row by {ttl} ms{by_lateness}"
                )
            }
            (None, true) if self.allowed_ms() > 0 => {
                "cells and timers until the watermark passes a window's end by the lateness".into()
            }
            (None, true) => "cells and timers until the watermark passes a window's end".into(),
            (None, false) => "what is in cells, and timers until they fire".into(),
        }
    }

    /// What is kept of a window goes once the watermark has reached this.
    pub(super) fn over_at(&self, window: Window) -> i64 {
        window.end.saturating_add(self.allowed_ms())
    }

    /// True if the watermark has passed a row of this time by too much.
    fn is_passed(&self, time: i64, watermark: i64) -> bool {
        self.late_after_ms.is_some_and(|after| {
            time.saturating_add(after).saturating_add(self.allowed_ms()) < watermark
        })
    }

    /// The rows that come too late; none if there is none. A row in no window comes too late for none.
    pub(super) fn late(&self, rows: &RecordBatch, watermark: i64) -> Result<Option<BooleanArray>> {
        if !self.is_windowed && self.late_after_ms.is_none() {
            return Ok(None);
        }
        let times = event_times(rows)?;
        let mut windows = Vec::new();
        // Of times in a stretch whether their windows are over; `None` where they have none.
        let mut stretch: Option<(Window, Option<bool>)> = None;
        let mut any = false;
        let late = times.iter().map(|&time| {
            let are_over = match stretch {
                Some((within, are_over)) if within.contains(time) => are_over,
                _ => {
                    let window_fn = &self.windowing.window_fn;
                    windows.clear();
                    window_fn.assign(time, &mut windows);
                    let over = |window: &Window| self.over_at(*window) <= watermark;
                    let are_over = (!windows.is_empty()).then(|| windows.iter().all(over));
                    stretch = window_fn.pane_of(time).map(|within| (within, are_over));
                    are_over
                }
            };
            let is_late = are_over.is_some_and(|over| over || self.is_passed(time, watermark));
            any |= is_late;
            is_late
        });
        let late: Vec<bool> = late.collect();
        Ok(any.then(|| BooleanArray::from(late)))
    }
}
