//! A condition keeps what stands behind it from rows on which that fails, in any batch as for the row alone.

use std::ops::Not;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use datafusion_expr::ExprFunctionExt;
use expect_test::expect;
use proptest::prelude::*;

use crate::aggregates::{count, sum};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::connectors::from_record_batches;
use crate::expression::{LogicalExpression as Expr, col, lit, when};
use crate::ops::relational_tests::{check_letters, check_rows};
use crate::ops::{Filter, Join, JoinKind, Partition, WithColumn};
use crate::output::{OnBadRow, Output};
use crate::testing::{show, table};
use crate::transform::Transform;

/// The row alone, and all but one of few rows, pass the guard; a batch of them all does neither.
const ROWS: &str = "x: 1, 2, 0, 3, null, 20, 0, 5";

/// `x != 0 and 10 / x > 1`, which fails on no row.
fn guarded() -> Expr {
    col("x").not_eq(lit(0)).and((lit(10) / col("x")).gt(lit(1)))
}

#[test]
fn a_filter_asks_only_the_rows_that_pass_the_guard() {
    check_rows(
        ROWS,
        |rows| rows.filter(guarded()),
        expect!["x: 1, 2, 3, 5"],
    );
    check_rows(
        ROWS,
        |rows| rows.filter(guarded().not().or(col("x").eq(lit(1)))),
        expect!["x: 0, 0, 1, 20"],
    );
}

#[test]
fn columns_keys_and_aggregates_too() {
    check_rows(
        ROWS,
        |rows| rows.with_column("small", guarded()),
        expect![[r#"
            x: null, 0, 0, 1, 2, 3, 5, 20
            small: null, false, false, true, true, true, true, false"#]],
    );
    check_rows(
        ROWS,
        |rows| rows.select([guarded().alias("small"), col("x")]),
        expect![[r#"
            small: null, false, false, false, true, true, true, true
            x: null, 0, 0, 20, 1, 2, 3, 5"#]],
    );
    check_rows(
        ROWS,
        |rows| {
            let ([small], _) = rows.partition([("small", guarded())]);
            small.with_column("part", lit("small"))
        },
        expect![[r#"
            x: 1, 2, 3, 5
            part: 'small', 'small', 'small', 'small'"#]],
    );
    check_rows(
        ROWS,
        |rows| {
            let grouped = rows.group_by([guarded().alias("small")]);
            let of_small = sum(col("x")).filter(guarded()).build().unwrap();
            grouped.agg([count(lit(1)).alias("n"), of_small.alias("s")])
        },
        expect![[r#"
            small: null, false, true
            n: 1, 3, 4
            s: null, null, 11"#]],
    );
}

#[test]
fn of_pairs_of_rows_too() {
    let by = "k: 1, 1, 1; by: 0, 2, 5";
    check_rows(
        "k: 1, 1; x: 4, 9",
        |rows| {
            let divisors = rows
                .pipeline()
                .read("divisors", from_record_batches(vec![table(by)]));
            let divides = col("by")
                .not_eq(lit(0))
                .and((col("x") / col("by")).gt(lit(1)));
            let on = [(col("k"), col("k"))];
            rows.join_with(&divisors, Join::new(JoinKind::Inner, on).filter(divides))
        },
        expect![[r#"
            k: 1, 1
            x: 4, 9
            by: 2, 2"#]],
    );
}

#[test]
fn rows_that_fail_behind_the_guard_are_bad() {
    check_letters(
        "x: 1, 0, 2, 3, 0, 4; y: 1, 0, 0, 5, 7, 2",
        |rows| {
            let behind = (lit(10) / col("y")).gt(lit(2));
            rows.filter(col("x").not_eq(lit(0)).and(behind))
        },
        expect![[r#"
            x: 1, 4
            y: 1, 2
            filter: record batch 0, row 2: expression `x != Int32(0) AND Int32(10) / y > Int32(2)` failed on {"x":2,"y":0}: Divide by zero error"#]],
    );
}

/// Conditions that may fail on a row, with and without what keeps the row from them.
fn conditions() -> Vec<Expr> {
    let ratio = || lit(10) / col("x");
    let other = || (lit(10) / col("y")).gt(lit(2));
    let x_is_zero = || col("x").eq(lit(0));
    let of_case = when(x_is_zero(), lit(false)).otherwise(guarded().and(other()));
    vec![
        guarded(),
        x_is_zero().or(ratio().gt(lit(1))),
        ratio().gt(lit(1)),
        ratio().gt(lit(1)).and(col("x").not_eq(lit(0))),
        col("x").not_eq(lit(0)).and(other()),
        guarded().or(other()),
        guarded().and(other()).not(),
        col("x")
            .not_eq(lit(0))
            .and(col("y").not_eq(lit(0)))
            .and((ratio() / col("y")).gt(lit(1))),
        col("y").in_list(
            vec![col("x"), ratio(), lit(3) / col("y"), col("x") + lit(1)],
            false,
        ),
        col("y").in_list(
            vec![col("x"), ratio(), lit(3) / col("y"), col("x") + lit(1)],
            true,
        ),
        col("y").between(col("x"), ratio()),
        of_case.unwrap(),
    ]
}

/// What leaves on each port and what is rejected, in order, of rows that come in batches of these sizes.
fn cut(transform: &dyn Transform, rows: &RecordBatch, sizes: &[usize]) -> Vec<String> {
    let mut operator = transform.build(&Artifacts::none()).unwrap();
    let mut out = Output::new(OnBadRow::DeadLetter);
    let mut start = 0;
    let mut left = Vec::new();
    for size in sizes.iter().cycle() {
        if start == rows.num_rows() {
            break;
        }
        let size = (*size).min(rows.num_rows() - start);
        let part = rows.slice(start, size);
        let batch = Batch::read(part, Default::default(), "s".into(), start as u64);
        operator.on_batch(0, batch, &mut out).unwrap();
        start += size;
        for (port, batch) in out.take() {
            for row in 0..batch.n_rows() {
                let at = batch.position(row).row;
                let shown = show(&batch.rows().slice(row, 1));
                left.push(format!("port {port}, row {at}: {shown}"));
            }
        }
    }
    let letters = out.take_dead_letters().into_iter();
    let letters = letters.map(|l| format!("row {}: {} {}", l.row, l.reason, l.data));
    left.sort();
    left.extend(letters);
    left
}

fn cells() -> impl Strategy<Value = Vec<[Option<i64>; 2]>> {
    let cell = || prop_oneof![1 => Just(None), 3 => Just(Some(0)), 6 => (0..12_i64).prop_map(Some)];
    prop::collection::vec([cell(), cell()], 1..40)
}

proptest! {
    /// However rows are cut into batches, the same rows leave, and the same are rejected for the same reason, as
    /// when each comes alone.
    #[test]
    fn any_cut_into_batches_gives_what_each_row_gives_alone(
        cells in cells(),
        sizes in prop::collection::vec(1..40_usize, 1..5),
        which in 0..12_usize,
    ) {
        let column = |n: usize| Arc::new(Int64Array::from_iter(cells.iter().map(|c| c[n]))) as ArrayRef;
        let rows = RecordBatch::try_from_iter_with_nullable([("x", column(0), true), ("y", column(1), true)]).unwrap();
        let condition = conditions().swap_remove(which);
        let transforms: [Box<dyn Transform>; 3] = [
            Box::new(Filter::new(condition.clone())),
            Box::new(WithColumn::new("c", condition.clone())),
            Box::new(Partition::new([("zero", col("x").eq(lit(0))), ("c", condition)])),
        ];
        for transform in &transforms {
            let alone = cut(&**transform, &rows, &[1]);
            prop_assert_eq!(cut(&**transform, &rows, &[rows.num_rows()]), alone.clone());
            prop_assert_eq!(cut(&**transform, &rows, &sizes), alone);
        }
    }
}
