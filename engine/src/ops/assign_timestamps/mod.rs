//! Gives rows their event time, and makes the watermark.
//!
//! ```text
//! split 0 ──▶ rows ──▶ generator 0 ──┐
//! split 1 ──▶ rows ──▶ generator 1 ──┼─ min ──▶ watermark of this worker ─ min ──▶ watermark behind it
//! split 2 (idle for long) ───────────┘ left out          of all workers, by timely's frontier
//! ```

#[cfg(test)]
mod aligned_tests;
mod generator;
mod good_times;
mod splits;
#[cfg(test)]
mod tests;
mod watermarks;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::filter;
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;
use serde_json::json;

use self::generator::marks_of;
use self::good_times::rejected;
pub(in crate::ops) use self::good_times::{GoodTimes, as_instants, check_type, good_times};
use self::splits::Splits;
pub use self::watermarks::Watermarks;
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::Result;
use crate::event_time::{EVENT_TIME, KnownExtent, time_field, time_type};
use crate::expression::{Evaluator, Expression, col, on_good_rows, with_columns_of};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::predicate::{cannot_fail, in_terms_of};
use crate::state::StatePart;
use crate::transform::{
    ChangeTimes, Description, Operator, Properties, SplitEvent, Transform, Watermark,
};

/// Adds the column `event_time`, or replaces it, and makes the watermark from it.
#[derive(Clone, Debug)]
pub struct AssignTimestamps {
    time: Expr,
    watermarks: Watermarks,
}

impl AssignTimestamps {
    /// The event time `time`, and a watermark as `watermarks` says.
    pub fn new(time: Expr, watermarks: Watermarks) -> Self {
        Self { time, watermarks }
    }
}

impl Collection {
    /// The rows with their event time, `time`, in the column `event_time`; from here on there is a watermark.
    ///
    /// `time` may be a timestamp of any unit (finer ones are rounded down to milliseconds; one with a time zone
    /// is the same instant), a date (its midnight, UTC), or an Int64 of milliseconds since 1970. A row whose
    /// time is null or outside of [`MIN_TIME`]`..=`[`MAX_TIME`] is rejected, and so is one on which the mark of
    /// [`Watermarks::punctuated`] fails: the watermark does not hear of it.
    ///
    /// [`MIN_TIME`]: crate::event_time::MIN_TIME
    /// [`MAX_TIME`]: crate::event_time::MAX_TIME
    ///
    /// Stands behind a source, with nothing but row-wise transforms and unions between, since the watermark is
    /// made per split.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstem_engine::connectors::{collect, from_record_batches};
    /// use mainstem_engine::ops::Watermarks;
    /// use mainstem_engine::testing::{show, table};
    /// use mainstem_engine::{Pipeline, RunOptions, col};
    ///
    /// let pipeline = Pipeline::new("clicks");
    /// let clicks = pipeline.read("clicks", from_record_batches(vec![table("at: 5000, 1000, 7000")]));
    /// let (sink, rows) = collect();
    /// clicks
    ///     .assign_timestamps(col("at"), Watermarks::bounded_out_of_orderness(Duration::from_secs(10)))
    ///     .write(sink);
    /// pipeline.run(&RunOptions::default())?;
    /// assert_eq!(rows.take()[0].schema().field(1).name(), "event_time");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn assign_timestamps(&self, time: Expr, watermarks: Watermarks) -> Collection {
        self.apply(AssignTimestamps::new(time, watermarks))
    }
}

impl Transform for AssignTimestamps {
    fn describe(&self) -> Description {
        let config = json!({
            "time": self.time.to_string(),
            "watermarks": self.watermarks.to_json(),
        });
        Description::new("assign_timestamps", config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let time = Expression::compile(&self.time, &inputs[0])?;
        check_type(&self.time, time.data_type())?;
        self.watermarks.check(&inputs[0])?;
        let mut fields: Vec<Arc<Field>> = inputs[0].fields().to_vec();
        match inputs[0].index_of(EVENT_TIME) {
            Ok(i) => fields[i] = time_field(EVENT_TIME),
            Err(_) => fields.push(time_field(EVENT_TIME)),
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(AssignOperator {
            time: Evaluator::new(&self.time),
            text: self.time.to_string(),
            mark: self.watermarks.expr().map(Evaluator::new),
            splits: Splits::new(&self.watermarks),
            schema: None,
        }))
    }

    fn properties(&self) -> Properties {
        Properties {
            makes_watermarks: true,
            aligned_within_ms: self.watermarks.aligned_within_ms,
            stateful: true,
            // Of a change the time is computed from a column that may tell when a row was taken back.
            change_times: ChangeTimes::Effect,
            ..Properties::row_wise().keeps_positions(true)
        }
    }

    fn keeps(&self) -> Option<String> {
        Some("the watermark of each open split".into())
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let others = wanted?.iter().filter(|n| **n != EVENT_TIME);
        let others: Vec<String> = others.cloned().collect();
        let read = std::iter::once(&self.time).chain(self.watermarks.expr());
        with_columns_of(Some(&others), read)
    }

    /// The rows that it rejects matter too. Marks may fail on any, and workers that are kept near to each other go by
    /// the times of all.
    fn reads_rows(&self, inputs: &[SchemaRef], wanted: Option<&Expr>) -> Option<Expr> {
        let input = inputs.first()?;
        let must_see = self.watermarks.expr().is_some()
            || self.watermarks.aligned_within_ms.is_some()
            || !cannot_fail(&self.time, input);
        let known = |name: &str| (name != EVENT_TIME).then(|| col(name));
        let wanted = in_terms_of(wanted.filter(|_| !must_see)?, known)?;
        let rejected = rejected(&self.time, input).ok()?;
        Some(rejected.into_iter().fold(wanted, Expr::or))
    }
}

struct AssignOperator {
    time: Evaluator,
    text: String,
    /// What says of rows where the watermark is.
    mark: Option<Evaluator>,
    splits: Splits,
    schema: Option<SchemaRef>,
}

impl AssignOperator {
    /// The rows with a good time, these times, and the values of the marks.
    fn times(
        &mut self,
        batch: Batch,
        out: &mut Output,
    ) -> Result<(Batch, GoodTimes, Option<ArrayRef>)> {
        let schema = batch.rows().schema();
        let time = self.time.compiled(&schema)?;
        let mark = self.mark.as_mut();
        let mark = mark.map(|mark| mark.compiled(&schema)).transpose()?;
        let (batch, (values, marks)) = on_good_rows(batch, out, |rows| {
            let marks = mark.map(|mark| mark.evaluate(rows)).transpose()?;
            Ok((time.evaluate(rows)?, marks))
        })?;
        let times = good_times(&values, &self.text, &batch, out)?;
        let Some(good) = &times.rows else {
            return Ok((batch, times, marks));
        };
        let marks = marks.map(|marks| filter(&marks, good)).transpose()?;
        Ok((batch.filter(good)?, times, marks))
    }

    fn with_times(&mut self, batch: Batch, good: &GoodTimes) -> Result<Batch> {
        let rows = batch.rows();
        let at = rows.schema().index_of(EVENT_TIME).ok();
        let schema = match &self.schema {
            Some(schema) => Arc::clone(schema),
            None => {
                let mut fields: Vec<Arc<Field>> = rows.schema().fields().to_vec();
                match at {
                    Some(i) => fields[i] = time_field(EVENT_TIME),
                    None => fields.push(time_field(EVENT_TIME)),
                }
                Arc::clone(self.schema.insert(Arc::new(Schema::new(fields))))
            }
        };
        let times = good.times.reinterpret_cast::<TimestampMillisecondType>();
        let known = KnownExtent::new(times.values(), good.extent);
        let column: ArrayRef = Arc::new(times);
        debug_assert_eq!(column.data_type(), &time_type());
        let mut columns = rows.columns().to_vec();
        match at {
            Some(i) => columns[i] = column,
            None => columns.push(column),
        }
        let rows = RecordBatch::try_new(schema, columns)?;
        Ok(batch.with_columns(rows).knowing(known))
    }
}

impl Operator for AssignOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let key = batch.origin();
        let (batch, times, marks) = self.times(batch, out)?;
        let marks = marks_of(marks.as_ref(), times.times.values())?;
        let batch = self.with_times(batch, &times)?;
        let n_behind = self.splits.take(key, &times, &marks, out.processing_time());
        out.behind(n_behind);
        out.push(batch);
        Ok(())
    }

    fn on_split(&mut self, event: &SplitEvent, out: &mut Output) -> Result<()> {
        self.splits.hear(event, out.processing_time());
        Ok(())
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        match input.is_end() {
            true => input,
            false => self.splits.watermark(),
        }
    }

    fn is_idle(&self) -> bool {
        self.splits.is_idle()
    }

    fn held_back_by(&self) -> Option<Arc<str>> {
        self.splits.held_back_by()
    }

    fn wakes_at(&self) -> Option<i64> {
        self.splits.wakes_at()
    }

    fn on_processing_time(&mut self, out: &mut Output) -> Result<()> {
        self.splits.pass_time(out.processing_time());
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        self.splits.n_bytes()
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        self.splits.snapshot()
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        state.iter().try_for_each(|part| self.splits.restore(part))
    }
}
