//! How the watermark follows from the rows of a split.

use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_expr::Expr;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::expression::Expression;

/// How the watermark follows from the rows of a split: a promise that no row of it comes with an earlier event
/// time.
///
/// A row that breaks the promise is behind the watermark. It goes on all the same, and counts where the windows
/// it belongs to still take rows in; see [`Windowing::allowed_lateness`](crate::Windowing::allowed_lateness).
#[derive(Clone, Debug)]
#[must_use = "give it to `assign_timestamps`"]
pub struct Watermarks {
    pub(super) follows: Follows,
    pub(super) idle_after_ms: Option<i64>,
    pub(super) splits_in_order: bool,
    pub(super) aligned_within_ms: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) enum Follows {
    /// The latest event time so far, less this many milliseconds.
    Latest { less_ms: i64 },
    /// What some rows say.
    Rows(Expr),
}

impl Watermarks {
    fn new(follows: Follows) -> Self {
        Self {
            follows,
            idle_after_ms: None,
            splits_in_order: false,
            aligned_within_ms: None,
        }
    }

    /// The latest event time so far, less `by`: rows may stand behind later ones by as much.
    pub fn bounded_out_of_orderness(by: Duration) -> Self {
        Self::new(Follows::Latest {
            less_ms: millis(by),
        })
    }

    /// The latest event time so far: in each split rows stand in the order of their event times.
    pub fn monotone() -> Self {
        Self::new(Follows::Latest { less_ms: 0 })
    }

    /// What `mark` says of the rows that mark the watermark, null or false for all others.
    ///
    /// Either a timestamp in milliseconds or an Int64 of them: the watermark behind that row. Or a Boolean:
    /// behind a row for which it is true, the watermark is the row's own event time. It never goes back. A row on
    /// which `mark` fails is a bad row.
    pub fn punctuated(mark: Expr) -> Self {
        Self::new(Follows::Rows(mark))
    }

    /// Leaves a split out of the minimum while it has had no rows for so long, in processing time; without,
    /// a split that is silent holds everything back.
    ///
    /// Rows that come from it after all may be behind the watermark.
    pub fn idle_after(mut self, silence: Duration) -> Self {
        self.idle_after_ms = Some(millis(silence));
        self
    }

    /// Whether the splits of a bounded source stand in the order of their event times, as the files of a feed
    /// do that was written to disk; by default not.
    ///
    /// Then the watermark of a bounded run moves while splits are still unread. Otherwise one that nobody has
    /// opened may hold rows of any time, and the watermark waits until the last split is open. Sources that
    /// never end read all splits at once, and need no such word.
    pub fn splits_in_order(mut self, splits_in_order: bool) -> Self {
        self.splits_in_order = splits_in_order;
        self
    }

    /// Lets a worker be at most so far ahead of another in event time: then it waits with reading until the
    /// other has come nearer, or is idle, or has no more to read. Without, whatever the faster one has read is
    /// kept until the watermark, which is that of the slower one, has passed it.
    ///
    /// For sources whose splits all are of the same time, as those of a feed. Where splits stand in order one
    /// after the other, workers would wait for each other's splits.
    pub fn aligned_within(mut self, ahead: Duration) -> Self {
        self.aligned_within_ms = Some(millis(ahead));
        self
    }

    pub(super) fn expr(&self) -> Option<&Expr> {
        match &self.follows {
            Follows::Latest { .. } => None,
            Follows::Rows(mark) => Some(mark),
        }
    }

    pub(super) fn check(&self, schema: &SchemaRef) -> Result<()> {
        let Follows::Rows(mark) = &self.follows else {
            return Ok(());
        };
        let data_type = Expression::compile(mark, schema)?.data_type().clone();
        use DataType::{Boolean, Int64, Timestamp};
        if matches!(data_type, Boolean | Int64 | Timestamp(_, _)) {
            return Ok(());
        }
        Err(Error::pipeline(format!(
            "watermark `{mark}` must be a Boolean, a timestamp or an Int64 of milliseconds, found {data_type}"
        )))
    }

    pub(super) fn to_json(&self) -> Value {
        let mut config = match &self.follows {
            Follows::Latest { less_ms } => json!({ "out_of_orderness_ms": less_ms }),
            Follows::Rows(mark) => json!({ "mark": mark.to_string() }),
        };
        if let Some(idle) = self.idle_after_ms {
            config["idle_after_ms"] = idle.into();
        }
        if let Some(within) = self.aligned_within_ms {
            config["aligned_within_ms"] = within.into();
        }
        if self.splits_in_order {
            config["splits_in_order"] = true.into();
        }
        config
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
