//! How event time divides a collection: windows, when their results leave, and how long late rows count.
//!
//! The model is Apache Beam's, and so are its words.

mod display;
mod trigger;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use trigger::Trigger;
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
    Earliest,
    /// That of the latest row in the result.
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
        }
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

    /// True for the one window of all time that fires at the end of input, in which bounded runs work.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The strategy as data.
    pub fn to_json(&self) -> Value {
        let window = self.window_fn.describe();
        json!({
            "window": window.kind,
            "config": window.config,
            "trigger": self.trigger,
            "accumulation": self.accumulation,
            "timestamp_combiner": self.timestamp_combiner,
            "allowed_lateness_ms": self.allowed_lateness_ms,
            "closing": self.closing,
        })
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
