//! The watermark of one split, row by row.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use super::good_times::to_millis;
use super::watermarks::{Follows, Watermarks};
use crate::error::Result;
use crate::event_time::{MAX_TIME, MIN_TIME};

/// The marks of one batch: none where the watermark follows from event times alone.
pub(super) type RowMarks = Option<Vec<Option<i64>>>;

/// What rows at these times say of the watermark, where the expression for marks has these values.
///
/// # Errors
/// If the values are of another type than was planned.
pub(super) fn marks_of(values: Option<&ArrayRef>, times: &[i64]) -> Result<RowMarks> {
    let Some(values) = values else {
        return Ok(None);
    };
    if *values.data_type() == DataType::Boolean {
        let marks = values.as_boolean().iter().zip(times);
        return Ok(Some(
            marks
                .map(|(is_mark, time)| is_mark.unwrap_or(false).then_some(*time))
                .collect(),
        ));
    }
    let millis = to_millis(values)?;
    debug_assert_eq!(millis.len(), times.len());
    Ok(Some(
        millis
            .iter()
            .map(|mark| mark.map(|t| t.clamp(MIN_TIME, MAX_TIME)))
            .collect(),
    ))
}

/// The watermark of one split so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generator {
    less_ms: i64,
    watermark: i64,
}

impl Generator {
    pub(super) fn new(watermarks: &Watermarks) -> Self {
        Self {
            less_ms: match watermarks.follows {
                Follows::Latest { less_ms } => less_ms,
                Follows::Rows(_) => 0,
            },
            watermark: i64::MIN,
        }
    }

    /// Goes on from a watermark that was saved.
    pub(super) fn go_on_from(&mut self, watermark: i64) {
        self.watermark = self.watermark.max(watermark);
    }

    pub(super) fn watermark(&self) -> i64 {
        self.watermark
    }

    /// Takes in rows, and gives how many stand behind the watermark that the rows before them made.
    pub(super) fn take(&mut self, times: &[i64], marks: &RowMarks) -> u64 {
        let mut n_behind = 0;
        for (row, &time) in times.iter().enumerate() {
            n_behind += u64::from(time < self.watermark);
            let mark = match marks {
                None => Some(time.saturating_sub(self.less_ms)),
                Some(marks) => marks.get(row).copied().flatten(),
            };
            if let Some(mark) = mark {
                self.watermark = self.watermark.max(mark);
            }
        }
        n_behind
    }
}
