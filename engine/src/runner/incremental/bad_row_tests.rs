//! Tests of rows on which expressions of relations fail: which are left out, which are told, and when.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::restart_tests::{courses, simulated};
use super::tests::{Life, changes_of, lives, naive_join, there};
use crate::aggregates::{count, sum};
use crate::connectors::{collect, from_record_batches};
use crate::ops::{Join, JoinKind};
use crate::output::OnBadRow;
use crate::testing::{changelog, contents_at, show_rows, table};
use crate::{Collection, Expr, Pipeline, Relation, RunOptions, col, lit};

type Compose<'a> = &'a dyn Fn(&[Collection]) -> Collection;

/// What reaches a sink behind `compose`, and the dead letters, or the error.
pub(super) fn run_with(
    tables: &[RecordBatch],
    n_workers: usize,
    policy: OnBadRow,
    compose: Compose<'_>,
) -> crate::Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
    let pipeline = Pipeline::new("test");
    let read = |(n, rows): (usize, &RecordBatch)| {
        let half = rows.num_rows() / 2;
        let rest = rows.slice(half, rows.num_rows() - half);
        let parts = vec![rows.slice(0, half), rest];
        pipeline.read(&format!("rows-{n}"), from_record_batches(parts))
    };
    let inputs: Vec<Collection> = tables.iter().enumerate().map(read).collect();
    let ((sink, made), (dead, letters)) = (collect(), collect());
    let composed = compose(&inputs);
    let composed = match policy {
        OnBadRow::DeadLetter => composed.dead_letters_to(dead),
        policy => composed.on_bad_row(policy),
    };
    composed.write(sink);
    let report = pipeline.run(&RunOptions::new().workers(n_workers))?;
    let letters = letters.take();
    let told: usize = letters.iter().map(RecordBatch::num_rows).sum();
    if policy == OnBadRow::DeadLetter {
        let rejected: u64 = report.phases[0].nodes.iter().map(|n| n.rejected).sum();
        assert_eq!(rejected, told as u64);
    }
    Ok((made.take(), letters))
}

/// Checks what is made, and the dead letters, for 1 to 3 workers; and that as much is made where they are dropped.
pub(super) fn check(tables: &[RecordBatch], compose: Compose<'_>, expected: Expect) {
    let all = |n_workers| {
        let (made, letters) = run_with(tables, n_workers, OnBadRow::DeadLetter, compose).unwrap();
        let (kept, _) = run_with(tables, n_workers, OnBadRow::Drop, compose).unwrap();
        assert_eq!(show_rows(&kept), show_rows(&made), "dropped");
        format!("{}\n---\n{}", show_rows(&made), show_rows(&letters))
    };
    let one = all(1);
    expected.assert_eq(&one);
    for n_workers in 2..=3 {
        assert_eq!(all(n_workers), one, "{n_workers} workers");
    }
}

/// `x / by`, which fails where `by` is 0.
fn divided() -> Expr {
    col("x") / col("by")
}

fn rows() -> RecordBatch {
    changelog(
        "x: 6, 6, 4, 6, 6, 8; by: 2, 0, 2, 0, 0, 1; event_time: 1, 1, 2, 3, 5, 6; diff: 1, 1, 1, 1, -1, 1",
    )
}

#[test]
fn a_pair_for_which_a_join_of_changelogs_has_no_answer() {
    let left = changelog("k: 1, 1, 2; x: 6, 6, 8; event_time: 1, 5, 2; diff: 1, -1, 1");
    let right =
        changelog("j: 1, 1, 2, 1; by: 2, 0, 0, 0; event_time: 1, 3, 1, 4; diff: 1, 1, 1, -1");
    let on = || [(col("k"), col("j"))];
    let joined = |inputs: &[Collection]| {
        let join = Join::new(JoinKind::Inner, on()).filter(divided().gt(lit(1)));
        inputs[0].join_with(&inputs[1], join)
    };
    check(
        &[left.clone(), right.clone()],
        &joined,
        expect![[r#"
            k=1 x=6 j=1 by=2 event_time=1 diff=1
            k=1 x=6 j=1 by=2 event_time=5 diff=-1
            ---
            node='join' split='a pair of rows of step 2 of the relation, join' row=0 reason='expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error' data='{"k":1,"x":6,"j":1,"by":0,"event_time":"1970-01-01T00:00:00.003"}'
            node='join' split='a pair of rows of step 2 of the relation, join' row=0 reason='expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error' data='{"k":2,"x":8,"j":2,"by":0,"event_time":"1970-01-01T00:00:00.002"}'"#]],
    );
    let failed = run_with(&[left, right], 1, OnBadRow::Fail, &joined).unwrap_err();
    assert!(failed.is_data());
    expect![[r#"
        a pair of rows of step 2 of the relation, join: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
          in transform "join"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&failed.report());
}

#[test]
fn a_row_that_cannot_be_selected_or_filtered() {
    check(
        &[rows()],
        &|inputs| {
            let rows = inputs[0].incremental();
            let made = rows.select([divided().alias("ratio"), col("x")]);
            made.into_collection("made")
        },
        expect![[r#"
            ratio=2 x=4 event_time=2 diff=1
            ratio=3 x=6 event_time=1 diff=1
            ratio=8 x=8 event_time=6 diff=1
            ---
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by AS ratio` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.001"}'
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by AS ratio` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.003"}'"#]],
    );
    check(
        &[rows()],
        &|inputs| {
            let rows = inputs[0].incremental();
            let made = rows.filter(divided().gt(lit(2)));
            made.select([col("x")]).into_collection("made")
        },
        expect![[r#"
            x=6 event_time=1 diff=1
            x=8 event_time=6 diff=1
            ---
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by > Int32(2)` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.001"}'
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by > Int32(2)` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.003"}'"#]],
    );
}

#[test]
fn a_row_without_a_group_or_a_value_and_a_group_without_a_result() {
    let grouped = |key: Expr, outputs: Vec<Expr>| {
        move |inputs: &[Collection]| {
            let rows = inputs[0].incremental();
            let made = rows.group_by([key.clone()]).agg(outputs.clone());
            made.into_collection("made")
        }
    };
    let n = || count(lit(1)).alias("n");
    check(
        &[rows()],
        &grouped(divided().alias("ratio"), vec![n()]),
        expect![[r#"
            ratio=2 n=1 event_time=2 diff=1
            ratio=3 n=1 event_time=1 diff=1
            ratio=8 n=1 event_time=6 diff=1
            ---
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by AS ratio` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.001"}'
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by AS ratio` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.003"}'"#]],
    );
    check(
        &[rows()],
        &grouped(col("x"), vec![sum(divided()).alias("ratios"), n()]),
        expect![[r#"
            x=4 ratios=2 n=1 event_time=2 diff=1
            x=6 ratios=3 n=1 event_time=1 diff=1
            x=8 ratios=8 n=1 event_time=6 diff=1
            ---
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.001"}'
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.003"}'"#]],
    );
    // The group of 0 has no result: what it was before is told for each instant at which it is another.
    check(
        &[rows()],
        &grouped(
            col("by"),
            vec![(sum(col("x")) / sum(col("by"))).alias("ratio"), n()],
        ),
        expect![[r#"
            by=1 ratio=8 n=1 event_time=6 diff=1
            by=2 ratio=2 n=2 event_time=2 diff=1
            by=2 ratio=3 n=1 event_time=1 diff=1
            by=2 ratio=3 n=1 event_time=2 diff=-1
            ---
            node='made' split='a row of step 1 of the relation, group_by' row=0 reason='expression `sum(x)  / sum(by)  AS ratio` failed on {"sum(x) ":12,"sum(by) ":0}: Divide by zero error' data='{"by":0,"sum(x) ":12,"sum(by) ":0,"count(Int32(1)) ":2,"event_time":"1970-01-01T00:00:00.003"}'
            node='made' split='a row of step 1 of the relation, group_by' row=0 reason='expression `sum(x)  / sum(by)  AS ratio` failed on {"sum(x) ":6,"sum(by) ":0}: Divide by zero error' data='{"by":0,"sum(x) ":6,"sum(by) ":0,"count(Int32(1)) ":1,"event_time":"1970-01-01T00:00:00.001"}'
            node='made' split='a row of step 1 of the relation, group_by' row=0 reason='expression `sum(x)  / sum(by)  AS ratio` failed on {"sum(x) ":6,"sum(by) ":0}: Divide by zero error' data='{"by":0,"sum(x) ":6,"sum(by) ":0,"count(Int32(1)) ":1,"event_time":"1970-01-01T00:00:00.005"}'"#]],
    );
}

#[test]
fn a_row_whose_key_fails_matches_nothing_and_is_not_alone_either() {
    let right = table("q: 3, 2; name: three, two");
    let joined = |kind| {
        move |inputs: &[Collection]| {
            let (left, right) = (inputs[0].incremental(), inputs[1].incremental());
            let made = left.join(&right, kind, [(divided(), col("q"))]);
            made.into_collection("made")
        }
    };
    check(
        &[rows(), right.clone()],
        &joined(JoinKind::Full),
        expect![[r#"
            x=4 by=2 q=2 name='two' event_time=2 diff=1
            x=6 by=2 q=3 name='three' event_time=1 diff=1
            x=8 by=1 q=null name=null event_time=6 diff=1
            x=null by=null q=2 name='two' event_time=-9223372036854775 diff=1
            x=null by=null q=2 name='two' event_time=2 diff=-1
            x=null by=null q=3 name='three' event_time=-9223372036854775 diff=1
            x=null by=null q=3 name='three' event_time=1 diff=-1
            ---
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.001"}'
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.003"}'"#]],
    );
    check(
        &[rows(), right],
        &joined(JoinKind::LeftAnti),
        expect![[r#"
            x=8 by=1 event_time=6 diff=1
            ---
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.001"}'
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0,"event_time":"1970-01-01T00:00:00.003"}'"#]],
    );
}

/// Counts down from each number, dividing by it, until nothing can be divided.
fn countdown(numbers: &Relation) -> Relation {
    numbers.iterate(|left| {
        let divided = left.filter((lit(12) / col("n")).gt(lit(0)));
        divided.select([(col("n") - lit(1_i64)).alias("n")])
    })
}

#[test]
fn a_row_of_a_round_that_is_over_is_told_once_each_time_it_comes() {
    let starts = changelog("n: 3, 3, 2, 3; event_time: 1, 5, 7, 9; diff: 1, -1, 1, 1");
    check(
        &[starts],
        &|inputs| countdown(&inputs[0].incremental()).into_collection("made"),
        expect![[r#"

            ---
            node='made' split='a row of step 1 of the relation, variable' row=0 reason='expression `Int32(12) / n > Int32(0)` failed on {"n":0}: Divide by zero error' data='{"n":0,"event_time":"1970-01-01T00:00:00.001"}'
            node='made' split='a row of step 1 of the relation, variable' row=0 reason='expression `Int32(12) / n > Int32(0)` failed on {"n":0}: Divide by zero error' data='{"n":0,"event_time":"1970-01-01T00:00:00.007"}'"#]],
    );
}

/// How often each row that is there at a time is bad, as text.
fn bad_at(
    rows: &[(Option<i64>, i64)],
    is_bad: impl Fn(&(Option<i64>, i64)) -> bool,
) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for (k, n) in rows.iter().filter(|row| is_bad(row)) {
        let k = k.map_or(String::new(), |k| format!("\"k\":{k},"));
        *all.entry(format!("{k}\"a\":{n}")).or_default() += 1;
    }
    all
}

/// The letters of rows that come to be bad, from what is bad at each instant.
fn letters_of(at: impl Fn(i64) -> BTreeMap<String, usize>) -> Vec<String> {
    let mut letters = Vec::new();
    let mut before = BTreeMap::new();
    for time in -1..14 {
        let now = at(time);
        for (row, n) in &now {
            let known = before.get(row).copied().unwrap_or(0);
            let letter = format!("{{{row},\"event_time\":\"1970-01-01T00:00:00.{time:03}\"}}");
            letters.extend(std::iter::repeat_n(letter, n.saturating_sub(known)));
        }
        before = now;
    }
    letters.sort();
    letters
}

/// The rows of dead letters.
fn data_of(letters: &[RecordBatch]) -> Vec<String> {
    let text = |rows: &RecordBatch| {
        let data = rows["data"].clone();
        let data = arrow::array::AsArray::as_string::<i32>(&data).clone();
        data.iter()
            .flatten()
            .map(|data| data.replace("00:00:00\"", "00:00:00.000\""))
            .collect::<Vec<_>>()
    };
    let mut all: Vec<String> = letters.iter().flat_map(text).collect();
    all.sort();
    all
}

/// Left rows whose `a` is 0 have no key; those of 1 and 2 have 2 and 1.
fn keyed(rows: &[Life], time: i64) -> Vec<(Option<i64>, i64)> {
    let rows = there(rows, time).into_iter().filter(|(_, a)| *a != 0);
    rows.map(|(_, a)| (Some(2 / a), a)).collect()
}

fn join_by_a(kind: JoinKind) -> impl Fn(&[Collection]) -> Collection {
    move |inputs| {
        let left = inputs[0].incremental();
        let right = inputs[1].incremental();
        let joined = left.join(
            &right.select([col("k").alias("j"), col("b")]),
            kind,
            [(lit(2_i64) / col("a"), col("j"))],
        );
        let joined = match kind {
            JoinKind::LeftAnti => joined.select([(lit(2_i64) / col("a")).alias("k"), col("a")]),
            _ => joined.select([(lit(2_i64) / col("a")).alias("k"), col("a"), col("b")]),
        };
        joined.into_collection("made")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn what_is_left_is_what_the_good_rows_give_at_each_instant(
        left in lives(10),
        right in lives(10),
        n_workers in 1usize..4,
    ) {
        let tables = [changes_of(&left, "a"), changes_of(&right, "b")];
        for kind in [JoinKind::Inner, JoinKind::Left, JoinKind::LeftAnti] {
            let (made, letters) =
                run_with(&tables, n_workers, OnBadRow::DeadLetter, &join_by_a(kind)).unwrap();
            for time in 0..14 {
                let expected = naive_join(kind, &keyed(&left, time), &there(&right, time));
                prop_assert_eq!(contents_at(&made, Some(time)), expected, "{:?} at {}", kind, time);
            }
            let expected = letters_of(|time| bad_at(&there(&left, time), |(_, a)| *a == 0));
            prop_assert_eq!(data_of(&letters), expected);
        }
    }

    #[test]
    fn pairs_that_have_no_answer_are_told_as_they_come(
        left in lives(10),
        right in lives(10),
        n_workers in 1usize..4,
    ) {
        let tables = [changes_of(&left, "a"), changes_of(&right, "b")];
        let joined = |inputs: &[Collection]| {
            let join = Join::new(JoinKind::Inner, [(col("k"), col("k"))]);
            inputs[0].join_with(&inputs[1], join.filter((col("b") / col("a")).gt_eq(lit(1))))
        };
        let (made, letters) = run_with(&tables, n_workers, OnBadRow::DeadLetter, &joined).unwrap();
        let pairs = |time| {
            let (left, right) = (there(&left, time), there(&right, time));
            let pairs = left.into_iter().flat_map(|(k, a)| {
                let right = right.iter().filter(move |(j, _)| k.is_some() && k == *j);
                right.map(move |(_, b)| (k, a, *b)).collect::<Vec<_>>()
            });
            pairs.collect::<Vec<_>>()
        };
        for time in 0..14 {
            let good = pairs(time).into_iter().filter(|(_, a, b)| *a != 0 && b / a >= 1);
            let mut good: Vec<String> =
                good.map(|(k, a, b)| format!("k={} a={a} b={b}", k.unwrap())).collect();
            good.sort();
            prop_assert_eq!(contents_at(&made, Some(time)), good.join("\n"), "at {}", time);
        }
        let expected = letters_of(|time| {
            let mut all = BTreeMap::new();
            for (k, a, b) in pairs(time).into_iter().filter(|(_, a, _)| *a == 0) {
                let row = format!("\"k\":{},\"a\":{a},\"b\":{b}", k.unwrap());
                *all.entry(row).or_default() += 1;
            }
            all
        });
        prop_assert_eq!(data_of(&letters), expected);
    }

    /// A row that is bad when all stops has been told, and is still known: it is not told again, and may be taken back.
    #[test]
    fn bad_rows_are_told_once_whenever_the_relation_is_stopped(
        left in lives(10),
        right in lives(10),
        mut course in courses(),
    ) {
        course.ahead = 0;
        let tables = [changes_of(&left, "a"), changes_of(&right, "b")];
        for kind in [JoinKind::Left, JoinKind::LeftAnti] {
            let with_letters = |inputs: &[Collection]| {
                join_by_a(kind)(inputs).dead_letters_to(collect().0)
            };
            let made = simulated(&tables, &course, &with_letters);
            for time in 0..14 {
                let expected = naive_join(kind, &keyed(&left, time), &there(&right, time));
                let rows = made.rows("out");
                prop_assert_eq!(contents_at(&rows, Some(time)), expected, "{:?} at {}", kind, time);
            }
            let expected = letters_of(|time| bad_at(&there(&left, time), |(_, a)| *a == 0));
            prop_assert_eq!(data_of(&made.rows("made/dead_letters")), expected);
        }
    }
}
