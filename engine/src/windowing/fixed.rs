//! Windows of one size, one after the other.

use std::time::Duration;

use serde_json::json;

use super::span::{Span, offset_ms, within_range};
use super::window::{Window, WindowFn};
use crate::error::Result;
use crate::transform::Description;

/// Windows of one size, one after the other: `[n * size + offset, (n + 1) * size + offset)`.
///
/// Every time is in one window. The first and the last window of all end where time does.
///
/// ```
/// # use std::time::Duration;
/// # use mainstem_engine::windowing::{FixedWindows, Window, WindowFn};
/// let windows = FixedWindows::of(Duration::from_millis(10));
/// let mut found = Vec::new();
/// windows.assign(-1, &mut found);
/// assert_eq!(found, [Window { start: -10, end: 0 }]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedWindows {
    size: Span,
    offset: Duration,
}

impl FixedWindows {
    /// Windows of `size`, a whole number of milliseconds; one starts at 1970. A wrong size is refused while
    /// planning.
    pub fn of(size: Duration) -> Self {
        Self {
            size: Span::of(size),
            offset: Duration::ZERO,
        }
    }

    /// Sets by how much windows start later. Whole sizes make no difference.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset = offset;
        self
    }

    fn window_of(&self, time: i64) -> Window {
        let (time, size) = (within_range(time), self.size.ms());
        let start = time - (time - offset_ms(self.offset, self.size)).rem_euclid(size);
        Window::within_range(start, start + size)
    }
}

impl WindowFn for FixedWindows {
    fn describe(&self) -> Description {
        let offset_ms = offset_ms(self.offset, self.size);
        Description::new(
            "fixed",
            json!({ "size_ms": self.size.ms(), "offset_ms": offset_ms }),
        )
    }

    fn check(&self) -> Result<()> {
        self.size.check("the size of fixed windows")
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        windows.push(self.window_of(time));
    }

    fn overlaps(&self) -> bool {
        false
    }

    fn pane_of(&self, time: i64) -> Option<Window> {
        Some(self.window_of(time))
    }
}
