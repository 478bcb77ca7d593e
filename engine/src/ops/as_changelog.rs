//! Makes each row an addition to a collection that changes.

use std::sync::Arc;

use arrow::array::Int8Array;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::Value;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::diff_field;
use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{Description, Operator, Properties, Transform};

/// Makes each row an addition: a changelog in which nothing is taken back.
///
/// What is computed from it is kept up to date as rows come, and is a changelog in turn. With an event time
/// a row takes effect then; without one, when it comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsChangelog;

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
        self.apply(AsChangelog)
    }
}

fn with_diff(schema: &Schema) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(diff_field());
    Arc::new(Schema::new(fields))
}

impl Transform for AsChangelog {
    fn describe(&self) -> Description {
        Description::new("as_changelog", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        if inputs[0].index_of(DIFF).is_ok() {
            return Err(
                Error::pipeline(format!("rows have a column {DIFF:?} already"))
                    .with_hint("Give it another name with `select`."),
            );
        }
        Ok(with_diff(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(AsChangelogOperator { schema: None }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().keeps_positions(true)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let mut columns: Vec<String> = wanted?.iter().filter(|n| *n != DIFF).cloned().collect();
        columns.push(EVENT_TIME.into());
        Some(columns)
    }
}

struct AsChangelogOperator {
    schema: Option<SchemaRef>,
}

impl Operator for AsChangelogOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let input = batch.rows().schema();
        let schema = self.schema.get_or_insert_with(|| with_diff(&input));
        let mut columns = batch.rows().columns().to_vec();
        columns.push(Arc::new(Int8Array::from(vec![1; batch.n_rows()])));
        let rows = RecordBatch::try_new(Arc::clone(schema), columns)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_transform, refuse_transform};
    use expect_test::expect;

    #[test]
    fn each_row_is_added() {
        check_transform(
            AsChangelog,
            "a: 1, null",
            expect![[r#"
            a: 1, null
            diff: 1, 1"#]],
        );
    }

    #[test]
    fn a_column_of_that_name_is_not_replaced() {
        refuse_transform(
            AsChangelog,
            "diff: 1.5",
            expect![[r#"
            rows have a column "diff" already
              Hint: Give it another name with `select`."#]],
        );
    }
}
