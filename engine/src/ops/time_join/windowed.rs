//! Brings rows of two collections together that are in the same window.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use serde_json::{Value, json};

use super::late::late_schema;
use super::layout::{Pairing, ResultTime, TimeLayout, check_pairs};
use super::windowed_operator::WindowedOperator;
use crate::artifact::Artifacts;
use crate::error::{Error, Result};
use crate::ops::JoinKind;
use crate::pipeline::Collection;
use crate::plan::{Lowered, Place};
use crate::transform::{Description, Operator, Properties, Transform};
use crate::windowing::{
    Accumulation, GlobalWindow, TimestampCombiner, Trigger, WindowFn, Windowing,
};

/// Which rows of two collections belong together: those with equal keys in the same window.
///
/// A null key equals none. See [`Collection::join_windowed`].
#[derive(Clone, Debug)]
pub struct WindowedJoin {
    pairing: Pairing,
}

impl WindowedJoin {
    /// A join on pairs of keys, the first of the left side and the second of the right; inner, left, right
    /// or full.
    pub fn new(kind: JoinKind, on: impl IntoIterator<Item = (Expr, Expr)>) -> Self {
        Self {
            pairing: Pairing::new(kind, on, ResultTime::Window),
        }
    }

    /// Rows match only where this is true too; it reads the columns of both sides by their names in the
    /// result, but for the window and the event time. Null counts as false.
    ///
    /// A pair for which it has no value, such as a division by zero, is bad: it is left out, neither of its rows
    /// counts as one that matches none, and its dead letter holds what was read of it, without a position.
    #[must_use]
    pub fn filter(mut self, filter: Expr) -> Self {
        self.pairing.filter = Some(filter);
        self
    }

    /// Sets what is added to the name of a right column where a left one has the same name.
    #[must_use]
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.pairing.suffix = Some(suffix.into());
        self
    }
}

impl Collection {
    /// The pairs of these rows and those of `right` with equal keys in the same window; see [`WindowedJoin`].
    ///
    /// Both collections must have been divided by the same [`Windowing`]. Windows that merge, such as
    /// [`Sessions`](crate::windowing::Sessions), do so over the rows of both sides: a right row that is near to two
    /// left ones of its key brings them into one window, as in Beam's `CoGroupByKey`. A row with a null key, which
    /// equals none, is in a window of its own.
    ///
    /// A pair that is in several windows leaves once for each. Columns are the left ones, then the right ones as
    /// in a [`Join`](crate::ops::Join), then `window_start`, `window_end` and `event_time`, the last instant of the
    /// window; they take the place of such columns of either side. The results of a window leave together when the
    /// watermark has passed its end; where the kind keeps them, with the rows that match none in it.
    ///
    /// **Late.** A left row of which all windows are over goes to the port `late`, a right one to `late_right`.
    /// One of which some are over counts in the others.
    ///
    /// **State.** A row is kept, once, until the last of its windows is over, which merging may put off.
    #[must_use]
    pub fn join_windowed(&self, right: &Collection, join: WindowedJoin) -> Collection {
        let name = self.next_name(KIND);
        let windowings = [self, right].map(|side| side.windowing().clone());
        let make = |pairing| JoinInWindows {
            join: WindowedJoin { pairing },
            windowings,
        };
        let joined = join.pairing.applied(self, right, name, make);
        joined.window(self.windowing().continuation())
    }
}

const KIND: &str = "windowed_join";

/// A windowed join, and how its sides are divided.
#[derive(Clone, Debug)]
struct JoinInWindows {
    join: WindowedJoin,
    windowings: [Windowing; 2],
}

impl JoinInWindows {
    fn plan(
        &self,
        left: &SchemaRef,
        right: &SchemaRef,
        wanted: Option<&[String]>,
    ) -> Result<JoinInWindowsAt> {
        check_pairs(self.join.pairing.kind, "a windowed join")?;
        self.check_windowing()?;
        let layout = TimeLayout::new(&self.join.pairing, left, right, wanted, &[])?;
        Ok(JoinInWindowsAt {
            spec: self.clone(),
            layout: Arc::new(layout),
        })
    }

    fn check_windowing(&self) -> Result<()> {
        let [left, right] = &self.windowings;
        if left != right {
            return Err(
                Error::pipeline("the sides of a windowed join are in different windows")
                    .with_detail(format!("The left side: {}.", left.to_json()))
                    .with_detail(format!("The right side: {}.", right.to_json()))
                    .with_hint("Divide both with `window` and one strategy."),
            );
        }
        let windows = &left.window_fn;
        windows.check()?;
        if windows.describe() == GlobalWindow.describe() {
            return Err(Error::pipeline("a windowed join needs windows that end")
                .with_detail("All rows are in one window, which ends with the input.")
                .with_hint("Divide both sides with `window`, or use `join` or `join_interval`."));
        }
        let unfit = if !matches!(
            left.trigger,
            Trigger::Default
                | Trigger::AfterWatermark {
                    early: None,
                    late: None
                }
        ) {
            Some("a trigger of its own")
        } else if left.allowed_lateness_ms > 0 {
            Some("an allowed lateness")
        } else if left.accumulation == Accumulation::AccumulatingAndRetracting {
            Some("results that are taken back")
        } else if left.timestamp_combiner != TimestampCombiner::EndOfWindow {
            Some("event times other than the end of the window")
        } else {
            None
        };
        match unfit {
            None => Ok(()),
            Some(what) => Err(Error::pipeline(format!("a windowed join cannot have {what}"))
                .with_detail("It gives each window once, when the watermark has passed its end.")
                .with_hint("Divide both sides with a plain strategy before it; rows that come later than the watermark need a watermark that waits longer.")),
        }
    }
}

impl Transform for JoinInWindows {
    fn describe(&self) -> Description {
        let window = self.windowings[0].window_fn.describe();
        let mut config = json!({
            "kind": self.join.pairing.kind.name(),
            "on": self.join.pairing.shown(),
            "window": window.kind,
        });
        if window.config != Value::Null {
            config["window_config"] = window.config;
        }
        if let Some(filter) = &self.join.pairing.filter {
            config["filter"] = filter.to_string().into();
        }
        if let Some(suffix) = &self.join.pairing.suffix {
            config["suffix"] = suffix.as_str().into();
        }
        Description::new(KIND, config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let planned = self.plan(&inputs[0], &inputs[1], None)?;
        Ok(SchemaRef::clone(&planned.layout.schema))
    }

    fn port_schema(&self, port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        late_schema(port, inputs)
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Err(Error::bug(
            "a windowed join runs as the node that the planner makes of it",
        ))
    }

    fn properties(&self) -> Properties {
        self.join.pairing.properties()
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        self.join.pairing.reads(wanted, [])
    }

    /// Late rows leave as they came.
    fn reads_for_port(&self, _late: usize, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }

    fn keeps(&self) -> Option<String> {
        Some("rows until the watermark passes the end of their last window".into())
    }

    fn lower(&self, place: &Place<'_>) -> Result<Option<Lowered>> {
        let [left, right] = place.inputs() else {
            return Err(Error::bug("a windowed join has two inputs"));
        };
        Ok(Some(Lowered::to(
            self.plan(left, right, place.wanted())?,
            2,
        )))
    }
}

/// A windowed join that knows its columns.
#[derive(Clone, Debug)]
struct JoinInWindowsAt {
    spec: JoinInWindows,
    layout: Arc<TimeLayout>,
}

impl Transform for JoinInWindowsAt {
    fn describe(&self) -> Description {
        self.spec.describe()
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        self.layout.check_inputs(inputs)
    }

    fn port_schema(&self, port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        late_schema(port, inputs)
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let windows: Arc<dyn WindowFn> = Arc::clone(&self.spec.windowings[0].window_fn);
        let layout = Arc::clone(&self.layout);
        Ok(Box::new(WindowedOperator::new(layout, windows)?))
    }

    fn properties(&self) -> Properties {
        self.spec.properties()
    }

    fn keeps(&self) -> Option<String> {
        self.spec.keeps()
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        Some(self.layout.reads(wanted))
    }

    /// Late rows leave as they came.
    fn reads_for_port(&self, _late: usize, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }
}

#[cfg(test)]
mod tests;
