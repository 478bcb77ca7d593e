//! The windows of what windows have given, for grouping it again.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::window::{Window, WindowFn};
use super::{TimestampCombiner, Windowing};
use crate::error::{Error, Result};
use crate::transform::Description;

impl Windowing {
    /// The strategy of the results of windows: each stays in the window that it came from, and the trigger
    /// goes on as its [`continuation`](super::Trigger::continuation) says.
    ///
    /// Where that window cannot be told from the event time of a result, they cannot be grouped again before
    /// they have been given new windows: [`Windowing::check`] refuses it. That is so of windows that merge, as
    /// in Apache Beam's Java SDK, and of windows that overlap where results do not have the time of their end.
    #[must_use]
    pub fn continuation(&self) -> Self {
        let of = &self.window_fn;
        let at_end = self.timestamp_combiner == TimestampCombiner::EndOfWindow;
        let window_fn: Arc<dyn WindowFn> = if of.is_merging() || (of.overlaps() && !at_end) {
            Arc::new(Lost(Arc::clone(of)))
        } else if of.overlaps() {
            Arc::new(OfResult(Arc::clone(of)))
        } else {
            Arc::clone(of)
        };
        let continued = self.clone().trigger(self.trigger.continuation());
        Self {
            window_fn,
            row_time: None,
            of_results: true,
            ..continued
        }
    }
}

/// Of windows that overlap, the one that ends first: of a result at the last instant of its window that one.
#[derive(Debug)]
struct OfResult(Arc<dyn WindowFn>);

impl WindowFn for OfResult {
    fn describe(&self) -> Description {
        Description::new("results_of", of(&*self.0))
    }

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        let n_before = windows.len();
        self.0.assign(time, windows);
        let all = windows.split_off(n_before);
        windows.extend(all.into_iter().min_by_key(|window| window.end));
    }

    fn overlaps(&self) -> bool {
        false
    }

    fn pane_of(&self, time: i64) -> Option<Window> {
        self.0.pane_of(time)
    }
}

/// Windows of results that do not tell them.
#[derive(Debug)]
struct Lost(Arc<dyn WindowFn>);

impl WindowFn for Lost {
    fn describe(&self) -> Description {
        Description::new("lost", of(&*self.0))
    }

    fn check(&self) -> Result<()> {
        let kind = self.0.describe().kind;
        let reason = match self.0.is_merging() {
            true => "Those windows have merged, and are over.",
            false => "Their event time does not tell which of the windows over it they came from.",
        };
        Err(Error::pipeline(format!(
            "results of {kind} windows cannot be grouped in the same windows again"
        ))
        .with_detail(reason)
        .with_hint("Say with `window(..)` in which windows they are to be."))
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        self.0.assign(time, windows);
    }

    fn is_merging(&self) -> bool {
        self.0.is_merging()
    }

    fn overlaps(&self) -> bool {
        self.0.overlaps()
    }

    fn merge(&self, windows: &[Window]) -> Vec<(Vec<Window>, Window)> {
        self.0.merge(windows)
    }
}

fn of(window_fn: &dyn WindowFn) -> Value {
    let inner = window_fn.describe();
    let mut config = match inner.config {
        Value::Object(config) => config,
        _ => Map::new(),
    };
    config.insert("of".into(), inner.kind.into());
    config.into()
}
