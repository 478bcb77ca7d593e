//! Windows of activity that end where nothing comes for a while.

use std::time::Duration;

use serde_json::json;

use super::span::{Span, within_range};
use super::window::{Window, WindowFn};
use crate::error::Result;
use crate::transform::Description;

/// Windows of activity, for each key its own: a row at `t` opens `[t, t + gap)`, and windows that overlap
/// become one.
///
/// Windows that only touch stay apart, so rows that are exactly `gap` apart are in two sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    gap: Span,
}

impl Sessions {
    /// Sessions that end `gap` after their last row, a whole number of milliseconds. A wrong gap is refused
    /// while planning.
    pub fn with_gap(gap: Duration) -> Self {
        Self { gap: Span::of(gap) }
    }
}

impl WindowFn for Sessions {
    fn describe(&self) -> Description {
        Description::new("sessions", json!({ "gap_ms": self.gap.ms() }))
    }

    fn check(&self) -> Result<()> {
        self.gap.check("the gap between sessions")
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        let start = within_range(time);
        windows.push(Window::within_range(start, start + self.gap.ms()));
    }

    fn is_merging(&self) -> bool {
        true
    }

    fn merge(&self, windows: &[Window]) -> Vec<(Vec<Window>, Window)> {
        let mut merged = Vec::new();
        let mut from = 0;
        while let Some(first) = windows.get(from) {
            let mut end = first.end;
            let overlapping = windows[from..].iter().take_while(|window| {
                let overlaps = window.start < end;
                if overlaps {
                    end = end.max(window.end);
                }
                overlaps
            });
            let n_windows = overlapping.count().max(1);
            if n_windows > 1 {
                let start = first.start;
                merged.push((
                    windows[from..from + n_windows].to_vec(),
                    Window { start, end },
                ));
            }
            from += n_windows;
        }
        merged
    }
}
