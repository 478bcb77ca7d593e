//! Decimals are aggregated exactly, and a sum that does not fit ends the run.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Decimal128Array, Decimal256Array, Int64Array};
use arrow::datatypes::{DataType, i256};
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use proptest::prelude::*;

use crate::aggregates::{avg, count_distinct, max, min, sum, sum_distinct};
use crate::expression::{cast, col};
use crate::ops::relational_tests::{check_batch, check_rows, run_over, sorted};
use crate::pipeline::Collection;
use crate::testing::{show, table};
use crate::windowing::{FixedWindows, GlobalWindow, Sessions, Windowing};
use crate::{Pipeline, RunOptions, connectors};

fn decimals(keys: &[i64], values: &[Option<i128>], precision: u8, scale: i8) -> RecordBatch {
    let values = Decimal128Array::from(values.to_vec());
    let values = values.with_precision_and_scale(precision, scale).unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let times = table(&format!("event_time: {}", vec!["1"; keys.len()].join(", ")));
    let columns = [
        ("k", keys, false),
        ("x", Arc::new(values) as ArrayRef, true),
        ("event_time", Arc::clone(times.column(0)), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// 9 * 10^37: a decimal of 38 digits holds one of them, two do not even fit 128 bits.
const HUGE: i128 = 90_000_000_000_000_000_000_000_000_000_000_000_000;

#[test]
fn decimals_have_all_aggregates_of_numbers() {
    let rows = decimals(
        &[1, 1, 2, 1, 3, 2],
        &[Some(150), Some(-25), Some(7), Some(150), None, Some(8)],
        10,
        2,
    );
    check_batch(
        &rows,
        |rows| {
            rows.group_by([col("k")]).agg([
                sum(col("x")).alias("sum"),
                sum_distinct(col("x")).alias("distinct"),
                avg(col("x")).alias("mean"),
                min(col("x")).alias("min"),
                max(col("x")).alias("max"),
                count_distinct(col("x")).alias("n"),
            ])
        },
        expect![[r#"
            k: 1, 2, 3
            sum: 2.75, 0.15, null
            distinct: 1.25, 0.15, null
            mean: 0.916666, 0.075000, null
            min: -0.25, 0.07, null
            max: 1.50, 0.08, null
            n: 2, 2, 0"#]],
    );
}

#[test]
fn a_sum_of_decimals_that_does_not_fit_names_its_group_whatever_the_order() {
    let sums = |rows: &Collection| rows.group_by([col("k")]).agg([sum(col("x")).alias("s")]);
    let too_large = expect![[r#"
        aggregate `sum(x)` failed: the sum does not fit Decimal128(38, 0)
          in transform "group_by"
          The group is k = 1.
          Hint: Cast the values to Float64 or to a decimal of more digits before they are summed."#]];
    let rows = decimals(&[1, 2, 1], &[Some(HUGE), Some(1), Some(HUGE)], 38, 0);
    check_batch(&rows, sums, too_large);
    // It fits 128 bits, but has 39 digits.
    let rows = decimals(&[2, 1, 1], &[Some(5), Some(HUGE), Some(HUGE / 9)], 38, 0);
    check_batch(
        &rows,
        sums,
        expect![[r#"
        aggregate `sum(x)` failed: the sum does not fit Decimal128(38, 0)
          in transform "group_by"
          The group is k = 1.
          Hint: Cast the values to Float64 or to a decimal of more digits before they are summed."#]],
    );
    // Only the result must fit.
    let rows = decimals(
        &[1, 1, 2, 1, 1],
        &[Some(HUGE), Some(HUGE), Some(5), Some(-HUGE), Some(-HUGE)],
        38,
        0,
    );
    check_batch(
        &rows,
        sums,
        expect![[r#"
            k: 1, 2
            s: 0, 5"#]],
    );
}

#[test]
fn neither_does_a_wider_decimal_wrap() {
    let ends = i256::from_string(&"9".repeat(76)).unwrap();
    let values = Decimal256Array::from(vec![ends, ends, i256::ONE]);
    let values = values.with_precision_and_scale(76, 0).unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 2]));
    let rows =
        RecordBatch::try_from_iter([("k", keys), ("x", Arc::new(values) as ArrayRef)]).unwrap();
    check_batch(
        &rows,
        |rows| rows.group_by([col("k")]).agg([sum(col("x")).alias("s")]),
        expect![[r#"
            aggregate `sum(x)` failed: the sum does not fit Decimal256(76, 0)
              in transform "group_by"
              The group is k = 1.
              Hint: Cast the values to Float64 or to a decimal of more digits before they are summed."#]],
    );
    check_rows(
        "k: 1, 1; x: 999999999, 1",
        |rows| {
            let x = cast(col("x"), DataType::Decimal32(9, 0));
            rows.group_by([col("k")]).agg([sum(x).alias("s")])
        },
        expect![[r#"
            aggregate `sum(CAST(x AS Decimal32(9, 0)))` failed: the sum does not fit Decimal32(9, 0)
              in transform "group_by"
              The group is k = 1.
              Hint: Cast the values to Float64 or to a decimal of more digits before they are summed."#]],
    );
}

#[test]
fn a_sum_of_distinct_values_that_does_not_fit_names_its_group() {
    let sums = |rows: &Collection| {
        rows.group_by([col("k")])
            .agg([sum_distinct(col("x")).alias("s")])
    };
    check_rows(
        "k: 2, 1, 1, 1, 2; x: 7, 9223372036854775807, 1, 1, 7",
        sums,
        expect![[r#"
            aggregate `sum(DISTINCT x)` failed: the sum does not fit Int64
              in transform "group_by"
              The group is k = 1.
              Hint: Cast the values to Float64 or to a decimal before they are summed."#]],
    );
    check_rows(
        "k: 2, 1, 1, 1, 2, 3; x: 7, 9223372036854775807, -1, -1, 7, null",
        sums,
        expect![[r#"
            k: 1, 2, 3
            s: 9223372036854775806, 7, null"#]],
    );
    let rows = decimals(&[1, 1, 1], &[Some(HUGE), Some(HUGE), Some(HUGE - 1)], 38, 0);
    check_batch(
        &rows,
        sums,
        expect![[r#"
            aggregate `sum(DISTINCT x)` failed: the sum does not fit Decimal128(38, 0)
              in transform "group_by"
              The group is k = 1.
              Hint: Cast the values to Float64 or to a decimal of more digits before they are summed."#]],
    );
}

#[test]
fn nor_does_it_wrap_in_windows_and_in_changelogs() {
    let rows = decimals(&[1, 2, 1], &[Some(HUGE), Some(1), Some(HUGE)], 38, 0);
    check_batch(
        &rows,
        |rows| {
            let windowed = rows.window(Windowing::of(GlobalWindow));
            windowed
                .group_by([col("k")])
                .agg([sum(col("x")).alias("s")])
        },
        expect![[r#"
            aggregate `sum(x)` failed: the sum does not fit Decimal128(38, 0)
              in transform "group_by"
              The group is k = 1.
              Hint: Cast the values to Float64 or to a decimal of more digits before they are summed."#]],
    );
    check_batch(
        &rows,
        |rows| {
            rows.as_changelog()
                .group_by([col("k")])
                .agg([sum(col("x")).alias("s")])
        },
        expect![[r#"
            aggregate `sum(x)` failed: the sum does not fit Decimal128(38, 0)
              in transform "group_by"
              The group is k = 1.
              Hint: Cast the values to Float64 or to a decimal of more digits before they are summed."#]],
    );
}

#[test]
fn sums_of_changes_name_their_group_in_windows_sessions_and_relations() {
    let huge = i64::MAX.to_string();
    let rows = table(&format!(
        "k: 1, 2, 2; event_time: 3, 4, 5; x: 7, {huge}, {huge}"
    ));
    let windows: [(&str, Windowing); 2] = [
        (
            "fixed",
            Windowing::of(FixedWindows::of(Duration::from_millis(10))),
        ),
        (
            "sessions",
            Windowing::of(Sessions::with_gap(Duration::from_millis(10))),
        ),
    ];
    let mut messages = Vec::new();
    let mut run = |name: &str, compose: &dyn Fn(&Collection) -> Collection| {
        let pipeline = Pipeline::new("sums");
        let batches = vec![rows.clone()];
        let read = pipeline.read("rows", connectors::from_record_batches(batches));
        let (sink, _) = connectors::collect();
        compose(&read).write(sink);
        let error = pipeline.run(&RunOptions::new().workers(2)).unwrap_err();
        messages.push(format!("{name}\n{error}"));
    };
    for (name, windowing) in windows {
        run(name, &|rows| {
            let changes = rows.as_changelog().window(windowing.clone());
            changes.group_by([col("k")]).agg([sum(col("x")).alias("s")])
        });
    }
    run("relation", &|rows| {
        let relation = rows.select([col("k"), col("x")]).incremental();
        let sums = relation
            .group_by([col("k")])
            .agg([sum(col("x")).alias("s")]);
        sums.into_collection("sums")
    });
    expect![[r#"
        fixed
        aggregate `sum(x)` failed: the sum does not fit Int64
          in transform "group_by"
          The group is k = 2, window_start = 1970-01-01T00:00:00, window_end = 1970-01-01T00:00:00.010.
          Hint: Cast the values to Float64 or to a decimal before they are summed.
        sessions
        aggregate `sum(x)` failed: the sum does not fit Int64
          in transform "group_by"
          The group is k = 2, window_start = 1970-01-01T00:00:00.004, window_end = 1970-01-01T00:00:00.015.
          Hint: Cast the values to Float64 or to a decimal before they are summed.
        relation
        a sum does not fit Int64
          in transform "sums"
          The group is k = 2.
          Hint: Cast the values to Float64 before they are summed."#]].assert_eq(&messages.join("\n"));
}

#[test]
fn the_mean_of_decimals_does_not_wrap_where_their_sum_does_not_fit() {
    let rows = decimals(&[1, 1, 1], &[Some(HUGE / 10_000); 3], 38, 0);
    check_batch(
        &rows,
        |rows| rows.group_by([col("k")]).agg([avg(col("x")).alias("mean")]),
        expect![[r#"
            k: 1
            mean: 9000000000000000000000000000000000.0000"#]],
    );
    let rows = decimals(&[1, 1], &[Some(HUGE), Some(HUGE)], 38, 0);
    check_batch(
        &rows,
        |rows| rows.group_by([col("k")]).agg([avg(col("x")).alias("mean")]),
        expect![[r#"
            aggregate `avg(x)` failed: Execution error: Arithmetic Overflow in AvgAccumulator
              in transform "group_by"
              caused by: Execution error: Arithmetic Overflow in AvgAccumulator"#]],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Sums by number, not as decimals: of values with two digits behind the point, and so of their sums.
    #[test]
    fn sums_of_decimals_are_exact(
        values in prop::collection::vec((0..3_i64, prop::option::of(-999_999_i64..999_999)), 1..30),
        split_rows in 1..30_usize,
        workers in 1..=3_usize,
    ) {
        let keys: Vec<i64> = values.iter().map(|v| v.0).collect();
        let of_keys: Vec<Option<i128>> = values.iter().map(|v| v.1.map(i128::from)).collect();
        let rows = decimals(&keys, &of_keys, 8, 2);
        let sums = |rows: &Collection| rows.group_by([col("k")]).agg([sum(col("x")).alias("s")]);
        let made = sorted(&run_over(&rows, split_rows, workers, &sums).unwrap());
        let (mut k, mut s) = (Vec::new(), Vec::new());
        for key in 0..3 {
            let there: Vec<Option<i64>> = values.iter().filter(|v| v.0 == key).map(|v| v.1).collect();
            if there.is_empty() {
                continue;
            }
            k.push(key.to_string());
            s.push(match there.iter().flatten().count() {
                0 => "null".to_owned(),
                _ => {
                    let cents: i64 = there.iter().flatten().sum();
                    let sign = if cents < 0 { "-" } else { "" };
                    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
                }
            });
        }
        prop_assert_eq!(show(&made), format!("k: {}\ns: {}", k.join(", "), s.join(", ")));
    }
}
