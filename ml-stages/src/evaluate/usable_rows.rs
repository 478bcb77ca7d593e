//! Rejects rows that cannot be evaluated, each with its place, before they are.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_engine::expression::check_column;
use mainstem_engine::{
    Artifacts, Batch, Description, Operator, Output, Properties, Result, Transform,
};
use serde_json::json;

use crate::model::Task;

/// The rows whose label and predictions are all there; the others are bad rows, and the reason names the
/// first column that lacks a value and what stands there.
///
/// The types of the columns are for the evaluation behind it to check.
#[derive(Clone, Debug)]
pub(super) struct UsableRows {
    pub(super) task: Task,
    pub(super) label: String,
    pub(super) predictions: Vec<String>,
}

impl UsableRows {
    /// Why each row cannot be evaluated; empty where all can.
    fn refusals(&self, rows: &RecordBatch) -> Result<Vec<(usize, String)>> {
        let label = |y: f64| match self.task {
            Task::Regression => y.is_nan(),
            Task::BinaryClassification => y != 0.0 && y != 1.0,
        };
        let mut refused = refused("label", &self.label, rows, label)?;
        for prediction in &self.predictions {
            refused.extend(self::refused("prediction", prediction, rows, f64::is_nan)?);
        }
        refused.sort_by_key(|(row, _)| *row);
        refused.dedup_by_key(|(row, _)| *row);
        Ok(refused)
    }
}

fn refused(
    role: &str,
    name: &str,
    rows: &RecordBatch,
    wrong: impl Fn(f64) -> bool,
) -> Result<Vec<(usize, String)>> {
    let column: &ArrayRef = rows.column(check_column(name, &rows.schema())?);
    let values = cast(column, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>();
    if values.null_count() == 0 && !values.values().iter().any(|x| wrong(*x)) {
        return Ok(Vec::new());
    }
    let found = |(row, value): (usize, Option<f64>)| match value {
        None => Some((row, format!("{role} {name:?} is null"))),
        Some(x) if wrong(x) => Some((row, format!("{role} {name:?} is {x}"))),
        Some(_) => None,
    };
    Ok(values.iter().enumerate().filter_map(found).collect())
}

impl Transform for UsableRows {
    fn describe(&self) -> Description {
        let config = json!({ "label": self.label, "predictions": self.predictions });
        Description::new("usable_rows", config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(UsableRowsOperator { spec: self.clone() }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().keeps_positions(true)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let mut columns = wanted?.to_vec();
        for name in std::iter::once(&self.label).chain(&self.predictions) {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        Some(columns)
    }
}

struct UsableRowsOperator {
    spec: UsableRows,
}

impl Operator for UsableRowsOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let refusals = self.spec.refusals(batch.rows())?;
        if refusals.is_empty() {
            out.push(batch);
            return Ok(());
        }
        let mut usable = vec![true; batch.n_rows()];
        for (row, reason) in refusals {
            usable[row] = false;
            out.reject(&batch, row, reason)?;
        }
        out.push(batch.filter(&BooleanArray::from(usable))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use mainstem_engine::testing::table;
    use mainstem_engine::{OnBadRow, Pipeline, RunOptions, connectors};

    use crate::evaluate::{Evaluate, EvaluateCollection};

    const ROWS: &str = "y: 1, null, 0, 2, 1; p: 0.75, 0.5, null, 0.25, 1.0";

    fn run(evaluate: Evaluate) -> mainstem_engine::Result<String> {
        let pipeline = Pipeline::new("how good");
        let rows = connectors::from_record_batches(vec![table(ROWS)]);
        let found = pipeline.read("people", rows).evaluate(evaluate);
        let report = pipeline.run(&RunOptions::new().workers(1))?;
        Ok(report.artifact(&found)?.to_string())
    }

    #[test]
    fn a_row_that_cannot_be_evaluated_is_named_with_its_place() {
        let error = run(Evaluate::classification("y", "p")).unwrap_err();
        assert!(error.is_data());
        expect![[r#"
            record batch 0, row 1: label "y" is null
              in transform "evaluate/rows"
              Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&error.to_string());
    }

    #[test]
    fn such_rows_are_left_out_where_that_is_asked_for() {
        let evaluate = Evaluate::classification("y", "p").on_bad_row(OnBadRow::Drop);
        expect![[r#"
            | slice | rows | prediction | accuracy | auc | log loss | mean label | mean prediction |
            |-------|------|------------|----------|-----|----------|------------|-----------------|
            | all   |    2 | p          |   1.0000 |   - |   0.1438 |     1.0000 |          0.8750 |"#]].assert_eq(&run(evaluate).unwrap());
    }
}
