//! When the result of a window leaves.

mod compiled;
mod data_loss;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use compiled::{CompiledTrigger, TriggerContext, TriggerState};
pub use data_loss::DataLossReason;

use crate::error::{Error, Result};

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
    /// When all of these would fire; finished when all of them are.
    AfterAll(Vec<Trigger>),
    /// One after the other: each until it has finished.
    AfterEach(Vec<Trigger>),
    /// When any of both fires; finished when one of them is. The second is a trigger that fires once, and so
    /// ends the first.
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

    /// As this one, until `end` fires, which is a trigger that fires once and so ends it.
    #[must_use]
    pub fn or_finally(self, end: Trigger) -> Self {
        Self::OrFinally(Box::new(self), Box::new(end))
    }

    /// Whenever rows have come.
    pub fn always() -> Self {
        Self::after_count(1).repeatedly()
    }

    /// When any of these fires; finished when one of them is.
    pub fn after_any(triggers: impl IntoIterator<Item = Trigger>) -> Self {
        Self::AfterAny(triggers.into_iter().collect())
    }

    /// When all of these would fire; finished when all of them are.
    pub fn after_all(triggers: impl IntoIterator<Item = Trigger>) -> Self {
        Self::AfterAll(triggers.into_iter().collect())
    }

    /// One after the other: each until it has finished.
    pub fn after_each(triggers: impl IntoIterator<Item = Trigger>) -> Self {
        Self::AfterEach(triggers.into_iter().collect())
    }

    /// When what is made of the results of windows that fire so should leave, for it to keep the sense of this:
    /// a count or a delay has been waited for by then, and is not waited for again.
    ///
    /// The rules are those of Apache Beam's `get_continuation_trigger`.
    #[must_use]
    pub fn continuation(&self) -> Self {
        let inner = |trigger: &Self| Box::new(trigger.continuation());
        let all = |triggers: &[Self]| triggers.iter().map(Self::continuation).collect::<Vec<_>>();
        match self {
            Self::Default | Self::Never => self.clone(),
            Self::AfterWatermark { early, late } => Self::AfterWatermark {
                early: early.as_deref().map(inner),
                late: late.as_deref().map(inner),
            },
            Self::AfterCount(_) => Self::AfterCount(1),
            // Beam's is "after synchronized processing time", which fires whenever it is asked.
            Self::AfterProcessingTime { .. } => Self::always(),
            Self::Repeatedly(trigger) => Self::Repeatedly(inner(trigger)),
            Self::AfterAny(triggers) => Self::AfterAny(all(triggers)),
            Self::AfterAll(triggers) => Self::AfterAll(all(triggers)),
            Self::AfterEach(triggers) => Self::after_any(all(triggers)).repeatedly(),
            Self::OrFinally(trigger, end) => Self::OrFinally(inner(trigger), inner(end)),
        }
    }

    /// Refuses counts of zero, delays below zero and lists without a trigger.
    ///
    /// # Errors
    /// A pipeline error that names the trigger.
    pub fn check(&self) -> Result<()> {
        let inner: Vec<&Self> = match self {
            Self::AfterCount(0) => {
                return Err(
                    Error::pipeline("trigger AfterCount(0) would fire without rows")
                        .with_hint("Count at least 1 row."),
                );
            }
            Self::AfterProcessingTime { delay_ms } if *delay_ms < 0 => {
                return Err(Error::pipeline(format!(
                    "trigger {self} must not be due before its first row"
                )));
            }
            Self::AfterAny(triggers) | Self::AfterAll(triggers) | Self::AfterEach(triggers) => {
                if triggers.is_empty() {
                    return Err(Error::pipeline(format!(
                        "trigger {self} must be of at least one trigger"
                    )));
                }
                triggers.iter().collect()
            }
            Self::AfterWatermark { early, late } => {
                let (early, late) = (early.as_deref(), late.as_deref());
                early.into_iter().chain(late).collect()
            }
            Self::Repeatedly(trigger) => vec![trigger],
            Self::OrFinally(trigger, end) => vec![trigger, end],
            Self::Default
            | Self::AfterCount(_)
            | Self::AfterProcessingTime { .. }
            | Self::Never => Vec::new(),
        };
        inner.into_iter().try_for_each(Self::check)
    }
}

/// In the words of Apache Beam, such as `AfterWatermark(early=AfterCount(2))`.
impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, triggers: &[Self]| {
            let triggers: Vec<String> = triggers.iter().map(ToString::to_string).collect();
            write!(f, "{name}({})", triggers.join(", "))
        };
        match self {
            Self::Default => f.write_str("Default"),
            Self::AfterWatermark { early, late } => {
                let early = early.as_ref().map(|trigger| format!("early={trigger}"));
                let late = late.as_ref().map(|trigger| format!("late={trigger}"));
                let both: Vec<String> = early.into_iter().chain(late).collect();
                match both.is_empty() {
                    true => f.write_str("AfterWatermark"),
                    false => write!(f, "AfterWatermark({})", both.join(", ")),
                }
            }
            Self::AfterCount(n_rows) => write!(f, "AfterCount({n_rows})"),
            Self::AfterProcessingTime { delay_ms } => {
                write!(f, "AfterProcessingTime({delay_ms} ms)")
            }
            Self::Repeatedly(trigger) => write!(f, "Repeatedly({trigger})"),
            Self::AfterAny(triggers) => list(f, "AfterAny", triggers),
            Self::AfterAll(triggers) => list(f, "AfterAll", triggers),
            Self::AfterEach(triggers) => list(f, "AfterEach", triggers),
            Self::OrFinally(trigger, end) => write!(f, "OrFinally({trigger}, {end})"),
            Self::Never => f.write_str("Never"),
        }
    }
}

#[cfg(test)]
mod tests;
