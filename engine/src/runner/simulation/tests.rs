//! Tests of simulations: whatever moves first, the rows are the same.

use proptest::prelude::*;

use crate::aggregates::{count, sum};
use crate::connectors::collect;
use crate::expression::{col, lit};
use crate::ops::Watermarks;
use crate::pipeline::Pipeline;
use crate::testing::{Script, scripted, show_rows, simulate, table};

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
