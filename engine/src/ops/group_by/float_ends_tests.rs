//! Least and greatest floats: NaN is greater than every number, the infinities count, and there is one zero.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use proptest::prelude::*;

use crate::aggregates::{max, min};
use crate::expression::{LogicalExpression as Expr, col};
use crate::ops::relational_tests::{check_rows, run_over, sorted};
use crate::pipeline::Collection;
use crate::testing::{show, table};
use crate::windowing::{GlobalWindow, Windowing};

fn ends() -> [Expr; 2] {
    [min(col("x")).alias("min"), max(col("x")).alias("max")]
}

#[test]
fn infinities_and_nan_are_values() {
    check_rows(
        "k: 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 7; \
         x: -inf, -inf, inf, inf, 1.0, nan, 2.0, 1.0, 2.0, nan, nan, null, null, -0.0",
        |rows| rows.group_by([col("k")]).agg(ends()),
        expect![[r#"
            k: 1, 2, 3, 4, 5, 6, 7
            min: -inf, inf, 1.0, 1.0, NaN, null, 0.0
            max: -inf, inf, NaN, NaN, NaN, null, 0.0"#]],
    );
}

#[test]
fn a_filter_leaves_values_out_of_them() {
    check_rows(
        "k: 1, 1, 2, 2; x: inf, 3.0, nan, -inf; ok: false, true, null, true",
        |rows| {
            use crate::aggregates::AggregateExt;
            let ok = |end: Expr| end.filter(col("ok")).build().unwrap();
            let ends = [
                ok(min(col("x"))).alias("min"),
                ok(max(col("x"))).alias("max"),
            ];
            rows.group_by([col("k")]).agg(ends)
        },
        expect![[r#"
            k: 1, 2
            min: 3.0, -inf
            max: 3.0, -inf"#]],
    );
}

/// The values by the rule, with none left out: what `min` and `max` must give, bit by bit.
fn expected(values: &[f64]) -> [f64; 2] {
    let numbers: Vec<f64> = values.iter().copied().filter(|x| !x.is_nan()).collect();
    let least = numbers.iter().copied().reduce(f64::min);
    let greatest = match numbers.len() == values.len() {
        true => numbers.iter().copied().reduce(f64::max),
        false => None,
    };
    // Adding 0.0 makes one zero of both.
    [least, greatest].map(|end| end.map_or(f64::NAN, |x| x + 0.0))
}

fn floats() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![
        f64::NAN,
        -f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -0.0,
        1.5,
        -1.5,
        f64::from(f32::MAX),
        f64::from(f32::MIN),
    ])
}

/// How the values of the group `k` are aggregated.
fn runs() -> Vec<fn(&Collection) -> Collection> {
    vec![
        |rows| rows.group_by([col("k")]).agg(ends()),
        |rows| {
            let windowed = rows.window(Windowing::of(GlobalWindow));
            let grouped = windowed.group_by([col("k")]).agg(ends());
            grouped.select([col("k"), col("min"), col("max")])
        },
        |rows| {
            let changes = rows.as_changelog().group_by([col("k")]).agg(ends());
            changes
                .consolidate()
                .select([col("k"), col("min"), col("max")])
        },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn they_do_not_depend_on_order_batches_workers_or_kind_of_run(
        values in prop::collection::vec((0..3_i64, floats()), 1..24),
        split_rows in 1..24_usize,
        workers in 1..=3_usize,
        narrow in any::<bool>(),
    ) {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|v| v.0)));
        let x: ArrayRef = Arc::new(Float64Array::from_iter_values(values.iter().map(|v| v.1)));
        let x = match narrow {
            true => cast(&x, &DataType::Float32).unwrap(),
            false => x,
        };
        let times = table(&format!("event_time: {}", vec!["1"; values.len()].join(", ")));
        let columns = [("k", keys), ("x", x), ("event_time", Arc::clone(times.column(0)))];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let mut wanted = String::new();
        for k in 0..3 {
            let of_key: Vec<f64> = values.iter().filter(|v| v.0 == k).map(|v| v.1).collect();
            if !of_key.is_empty() {
                wanted += &format!("{k}: {:?}\n", expected(&of_key).map(f64::to_bits));
            }
        }
        for run in runs() {
            let made = sorted(&run_over(&rows, split_rows, workers, &run).unwrap());
            let floats = |n: usize| cast(made.column(n), &DataType::Float64).unwrap();
            let (min, max) = (floats(1), floats(2));
            let (min, max) = (min.as_primitive::<Float64Type>(), max.as_primitive::<Float64Type>());
            let mut given = String::new();
            for row in 0..made.num_rows() {
                let k = show(&made.slice(row, 1).project(&[0]).unwrap());
                let k = k.trim_start_matches("k: ");
                let ends = [min.value(row), max.value(row)].map(f64::to_bits);
                given += &format!("{k}: {ends:?}\n");
            }
            prop_assert_eq!(&given, &wanted);
        }
    }
}
