//! Lets the changes of a while take effect together.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::PrimitiveArray;
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::check_changelog;
use crate::error::{Error, Result};
use crate::event_time::{EVENT_TIME, MAX_TIME, check_event_time, event_times};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{ChangeTimes, Description, Operator, Properties, Transform};

/// Lets the changes of each `every` take effect together, at its last instant.
///
/// Whiles are counted from 1970, so all workers agree on them. What is computed behind changes once a while
/// and not at each instant, which is far less work and far fewer rows where there are many changes.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    every: Duration,
}

impl Rounds {
    /// Rounds of this length; whole milliseconds count.
    pub fn every(every: Duration) -> Self {
        Self { every }
    }

    fn millis(self) -> Result<i64> {
        match i64::try_from(self.every.as_millis()) {
            Ok(0) | Err(_) => Err(Error::pipeline(format!(
                "rounds of {:?} cannot be counted in milliseconds",
                self.every
            ))
            .with_hint("Give at least one millisecond, as `Duration::from_secs(1)`.")),
            Ok(millis) => Ok(millis),
        }
    }
}

impl Collection {
    /// The changelog whose changes of each `every` take effect together, at its last instant; see [`Rounds`].
    #[must_use]
    pub fn in_rounds(&self, every: Duration) -> Collection {
        self.apply(Rounds::every(every))
    }
}

impl Transform for Rounds {
    fn describe(&self) -> Description {
        let millis = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
        Description::new("rounds", json!({ "every_ms": millis }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        self.millis()?;
        check_changelog(&inputs[0])?;
        check_event_time(&inputs[0])?;
        Ok(Arc::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(RoundsOperator {
            millis: self.millis()?,
        }))
    }

    fn properties(&self) -> Properties {
        // A late change takes effect in the round of the watermark, whenever the row was.
        Properties::row_wise()
            .keeps_positions(true)
            .change_times(ChangeTimes::Effect)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }
}

struct RoundsOperator {
    millis: i64,
}

impl Operator for RoundsOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let rows = batch.rows();
        // A late change takes effect at the watermark: in the round that the watermark is in, not before.
        let now = batch.watermark().0;
        let last = |time: &i64| {
            let time = (*time).max(now);
            let start = time.div_euclid(self.millis).saturating_mul(self.millis);
            start.saturating_add(self.millis - 1).min(MAX_TIME)
        };
        let times = event_times(rows)?.iter().map(last);
        let times = PrimitiveArray::<TimestampMillisecondType>::from_iter_values(times);
        let mut columns = rows.columns().to_vec();
        columns[rows.schema().index_of(EVENT_TIME)?] = Arc::new(times);
        let rows = RecordBatch::try_new(rows.schema(), columns)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::OnBadRow;
    use crate::testing::{changelog, refuse_transform, run_transform, times_of};
    use expect_test::expect;

    #[test]
    fn changes_take_effect_at_the_last_instant_of_their_round() {
        let rows = changelog("a: 1, 2, 3, 4; event_time: -1, 0, 9, 10; diff: 1, 1, 1, 1");
        let rounds = Rounds::every(Duration::from_millis(10));
        let (made, _) = run_transform(&rounds, &rows, OnBadRow::Fail).unwrap();
        assert_eq!(times_of(&[made]), [-1, 9, 19]);
    }

    #[test]
    fn a_round_takes_a_while() {
        refuse_transform(
            Rounds::every(Duration::from_micros(5)),
            "a: 1",
            expect![[r#"
            rounds of 5µs cannot be counted in milliseconds
              Hint: Give at least one millisecond, as `Duration::from_secs(1)`."#]],
        );
    }
}
