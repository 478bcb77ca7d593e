//! When the result of a window leaves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When the result of a window leaves, for each key and window on its own.
///
/// A trigger is asked whenever rows have come, the watermark has moved or a processing-time timer is due. A
/// trigger that has finished never fires again, unless it is wrapped in [`Trigger::repeatedly`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// When the watermark passes the end of the window, and again whenever late rows come.
    #[default]
    Default,
    /// When the watermark passes the end of the window; before that and after that as these say.
    AfterWatermark {
        /// Fires again and again before the watermark passes the end.
        early: Option<Box<Trigger>>,
        /// Fires again and again after it, for late rows.
        late: Option<Box<Trigger>>,
    },
    /// Once, when at least as many rows have come.
    AfterCount(u64),
    /// Once, when this long has passed since the first row came, in processing time.
    AfterProcessingTime {
        /// In milliseconds.
        delay_ms: i64,
    },
    /// As the inner one, begun anew whenever it has finished.
    Repeatedly(Box<Trigger>),
    /// When any of these fires; finished when one of them is.
    AfterAny(Vec<Trigger>),
    /// When all of these have fired.
    AfterAll(Vec<Trigger>),
    /// One after the other: each until it has finished.
    AfterEach(Vec<Trigger>),
    /// As the first, until the second fires; that ends it.
    OrFinally(Box<Trigger>, Box<Trigger>),
    /// Not at all, but for what [`Closing`](super::Closing) says.
    Never,
}

impl Trigger {
    /// When the watermark passes the end of the window, once.
    pub fn after_watermark() -> Self {
        Self::AfterWatermark {
            early: None,
            late: None,
        }
    }

    /// As [`Trigger::after_watermark`], and before that again and again as `trigger` says.
    ///
    /// Of another trigger than that it makes [`Trigger::or_finally`] of both.
    #[must_use]
    pub fn early(self, trigger: Trigger) -> Self {
        match self {
            Self::AfterWatermark { late, .. } => Self::AfterWatermark {
                early: Some(Box::new(trigger)),
                late,
            },
            other => trigger.or_finally(other),
        }
    }

    /// As [`Trigger::after_watermark`], and after that again and again as `trigger` says.
    ///
    /// Of another trigger than that it makes first this one, then `trigger` again and again.
    #[must_use]
    pub fn late(self, trigger: Trigger) -> Self {
        match self {
            Self::AfterWatermark { early, .. } => Self::AfterWatermark {
                early,
                late: Some(Box::new(trigger)),
            },
            other => Self::AfterEach(vec![other, trigger.repeatedly()]),
        }
    }

    /// Once, when at least `n_rows` rows have come.
    pub fn after_count(n_rows: u64) -> Self {
        Self::AfterCount(n_rows)
    }

    /// Once, when `delay` has passed since the first row came, in processing time.
    pub fn after_processing_time(delay: Duration) -> Self {
        Self::AfterProcessingTime {
            delay_ms: i64::try_from(delay.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// As this one, begun anew whenever it has finished.
    #[must_use]
    pub fn repeatedly(self) -> Self {
        Self::Repeatedly(Box::new(self))
    }

    /// As this one, until `end` fires; that ends it.
    #[must_use]
    pub fn or_finally(self, end: Trigger) -> Self {
        Self::OrFinally(Box::new(self), Box::new(end))
    }
}
