//! Whether a trigger may leave rows behind.

use std::fmt;

use super::Trigger;
use crate::windowing::Windowing;

/// Why a trigger may lose rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataLossReason {
    /// It may finish while its window still takes rows in: they are lost.
    MayFinish,
}

impl fmt::Display for DataLossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MayFinish => f.write_str(
                "It may finish before its window is over, and rows that come after that are lost.",
            ),
        }
    }
}

impl Trigger {
    /// Why rows may be lost if windows of this strategy fire so; `None` if they cannot.
    ///
    /// This is about the trigger alone: rows behind the allowed lateness are another matter, and so are
    /// triggers that may never fire, since a window that is over fires what it still holds. The rules are
    /// those of Apache Beam's `may_lose_data`.
    pub fn may_lose_data(&self, windowing: &Windowing) -> Option<DataLossReason> {
        self.may_finish(windowing.allowed_lateness_ms)
            .then_some(DataLossReason::MayFinish)
    }

    fn may_finish(&self, allowed_lateness_ms: i64) -> bool {
        let may_finish = |trigger: &Self| trigger.may_finish(allowed_lateness_ms);
        match self {
            Self::Default | Self::Never | Self::Repeatedly(_) => false,
            Self::AfterWatermark { late, .. } => late.is_none() && allowed_lateness_ms > 0,
            Self::AfterCount(_) | Self::AfterProcessingTime { .. } => true,
            Self::AfterAny(triggers) => triggers.iter().any(may_finish),
            Self::AfterAll(triggers) | Self::AfterEach(triggers) => triggers.iter().all(may_finish),
            Self::OrFinally(trigger, end) => may_finish(trigger) || may_finish(end),
        }
    }
}
