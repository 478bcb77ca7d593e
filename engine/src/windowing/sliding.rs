//! Windows of one size that begin more often than they end.

use std::time::Duration;

use serde_json::json;

use super::span::{Span, offset_ms, within_range};
use super::window::{Window, WindowFn};
use crate::error::{Error, Result};
use crate::transform::Description;

/// More windows than this for one row are refused: such a period is taken for a slip of the pen.
const MAX_WINDOWS_OF_A_ROW: i64 = 100_000;

/// Windows of one size that begin once in a period: `[n * period + offset, n * period + offset + size)`.
///
/// A time is in about `size / period` windows; where the period is longer than the size, some times are in
/// none. What rows of one stretch between two edges give is aggregated once for all windows over it.
///
/// ```
/// # use std::time::Duration;
/// # use mainstem_engine::windowing::{SlidingWindows, Window, WindowFn};
/// let windows = SlidingWindows::of(Duration::from_millis(15)).every(Duration::from_millis(10));
/// let mut found = Vec::new();
/// windows.assign(12, &mut found);
/// assert_eq!(found, [Window { start: 0, end: 15 }, Window { start: 10, end: 25 }]);
/// assert_eq!(windows.pane_of(12), Some(Window { start: 10, end: 15 }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlidingWindows {
    size: Span,
    period: Span,
    offset: Duration,
}

impl SlidingWindows {
    /// Windows of `size` one after the other, until [`SlidingWindows::every`] says how often they begin.
    ///
    /// Lengths are whole numbers of milliseconds; wrong ones are refused while planning.
    pub fn of(size: Duration) -> Self {
        Self {
            size: Span::of(size),
            period: Span::of(size),
            offset: Duration::ZERO,
        }
    }

    /// Sets how long after one window the next begins.
    #[must_use]
    pub fn every(mut self, period: Duration) -> Self {
        self.period = Span::of(period);
        self
    }

    /// Sets by how much windows start later. Whole periods make no difference.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset = offset;
        self
    }

    /// The start of the last window that begins at or before `time`.
    fn latest_start(&self, time: i64) -> i64 {
        time - (time - offset_ms(self.offset, self.period)).rem_euclid(self.period.ms())
    }
}

impl WindowFn for SlidingWindows {
    fn describe(&self) -> Description {
        Description::new(
            "sliding",
            json!({
                "size_ms": self.size.ms(),
                "period_ms": self.period.ms(),
                "offset_ms": offset_ms(self.offset, self.period),
            }),
        )
    }

    fn check(&self) -> Result<()> {
        self.size.check("the size of sliding windows")?;
        self.period.check("the period of sliding windows")?;
        let n_windows = self.size.ms() / self.period.ms();
        if n_windows > MAX_WINDOWS_OF_A_ROW {
            return Err(Error::pipeline(format!(
                "each row would be in {n_windows} sliding windows, more than {MAX_WINDOWS_OF_A_ROW}"
            ))
            .with_hint("Choose a longer period."));
        }
        Ok(())
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        let (size, period) = (self.size.ms(), self.period.ms());
        let time = within_range(time);
        let latest = self.latest_start(time);
        let left = size - (time - latest);
        if left <= 0 {
            return;
        }
        let n_earlier = (left - 1) / period;
        windows.extend((0..=n_earlier).rev().map(|n| {
            let start = latest - n * period;
            Window::within_range(start, start + size)
        }));
    }

    fn overlaps(&self) -> bool {
        self.size.ms() > self.period.ms()
    }

    /// Between two edges, where those of starts and those of ends both count: at most two stretches in a
    /// period, however odd the size (J. Li and others, "No pane, no gain", 2005, have as many as the greatest
    /// common divisor needs; S. Krishnamurthy and others, "On-the-fly sharing for streamed aggregation", 2006,
    /// have these two).
    fn pane_of(&self, time: i64) -> Option<Window> {
        let period = self.period.ms();
        let time = within_range(time);
        let start = self.latest_start(time);
        let an_end = start + self.size.ms() % period;
        Some(if time < an_end {
            Window::within_range(start, an_end)
        } else {
            Window::within_range(an_end, start + period)
        })
    }
}
