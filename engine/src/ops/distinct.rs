//! Keeps one of the rows that are equal.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, BinaryArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;
use serde_json::Value;

use super::group_by::{FinalAggregate, PartialAggregate, distinct_in_windows, groups_alone};
use super::row_key::{RowKey, with_bytes};
use super::top_k::{Stage, TopK};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::{is_changelog, values_of};
use crate::error::Result;
use crate::expression::col;
use crate::keys::{Keys, keys_of, normal};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::plan::{Lowered, Place};
use crate::state::StatePart;
use crate::transform::{
    Description, Distribution, OnChangelog, Operator, Properties, Transform, Watermark,
};

/// The bytes by which rows are compared, on their way to the worker of their key.
const KEY: &str = "$key";
/// Before the exchange as many distinct rows are remembered at most.
const MAX_REMEMBERED: usize = 1 << 17;

/// Keeps one of the rows that are equal in all columns; null is equal to null.
///
/// -0.0 leaves as 0.0 and every NaN as the same NaN. Rows leave as soon as they are first seen.
///
/// Of a [changelog](crate::changelog) it makes another: a row is added when it comes to be there, however often,
/// and taken back when it is there no more. A row that is taken back more often than it was added ends the run.
#[derive(Clone, Debug)]
pub struct Distinct {
    stage: Stage,
    /// Both halves over changes, once the first has been found to read some.
    of_changes: Arc<Mutex<Option<(PartialAggregate, FinalAggregate)>>>,
}

impl Collection {
    /// The distinct rows; of a changelog, their changes. Their order is not promised.
    ///
    /// Where the rows have [windows](Collection::window), those of each window, as Beam's `Distinct`: rows of a
    /// window that are equal in all columns but `event_time` are one. It leaves when its trigger first fires (say
    /// `Trigger::always()` for rows that leave as soon as they are seen), with the columns that
    /// [aggregates](crate::ops::GroupedRows::agg) have: `window_start`, `window_end`, the `event_time` of the
    /// result, `pane` and `diff`. Later firings say nothing of it, whatever the accumulation, since nothing about it
    /// has changed; where windows that merge have become another, it leaves for that one too, and what has left is
    /// taken back by [`AccumulatingAndRetracting`](crate::windowing::Accumulation::AccumulatingAndRetracting).
    /// Rows are remembered until the watermark has passed the end of their window by the allowed lateness; those that
    /// are too late are left out and counted, see [`Collection::distinct_with_late`].
    ///
    /// Of a changelog in windows, a row is there while it is in its window, and changes as aggregates do.
    ///
    /// All columns make a row what it is, so all are asked for of what is before it, whichever are read of the result.
    ///
    /// ```
    /// # use mainstem_engine::connectors::{collect, from_record_batches};
    /// # use mainstem_engine::testing::{show_rows, table};
    /// # use mainstem_engine::windowing::{FixedWindows, Windowing};
    /// # use mainstem_engine::{Pipeline, RunOptions};
    /// # use std::time::Duration;
    /// let pipeline = Pipeline::new("visitors");
    /// let rows = table("user: ann, bob, ann, ann; event_time: 1, 2, 9, 11");
    /// let rows = pipeline.read("rows", from_record_batches(vec![rows]));
    /// let (sink, visitors) = collect();
    /// let windows = Windowing::of(FixedWindows::of(Duration::from_millis(10)));
    /// rows.window(windows).distinct().write(sink);
    /// pipeline.run(&RunOptions::default())?;
    /// assert_eq!(show_rows(&visitors.take()), "\
    /// user='ann' window_start=0 window_end=10 event_time=9
    /// user='ann' window_start=10 window_end=20 event_time=19
    /// user='bob' window_start=0 window_end=10 event_time=9");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn distinct(&self) -> Collection {
        let name = self.next_name("distinct");
        if !self.windowing().is_default() {
            return distinct_in_windows(self, &name).0;
        }
        let of_changes = Arc::default();
        let half = |stage| Distinct {
            stage,
            of_changes: Arc::clone(&of_changes),
        };
        self.named(format!("{name}/partial"))
            .apply(half(Stage::Partial))
            .named(name)
            .apply(half(Stage::Final))
    }

    /// As [`Collection::distinct`] in windows, and the rows that came too late for all of theirs, as they came in.
    ///
    /// In the global window with the default trigger there are none, and distinct rows leave when the input ends.
    #[must_use]
    pub fn distinct_with_late(&self) -> (Collection, Collection) {
        distinct_in_windows(self, &self.next_name("distinct"))
    }

    /// Of the rows with equal `keys` the one that stands first in the source; null is equal to null.
    ///
    /// Sources come in the order of the graph, splits in that of their source. Rows that no longer have a
    /// place of their own in a source, such as those of a `group_by` or of a changelog, are ordered by their values
    /// instead. A source that is not repeatable, as a query of DataFusion may not be, may give another row first in
    /// each run. The order in which rows leave is not promised. At most one row a key is kept in memory. Which columns
    /// it asks for, and what it gives in windows, is as of [`Collection::top_k`].
    #[must_use]
    pub fn distinct_by(&self, keys: impl IntoIterator<Item = Expr>) -> Collection {
        TopK::new(1, Vec::new())
            .by(keys.into_iter().collect())
            .called("distinct_by")
            .add_to(self)
    }
}

impl Distinct {
    /// Both halves over changes; `None` where the rows are none.
    fn of_changes(&self) -> Option<(PartialAggregate, FinalAggregate)> {
        let of_changes = self.of_changes.lock();
        of_changes.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Transform for Distinct {
    fn describe(&self) -> Description {
        let kind = match self.stage {
            Stage::Partial => "partial_distinct",
            Stage::Final => "distinct",
        };
        Description::new(kind, Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        if self.stage == Stage::Partial {
            let halves = is_changelog(&inputs[0]).then(|| groups_alone(values_of(&inputs[0])));
            let of_changes = self.of_changes.lock();
            *of_changes.unwrap_or_else(PoisonError::into_inner) = halves;
        }
        match (self.stage, self.of_changes()) {
            (Stage::Partial, Some((partial, _))) => partial.output_schema(inputs),
            (Stage::Final, Some((_, last))) => last.output_schema(inputs),
            (Stage::Partial, None) => {
                RowKey::of(&all_columns(&inputs[0]), &inputs[0])?;
                with_bytes(&inputs[0], &[KEY])
            }
            (Stage::Final, None) => {
                let columns: Vec<usize> = (0..inputs[0].fields().len().saturating_sub(1)).collect();
                Ok(Arc::new(inputs[0].project(&columns)?))
            }
        }
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(DistinctOperator {
            stage: self.stage,
            key: None,
            seen: keys_of(&[DataType::Binary])?,
            groups: Vec::new(),
        }))
    }

    fn lower(&self, _place: &Place<'_>) -> Result<Option<Lowered>> {
        Ok(self.of_changes().map(|(partial, last)| match self.stage {
            Stage::Partial => Lowered::to(partial, 1),
            Stage::Final => Lowered::to(last, 1),
        }))
    }

    fn keeps(&self) -> Option<String> {
        Some(match self.stage {
            Stage::Partial => "some of the rows it has seen".into(),
            Stage::Final => "all rows it has seen, to the end".into(),
        })
    }

    fn properties(&self) -> Properties {
        Properties {
            stateful: true,
            on_changelog: OnChangelog::Understand,
            distribution: match self.stage {
                Stage::Partial => Distribution::Keep,
                Stage::Final => Distribution::ByKey(vec![KEY.into()]),
            },
            ..Properties::default()
        }
    }
}

fn all_columns(schema: &SchemaRef) -> Vec<Expr> {
    schema.fields().iter().map(|f| col(f.name())).collect()
}

struct DistinctOperator {
    stage: Stage,
    key: Option<RowKey>,
    seen: Box<dyn Keys>,
    groups: Vec<usize>,
}

impl DistinctOperator {
    /// The rows with their bytes, and with one value for all that are equal.
    fn with_key(&mut self, rows: &RecordBatch) -> Result<RecordBatch> {
        let schema = rows.schema();
        let key = match &mut self.key {
            Some(key) => key,
            slot => slot.insert(RowKey::of(&all_columns(&schema), &schema)?),
        };
        let bytes: BinaryArray = key.bytes(rows)?;
        let mut columns = rows
            .columns()
            .iter()
            .map(normal)
            .collect::<Result<Vec<_>>>()?;
        columns.push(Arc::new(bytes) as ArrayRef);
        Ok(RecordBatch::try_new(with_bytes(&schema, &[KEY])?, columns)?)
    }
}

impl Operator for DistinctOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let rows = match self.stage {
            Stage::Partial => self.with_key(batch.rows())?,
            Stage::Final => batch.rows().clone(),
        };
        let last = rows.num_columns() - 1;
        let mut n_seen = self.seen.len();
        let bytes = [Arc::clone(rows.column(last))];
        self.seen
            .number(&bytes, rows.num_rows(), &mut self.groups)?;
        // Numbers are given in the order of first sight, so a new one is one higher than all before.
        let first_seen = self.groups.iter().map(|&group| {
            let is_new = group == n_seen;
            n_seen += usize::from(is_new);
            Some(is_new)
        });
        let mask: BooleanArray = first_seen.collect();
        let n_kept = mask.true_count();
        out.filtered(rows.num_rows() - n_kept);
        let mut kept = filter_record_batch(&rows, &mask)?;
        if self.stage == Stage::Final {
            kept.remove_column(last);
        } else if self.seen.len() > MAX_REMEMBERED {
            // What is forgotten is told apart again on the worker of its key.
            self.seen = keys_of(&[DataType::Binary])?;
        }
        out.push(batch.derive(kept));
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, _out: &mut Output) -> Result<()> {
        if watermark.is_end() {
            self.seen.forget();
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        (self.seen.n_bytes() + self.groups.capacity() * size_of::<usize>()) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let columns = self.seen.columns(0..self.seen.len())?;
        let named = columns.into_iter().map(|c| (KEY, c));
        let seen = RecordBatch::try_from_iter(named)?;
        StatePart::by_key("seen", &seen, &[KEY.to_owned()])
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        for StatePart { rows, .. } in state {
            self.seen
                .number(rows.columns(), rows.num_rows(), &mut self.groups)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::OnBadRow;
    use crate::testing::{run_transform, show, table};
    use expect_test::expect;

    #[test]
    fn rows_leave_once_and_what_was_seen_survives_a_snapshot() {
        let rows = table("a: 1, null, 1, null, 2; b: 0.0, nan, -0.0, nan, 0.0");
        let both = [Stage::Partial, Stage::Final].map(|stage| Distinct {
            stage,
            of_changes: Arc::default(),
        });
        let (keyed, _) = run_transform(&both[0], &rows, OnBadRow::Fail).unwrap();
        let (made, mut out) = run_transform(&both[1], &keyed, OnBadRow::Fail).unwrap();
        assert_eq!(out.take_counts(), (0, 0));
        expect![[r#"
            a: 1, null, 2
            b: 0.0, NaN, 0.0"#]]
        .assert_eq(&show(&made));

        let mut first = both[1].build(&Artifacts::none()).unwrap();
        first
            .on_batch(0, Batch::new(keyed.slice(0, 2)), &mut out)
            .unwrap();
        let mut second = both[1].build(&Artifacts::none()).unwrap();
        second.restore(&first.snapshot().unwrap()).unwrap();
        out.take();
        second.on_batch(0, Batch::new(keyed), &mut out).unwrap();
        let left: Vec<String> = out.take().iter().map(|(_, b)| show(b.rows())).collect();
        assert_eq!(left, ["a: 2\nb: 0.0"]);
    }
}
