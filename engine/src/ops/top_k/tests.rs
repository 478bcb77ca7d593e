//! Tests of the first rows, of all and of each key, and of distinct rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use proptest::prelude::*;

use crate::aggregates::sum;
use crate::expression::{col, lit};
use crate::ops::relational_tests::{check_letters, check_rows, refuse_rows, run_over, sorted};
use crate::pipeline::Collection;
use crate::testing::{show, table};

const ROWS: &str = "k: a, b, a, null, b, null, c; x: 1, 2, 3, 4, null, 4, 1; y: 0.0, -0.0, nan, 3.5, nan, 3.5, 6.5";

#[test]
fn ties_are_broken_by_the_place_in_the_source() {
    let rows = table("x: 2, 1, 2, 1, 3, 2; n: 0, 1, 2, 3, 4, 5");
    for workers in 1..=4 {
        for split_rows in 1..=6 {
            let made = run_over(&rows, split_rows, workers, &|rows| {
                rows.filter(col("n").not_eq(lit(1)))
                    .top_k(4, [col("x").sort(true, false)])
            });
            expect![[r#"
                x: 1, 2, 2, 2
                n: 3, 0, 2, 5"#]]
            .assert_eq(&show(&made.unwrap()));
        }
    }
}

#[test]
fn nulls_and_nans_stand_where_the_order_says() {
    for (order, expected) in [
        (
            vec![col("y").sort(false, true), col("x").sort(true, true)],
            expect![[r#"
            k: 'b', 'a', 'c'
            x: null, 3, 1
            y: NaN, NaN, 6.5"#]],
        ),
        (
            vec![col("x").sort(true, true)],
            expect![[r#"
            k: 'b', 'a', 'c'
            x: null, 1, 1
            y: NaN, 0.0, 6.5"#]],
        ),
        (
            vec![],
            expect![[r#"
            k: 'a', 'b', 'a'
            x: 1, 2, 3
            y: 0.0, -0.0, NaN"#]],
        ),
    ] {
        let made = run_over(&table(ROWS), 2, 3, &|rows| rows.top_k(3, order.clone()));
        expected.assert_eq(&show(&made.unwrap()));
    }
}

#[test]
fn the_first_of_each_key() {
    check_rows(
        ROWS,
        |rows| {
            rows.group_by([col("k")])
                .top_k(1, [col("x").sort(false, false)])
        },
        expect![[r#"
            k: null, 'a', 'b', 'c'
            x: 4, 3, 2, 1
            y: 3.5, NaN, -0.0, 6.5"#]],
    );
    check_rows(
        ROWS,
        |rows| rows.distinct_by([col("y")]),
        expect![[r#"
            k: null, 'a', 'a', 'c'
            x: 4, 1, 3, 1
            y: 3.5, 0.0, NaN, 6.5"#]],
    );
    check_rows(
        ROWS,
        |rows| rows.distinct_by([col("x") % lit(2)]).select([col("x")]),
        expect!["x: null, 1, 2"],
    );
}

#[test]
fn rows_without_a_place_are_ordered_by_their_values() {
    check_rows(
        ROWS,
        |rows| {
            rows.group_by([col("k")])
                .agg([sum(col("x")).alias("s")])
                .with_column("one", lit(1))
                .top_k(2, [col("one").sort(true, false)])
        },
        expect![[r#"
            k: null, 'a'
            s: 8, 4
            one: 1, 1"#]],
    );
}

#[test]
fn distinct_rows_have_one_zero_and_one_nan() {
    check_rows(
        "a: 0.0, -0.0, nan, nan, null, null; b: 1, 1, 2, 2, null, null",
        Collection::distinct,
        expect![[r#"
            a: null, 0.0, NaN
            b: null, 1, 2"#]],
    );
}

#[test]
fn refusals() {
    refuse_rows(
        ROWS,
        |rows| rows.top_k(0, [col("x").sort(true, true)]),
        expect![[r#"
        top_k of 0 rows has no rows
          in transform "top_k/partial"
          Hint: Ask for at least one."#]],
    );
    refuse_rows(
        ROWS,
        |rows| rows.top_k(2, [col("z").sort(true, true)]),
        expect![[r#"
        column "z" is not there
          in transform "top_k/partial"
          The columns are "k", "x", "y"."#]],
    );
    refuse_rows(
        "$key: 1",
        Collection::distinct,
        expect![[r#"
        the column name "$key" is taken by the engine
          in transform "distinct/partial"
          Hint: Call the column otherwise with `select`."#]],
    );
}

#[test]
fn a_row_that_fails_is_named() {
    refuse_rows(
        "x: 1, 0",
        |rows| rows.top_k(1, [(lit(1) / col("x")).sort(true, false)]),
        expect![[r#"
            record batch 0, row 1: expression `Int32(1) / x` failed on {"x":0}: Divide by zero error
              in transform "top_k/partial"
              Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]],
    );
}

#[test]
fn rows_without_an_order_are_dead_letters() {
    check_letters(
        "x: 1, 0, 5, 2, 0, 10",
        |rows| rows.top_k(2, [(lit(10) / col("x")).sort(true, false)]),
        expect![[r#"
            x: 5, 10
            top_k/partial: record batch 0, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            top_k/partial: record batch 1, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error"#]],
    );
}

/// Key, value, and place.
type Numbered = (i64, Option<i64>, i64);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_first_rows_are_those_of_a_stable_sort(
        rows in prop::collection::vec((0i64..4, prop::option::of(0i64..6)), 1..120),
        n in 1usize..6,
        workers in 1usize..5,
        split_rows in 1usize..40,
    ) {
        let numbered: Vec<Numbered> = rows.iter().zip(0..).map(|((k, x), n)| (*k, *x, n)).collect();
        let column = |of: fn(&Numbered) -> Option<i64>| -> ArrayRef {
            Arc::new(numbered.iter().map(of).collect::<Int64Array>())
        };
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("k", column(|r| Some(r.0)), true),
            ("x", column(|r| r.1), true),
            ("n", column(|r| Some(r.2)), true),
        ]).unwrap();
        let numbers = |made: &RecordBatch| made["n"].as_primitive::<Int64Type>().values().to_vec();
        // Greatest first, null last.
        let mut sorted_rows = numbered.clone();
        sorted_rows.sort_by_key(|(_, x, _)| std::cmp::Reverse(*x));
        let order = || [col("x").sort(false, false)];

        let made = run_over(&batch, split_rows, workers, &|rows| rows.top_k(n, order())).unwrap();
        let expected: Vec<i64> = sorted_rows.iter().take(n).map(|r| r.2).collect();
        prop_assert_eq!(numbers(&made), expected);

        let made = run_over(&batch, split_rows, workers, &|rows| rows.group_by([col("k")]).top_k(n, order())).unwrap();
        for key in 0..4 {
            let expected: Vec<i64> = sorted_rows.iter().filter(|r| r.0 == key).take(n).map(|r| r.2).collect();
            let keys = made["k"].as_primitive::<Int64Type>().values();
            let found: Vec<i64> = numbers(&made).into_iter().zip(keys).filter(|(_, k)| **k == key).map(|(n, _)| n).collect();
            prop_assert_eq!(found, expected);
        }

        let made = run_over(&batch, split_rows, workers, &|rows| rows.distinct_by([col("k"), col("x")])).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let expected: Vec<i64> = numbered.iter().filter(|r| seen.insert((r.0, r.1))).map(|r| r.2).collect();
        let mut found = numbers(&made);
        found.sort_unstable();
        prop_assert_eq!(found, expected);

        let made = run_over(&batch, split_rows, workers, &|rows| rows.select([col("k"), col("x")]).distinct()).unwrap();
        let pairs: std::collections::BTreeSet<_> = numbered.iter().map(|r| (r.0, r.1)).collect();
        let made = sorted(&made);
        let x = made["x"].as_primitive::<Int64Type>();
        let found: Vec<_> = (0..made.num_rows())
            .map(|row| (made["k"].as_primitive::<Int64Type>().value(row), x.is_valid(row).then(|| x.value(row))))
            .collect();
        prop_assert_eq!(found, pairs.into_iter().collect::<Vec<_>>());
    }
}

/// Many more keys than are sorted out at once, and than are kept before the exchange.
#[test]
fn many_keys_keep_their_first_row() {
    let n = 300_000i64;
    let rows = RecordBatch::try_from_iter([
        (
            "k",
            Arc::new(Int64Array::from_iter_values(
                (0..n).map(|i| i * 7 % 150_001),
            )) as ArrayRef,
        ),
        ("n", Arc::new(Int64Array::from_iter_values(0..n))),
    ])
    .unwrap();
    let made = run_over(&rows, 40_000, 2, &|rows| rows.distinct_by([col("k")])).unwrap();
    let made = sorted(&made);
    let mut first: std::collections::BTreeMap<i64, i64> = std::collections::BTreeMap::new();
    for i in 0..n {
        first.entry(i * 7 % 150_001).or_insert(i);
    }
    let of = |n: usize| made.column(n).as_primitive::<Int64Type>().values().to_vec();
    let found: Vec<(i64, i64)> = of(0).into_iter().zip(of(1)).collect();
    assert_eq!(found, first.into_iter().collect::<Vec<_>>());
}

#[test]
fn candidates_survive_a_snapshot() {
    use crate::artifact::Artifacts;
    use crate::batch::Batch;
    use crate::ops::TopK;
    use crate::output::Output;
    use crate::transform::{Transform, Watermark};
    let rows = table("x: 5, 1, 4, 2, 3");
    let first = TopK::new(2, vec![col("x").sort(true, false)]);
    assert!(first.output_schema(&[rows.schema()]).is_ok());
    let mut operator = first.build(&Artifacts::none()).unwrap();
    let mut out = Output::default();
    for n in 0..5 {
        operator
            .on_batch(0, Batch::new(rows.slice(n, 1)), &mut out)
            .unwrap();
        assert!(operator.state_bytes() > 0);
        let mut restored = first.build(&Artifacts::none()).unwrap();
        restored.restore(&operator.snapshot().unwrap()).unwrap();
        operator = restored;
    }
    operator.on_watermark(Watermark::END, &mut out).unwrap();
    let made = out.take();
    assert_eq!(
        made[0].1.rows()["x"].as_primitive::<Int64Type>().values(),
        &[1, 2]
    );
}
