//! Windows, and the functions that put rows into them.

use std::fmt;

use serde_json::Value;

use crate::error::Result;
use crate::event_time::{MAX_TIME, MIN_TIME};
use crate::transform::Description;

/// A span of event time, in milliseconds since 1970: `start` belongs to it, `end` does not.
///
/// Ordered by start, then by end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first instant.
    pub start: i64,
    /// The instant after the last.
    pub end: i64,
}

impl Window {
    /// All of time.
    pub const GLOBAL: Self = Self {
        start: MIN_TIME,
        end: MAX_TIME + 1,
    };

    /// The last instant of the window, at which its results stand.
    pub fn max_timestamp(self) -> i64 {
        self.end - 1
    }

    /// True if an instant belongs to the window.
    pub fn contains(self, time: i64) -> bool {
        self.start <= time && time < self.end
    }

    /// The window with these edges, cut off where the range of times ends.
    pub fn within_range(start: i64, end: i64) -> Self {
        Self {
            start: start.max(Self::GLOBAL.start),
            end: end.min(Self::GLOBAL.end),
        }
    }
}

/// Puts rows into windows by their event time.
///
/// A window function must be pure: the same time always gives the same windows.
/// [`check_window_fn`](crate::testing::check_window_fn) tests the laws that are stated here.
pub trait WindowFn: Send + Sync + fmt::Debug {
    /// What it is, for `explain()` and for the graph as data. Two with equal descriptions are the same.
    fn describe(&self) -> Description;

    /// Refuses a wrong configuration, such as a size of zero; called while planning.
    ///
    /// # Errors
    /// A pipeline error that names what is wrong.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Adds the windows of a row at `time` to `windows`, in their order, none twice.
    ///
    /// A row may be in none, as with sliding windows whose period is longer than their size. It is then part
    /// of no result, and counts as filtered.
    fn assign(&self, time: i64, windows: &mut Vec<Window>);

    /// True if windows of one key are merged as rows come, as sessions are.
    fn is_merging(&self) -> bool {
        false
    }

    /// True if a time may be in more than one window, as with sliding ones.
    ///
    /// The default, true, is right for all: results are then grouped again in the one of the windows over their last
    /// instant that ends there, and not at all where they have another event time. False is a promise that each time
    /// is in one window at most.
    fn overlaps(&self) -> bool {
        true
    }

    /// Which of these windows of one key, given in their order, become one: the windows that are merged, each
    /// with the window that takes their place. Windows that stay alone are not named.
    ///
    /// Each window is named at most once, and what takes its place covers it. Merging is independent of
    /// order: windows that come one by one end as they would if they came together.
    ///
    /// Only asked where [`WindowFn::is_merging`].
    fn merge(&self, _windows: &[Window]) -> Vec<(Vec<Window>, Window)> {
        Vec::new()
    }

    /// The stretch of time around `time` in which all rows are in the same windows: what is aggregated there
    /// once serves all of them. `None`, the default, where each window keeps an aggregate of its own.
    ///
    /// Stretches do not overlap, are the same for all their times, and may be of different lengths; each
    /// window is made up of whole ones. Callers may keep what they were told for one time of a stretch for
    /// all others.
    fn pane_of(&self, _time: i64) -> Option<Window> {
        None
    }

    /// The window of a side input that rows in `window` of the main input see: by default the earliest in
    /// which its last instant lies. `None` where windows of this kind cannot be looked up, as merging ones.
    fn side_input_window(&self, window: Window) -> Option<Window> {
        if self.is_merging() {
            return None;
        }
        let mut windows = Vec::new();
        self.assign(window.max_timestamp(), &mut windows);
        windows.first().copied()
    }
}

/// One window for all of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalWindow;

impl WindowFn for GlobalWindow {
    fn describe(&self) -> Description {
        Description::new("global", Value::Null)
    }

    fn assign(&self, _time: i64, windows: &mut Vec<Window>) {
        windows.push(Window::GLOBAL);
    }

    fn overlaps(&self) -> bool {
        false
    }

    fn pane_of(&self, _time: i64) -> Option<Window> {
        Some(Window::GLOBAL)
    }
}
