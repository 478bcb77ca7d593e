//! How event time divides a collection: windows, when their results leave, and how long late rows count.
//!
//! The model is Apache Beam's, and so are its words.

mod calendar;
mod display;
mod fixed;
mod results;
mod sessions;
mod sliding;
mod span;
mod trigger;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion_expr::Expr;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};

pub use calendar::{CalendarDays, CalendarMonths};
pub use fixed::FixedWindows;
pub use sessions::Sessions;
pub use sliding::SlidingWindows;
pub use trigger::{CompiledTrigger, DataLossReason, Trigger, TriggerContext, TriggerState};
pub use window::{GlobalWindow, Window, WindowFn};

/// What a later firing of a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accumulation {
    /// The rows that have come since the last firing.
    #[default]
    Discarding,
    /// All rows of the window so far.
    Accumulating,
    /// All rows of the window so far, after the last result has been taken back: a row with the old values
    /// and -1 in the column [`DIFF`](crate::event_time::DIFF), then one with the new values and 1.
    AccumulatingAndRetracting,
}

/// The event time of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampCombiner {
    /// The last instant of the window.
    #[default]
    EndOfWindow,
    /// That of the earliest row in the result. Holds the watermark back until the window has fired.
    ///
    /// A row that was behind the watermark when it came does not count, so that the result is not late. Of a
    /// [changelog](crate::changelog) all rows count that are there, since one that is taken back cannot tell how it
    /// came: there a result may be late, and one that is corrected is taken back at the time that it had.
    Earliest,
    /// That of the latest row in the result, by the same rules.
    Latest,
}

/// Whether a window fires once more when the allowed lateness is over and nothing new has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closing {
    /// Only if rows have come since the last firing.
    #[default]
    FireIfNonEmpty,
    /// Always, so that every window has a last pane.
    FireAlways,
}

/// The windowing strategy of the rows on an edge.
#[derive(Clone)]
pub struct Windowing {
    pub(crate) window_fn: Arc<dyn WindowFn>,
    pub(crate) trigger: Trigger,
    pub(crate) accumulation: Accumulation,
    pub(crate) timestamp_combiner: TimestampCombiner,
    pub(crate) allowed_lateness_ms: i64,
    pub(crate) closing: Closing,
    pub(crate) allow_data_loss: bool,
    pub(crate) row_time: Option<Expr>,
    /// The rows are results of such windows; not a part of the strategy.
    pub(crate) of_results: bool,
}

impl Default for Windowing {
    fn default() -> Self {
        Self::of(GlobalWindow)
    }
}

impl Windowing {
    /// These windows, fired once when the watermark has passed their end, with no late rows allowed.
    pub fn of(window_fn: impl WindowFn + 'static) -> Self {
        Self {
            window_fn: Arc::new(window_fn),
            trigger: Trigger::Default,
            accumulation: Accumulation::default(),
            timestamp_combiner: TimestampCombiner::default(),
            allowed_lateness_ms: 0,
            closing: Closing::default(),
            allow_data_loss: false,
            row_time: None,
            of_results: false,
        }
    }

    /// Windows of one size, one after the other; see [`FixedWindows`].
    pub fn fixed(size: Duration) -> Self {
        Self::of(FixedWindows::of(size))
    }

    /// Windows of one size, one of which begins in each period; see [`SlidingWindows`].
    pub fn sliding(size: Duration, period: Duration) -> Self {
        Self::of(SlidingWindows::of(size).every(period))
    }

    /// Windows of activity of each key, which end where nothing comes for `gap`; see [`Sessions`].
    pub fn sessions(gap: Duration) -> Self {
        Self::of(Sessions::with_gap(gap))
    }

    /// The days of a time zone; see [`CalendarDays`].
    pub fn calendar_days(time_zone: impl Into<String>) -> Self {
        Self::of(CalendarDays::of(1).in_zone(time_zone))
    }

    /// The months of a time zone; see [`CalendarMonths`].
    pub fn calendar_months(time_zone: impl Into<String>) -> Self {
        Self::of(CalendarMonths::of(1).in_zone(time_zone))
    }

    /// One window for all of time, fired once at the end of input: the default of every collection.
    pub fn global() -> Self {
        Self::default()
    }

    /// Sets when results leave.
    #[must_use]
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = trigger;
        self
    }

    /// Sets what a later firing of a window holds.
    #[must_use]
    pub fn accumulation(mut self, accumulation: Accumulation) -> Self {
        self.accumulation = accumulation;
        self
    }

    /// Sets the event time of results.
    #[must_use]
    pub fn timestamp_combiner(mut self, combiner: TimestampCombiner) -> Self {
        self.timestamp_combiner = combiner;
        self
    }

    /// Sets how long after its end a window still takes rows in, in event time; 0 by default. Rows that
    /// come later go to the `late` port of the transform and are counted.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.allowed_lateness_ms = i64::try_from(lateness.as_millis()).unwrap_or(i64::MAX);
        self
    }

    /// Sets whether a window fires once more when it closes.
    #[must_use]
    pub fn closing(mut self, closing: Closing) -> Self {
        self.closing = closing;
        self
    }

    /// Sets whether the trigger may lose rows, which is refused by default: see
    /// [`Trigger::may_lose_data`].
    #[must_use]
    pub fn allow_data_loss(mut self, allow_data_loss: bool) -> Self {
        self.allow_data_loss = allow_data_loss;
        self
    }

    /// Sets the time by which rows of a [changelog](crate::changelog) are dealt to windows: `time`, computed from a
    /// row, in place of the event time, which says when it is added or taken back.
    ///
    /// A row that is taken back is then taken back in its windows, whenever that is: so rows may move from window to
    /// window, as those of [`Upserts`](crate::ops::Upserts) do. A change that takes effect when a window is over, its
    /// allowed lateness included, is too late for it: what a window gave at last is what was there when it closed.
    ///
    /// `time` is of the types that [`assign_timestamps`](crate::Collection::assign_timestamps) takes, mostly the
    /// column that it was given; a row whose time is null or out of range is rejected, when it is added and when it is
    /// taken back. It holds for the next aggregation: results have an event time of their own. Windows of rows that
    /// are no changes are those of their event time, and a row time is refused for them while planning.
    #[must_use]
    pub fn row_time(mut self, time: Expr) -> Self {
        self.row_time = Some(time);
        self
    }

    /// Checks the windows and the trigger; called while planning by whatever groups rows in windows.
    ///
    /// # Errors
    /// A pipeline error if windows are of no size or in no time zone, if a trigger can never fire, or if it may
    /// lose rows and [`Windowing::allow_data_loss`] has not been said.
    pub fn check(&self) -> Result<()> {
        self.window_fn.check()?;
        self.check_overlap()?;
        self.trigger.check()?;
        match self.trigger.may_lose_data(self) {
            Some(reason) if !self.allow_data_loss => Err(self.refused(reason)),
            _ => Ok(()),
        }
    }

    /// Looks at a few times whether windows that are said not to overlap do.
    fn check_overlap(&self) -> Result<()> {
        if self.window_fn.overlaps() || self.window_fn.is_merging() {
            return Ok(());
        }
        let mut windows = Vec::new();
        for time in [-1, 0, 1, 1_000, 86_400_000 * 365 * 50 + 12_345_678] {
            windows.clear();
            self.window_fn.assign(time, &mut windows);
            if windows.len() > 1 {
                let (kind, n) = (self.window_fn.describe().kind, windows.len());
                return Err(Error::pipeline(format!(
                    "{kind} windows are said not to overlap, but time {time} is in {n} of them"
                ))
                .with_detail("A result that is grouped again would count in each of them.")
                .with_hint("Let `WindowFn::overlaps` give true, as it does by default."));
            }
        }
        Ok(())
    }

    fn refused(&self, reason: DataLossReason) -> Error {
        let hint = match &self.trigger {
            Trigger::AfterWatermark { late: None, .. } => {
                "Say with `late(..)` when late rows leave, or leave the allowed lateness at 0."
            }
            _ => "Wrap the trigger in `repeatedly()`, so that it begins anew.",
        };
        Error::pipeline(format!("trigger {} may lose rows", self.trigger))
            .with_detail(reason.to_string())
            .with_hint(format!(
                "{hint} Where rows may be lost, say `allow_data_loss(true)`."
            ))
    }

    /// True for the one window of all time that fires at the end of input, in which bounded runs work.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The strategy as data.
    pub fn to_json(&self) -> Value {
        let window = self.window_fn.describe();
        let mut json = json!({
            "window": window.kind,
            "config": window.config,
            "trigger": self.trigger,
            "accumulation": self.accumulation,
            "timestamp_combiner": self.timestamp_combiner,
            "allowed_lateness_ms": self.allowed_lateness_ms,
            "closing": self.closing,
            "allow_data_loss": self.allow_data_loss,
        });
        if let Some(time) = &self.row_time {
            json["row_time"] = time.to_string().into();
        }
        json
    }
}

impl PartialEq for Windowing {
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

impl Eq for Windowing {}

impl fmt::Debug for Windowing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Windowing({})", self.to_json())
    }
}

#[cfg(test)]
mod beam_tests;
#[cfg(test)]
mod tests;
