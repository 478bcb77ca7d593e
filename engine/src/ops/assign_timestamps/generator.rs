//! The watermark of one split, row by row.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use super::good_times::{GoodTimes, to_millis};
use super::watermarks::{Follows, Watermarks};
use crate::error::Result;
use crate::event_time::{Extent, MAX_TIME, MIN_TIME, extent};

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

/// So many rows are looked at together: few enough to lie close together in time.
const CHUNK_ROWS: usize = 512;

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
    pub(super) fn take(&mut self, good: &GoodTimes, marks: &RowMarks) -> u64 {
        let times = good.times.values();
        let Some(marks) = marks else {
            return match self.passes(good.extent) {
                true => 0,
                false => times.chunks(CHUNK_ROWS).map(|t| self.follow(t)).sum(),
            };
        };
        let mut n_behind = 0;
        for (row, &time) in times.iter().enumerate() {
            n_behind += u64::from(time < self.watermark);
            if let Some(mark) = marks.get(row).copied().flatten() {
                self.watermark = self.watermark.max(mark);
            }
        }
        n_behind
    }

    /// Takes in rows between these times if it is sure that none of them is behind the watermark.
    fn passes(&mut self, extent: Extent) -> bool {
        let Some((least, latest)) = extent else {
            return true;
        };
        let after = self.watermark.max(latest.saturating_sub(self.less_ms));
        // None of the rows is behind where the watermark is after the last of them, so none was before.
        let passes = least >= after;
        if passes {
            self.watermark = after;
        }
        passes
    }

    /// Takes in rows of a watermark that follows from them alone.
    fn follow(&mut self, times: &[i64]) -> u64 {
        if self.passes(extent(times)) {
            return 0;
        }
        let mut n_behind = 0;
        for &time in times {
            n_behind += u64::from(time < self.watermark);
            self.watermark = self.watermark.max(time.saturating_sub(self.less_ms));
        }
        n_behind
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However rows are cut into batches, each is compared with what those before it have made.
        #[test]
        fn rows_behind_the_watermark_are_counted_one_by_one(
            times in prop::collection::vec(-200i64..1_000, 0..200),
            slope in 0i64..30,
            less_ms in 0u64..300,
            cut in 1usize..200,
        ) {
            let times: Vec<i64> = (0..).zip(&times).map(|(i, time)| time + i * slope).collect();
            let (mut watermark, mut n_behind) = (i64::MIN, 0);
            for time in &times {
                n_behind += u64::from(*time < watermark);
                watermark = watermark.max(time - less_ms as i64);
            }
            let allowed = Duration::from_millis(less_ms);
            let mut generator = Generator::new(&Watermarks::bounded_out_of_orderness(allowed));
            let found: u64 = times
                .chunks(cut)
                .map(|times| generator.take(&GoodTimes::new(times.to_vec().into(), None), &None))
                .sum();
            prop_assert_eq!((generator.watermark(), found), (watermark, n_behind));
        }
    }
}
