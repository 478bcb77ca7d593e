//! What reports say of the state of windows that overlap: a row is kept once, however many of them it is in.

use super::*;
use crate::connectors::from_record_batches;
use crate::ops::{JoinKind, Watermarks, WindowedJoin};
use crate::pipeline::Collection;
use crate::runner::RunOptions;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

/// Windows of so many milliseconds, one every 10.
fn sliding(size: u64) -> Windowing {
    Windowing::of(SlidingWindows::of(ms(size)).every(ms(10)))
}

/// 100 stretches of 10 milliseconds with 40 rows each, of as many keys.
fn rows(name: &str) -> RecordBatch {
    let numbers = || 0..4_000i64;
    let column = |of: &dyn Fn(i64) -> i64| {
        let values: Vec<String> = numbers().map(|n| of(n).to_string()).collect();
        values.join(", ")
    };
    let (at, k, x) = (column(&|n| n / 4), column(&|n| n % 40), column(&|n| n));
    table(&format!("at: {at}; k: {k}; {name}: {x}"))
}

fn read(pipeline: &Pipeline, name: &str, windowing: &Windowing) -> Collection {
    let rows = pipeline.read(name, from_record_batches(vec![rows(name)]));
    let timed = rows.assign_timestamps(col("at"), Watermarks::monotone());
    timed.window(windowing.clone())
}

/// What windows of this size make, by the sum of `n`, and the most state that these nodes have kept.
fn run(
    n_workers: usize,
    nodes: &[&str],
    compose: impl FnOnce(&Pipeline) -> Collection,
) -> (i64, u64) {
    let pipeline = Pipeline::new("overlap");
    let (sink, made) = collect();
    compose(&pipeline).select([col("n")]).write(sink);
    let report = pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
    let made = made.take();
    let sums = made.iter().map(|rows| {
        let n = rows.column(0).as_primitive::<Int64Type>();
        n.values().iter().sum::<i64>()
    });
    let kept = nodes
        .iter()
        .map(|node| report.node(node).unwrap().peak_state_bytes);
    (sums.sum(), kept.sum())
}

#[test]
fn a_row_is_aggregated_once_however_many_windows_it_is_in() {
    for n_workers in 1..=2 {
        let of = |size| {
            run(n_workers, &["counted/partial", "counted"], |pipeline| {
                let rows = read(pipeline, "x", &sliding(size));
                let counted = rows.named("counted").group_by([col("k")]);
                counted.agg([count(lit(1)).alias("n"), max(col("x")).alias("most")])
            })
        };
        let ((n_alone, alone), (n_many, many)) = (of(10), of(200));
        assert_eq!((n_alone, n_many), (4_000, 4_000 * 20));
        assert!(alone > 100 * 40 * 16, "{alone} bytes are no 4,000 groups");
        assert!(
            many <= alone * 11 / 10,
            "{many} bytes, and {alone} without overlap"
        );
    }
}

#[test]
fn a_row_is_kept_once_however_many_windows_it_is_joined_in() {
    for n_workers in 1..=2 {
        let of = |size| {
            run(n_workers, &["pairs"], |pipeline| {
                let [left, right] = ["x", "y"].map(|name| read(pipeline, name, &sliding(size)));
                let right = right.select([col("k").alias("j"), col("y"), col("event_time")]);
                // Few pairs, and all rows.
                let join = WindowedJoin::new(JoinKind::Inner, [(col("x"), col("y"))]);
                let pairs = left.named("pairs").join_windowed(&right, join);
                pairs.with_column("n", lit(1i64))
            })
        };
        let ((n_alone, alone), (n_many, many)) = (of(10), of(200));
        assert_eq!((n_alone, n_many), (4_000, 4_000 * 20));
        assert!(alone > 2 * 4_000 * 16, "{alone} bytes are no 8,000 rows");
        assert!(
            many <= alone * 11 / 10,
            "{many} bytes, and {alone} without overlap"
        );
    }
}
