//! Moves rows to a later event time.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::filter;
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;
use serde_json::json;

use super::assign_timestamps::{check_type, good_times};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::Result;
use crate::event_time::{EVENT_TIME, check_event_time, event_times};
use crate::expression::{Evaluator, Expression, with_columns_of};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform};

/// Gives rows a later event time; the watermark stays as it is.
#[derive(Clone, Debug)]
pub struct WithTimestamps {
    time: Expr,
}

impl WithTimestamps {
    /// The event time `time`.
    pub fn new(time: Expr) -> Self {
        Self { time }
    }
}

impl Collection {
    /// The rows at the event time `time`, which must not be earlier than the one they have; the watermark stays
    /// as it is, as with Apache Beam's `WithTimestamps`.
    ///
    /// For what is known now and counts later: bids, at the time when their auction closes. `time` has the types of
    /// [`Collection::assign_timestamps`]. A row whose new time is null, out of range or before the one it has is
    /// rejected: the watermark may have passed that. Unlike in Beam, where a row stays in the windows that it was
    /// put in, all that follows puts it into the windows of its new time. A changelog is refused, since what adds a
    /// row and what takes it back would change places.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainstem_engine::{Pipeline, RunOptions, Windowing, aggregates::max, col, connectors, lit};
    /// # use mainstem_engine::{ops::Watermarks, testing::{show, table}};
    /// // The highest bid on each auction, by the minute in which it closed.
    /// let pipeline = Pipeline::new("closed");
    /// let rows = table("second: 1, 7, 55; closes: 90, 20, 90; auction: 1, 2, 1; price: 5, 9, 7");
    /// let (sink, closed) = connectors::collect();
    /// pipeline
    ///     .read("bids", connectors::from_record_batches(vec![rows]))
    ///     .assign_timestamps(col("second") * lit(1_000), Watermarks::monotone())
    ///     .with_timestamps(col("closes") * lit(1_000))
    ///     .window(Windowing::fixed(Duration::from_secs(60)))
    ///     .group_by([col("auction")])
    ///     .agg([max(col("price")).alias("highest")])
    ///     .select([col("auction"), col("highest")])
    ///     .write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(show(&closed.take()[0]), "\
    /// auction: 2, 1
    /// highest: 9, 7");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn with_timestamps(&self, time: Expr) -> Collection {
        self.apply(WithTimestamps::new(time))
    }
}

impl Transform for WithTimestamps {
    fn describe(&self) -> Description {
        Description::new("with_timestamps", json!({ "time": self.time.to_string() }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        check_event_time(&inputs[0])?;
        let time = Expression::compile(&self.time, &inputs[0])?;
        check_type(&self.time, time.data_type())?;
        Ok(Arc::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(WithTimestampsOperator {
            time: Evaluator::new(&self.time),
            text: self.time.to_string(),
        }))
    }

    fn properties(&self) -> Properties {
        Properties {
            on_changelog: OnChangelog::Refuse,
            ..Properties::row_wise().keeps_positions(true)
        }
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let mut wanted = with_columns_of(wanted, [&self.time])?;
        if !wanted.iter().any(|name| name == EVENT_TIME) {
            wanted.push(EVENT_TIME.to_owned());
        }
        Some(wanted)
    }
}

struct WithTimestampsOperator {
    time: Evaluator,
    text: String,
}

type Times = PrimitiveArray<Int64Type>;

impl WithTimestampsOperator {
    /// The rows whose new time is not before the one they have, and these times.
    fn later(&self, batch: Batch, times: Times, out: &mut Output) -> Result<(Batch, Times)> {
        let before = event_times(batch.rows())?;
        let is_later = |row: usize| before[row] <= times.value(row);
        if (0..batch.n_rows()).all(is_later) {
            return Ok((batch, times));
        }
        for row in (0..batch.n_rows()).filter(|row| !is_later(*row)) {
            let (text, after, before) = (&self.text, times.value(row), before[row]);
            let reason = format!(
                "event time `{text}` is {after}, before that of the row, which is {before} (milliseconds since 1970)"
            );
            out.reject(&batch, row, reason)?;
        }
        let later: BooleanArray = (0..batch.n_rows()).map(|row| Some(is_later(row))).collect();
        let times = filter(&times, &later)?;
        Ok((batch.filter(&later)?, times.as_primitive().clone()))
    }
}

impl Operator for WithTimestampsOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, values) = self.time.evaluate(batch, out)?;
        let good = good_times(&values, &self.text, &batch, out)?;
        let batch = match good.rows {
            Some(good) => batch.filter(&good)?,
            None => batch,
        };
        let (batch, times) = self.later(batch, good.times, out)?;
        let rows = batch.rows();
        let mut columns = rows.columns().to_vec();
        columns[rows.schema().index_of(EVENT_TIME)?] =
            Arc::new(times.reinterpret_cast::<TimestampMillisecondType>());
        let rows = RecordBatch::try_new(rows.schema(), columns)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;
    use crate::aggregates::{count, max};
    use crate::expression::{col, lit};
    use crate::ops::Watermarks;
    use crate::output::OnBadRow;
    use crate::testing::{Script, run_transform, scripted, show, show_rows, simulate, table};
    use crate::windowing::Windowing;
    use crate::{Pipeline, connectors};

    fn timed(text: &str) -> RecordBatch {
        let rows = table(text);
        let assign = super::super::AssignTimestamps::new(col("at"), Watermarks::monotone());
        run_transform(&assign, &rows, OnBadRow::Fail).unwrap().0
    }

    #[test]
    fn rows_move_to_a_later_time_and_others_are_rejected() {
        let rows = timed("at: 10, 20, 30, 40, 50; to: 15, 20, 29, null, 9223372036854775807");
        let moves = WithTimestamps::new(col("to"));
        let (moved, mut out) = run_transform(&moves, &rows, OnBadRow::DeadLetter).unwrap();
        expect![[r#"
            at: 10, 20
            to: 15, 20
            event_time: 15, 20"#]]
        .assert_eq(&show(&moved));
        let letters = out.take_dead_letters();
        let letters: Vec<String> = letters
            .iter()
            .map(|letter| format!("{}: {}", letter.row, letter.reason))
            .collect();
        expect![[r#"
            3: event time `to` is null
            4: event time `to` is out of range, -9223372036854775 to 9223372036854775 milliseconds since 1970
            2: event time `to` is 29, before that of the row, which is 30 (milliseconds since 1970)"#]].assert_eq(&letters.join("\n"));
        let (all, _) = run_transform(&moves, &rows.slice(0, 0), OnBadRow::Fail).unwrap();
        assert_eq!((all.num_rows(), all.schema()), (0, rows.schema()));
    }

    /// What moves is in the windows of its new time, and the watermark, which stays, has not passed it.
    #[test]
    fn rows_wait_for_the_windows_of_their_new_time() {
        let pipeline = Pipeline::new("closed");
        let bids = pipeline.read("bids", scripted("at: 0; closes: 0; price: 0"));
        let (sink, _) = connectors::collect();
        bids.assign_timestamps(col("at"), Watermarks::monotone())
            .with_timestamps(col("closes"))
            .window(Windowing::fixed(Duration::from_millis(10)))
            .agg([max(col("price")).alias("highest"), count(lit(1)).alias("n")])
            .select([col("event_time"), col("highest"), col("n")])
            .named("closed")
            .write(sink);
        let script = Script::new()
            .rows("bids", "at: 1, 2, 3; closes: 25, 9, 25; price: 5, 7, 9")
            .rows("bids", "at: 12; closes: 24; price: 8")
            .rows("bids", "at: 31; closes: 31; price: 1")
            .end("bids");
        let expected = expect![[r#"
            event_time=29 highest=9 n=3
            event_time=39 highest=1 n=1
            event_time=9 highest=7 n=1"#]];
        for (n_workers, seed) in [(1, 0), (2, 1), (3, 2)] {
            let run = simulate(&pipeline, &script, n_workers, seed).unwrap();
            expected.assert_eq(&show_rows(&run.rows("closed")));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_while_planning() {
        let refused = |expr: Expr, is_timed: bool, is_changelog: bool| {
            let pipeline = Pipeline::new("refused");
            let rows = pipeline.read("rows", scripted("at: 0; key: a"));
            let (sink, _) = connectors::collect();
            let rows = match is_timed {
                true => rows.assign_timestamps(col("at"), Watermarks::monotone()),
                false => rows,
            };
            let rows = match is_changelog {
                true => rows.upserts(["key"]),
                false => rows,
            };
            rows.named("moved").with_timestamps(expr).write(sink);
            pipeline.plan().unwrap_err().to_string()
        };
        expect![[r#"
            the rows have no event time
              in transform "moved"
              Hint: Give it to them with `assign_timestamps`, and keep the column "event_time" up to here."#]].assert_eq(&refused(col("at"), false, false));
        expect![[r#"
            event time `key` must be a timestamp, a date or an Int64 of milliseconds, found Utf8
              in transform "moved"
              Hint: Convert it, for example with `to_timestamp_millis`."#]]
        .assert_eq(&refused(col("key"), true, false));
        expect![[r#"
            with_timestamps does not take a changelog
              in transform "moved"
              A row that is taken back would count as a row.
              Hint: Take its `changes()` for plain rows, or do this before the rows become changes."#]].assert_eq(&refused(col("at"), true, true));
    }
}
