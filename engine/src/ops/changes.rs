//! Turns a changelog into plain rows, which any sink takes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::Value;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::check_changelog;
use crate::error::{Error, Result};
use crate::event_time::DIFF;
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform};

/// The column of [`Collection::changes`].
const CHANGE: &str = "change";

/// Turns a changelog into plain rows: the column `diff` becomes `change`, a column like any other.
///
/// Whoever reads the rows gets the collection back as the sum of `change` by all other columns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes;

impl Collection {
    /// The changes of a changelog as plain rows, with the column `change`: 1 where a row is added, -1 where
    /// it is taken back.
    #[must_use]
    pub fn changes(&self) -> Collection {
        self.apply(Changes)
    }
}

fn plain(schema: &Schema) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .map(|field| match field.name() == DIFF {
            true => Arc::new(Field::new(CHANGE, DataType::Int8, false)),
            false => Arc::clone(field),
        });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl Transform for Changes {
    fn describe(&self) -> Description {
        Description::new("changes", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        check_changelog(&inputs[0])?;
        if inputs[0].index_of(CHANGE).is_ok() {
            return Err(
                Error::pipeline(format!("the changelog has a column {CHANGE:?} already"))
                    .with_hint("Give it another name with `select`."),
            );
        }
        Ok(plain(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(ChangesOperator { schema: None }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise()
            .keeps_positions(true)
            .on_changelog(OnChangelog::Understand)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let columns = wanted?.iter().filter(|n| *n != CHANGE).cloned();
        Some(columns.chain([DIFF.to_owned()]).collect())
    }
}

struct ChangesOperator {
    schema: Option<SchemaRef>,
}

impl Operator for ChangesOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let input = batch.rows().schema();
        let schema = self.schema.get_or_insert_with(|| plain(&input));
        let rows = RecordBatch::try_new(Arc::clone(schema), batch.rows().columns().to_vec())?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::{collect, csv_sink, from_record_batches};
    use crate::ops::AsChangelog;
    use crate::output::OnBadRow;
    use crate::{Pipeline, col, lit};
    use serde::{Deserialize, Serialize};

    use crate::testing::{refuse_transform, run_transform, show, table};
    use expect_test::expect;

    #[test]
    fn the_diff_becomes_a_column_like_any_other() {
        let (added, _) =
            run_transform(&AsChangelog::new(), &table("a: 1, 2"), OnBadRow::Fail).unwrap();
        let (plain, _) = run_transform(&Changes, &added, OnBadRow::Fail).unwrap();
        assert_eq!(show(&plain), "a: 1, 2\nchange: 1, 1");
    }

    /// What planning says where a changelog with the column `a` goes into what `end` adds.
    fn planned(end: impl FnOnce(Collection)) -> String {
        let pipeline = Pipeline::new("test");
        end(pipeline
            .read("rows", from_record_batches(vec![table("a: 1")]))
            .as_changelog());
        match pipeline.plan() {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Row {
        a: i64,
    }

    #[test]
    fn a_sink_that_takes_nothing_back_refuses_changes() {
        let csv = || csv_sink("/nowhere/changes.csv");
        expect![[r#"
            csv_sink does not take a changelog
              in sink "csv_sink"
              A row that is taken back would count as a row.
              Hint: Write its `changes()`, which are plain rows with a column that says what each changes."#]]
        .assert_eq(&planned(|rows| rows.write(csv())));
        assert_eq!(planned(|rows| rows.changes().write(csv())), "accepted");
        assert_eq!(planned(|rows| rows.write(collect().0)), "accepted");
    }

    #[test]
    fn what_would_count_a_row_that_is_taken_back_refuses_changes() {
        expect![[r#"
            sample does not take a changelog
              in transform "sample"
              A row that is taken back would count as a row.
              Hint: Take its `changes()` for plain rows, or do this before the rows become changes."#]]
        .assert_eq(&planned(|rows| rows.sample(0.5, 7).write(collect().0)));
        expect![[r#"
            map_rows loses column "diff" of a changelog
              in transform "map_rows"
              Without it a row that is taken back would count as a row.
              Hint: Keep the column as it is, or take `changes()` first."#]]
        .assert_eq(&planned(|rows| {
            rows.map_rows(|row: Row| row).write(collect().0)
        }));
        expect![[r#"
            `diff = Int32(1)` reads column "diff" of a changelog
              in transform "filter"
              It is another when the same row is taken back, which would then be a row that was never added.
              Hint: Copy it to another name before the rows become changes, or take `changes()` first, where "diff" is a column like any other."#]]
        .assert_eq(&planned(|rows| rows.filter(col("diff").eq(lit(1))).write(collect().0)));
    }

    #[test]
    fn plain_rows_have_no_changes() {
        refuse_transform(
            Changes,
            "a: 1",
            expect![[r#"
            expected a changelog, with column "diff"
              The columns are "a".
              Hint: Make rows changes with `as_changelog` or `upserts`."#]],
        );
    }
}
