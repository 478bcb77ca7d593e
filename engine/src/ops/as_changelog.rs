//! Makes each row a change of a collection.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int8Array};
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, Int8Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::diff_field;
use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME};
use crate::expression::check_column;
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{ChangeTimes, Description, Operator, Properties, Transform};

/// Makes each row a change: a changelog in which nothing is taken back, or as a column says.
///
/// What is computed from it is kept up to date as rows come, and is a changelog in turn. With an event time
/// a row takes effect then; without one, when it comes.
#[derive(Clone, Debug, Default)]
pub struct AsChangelog {
    by: Option<String>,
}

impl AsChangelog {
    /// Each row is an addition.
    pub fn new() -> Self {
        Self::default()
    }

    /// The column of this name, of integers, says how each row changes the collection: 1 adds it, -1 takes it
    /// back, as [`Collection::changes`] writes them. It becomes the column `diff`; a row for which it is null,
    /// 0, or no small integer is rejected.
    ///
    /// The event time of the rows, where they have one, is taken for that of the change; windows ask for that of the
    /// row, which [`Windowing::row_time`](crate::windowing::Windowing::row_time) says.
    pub fn by(column: impl Into<String>) -> Self {
        Self {
            by: Some(column.into()),
        }
    }
}

impl Collection {
    /// Each row as an addition to a collection that changes; see [changelogs](crate::changelog).
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, aggregates::sum, col, connectors, testing::{show, table}};
    /// let pipeline = Pipeline::new("stock");
    /// let moves = table("item: nut, bolt, nut; n: 5, 3, -2");
    /// let moves = pipeline.read("moves", connectors::from_record_batches(vec![moves]));
    /// let (sink, stock) = connectors::collect();
    /// moves.as_changelog().group_by([col("item")]).agg([sum(col("n")).alias("n")]).write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(show(&stock.take()[0]), "item: 'nut', 'bolt'\nn: 3, 3\ndiff: 1, 1");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn as_changelog(&self) -> Collection {
        self.apply(AsChangelog::new())
    }
}

impl Transform for AsChangelog {
    fn describe(&self) -> Description {
        let config = self.by.as_ref().map(|by| json!({ "by": by }));
        Description::new("as_changelog", config.unwrap_or_default())
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let mut fields = inputs[0].fields().to_vec();
        if let Some(by) = &self.by {
            let field = fields.remove(check_column(by, &inputs[0])?);
            if !field.data_type().is_integer() {
                return Err(Error::pipeline(format!(
                    "column {by:?} must hold integers, found {}",
                    field.data_type()
                ))
                .with_hint(
                    "It says how each row changes the collection: 1 adds it, -1 takes it back.",
                ));
            }
        }
        if fields.iter().any(|f| f.name() == DIFF) {
            return Err(
                Error::pipeline(format!("rows have a column {DIFF:?} already"))
                    .with_hint("Give it another name with `select`, or say with `AsChangelog::by` that it is what it is called."),
            );
        }
        fields.push(diff_field());
        Ok(Arc::new(Schema::new(fields)))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(AsChangelogOperator {
            spec: self.clone(),
            schema: None,
        }))
    }

    fn properties(&self) -> Properties {
        // Where rows are taken back, their event time may say when, in place of when the row was.
        let change_times = match self.by {
            None => ChangeTimes::Kept,
            Some(_) => ChangeTimes::Effect,
        };
        Properties::row_wise()
            .keeps_positions(true)
            .change_times(change_times)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let mut columns: Vec<String> = wanted?.iter().filter(|n| *n != DIFF).cloned().collect();
        columns.push(EVENT_TIME.into());
        columns.extend(self.by.clone());
        Some(columns)
    }
}

struct AsChangelogOperator {
    spec: AsChangelog,
    schema: Option<SchemaRef>,
}

impl AsChangelogOperator {
    /// The rows whose change is known, without the column that says it, and their changes.
    fn by(name: &str, batch: Batch, out: &mut Output) -> Result<(Batch, ArrayRef)> {
        let at = check_column(name, &batch.rows().schema())?;
        let diffs = cast(batch.rows().column(at), &DataType::Int8)?;
        let of = diffs.as_primitive::<Int8Type>();
        let is_good = |row: usize| of.is_valid(row) && of.value(row) != 0;
        let good: BooleanArray = (0..of.len()).map(|row| Some(is_good(row))).collect();
        for row in (0..of.len()).filter(|row| !is_good(*row)) {
            let reason = format!("column {name:?} does not say how the row changes the collection");
            out.reject(&batch, row, reason)?;
        }
        let (mut batch, mut diffs) = (batch, diffs);
        if good.true_count() < good.len() {
            batch = batch.filter(&good)?;
            diffs = filter(&diffs, &good)?;
        }
        let mut rows = batch.rows().clone();
        rows.remove_column(at);
        Ok((batch.with_columns(rows), diffs))
    }
}

impl Operator for AsChangelogOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let schema = match &self.schema {
            Some(schema) => Arc::clone(schema),
            None => {
                let schema = self.spec.output_schema(&[batch.rows().schema()])?;
                Arc::clone(self.schema.insert(schema))
            }
        };
        let (batch, diffs) = match &self.spec.by {
            Some(by) => Self::by(by, batch, out)?,
            None => {
                let diffs = Int8Array::from(vec![1; batch.n_rows()]);
                (batch, Arc::new(diffs) as ArrayRef)
            }
        };
        let mut columns = batch.rows().columns().to_vec();
        columns.push(diffs);
        let rows = RecordBatch::try_new(schema, columns)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Changes;
    use crate::output::OnBadRow;
    use crate::testing::{check_transform, refuse_transform, run_transform, show, table};
    use expect_test::expect;

    #[test]
    fn each_row_is_added() {
        check_transform(
            AsChangelog::new(),
            "a: 1, null",
            expect![[r#"
                a: 1, null
                diff: 1, 1"#]],
        );
    }

    #[test]
    fn a_column_says_how_rows_change() {
        let rows = table("a: 1, 2, 3, 4, 5; change: 1, -1, 0, null, 300");
        let by = AsChangelog::by("change");
        let (made, mut out) = run_transform(&by, &rows, OnBadRow::Drop).unwrap();
        assert_eq!(show(&made), "a: 1, 2\ndiff: 1, -1");
        assert_eq!(out.take_counts(), (0, 3));
        let (plain, _) = run_transform(&Changes, &made, OnBadRow::Fail).unwrap();
        let (back, _) = run_transform(&by, &plain, OnBadRow::Fail).unwrap();
        assert_eq!(back, made);
    }

    #[test]
    fn a_column_of_that_name_is_not_replaced() {
        refuse_transform(
            AsChangelog::new(),
            "diff: 1.5",
            expect![[r#"
                rows have a column "diff" already
                  Hint: Give it another name with `select`, or say with `AsChangelog::by` that it is what it is called."#]],
        );
        refuse_transform(
            AsChangelog::by("sign"),
            "sign: 1.5",
            expect![[r#"
                column "sign" must hold integers, found Float64
                  Hint: It says how each row changes the collection: 1 adds it, -1 takes it back."#]],
        );
    }
}
