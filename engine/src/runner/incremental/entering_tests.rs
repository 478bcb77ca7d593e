//! Tests of loops that rows enter round by round.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use proptest::prelude::*;

use super::bad_row_tests::{check, run_with};
use super::restart_tests::{courses, in_effect, script, there_after, with_and_without};
use super::tests::{
    Life, along_a_path, changes_of, components, components_entering, lives, naive_components, run,
    there,
};
use crate::aggregates::min;
use crate::connectors::{collect, from_record_batches};
use crate::expression::functions::math::expr_fn::{ceil, log2};
use crate::expression::{cast, when};
use crate::ops::JoinKind;
use crate::output::OnBadRow;
use crate::testing::{changelog, contents_at, show_rows, table};
use crate::{Collection, Expr, Iterate, Pipeline, Relation, RunOptions, col, lit};

/// How many bits a label has.
fn n_bits(label: &str) -> Expr {
    cast(ceil(log2(col(label) + lit(1.0))), DataType::Int64)
}

/// Rounds for labels from 0 to 4: all at once, the least first, the least last, and in no order; some far apart.
fn rounds() -> impl Strategy<Value = Expr> {
    let least = || col("least");
    prop::sample::select(vec![
        least() * lit(0_i64),
        n_bits("least") * lit(256_i64),
        (lit(4_i64) - least()) * lit(7_i64),
        (least() * lit(3_i64)) % lit(5_i64),
    ])
}

/// The edges of tables that [`changes_of`] makes, as [`naive_components`] reads them.
fn edges_of(rows: &Collection) -> Relation {
    let from = when(col("k").is_null(), lit(3_i64)).otherwise(col("k"));
    let from = from.unwrap().alias("from");
    let to = (col("n") + lit(2_i64)).alias("to");
    rows.incremental().select([from, to])
}

/// The cheapest offer that reaches each node, along edges each of which costs as much as its end is called.
fn cheapest(inputs: &[Collection]) -> Collection {
    let [edges, offers] = [0, 1].map(|n| inputs[n].incremental());
    let edges = edges.select([
        col("k").alias("from"),
        col("n").alias("to"),
        (col("n") + lit(1_i64)).alias("more"),
    ]);
    let edges = edges.distinct();
    let offers = offers.filter(col("k").is_not_null());
    let offers = offers.select([
        col("k").alias("node"),
        (col("a") * lit(2_i64)).alias("cost"),
    ]);
    let offers = offers.distinct();
    let cheapest = offers.iterate_entering(col("cost"), |cheapest, offers| {
        cheapest
            .join(&edges, JoinKind::Inner, [(col("node"), col("from"))])
            .select([
                col("to").alias("node"),
                (col("cost") + col("more")).alias("cost"),
            ])
            .union([offers])
            .group_by([col("node")])
            .agg([min(col("cost")).alias("cost")])
    });
    cheapest.into_collection("cheapest")
}

/// The same by hand: costs go along edges until none becomes less.
fn naive_cheapest(edges: &[(Option<i64>, i64)], offers: &[(Option<i64>, i64)]) -> String {
    let mut costs: BTreeMap<i64, i64> = BTreeMap::new();
    let offers = offers.iter().filter_map(|(k, a)| Some(((*k)?, 2 * a)));
    let mut open: Vec<(i64, i64)> = offers.collect();
    while let Some((node, cost)) = open.pop() {
        if costs.get(&node).is_none_or(|known| cost < *known) {
            costs.insert(node, cost);
            let next = edges.iter().filter(|(from, _)| *from == Some(node));
            open.extend(next.map(|(_, to)| (*to, cost + to + 1)));
        }
    }
    let lines = costs
        .iter()
        .map(|(node, cost)| format!("node={node} cost={cost}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Who comes first stays: rows enter in round `n`, and those of a key that has rows already are turned away.
fn first_come(rows: &Relation, max_rounds: u64) -> Relation {
    let options = Iterate::new().max_rounds(max_rounds);
    rows.iterate_entering_with(options, col("n"), |seated, came| {
        let came = came.join(seated, JoinKind::LeftAnti, [(col("k"), col("k"))]);
        seated.union([&came])
    })
}

/// The rows of [`changes_of`] that have a key, each once.
fn distinct_rows(rows: &Collection) -> Relation {
    rows.incremental().filter(col("k").is_not_null()).distinct()
}

/// The same by hand: the rows of each key whose `n` is the least.
fn naive_first_come(rows: &[(Option<i64>, i64)]) -> String {
    let mut first: BTreeMap<i64, i64> = BTreeMap::new();
    for (k, n) in rows.iter().filter_map(|(k, n)| Some(((*k)?, *n))) {
        let least = first.entry(k).or_insert(n);
        *least = n.min(*least);
    }
    let lines = first.iter().map(|(k, n)| format!("k={k} n={n}"));
    lines.collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever the order in which nodes enter.
    #[test]
    fn components_are_those_of_a_search_and_of_a_plain_loop_at_each_instant(
        edges in lives(14),
        apart in prop::sample::select(vec![1_i64, 1_000_000_000_000]),
        round in rounds(),
        n_workers in 1usize..4,
    ) {
        let edges: Vec<Life> = edges
            .into_iter()
            .map(|(k, n, from, stays)| (k, n, from * apart, stays.map(|stays| stays * apart)))
            .collect();
        let made = run(&[changes_of(&edges, "n")], n_workers, |inputs| {
            components_entering(&edges_of(&inputs[0]), round.clone()).into_collection("components")
        });
        let plain = run(&[changes_of(&edges, "n")], n_workers, |inputs| {
            components(&edges_of(&inputs[0])).into_collection("components")
        });
        prop_assert_eq!(show_rows(&made), show_rows(&plain));
        for time in (0..14).map(|time| time * apart) {
            let expected = naive_components(&there(&edges, time));
            prop_assert_eq!(contents_at(&made, Some(time)), expected, "at {}", time);
        }
    }

    #[test]
    fn cheapest_ways_are_those_of_a_search_at_each_instant(
        edges in lives(12),
        offers in lives(8),
        n_workers in 1usize..4,
    ) {
        let tables = [changes_of(&edges, "n"), changes_of(&offers, "a")];
        let made = run(&tables, n_workers, cheapest);
        for time in 0..14 {
            let expected = naive_cheapest(&there(&edges, time), &there(&offers, time));
            prop_assert_eq!(contents_at(&made, Some(time)), expected, "at {}", time);
        }
    }

    #[test]
    fn cheapest_ways_go_on_as_if_they_had_not_been_stopped(
        edges in lives(12),
        offers in lives(8),
        course in courses(),
    ) {
        let tables = [changes_of(&edges, "n"), changes_of(&offers, "a")];
        let (made, expected) = with_and_without(&tables, &course, &cheapest);
        prop_assert_eq!(show_rows(&made), show_rows(&expected));
        let script = script(&tables, &course);
        let [edges, offers] = ["rows-0", "rows-1"].map(|source| in_effect(&script, source));
        for time in (0..20).filter(|_| course.ahead == 0) {
            let expected = naive_cheapest(&there_after(&edges, time), &there_after(&offers, time));
            prop_assert_eq!(contents_at(&made, Some(time)), expected, "at {}", time);
        }
    }

    /// What a body gives need not be the same in any order; each row is there from its round on, and not before.
    #[test]
    fn rows_enter_in_their_rounds(
        rows in lives(14),
        is_inside in any::<bool>(),
        n_workers in 1usize..4,
    ) {
        let made = run(&[changes_of(&rows, "n")], n_workers, |inputs| {
            let rows = distinct_rows(&inputs[0]);
            let seated = match is_inside {
                false => first_come(&rows, 100),
                // Those who come too late do not come again.
                true => rows.iterate(|rows| first_come(rows, 100)),
            };
            seated.into_collection("seated")
        });
        for time in 0..14 {
            let expected = naive_first_come(&there(&rows, time));
            prop_assert_eq!(contents_at(&made, Some(time)), expected, "at {}", time);
        }
    }

    /// A row whose round is none of the loop's is bad: as if it were not there, and told each time that it comes.
    #[test]
    fn rows_without_a_round_do_not_enter(rows in lives(14), n_workers in 1usize..4) {
        let seated = |inputs: &[Collection]| {
            first_come(&distinct_rows(&inputs[0]), 2).into_collection("seated")
        };
        let tables = [changes_of(&rows, "n")];
        let (made, letters) = run_with(&tables, n_workers, OnBadRow::DeadLetter, &seated).unwrap();
        let is_bad = |row: &(Option<i64>, i64)| row.0.is_some() && row.1 > 1;
        let bad_at = |time| -> BTreeSet<_> { there(&rows, time).into_iter().filter(is_bad).collect() };
        let mut n_told = 0;
        for time in 0..14 {
            let good = there(&rows, time).into_iter().filter(|row| !is_bad(row));
            let expected = naive_first_come(&good.collect::<Vec<_>>());
            prop_assert_eq!(contents_at(&made, Some(time)), expected, "at {}", time);
            n_told += bad_at(time).difference(&bad_at(time - 1)).count();
        }
        let n_letters: usize = letters.iter().map(RecordBatch::num_rows).sum();
        prop_assert_eq!(n_letters, n_told);
    }
}

/// Numbers that enter in round `r`.
fn entering(inputs: &[Collection], max_rounds: u64) -> Collection {
    let rows = inputs[0].incremental();
    let options = Iterate::new().max_rounds(max_rounds);
    let made = rows.iterate_entering_with(options, col("r"), |made, entered| {
        made.union([entered]).distinct()
    });
    made.into_collection("made")
}

#[test]
fn a_row_whose_round_is_null_or_none_of_the_loop_is_bad() {
    let rows = changelog(
        "n: 1, 2, 3, 4, 5, 2, 2; r: 0, null, -1, 9, 10, null, null; event_time: 1, 1, 2, 3, 4, 6, 8; diff: 1, 1, 1, 1, 1, -1, 1",
    );
    check(
        std::slice::from_ref(&rows),
        &|inputs| entering(inputs, 10),
        expect![[r#"
            n=1 r=0 event_time=1 diff=1
            n=4 r=9 event_time=3 diff=1
            ---
            node='made' split='a row of step 0 of the relation, input' row=0 reason='the round in which it enters, `r`, is -1, expected at least 0 and less than 10' data='{"n":3,"r":-1,"event_time":"1970-01-01T00:00:00.002"}'
            node='made' split='a row of step 0 of the relation, input' row=0 reason='the round in which it enters, `r`, is 10, expected at least 0 and less than 10' data='{"n":5,"r":10,"event_time":"1970-01-01T00:00:00.004"}'
            node='made' split='a row of step 0 of the relation, input' row=0 reason='the round in which it enters, `r`, is null' data='{"n":2,"event_time":"1970-01-01T00:00:00.001"}'
            node='made' split='a row of step 0 of the relation, input' row=0 reason='the round in which it enters, `r`, is null' data='{"n":2,"event_time":"1970-01-01T00:00:00.008"}'"#]],
    );
    let failed = |rows: RecordBatch| {
        let failed = run_with(&[rows], 2, OnBadRow::Fail, &|inputs| entering(inputs, 10));
        let failed = failed.unwrap_err();
        assert!(failed.is_data());
        failed.report()
    };
    expect![[r#"
        a row of step 0 of the relation, input: the round in which it enters, `r`, is null
          in transform "made"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&failed(rows.slice(1, 1)));
    expect![[r#"
        a row of step 0 of the relation, input: the round in which it enters, `r`, is -1, expected at least 0 and less than 10
          in transform "made"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&failed(rows.slice(2, 1)));
}

#[test]
fn a_round_that_cannot_be_computed_is_that_of_a_bad_row() {
    let rows = table("x: 6, 6; by: 2, 0");
    check(
        &[rows],
        &|inputs| {
            let rows = inputs[0].incremental();
            let made = rows.iterate_entering(col("x") / col("by"), |made, entered| {
                made.union([entered]).distinct()
            });
            made.into_collection("made")
        },
        expect![[r#"
            x=6 by=2 diff=1
            ---
            node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `x / by` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0}'"#]],
    );
}

#[test]
fn a_round_is_an_integer_of_any_width() {
    use arrow::array::{ArrayRef, Int8Array, UInt64Array};
    use std::sync::Arc;
    let columns: [(&str, ArrayRef); 2] = [
        ("small", Arc::new(Int8Array::from(vec![0, 1, 2]))),
        ("large", Arc::new(UInt64Array::from(vec![u64::MAX, 1, 0]))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let by = |column: &'static str| {
        move |inputs: &[Collection]| {
            let rows = inputs[0].incremental();
            let made = rows.iterate_entering(col(column), |made, entered| {
                made.union([entered]).distinct()
            });
            made.into_collection("made")
        }
    };
    check(
        std::slice::from_ref(&rows),
        &by("small"),
        expect![[r#"
        small=0 large=18446744073709551615 diff=1
        small=1 large=1 diff=1
        small=2 large=0 diff=1
        ---
    "#]],
    );
    check(
        &[rows],
        &by("large"),
        expect![[r#"
        small=1 large=1 diff=1
        small=2 large=0 diff=1
        ---
        node='made' split='a row of step 0 of the relation, input' row=0 reason='expression `CAST(large AS Int64)` failed on {"large":18446744073709551615}: Cast error: Can't cast value 18446744073709551615 to type Int64' data='{"small":0,"large":18446744073709551615}'"#]],
    );
}

#[test]
fn rounds_before_the_first_row_enters_count_too() {
    let expected = expect![[r#"
        an iteration has not come to an end after 15 rounds
          in transform "reached"
          It is in step 9 of the relation, iterate.
          Rows still change from one round to the next.
          Hint: Let it come to rows that stay the same, as with a filter that bounds what grows or a `distinct`, or allow more rounds with `Iterate::new().max_rounds(..)`."#]];
    let reached = |max_rounds, n_workers| {
        along_a_path(n_workers, |start, further| {
            let options = Iterate::new().max_rounds(max_rounds);
            start.iterate_entering_with(options, lit(10), further)
        })
    };
    for n_workers in 1..=2 {
        let all = (0..6).map(|node| format!("node={node} diff=1"));
        assert_eq!(
            reached(16, n_workers).unwrap(),
            all.collect::<Vec<_>>().join("\n")
        );
        let error = reached(15, n_workers).unwrap_err();
        expected.assert_eq(&error.to_string());
    }
}

/// Of each node of a ring the other end changes in turn, so what is kept of its rounds cannot be forgotten at once.
#[test]
fn less_is_kept_where_the_least_labels_enter_first() {
    let n_nodes = 100_i64;
    let lives: Vec<Life> = (0..n_nodes)
        .map(|n| (n + 10, (n + 1) % n_nodes + 10, 0, Some(1 + n)))
        .collect();
    let rows = changes_of(&lives, "n");
    let peak = |make: &dyn Fn(&Relation) -> Relation| {
        let pipeline = Pipeline::new("test");
        let edges = pipeline.read("rows", from_record_batches(vec![rows.clone()]));
        let edges = edges.incremental();
        let edges = edges.select([col("k").alias("from"), col("n").alias("to")]);
        let (sink, rows) = collect();
        make(&edges).into_collection("made").write(sink);
        let report = pipeline.run(&RunOptions::new().workers(1)).unwrap();
        (
            report.node("made").unwrap().peak_state_bytes,
            show_rows(&rows.take()),
        )
    };
    let (of_plain, plain) = peak(&components);
    let (of_entering, made) =
        peak(&|edges| components_entering(edges, n_bits("least") * lit(256_i64)));
    assert_eq!(made, plain);
    assert!(of_entering < of_plain / 2, "{of_entering} and {of_plain}");
}
