//! The laws hold for an operator that keeps them, and are seen to be broken by one that does not.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use serde_json::Value;

use super::*;
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Description, Distribution, Operator, Properties};
use expect_test::expect;

/// What is wrong with a running sum.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    ForgetsOnRestore,
    CountsBatches,
    ChangesBySnapshot,
    SumsOverKeys,
    KeepsAtEnd,
    LosesRows,
    IsAhead,
}

/// Adds the sum of `x` so far of the same `k` to each row.
#[derive(Debug)]
struct RunningSum(Fault);

impl Transform for RunningSum {
    fn describe(&self) -> Description {
        Description::new("running_sum", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let mut fields = inputs[0].fields().to_vec();
        fields.push(Arc::new(Field::new("sum", DataType::Int64, false)));
        Ok(Arc::new(Schema::new(fields)))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(RunningSumOperator {
            fault: self.0,
            sums: BTreeMap::new(),
        }))
    }

    fn properties(&self) -> Properties {
        Properties {
            stateful: true,
            distribution: Distribution::ByKey(vec!["k".into()]),
            ..Properties::default()
        }
    }
}

struct RunningSumOperator {
    fault: Fault,
    sums: BTreeMap<i64, i64>,
}

impl Operator for RunningSumOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let rows = batch.rows();
        let k = rows["k"].as_primitive::<Int64Type>();
        let x = rows["x"].as_primitive::<Int64Type>();
        let mut sums = Vec::new();
        for (row, (k, x)) in k.values().iter().zip(x.values()).enumerate() {
            let key = if self.fault == Fault::SumsOverKeys {
                0
            } else {
                *k
            };
            let sum = self.sums.entry(key).or_default();
            *sum += x;
            if self.fault == Fault::CountsBatches && row == 0 {
                *sum += 1;
            }
            sums.push(*sum);
        }
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(sums)) as ArrayRef);
        let schema = RunningSum(Fault::None).output_schema(&[rows.schema()])?;
        let rows = RecordBatch::try_new(schema, columns)?;
        let n_lost = usize::from(self.fault == Fault::LosesRows);
        out.push(batch.derive(rows.slice(n_lost, rows.num_rows() - n_lost)));
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, _out: &mut Output) -> Result<()> {
        if watermark.is_end() && self.fault != Fault::KeepsAtEnd {
            self.sums.clear();
        }
        Ok(())
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        match self.fault {
            // A row may be as late as it likes and still leaves.
            Fault::IsAhead => input,
            _ => Watermark::START,
        }
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let k: ArrayRef = Arc::new(Int64Array::from_iter_values(self.sums.keys().copied()));
        let sum: ArrayRef = Arc::new(Int64Array::from_iter_values(self.sums.values().copied()));
        if self.fault == Fault::ChangesBySnapshot {
            self.sums.clear();
        }
        let rows = RecordBatch::try_from_iter([("k", k), ("sum", sum)])?;
        StatePart::by_key("sums", &rows, &["k".into()])
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        for StatePart { rows, .. } in state {
            let k = rows["k"].as_primitive::<Int64Type>();
            let sum = rows["sum"].as_primitive::<Int64Type>();
            if self.fault != Fault::ForgetsOnRestore {
                let both = k.values().iter().copied().zip(sum.values().iter().copied());
                self.sums.extend(both);
            }
        }
        Ok(())
    }
}

const INPUT: &str = "k: 1, 2, 3, 4; x: 1, -5, 7; event_time: 0";

#[test]
fn an_operator_that_keeps_the_laws_passes() {
    let laws = Laws::new().row_preserving(true);
    check_operator(RunningSum(Fault::None), &[INPUT], &laws);
}

#[test]
fn each_law_is_seen_to_be_broken() {
    let first_line = |fault: Fault| {
        let laws = Laws::new().row_preserving(true);
        let panic = catch_unwind(|| check_operator(RunningSum(fault), &[INPUT], &laws));
        let Err(panic) = panic else {
            return format!("{fault:?} is not seen");
        };
        let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        message.lines().next().unwrap_or_default().to_owned()
    };
    let found = [
        Fault::ForgetsOnRestore,
        Fault::CountsBatches,
        Fault::ChangesBySnapshot,
        Fault::SumsOverKeys,
        Fault::KeepsAtEnd,
        Fault::LosesRows,
        Fault::IsAhead,
    ]
    .map(first_line);
    expect![[r#"
        stopped before step 2 and restored, other rows leave at step 2 in the run of seed 0
        with batches of at most 1 rows, other rows leave at step 1 in the run of seed 0
        saved after each step, other rows leave at step 2 in the run of seed 0
        dealt to 1 operators, to 3 from step 4 on, other rows leave at step 5 in the run of seed 0
        at the end the operator keeps 4 rows in the run of seed 0
        with batches of at most 1 rows, other rows leave at step 1 in the run of seed 0
        at step 5 a row leaves with event time Some(-2), the watermark behind was 10 in the run of seed 0"#]].assert_eq(&found.join("\n"));
}

#[test]
fn a_script_shows_what_leaves_at_each_step() {
    OperatorRun::new(RunningSum(Fault::None), &[INPUT])
        .rows(0, "k: 1, 2, 1; x: 1, 2, 3; event_time: 5, 6, 7")
        .watermark(10)
        .rows(0, "k: 1; x: 1; event_time: 3")
        .processing_time(4)
        .end()
        .check(expect![[r#"
            rows
            k: 1, 2, 1
            x: 1, 2, 3
            event_time: 5, 6, 7
            sum: 1, 2, 4
            rows
            k: 1
            x: 1
            event_time: 3
            sum: 5"#]])
        .check_laws(&Laws::new().row_preserving(true));
}
