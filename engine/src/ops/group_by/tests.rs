//! Tests of grouping.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int64Array, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use datafusion_expr::cast;
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::aggregates::*;
use crate::artifact::Artifacts;
use crate::batch::{BATCH_ROWS, Batch};
use crate::expression::{col, lit};
use crate::ops::relational_tests::{
    check_batch, check_letters, check_rows, refuse_rows, run_over, sorted,
};
use crate::output::{OnBadRow, Output};
use crate::testing::{run_transform, show, table};
use crate::transform::{Transform, Watermark};

const ROWS: &str = "k: a, b, a, null, b, null, c; x: 1, 2, 3, 4, null, 6, null; y: 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5";

#[test]
fn keys_come_first_then_aggregates_and_null_is_a_key() {
    check_rows(
        ROWS,
        |rows| {
            rows.group_by([col("k")]).agg([
                sum(col("x")).alias("sum"),
                avg(col("y")).alias("mean"),
                count(col("x")).alias("n_x"),
                count(lit(1)).alias("n"),
                min(col("y")),
                max(col("x")).alias("max"),
            ])
        },
        expect![[r#"
            k: null, 'a', 'b', 'c'
            sum: 10, 4, 2, null
            mean: 4.5, 1.5, 3.0, 6.5
            n_x: 2, 2, 1, 0
            n: 2, 2, 2, 1
            min(y): 3.5, 0.5, 1.5, 6.5
            max: 6, 3, 2, null"#]],
    );
}

#[test]
fn all_rows_are_one_group_without_a_key() {
    let aggregates = |rows: &Collection| {
        rows.agg([
            sum(col("x")).alias("sum"),
            count_distinct(col("k")).alias("n_k"),
            // Its last bits depend on the order of the rows.
            cast(stddev(col("y")) * lit(1e12), DataType::Int64).alias("s"),
            median(col("x")).alias("median"),
        ])
    };
    check_rows(
        ROWS,
        aggregates,
        expect![[r#"
        sum: 16
        n_k: 3
        s: 2160246899469
        median: 3.0"#]],
    );
    let none = table(ROWS).slice(0, 0);
    check_batch(
        &none,
        aggregates,
        expect![[r#"
        sum: null
        n_k: 0
        s: null
        median: null"#]],
    );
    check_rows(ROWS, Collection::count, expect!["count: 7"]);
    check_batch(&none, Collection::count, expect!["count: 0"]);
}

#[test]
fn no_rows_make_no_groups() {
    let none = table(ROWS).slice(0, 0);
    let made = run_over(&none, 1, 2, &|rows| {
        rows.group_by([col("k")]).agg([sum(col("x"))])
    });
    assert_eq!(made.unwrap().num_rows(), 0);
}

#[test]
fn options_and_arithmetic_over_aggregates() {
    check_rows(
        ROWS,
        |rows| {
            rows.group_by([col("k")]).agg([
                (sum(col("x")) / count(col("x"))).alias("quotient"),
                (sum(col("x")) + lit(1) + sum(col("x"))).alias("twice"),
                sum(col("x"))
                    .filter(col("y").gt(lit(2)))
                    .build()
                    .unwrap()
                    .alias("some"),
                count_distinct(col("x")).alias("n"),
                array_agg(col("y"))
                    .order_by(vec![col("y").sort(false, false)])
                    .build()
                    .unwrap()
                    .alias("all"),
                first_value(col("x"), vec![col("y").sort(true, false)]).alias("first"),
                last_value(col("x"), vec![col("y").sort(true, false)]).alias("last"),
                bool_and(col("y").gt(lit(1))).alias("and"),
                bool_or(col("y").gt(lit(1))).alias("or"),
            ])
        },
        expect![[r#"
            k: null, 'a', 'b', 'c'
            quotient: 5, 2, 2, null
            twice: 21, 9, 5, null
            some: 10, 3, null, null
            n: 2, 2, 1, 0
            all: [5.5, 3.5], [2.5, 0.5], [4.5, 1.5], [6.5]
            first: 4, 1, 2, null
            last: 6, 3, null, null
            and: true, false, true, true
            or: true, true, true, true"#]],
    );
}

#[test]
fn keys_are_expressions_of_any_type() {
    check_rows(
        ROWS,
        |rows| {
            rows.group_by([(col("x") % lit(2)).alias("odd"), col("k")])
                .agg([count(lit(1)).alias("n")])
        },
        expect![[r#"
            odd: null, null, 0, 0, 1
            k: 'b', 'c', null, 'b', 'a'
            n: 1, 1, 2, 1, 2"#]],
    );
    check_rows(
        "k: true, null, false, true; x: 1, 2, 3, 4",
        |rows| rows.group_by([col("k")]).agg([sum(col("x"))]),
        expect![[r#"
            k: null, false, true
            sum(x): 2, 3, 5"#]],
    );
}

#[test]
fn zeros_are_one_key_and_so_are_nans() {
    check_rows(
        "k: -0.0, 0.0, nan, nan, null, 1.5; x: 1, 2, 3, 4, 5, 6",
        |rows| rows.group_by([col("k")]).agg([sum(col("x")).alias("s")]),
        expect![[r#"
            k: null, 0.0, 1.5, NaN
            s: 5, 3, 6, 7"#]],
    );
    check_rows(
        "k: -0.0, 0.0, nan, nan, null, 1.5; a: 1, 1, 1, 1, 1, 1; x: 1, 2, 3, 4, 5, 6",
        |rows| {
            rows.group_by([col("k"), col("a")])
                .agg([sum(col("x")).alias("s")])
        },
        expect![[r#"
            k: null, 0.0, 1.5, NaN
            a: 1, 1, 1, 1
            s: 5, 3, 6, 7"#]],
    );
}

#[test]
fn dictionaries_are_compared_by_their_values() {
    let keys: DictionaryArray<Int32Type> = [Some("b"), Some("a"), None, Some("b"), Some("a")]
        .into_iter()
        .collect();
    // A dictionary may hold null as a value, and a value twice.
    let values = StringArray::from(vec![Some("a"), None, Some("a")]);
    let codes = arrow::array::Int32Array::from(vec![Some(0), Some(1), None, Some(2), Some(0)]);
    let twice = DictionaryArray::<Int32Type>::try_new(codes, Arc::new(values)).unwrap();
    let rows = RecordBatch::try_from_iter([
        ("k", Arc::new(keys) as ArrayRef),
        ("t", Arc::new(twice)),
        ("x", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]))),
    ])
    .unwrap();
    let by = |name: &'static str| {
        move |rows: &Collection| rows.group_by([col(name)]).agg([sum(col("x")).alias("s")])
    };
    check_batch(
        &rows,
        by("k"),
        expect![[r#"
        k: null, 'a', 'b'
        s: 3, 7, 5"#]],
    );
    check_batch(
        &rows,
        by("t"),
        expect![[r#"
        t: null, 'a'
        s: 5, 10"#]],
    );
    let both = |rows: &Collection| {
        rows.group_by([col("k"), col("t")])
            .agg([sum(col("x")).alias("s")])
    };
    check_batch(
        &rows,
        both,
        expect![[r#"
        k: null, 'a', 'a', 'b'
        t: null, null, 'a', 'a'
        s: 3, 2, 5, 5"#]],
    );
    let made = run_over(&rows, 2, 2, &both).unwrap();
    assert_eq!(made.schema().field(0).data_type(), &DataType::Utf8);
}

#[test]
fn structs_are_keys() {
    let fields = vec![
        (
            Arc::new(Field::new("a", DataType::Float64, true)),
            Arc::new(Float64Array::from(vec![0.0, -0.0, 1.0])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("b", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec![Some("x"), Some("x"), None])),
        ),
    ];
    let rows = RecordBatch::try_from_iter([
        ("k", Arc::new(StructArray::from(fields)) as ArrayRef),
        ("x", Arc::new(Int64Array::from(vec![1, 2, 4]))),
    ])
    .unwrap();
    check_batch(
        &rows,
        |rows| rows.group_by([col("k")]).agg([sum(col("x")).alias("s")]),
        expect![[r#"
            k: {a: 0.0, b: x}, {a: 1.0, b: null}
            s: 3, 4"#]],
    );
}

#[test]
fn refusals_say_what_to_do() {
    type Compose<'a> = &'a dyn Fn(&Collection) -> Collection;
    let cases: [(Compose, expect_test::Expect); 9] = [
        (
            &|r| r.group_by([col("k")]).agg([sum(col("z")), avg(col("zz"))]),
            expect![[r#"
            2 errors
            1. column "z" is not there
                 in transform "group_by/partial"
                 The columns are "k", "x", "y".
            2. column "zz" is not there
                 in transform "group_by/partial"
                 The columns are "k", "x", "y"."#]],
        ),
        (
            &|r| r.group_by([col("K")]).agg([sum(col("x"))]),
            expect![[r#"
            column "K" is not there
              in transform "group_by/partial"
              The columns are "k", "x", "y".
              Hint: Names are case-sensitive: did you mean "k"?"#]],
        ),
        (
            &|r| r.group_by([col("k")]).agg([sum(avg(col("x")))]),
            expect![[r#"
            an aggregate stands inside another: `sum(avg(x))`
              in transform "group_by/partial"
              Hint: Aggregate the results of a first `agg` with a second one."#]],
        ),
        (
            &|r| r.group_by([sum(col("x"))]).agg([sum(col("x"))]),
            expect![[r#"
            key `sum(x)` holds an aggregate
              in transform "group_by/partial"
              Hint: Group the groups: `group_by(..).agg(..).group_by(..)`."#]],
        ),
        (
            &|r| r.group_by([col("k")]).agg([]),
            expect![[r#"
            there is no aggregate in `agg`
              in transform "group_by/partial"
              Hint: Give one such as `count(lit(1))`, or take `distinct` rows."#]],
        ),
        (
            &|r| r.group_by([col("k")]).agg([sum(col("x")), sum(col("x"))]),
            expect![[r#"
            two columns of the result are called "sum(x)"
              in transform "group_by/partial"
              Hint: Give one of them another name with `.alias("…")`."#]],
        ),
        (
            &|r| r.group_by([col("k")]).agg([sum(col("x")) + col("y")]),
            expect![[r#"
            column "y" is neither a key nor inside an aggregate
              in transform "group_by/partial"
              The keys are "k".
              Hint: A group has many rows: say which value, as in `min(col("a"))`."#]],
        ),
        (
            &|r| r.group_by([col("k")]).agg([sum(col("k"))]),
            expect![[r#"
            aggregate `sum(k)` does not take these values
              in transform "group_by/partial"
              `k` is Utf8.
              Hint: Cast them first, such as with `cast(col("a"), DataType::Float64)`."#]],
        ),
        (
            &|r| r.group_by([col("k")]).agg([first_value(col("x"), vec![])]),
            expect![[r#"
            `first_value(x)` has no order, so its result would depend on timing
              in transform "group_by/partial"
              Hint: Give it an order that tells rows apart, such as `vec![col("time").sort(true, false)]`."#]],
        ),
    ];
    for (compose, expected) in cases {
        refuse_rows(ROWS, compose, expected);
    }
}

#[test]
fn maps_are_keys() {
    let mut builder = arrow::array::MapBuilder::new(
        None,
        arrow::array::StringBuilder::new(),
        arrow::array::Int64Builder::new(),
    );
    for value in [1, 2, 1] {
        builder.keys().append_value("a");
        builder.values().append_value(value);
        builder.append(true).unwrap();
    }
    let map: ArrayRef = Arc::new(builder.finish());
    let rows = RecordBatch::try_from_iter([("m", map)]).unwrap();
    let grouped = |rows: &Collection| rows.group_by([col("m")]).agg([count(lit(1)).alias("n")]);
    let counts = |rows: &Collection| grouped(rows).select([col("n")]);
    check_batch(&rows, counts, expect![["n: 1, 2"]]);
    assert!(
        run_over(&rows, 1, 2, &grouped)
            .unwrap()
            .schema()
            .field(0)
            .data_type()
            .is_nested()
    );
}

#[test]
fn a_sum_that_does_not_fit_names_its_group_whatever_the_order() {
    let sums = |rows: &Collection| rows.group_by([col("k")]).agg([sum(col("x")).alias("s")]);
    check_rows(
        "k: 1, 2, 2, 1; x: 9223372036854775807, 9223372036854775807, -1, 1",
        sums,
        expect![[r#"
            aggregate `sum(x)` failed: the sum does not fit Int64
              in transform "group_by"
              The group is k = 1.
              Hint: Cast the values to Float64 or to a decimal before they are summed."#]],
    );
    check_rows(
        "k: 1, 1, 1, 2; x: 9223372036854775807, 9223372036854775807, -9223372036854775807, 5",
        sums,
        expect![[r#"
            k: 1, 2
            s: 9223372036854775807, 5"#]],
    );
}

#[test]
fn an_argument_that_fails_says_on_which_row() {
    refuse_rows(
        "k: 1, 2; x: 1, 0",
        |rows| {
            rows.group_by([col("k")])
                .agg([sum(lit(10) / col("x")).alias("s")])
        },
        expect![[r#"
            record batch 0, row 1: expression `CAST(Int32(10) AS Int64) / x` failed on {"x":0}: Divide by zero error
              in transform "group_by/partial"
              Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]],
    );
}

#[test]
fn rows_on_which_a_key_or_an_argument_fails_are_dead_letters() {
    let narrow = |name: &str| cast(col(name), DataType::Int8);
    check_letters(
        "k: 1, 2, 1, 300, 2, -129; x: 1, 2, 0, 1, 0, 5",
        |rows| {
            rows.group_by([narrow("k").alias("k")])
                .agg([sum(lit(10) / col("x")).alias("s"), count(lit(1)).alias("n")])
        },
        expect![[r#"
            k: 1, 2
            s: 10, 5
            n: 1, 1
            group_by/partial: record batch 0, row 2: expression `CAST(Int32(10) AS Int64) / x` failed on {"x":0}: Divide by zero error
            group_by/partial: record batch 1, row 0: expression `CAST(k AS Int8) AS k` failed on {"k":300}: Cast error: Can't cast value 300 to type Int8
            group_by/partial: record batch 1, row 1: expression `CAST(Int32(10) AS Int64) / x` failed on {"x":0}: Divide by zero error
            group_by/partial: record batch 1, row 2: expression `CAST(k AS Int8) AS k` failed on {"k":-129}: Cast error: Can't cast value -129 to type Int8"#]],
    );
}

/// More groups than the first half keeps, so that it sends on, and keys that hardly repeat, so that it
/// lets rows pass.
#[test]
fn many_groups_are_sent_on_and_passed_on() {
    let n = 400_000i64;
    let rows = RecordBatch::try_from_iter([
        (
            "k",
            Arc::new(Int64Array::from_iter_values(
                (0..n).map(|i| i * 7 % 300_007),
            )) as ArrayRef,
        ),
        ("x", Arc::new(Int64Array::from_iter_values(0..n))),
    ])
    .unwrap();
    let mut expected: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for i in 0..n {
        let group = expected.entry(i * 7 % 300_007).or_default();
        *group = (group.0 + i, group.1 + 1);
    }
    for workers in [1, 3] {
        let made = run_over(&rows, 50_000, workers, &|rows| {
            rows.group_by([col("k")])
                .agg([sum(col("x")).alias("s"), count(lit(1)).alias("n")])
        });
        let made = sorted(&made.unwrap());
        let of = |n: usize| made.column(n).as_primitive::<Int64Type>().values().to_vec();
        let found: Vec<_> = of(0)
            .into_iter()
            .zip(of(1).into_iter().zip(of(2)))
            .collect();
        assert_eq!(found, expected.clone().into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn results_leave_batch_by_batch_and_are_counted_until_then() {
    let n = 3 * BATCH_ROWS + 5;
    let keys: ArrayRef = Arc::new((0..n as i64).collect::<Int64Array>());
    let rows = RecordBatch::try_from_iter([("k", keys)]).unwrap();
    let grouping = Arc::new(Grouping {
        groups_alone: false,
        keys: vec![col("k")],
        outputs: vec![count(lit(1)).alias("n")],
        planned: Mutex::new(None),
    });
    let partial = PartialAggregate::new(&grouping);
    let (states, _) = run_transform(&partial, &rows, OnBadRow::Fail).unwrap();
    let last = FinalAggregate::new(&grouping);
    last.output_schema(&[states.schema()]).unwrap();
    let mut operator = last.build(&Artifacts::none()).unwrap();
    let mut out = Output::new(OnBadRow::Fail);
    operator.on_batch(0, Batch::new(states), &mut out).unwrap();
    operator.on_watermark(Watermark::END, &mut out).unwrap();
    let mut lots = Vec::new();
    loop {
        let made = out.take();
        assert!(made.len() <= 1, "one batch at a time");
        lots.extend(made.iter().map(|(_, batch)| batch.n_rows()));
        if !out.take_more() {
            break;
        }
        assert!(operator.state_bytes() > 8 * n as u64);
        operator.resume(&mut out).unwrap();
    }
    assert_eq!(lots, [BATCH_ROWS, BATCH_ROWS, BATCH_ROWS, 5]);
    assert!(operator.state_bytes() < 8 * n as u64);
}

#[test]
fn what_is_kept_is_counted_and_survives_a_snapshot() {
    let rows = table(ROWS);
    let grouping = Arc::new(Grouping {
        groups_alone: false,
        keys: vec![col("k")],
        outputs: vec![
            sum(col("x")).alias("s"),
            avg(col("y")).alias("m"),
            count_distinct(col("x")).alias("n"),
        ],
        planned: Mutex::new(None),
    });
    let partial = PartialAggregate::new(&grouping);
    let states = partial.output_schema(&[rows.schema()]).unwrap();
    let finish = FinalAggregate::new(&grouping);
    finish.output_schema(&[states]).unwrap();
    let none = Artifacts::none();
    let mut first = partial.build(&none).unwrap();
    let mut second = finish.build(&none).unwrap();
    let mut out = Output::default();
    for n in 0..rows.num_rows() {
        first
            .on_batch(0, Batch::new(rows.slice(n, 1)), &mut out)
            .unwrap();
        assert!(first.state_bytes() > 0);
        let saved = first.snapshot().unwrap();
        let mut restored = partial.build(&none).unwrap();
        restored.restore(&saved).unwrap();
        first = restored;
    }
    first.on_watermark(Watermark::END, &mut out).unwrap();
    for (_, batch) in out.take() {
        second.on_batch(0, batch, &mut out).unwrap();
        let saved = second.snapshot().unwrap();
        let mut restored = finish.build(&none).unwrap();
        restored.restore(&saved).unwrap();
        second = restored;
    }
    second.on_watermark(Watermark::END, &mut out).unwrap();
    let made: Vec<RecordBatch> = out
        .take()
        .into_iter()
        .map(|(_, b)| b.rows().clone())
        .collect();
    expect![[r#"
        k: null, 'a', 'b', 'c'
        s: 10, 4, 2, null
        m: 4.5, 1.5, 3.0, 6.5
        n: 2, 2, 1, 0"#]]
    .assert_eq(&show(&sorted(&made[0])));
}

/// Counts, exact sums and extremes of each key, the slow way.
fn reference(
    keys: &[Option<i64>],
    values: &[Option<i64>],
) -> BTreeMap<Option<i64>, (Option<i64>, i64, Option<i64>)> {
    let mut groups = BTreeMap::new();
    for (key, value) in keys.iter().zip(values) {
        let (sum, n, max): &mut (Option<i64>, i64, Option<i64>) = groups.entry(*key).or_default();
        *n += 1;
        if let Some(value) = value {
            *sum = Some(sum.unwrap_or(0) + value);
            *max = (*max).max(Some(*value));
        }
    }
    groups
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_split_and_any_number_of_workers_give_the_same_groups(
        rows in prop::collection::vec((prop::option::of(0i64..9), prop::option::of(-50i64..50)), 1..80),
        as_text in any::<bool>(),
        two in any::<bool>(),
        workers in 1usize..5,
        split_rows in 1usize..40,
    ) {
        let (keys, values): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let ints: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
        let key = if as_text { arrow::compute::cast(&ints, &DataType::Utf8).unwrap() } else { ints };
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("k", key, true),
            ("x", Arc::new(Int64Array::from(values.clone())) as ArrayRef, true),
        ]).unwrap();
        let by = if two { vec![col("k"), lit(1).alias("one")] } else { vec![col("k")] };
        let made = run_over(&batch, split_rows, workers, &|rows| {
            rows.group_by(by.clone()).agg([sum(col("x")).alias("s"), count(lit(1)).alias("n"), max(col("x")).alias("m"), avg(col("x")).alias("a")])
        }).unwrap();
        let at = |name: &str| arrow::compute::cast(&made[name], &DataType::Int64).unwrap();
        let (k, s, n, m) = (at("k"), at("s"), at("n"), at("m"));
        let value = |array: &ArrayRef, row: usize| array.is_valid(row).then(|| array.as_primitive::<Int64Type>().value(row));
        let found: BTreeMap<_, _> = (0..made.num_rows())
            .map(|row| (value(&k, row), (value(&s, row), value(&n, row).unwrap(), value(&m, row))))
            .collect();
        prop_assert_eq!(found.len(), made.num_rows());
        for row in 0..made.num_rows() {
            // Sums of small integers are exact as floats, so means are equal as well.
            let mean = made["a"].is_valid(row).then(|| made["a"].as_primitive::<Float64Type>().value(row));
            let n_x = keys.iter().zip(&values).filter(|(key, x)| **key == value(&k, row) && x.is_some()).count();
            prop_assert_eq!(mean, value(&s, row).map(|s| s as f64 / n_x as f64));
        }
        prop_assert_eq!(found, reference(&keys, &values));
    }
}

/// What DuckDB says of the same rows; `reference/recipe.py` has made both tables.
#[test]
fn aggregates_agree_with_duckdb() {
    let rows = table(include_str!("reference/rows.txt"));
    let expected = table(include_str!("reference/expected.txt"));
    let made = run_over(&rows, 37, 3, &|rows| {
        rows.group_by([col("k"), col("t")]).agg([
            count(lit(1)).alias("n"),
            count(col("x")).alias("n_x"),
            count_distinct(col("x")).alias("d"),
            sum(col("x")).alias("s"),
            min(col("x")).alias("lo"),
            max(col("y")).alias("hi"),
            avg(col("y")).alias("mean"),
            stddev(col("y")).alias("sd"),
            stddev_pop(col("y")).alias("sdp"),
            var_sample(col("x")).alias("v"),
            var_pop(col("x")).alias("vp"),
            median(col("y")).alias("med"),
            corr(col("x"), col("y")).alias("r"),
            covar_samp(col("x"), col("y")).alias("c"),
            covar_pop(col("x"), col("y")).alias("cp"),
            bool_and(col("b")).alias("every"),
            bool_or(col("b")).alias("some"),
            max(col("t")).alias("text"),
            sum(col("x"))
                .filter(col("y").gt(lit(0.0)))
                .build()
                .unwrap()
                .alias("part"),
            (sum(col("y")) / count(col("x"))).alias("ratio"),
            regr_slope(col("y"), col("x")).alias("slope"),
            bit_xor(col("x")).alias("bits"),
        ])
    });
    let made = sorted(&made.unwrap());
    assert_eq!(made.num_rows(), expected.num_rows());
    for (field, wanted) in expected.schema().fields().iter().zip(expected.columns()) {
        let found = arrow::compute::cast(&made[field.name().as_str()], field.data_type()).unwrap();
        if field.data_type() != &DataType::Float64 {
            assert_eq!(&found, wanted, "{}", field.name());
            continue;
        }
        let pairs = found.as_primitive::<Float64Type>().iter();
        for (row, (a, b)) in pairs.zip(wanted.as_primitive::<Float64Type>()).enumerate() {
            let near = match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * a.abs().max(1.0),
                (a, b) => a == b,
            };
            assert!(
                near,
                "{} of row {row}: {a:?}, DuckDB has {b:?}",
                field.name()
            );
        }
    }
}

#[test]
fn the_first_half_makes_the_states_it_promised() {
    let grouping = Arc::new(Grouping {
        groups_alone: false,
        keys: vec![col("k")],
        outputs: vec![
            sum(col("x")),
            array_agg(col("y")),
            median(col("x")),
            corr(col("x"), col("y")),
        ],
        planned: Mutex::new(None),
    });
    let partial = PartialAggregate::new(&grouping);
    let policy = crate::output::OnBadRow::Fail;
    let (states, _) = crate::testing::run_transform(&partial, &table(ROWS), policy).unwrap();
    assert_eq!(states.num_rows(), 4);
    let finish = FinalAggregate::new(&grouping);
    let (made, _) = crate::testing::run_transform(&finish, &states, policy).unwrap();
    assert_eq!(made.num_rows(), 4);
}
