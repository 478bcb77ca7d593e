//! Tests of simulations: whatever moves first, the rows are the same.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use proptest::prelude::*;

use crate::aggregates::{count, sum};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::connectors::collect;
use crate::error::Result;
use crate::expression::{col, lit};
use crate::ops::{SideInput, Watermarks};
use crate::output::Output;
use crate::pipeline::Pipeline;
use crate::testing::{Script, scripted, show_rows, simulate, table};
use crate::transform::{Description, Operator, Properties, Transform, Watermark};

fn sums() -> Pipeline {
    let pipeline = Pipeline::new("sums");
    let (sink, _) = collect();
    pipeline
        .read("rows", scripted("k: 0; v: 0").bounded(true))
        .assign_timestamps(col("v"), Watermarks::monotone())
        .group_by([col("k")])
        .agg([sum(col("v")).alias("sum"), count(lit(1)).alias("n")])
        .named("out")
        .write(sink);
    pipeline
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_moves_first_and_wherever_it_restarts_the_rows_are_the_same(
        rows in prop::collection::vec((0i64..5, 0i64..100, 0u32..4), 1..40),
        restarts in prop::collection::vec((0usize..40, 1usize..5), 0..4),
        n_workers in 1usize..5,
        seed in any::<u64>(),
    ) {
        let mut script = Script::new();
        let mut expected = std::collections::BTreeMap::new();
        for (at, (k, v, split)) in rows.iter().enumerate() {
            for (_, n_workers) in restarts.iter().filter(|(when, _)| *when == at) {
                script = script.restart(*n_workers);
            }
            script = script.batch("rows", *split, table(&format!("k: {k}; v: {v}")));
            let of: &mut (i64, i64) = expected.entry(*k).or_default();
            *of = (of.0 + v, of.1 + 1);
        }
        let simulated = simulate(&sums(), &script.end("rows"), n_workers, seed).unwrap();
        let lines: Vec<String> = expected
            .iter()
            .map(|(k, (sum, n))| format!("k={k} sum={sum} n={n}"))
            .collect();
        prop_assert_eq!(show_rows(&simulated.rows("out")), lines.join("\n"));
    }
}

#[test]
fn rows_arrive_after_the_step_that_made_them() {
    let pipeline = Pipeline::new("filter");
    let (sink, _) = collect();
    let rows = pipeline.read("rows", scripted("k: 0"));
    rows.filter(col("k").gt(lit(1))).named("out").write(sink);
    let script = Script::new()
        .rows("rows", "k: 1")
        .rows("rows", "k: 2, 3")
        .end("rows");
    let simulated = simulate(&pipeline, &script, 2, 1).unwrap();
    let steps: Vec<String> = simulated
        .steps("out")
        .iter()
        .map(|rows| show_rows(rows))
        .collect();
    assert_eq!(steps, ["", "k=2\nk=3", ""]);
}

#[test]
fn a_source_that_is_not_there_is_refused() {
    let script = Script::new().rows("row", "k: 1; v: 1");
    let error = simulate(&sums(), &script, 1, 1).unwrap_err();
    assert_eq!(error.message(), "the pipeline has no source \"row\"");
}

/// Orders whose watermark lags, and rates whose does not: an order waits for what its rate needs alone.
fn priced() -> Pipeline {
    let pipeline = Pipeline::new("prices");
    let read = |name: &str, columns: &str, watermarks| {
        let rows = pipeline.read(name, scripted(columns));
        rows.assign_timestamps(col("at"), watermarks)
    };
    let late = Watermarks::bounded_out_of_orderness(Duration::from_millis(100));
    let orders = read("orders", "at: 0; code: x", late);
    let rates = read("rates", "at: 0; of: x; rate: 1", Watermarks::monotone());
    let rates = rates.select([col("of"), col("rate"), col("event_time")]);
    let rate = SideInput::map([(col("code"), col("of"))]).as_of_event_time();
    let (sink, _) = collect();
    let priced = orders.with_side_input(&rates, rate);
    priced
        .select([col("at"), col("rate")])
        .named("priced")
        .write(sink);
    pipeline
}

#[test]
fn each_input_is_told_of_by_itself() {
    let script = Script::new()
        .rows("rates", "at: 10, 20; of: x, x; rate: 1, 2")
        .rows("orders", "at: 15, 25; code: x, x") // the rate of 15 is known, that of 25 is not
        .rows("rates", "at: 30; of: x; rate: 3") // now it is, though the watermark of orders is -75
        .restart(2)
        .rows("orders", "at: 22; code: x")
        .end("rates")
        .end("orders");
    for seed in 0..20 {
        for n_workers in 1..=3 {
            let run = simulate(&priced(), &script, n_workers, seed).unwrap();
            let steps = run.steps("priced").iter().map(|rows| show_rows(rows));
            let steps: Vec<String> = steps.collect();
            let expected = [
                "",
                "at=15 rate=1",
                "at=25 rate=2",
                "",
                "at=22 rate=2",
                "",
                "",
            ];
            assert_eq!(steps, expected, "seed {seed}, {n_workers} workers");
        }
    }
}

/// What is told of the watermark of all inputs never goes past what has been told of one.
#[derive(Clone, Debug)]
struct Watermarked;

impl Transform for Watermarked {
    fn describe(&self) -> Description {
        Description::new("watermarked", serde_json::Value::Null)
    }

    fn output_schema(&self, _inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(table("input: 0; at: 0").schema())
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Told([i64::MIN; 2])))
    }

    fn properties(&self) -> Properties {
        Properties {
            n_inputs: Some(2),
            ..Properties::default()
        }
    }
}

/// Gives a row for all that it is told: of which input, or 9 for both.
struct Told([i64; 2]);

impl Told {
    fn tell(&self, input: usize, at: i64, out: &mut Output) {
        if at.abs() < 1_000 {
            out.push(Batch::new(table(&format!("input: {input}; at: {at}"))));
        }
    }
}

impl Operator for Told {
    fn on_batch(&mut self, _port: usize, _batch: Batch, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    fn on_input_watermark(&mut self, port: usize, at: Watermark, out: &mut Output) -> Result<()> {
        assert!(at.0 > self.0[port], "told twice of the same");
        self.0[port] = at.0;
        self.tell(port, at.0, out);
        Ok(())
    }

    fn on_watermark(&mut self, at: Watermark, out: &mut Output) -> Result<()> {
        assert!(
            self.0.iter().all(|of_input| *of_input >= at.0),
            "not told of an input"
        );
        self.tell(9, at.0, out);
        Ok(())
    }
}

#[test]
fn inputs_are_told_of_before_all_are() {
    let pipeline = Pipeline::new("test");
    let left = pipeline.read("left", scripted("a: 0"));
    let right = pipeline.read("right", scripted("a: 0"));
    let (sink, _) = collect();
    let told = left.apply_with(&[right], Watermarked);
    told.named("out").write(sink);
    let script = Script::new()
        .watermark("left", 10)
        .watermark("right", 7)
        .watermark("right", 12)
        .end("left")
        .end("right");
    for seed in 0..20 {
        let run = simulate(&pipeline, &script, 1, seed).unwrap();
        let steps = run.steps("out").iter().map(|rows| show_rows(rows));
        let expected = [
            "input=0 at=10",
            "input=1 at=7\ninput=9 at=7",
            "input=1 at=12\ninput=9 at=10",
            "input=9 at=12",
            "",
        ];
        assert_eq!(steps.collect::<Vec<_>>(), expected, "seed {seed}");
    }
}
