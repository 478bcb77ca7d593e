//! A length of time as a user gives it.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::event_time::{MAX_TIME, MIN_TIME};

/// A length of whole milliseconds; a wrong one is kept, and refused while planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    given: Duration,
    ms: i64,
}

impl Span {
    pub(super) fn of(given: Duration) -> Self {
        let ms = i64::try_from(given.as_millis()).unwrap_or(i64::MAX);
        Self {
            given,
            ms: ms.clamp(1, MAX_TIME),
        }
    }

    /// At least 1, and never so much that a time within the range and this overflow.
    pub(super) fn ms(self) -> i64 {
        self.ms
    }

    /// Refuses a length of zero, of parts of a millisecond, or longer than half of all time.
    pub(super) fn check(self, what: &str) -> Result<()> {
        let given = self.given;
        if given.is_zero() {
            return Err(Error::pipeline(format!("{what} must be longer than 0")));
        }
        if given != Duration::from_millis(self.ms.unsigned_abs()) {
            return Err(Error::pipeline(format!(
                "{what} must be a whole number of milliseconds, of at most {MAX_TIME}, found {given:?}"
            )));
        }
        Ok(())
    }
}

/// An offset as a user gives it: any, since only what is left after whole lengths of `every` counts.
pub(super) fn offset_ms(offset: Duration, every: Span) -> i64 {
    let every = u128::from(every.ms.unsigned_abs());
    i64::try_from(offset.as_millis() % every).unwrap_or(0)
}

/// The times that rows can have.
pub(super) fn within_range(time: i64) -> i64 {
    time.clamp(MIN_TIME, MAX_TIME)
}
