//! Tests of loops inside of loops.

use std::collections::BTreeSet;

use expect_test::expect;
use proptest::prelude::*;

use super::restart_tests::{courses, in_effect, script, there_after, with_and_without};
use super::tests::{Life, changes_of, components, lives, naive_components, nearer, run, there};
use crate::connectors::{collect, from_record_batches};
use crate::expression::when;
use crate::ops::JoinKind;
use crate::testing::{changelog, contents_at, show_rows, table};
use crate::{Collection, Expr, Iterate, Pipeline, Relation, RunOptions, col, lit};

/// The edges of tables that [`changes_of`] makes, with 3 for a null.
fn edges_of(rows: &Collection) -> Relation {
    let from = when(col("k").is_null(), lit(3_i64)).otherwise(col("k"));
    let columns = [from.unwrap().alias("from"), col("n").alias("to")];
    rows.incremental().select(columns)
}

fn turned(edges: &Relation) -> Relation {
    edges.select([col("to").alias("from"), col("from").alias("to")])
}

/// Those of `edges` whose ends the same least node of them comes to along `cycle`, turned around; with a round for
/// `least`, nodes enter in it.
fn trimmed(cycle: &Relation, edges: &Relation, round: Option<&Expr>) -> Relation {
    let nodes = edges.select([col("to").alias("node"), col("to").alias("least")]);
    let nodes = nodes.distinct();
    let labels = match round {
        None => nodes.iterate(|least| nearer(least, &nodes, cycle)),
        Some(round) => {
            nodes.iterate_entering(round.clone(), |least, nodes| nearer(least, nodes, cycle))
        }
    };
    let of_from = labels.select([col("node").alias("a"), col("least").alias("of_a")]);
    let of_to = labels.select([col("node").alias("b"), col("least").alias("of_b")]);
    edges
        .join(&of_from, JoinKind::Inner, [(col("from"), col("a"))])
        .join(&of_to, JoinKind::Inner, [(col("to"), col("b"))])
        .filter(col("of_a").eq(col("of_b")))
        .select([col("to").alias("from"), col("from").alias("to")])
}

/// The edges inside of strongly connected components, as in `algorithms/graphs/scc.rs` of differential-dataflow 0.26.
fn strongly_connected(edges: &Relation, round: Option<&Expr>) -> Relation {
    let back = turned(edges);
    edges.iterate(|inside| trimmed(&trimmed(inside, edges, round), &back, round))
}

/// By hand: an edge whose end comes back to its beginning.
fn naive_strongly_connected(edges: &[(Option<i64>, i64)]) -> String {
    let edges: BTreeSet<(i64, i64)> = edges.iter().map(|(k, n)| (k.unwrap_or(3), *n)).collect();
    let comes_to = |from: i64, to: i64| {
        let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
        while let Some(at) = open.pop() {
            let next = edges.iter().filter(|(from, _)| *from == at);
            open.extend(next.map(|(_, to)| *to).filter(|to| seen.insert(*to)));
        }
        seen.contains(&to)
    };
    let inside = edges.iter().filter(|(from, to)| comes_to(*to, *from));
    let lines = inside.map(|(from, to)| format!("from={from} to={to}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Edges between the nodes 0 to 3.
fn graphs() -> impl Strategy<Value = Vec<Life>> {
    let edge = (0i64..4, 0i64..4, 0i64..8, prop::option::of(1i64..6));
    prop::collection::vec(edge, 0..14)
}

/// No round, where nodes are all there from the first on, and rounds in which they enter.
fn rounds() -> impl Strategy<Value = Option<Expr>> {
    let least = col("least");
    let at_once = least.clone() * lit(0_i64);
    let backwards = (lit(4_i64) - least.clone()) * lit(5_i64);
    prop::sample::select(vec![None, Some(at_once), Some(least), Some(backwards)])
}

fn of_graph(inputs: &[Collection], round: Option<&Expr>) -> Collection {
    // An edge may come twice, and is there once.
    strongly_connected(&edges_of(&inputs[0]).distinct(), round).into_collection("inside")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn strong_components_are_those_of_a_search_at_each_instant(
        edges in graphs(),
        round in rounds(),
        n_workers in 1usize..4,
    ) {
        let of_graph = |inputs: &[Collection]| of_graph(inputs, round.as_ref());
        let made = run(&[changes_of(&edges, "n")], n_workers, of_graph);
        for time in 0..14 {
            let expected = naive_strongly_connected(&there(&edges, time));
            prop_assert_eq!(contents_at(&made, Some(time)), expected, "at {}", time);
        }
    }

    #[test]
    fn strong_components_go_on_as_if_they_had_not_been_stopped(
        edges in graphs(),
        round in rounds(),
        course in courses(),
    ) {
        let of_graph = |inputs: &[Collection]| of_graph(inputs, round.as_ref());
        let tables = [changes_of(&edges, "n")];
        let (made, expected) = with_and_without(&tables, &course, &of_graph);
        prop_assert_eq!(show_rows(&made), show_rows(&expected));
        let changes = in_effect(&script(&tables, &course), "rows-0");
        for time in 0..20 {
            let expected = naive_strongly_connected(&there_after(&changes, time));
            prop_assert_eq!(contents_at(&made, Some(time)), expected, "at {}", time);
        }
    }

    /// Once all rounds of an inner loop are over nothing is left to the outer ones but to find that out.
    #[test]
    fn loops_may_stand_in_loops_in_loops(
        edges in lives(10),
        round in rounds(),
        n_workers in 1usize..4,
    ) {
        let made = run(&[changes_of(&edges, "n")], n_workers, |inputs| {
            let edges = edges_of(&inputs[0]);
            let edges = edges.select([col("from"), (col("to") + lit(2_i64)).alias("to")]);
            let both = edges.union([&turned(&edges)]);
            let nodes = both.select([col("from").alias("node"), col("from").alias("least")]);
            let nodes = nodes.distinct();
            let nearer = |least: &Relation, nodes: &Relation| nearer(least, nodes, &both);
            let least = match round {
                None => nodes.iterate(|a| a.iterate(|b| b.iterate(|c| nearer(c, &nodes)))),
                // What an outer round has made, and what has entered until then, enters the inner loop in turn.
                Some(round) => nodes.iterate_entering(round.clone(), |a, nodes| {
                    let nodes = a.union([nodes]);
                    let made = nodes.iterate_entering(round.clone(), |b, nodes| {
                        let nodes = b.union([nodes]);
                        nodes.iterate_entering(round.clone(), nearer)
                    });
                    made.distinct()
                }),
            };
            least.into_collection("components")
        });
        for time in 0..14 {
            let expected = naive_components(&there(&edges, time));
            prop_assert_eq!(contents_at(&made, Some(time)), expected, "at {}", time);
        }
    }
}

#[test]
fn a_loop_that_needs_nothing_of_the_one_around_it_stands_outside() {
    // Numbers up to the least node of the component of 7, which the inner loop finds.
    let edges = table("from: 7, 6; to: 6, 5");
    let made = run(&[edges], 2, |inputs| {
        let edges = inputs[0].incremental();
        let start = edges.filter(col("from").eq(lit(7)));
        let start = start.select([(col("from") - lit(7_i64)).alias("n")]);
        let numbers = start.iterate(|n| {
            let bound = components(&edges).filter(col("node").eq(lit(7)));
            let next = n.select([(col("n") + lit(1_i64)).alias("n")]);
            let next = next.join(&bound, JoinKind::Inner, [(lit(0_i64), lit(0_i64))]);
            let next = next.filter(col("n").lt_eq(col("least"))).select([col("n")]);
            next.union([&start]).distinct()
        });
        numbers.into_collection("numbers")
    });
    let expected: Vec<String> = (0..=5).map(|n| format!("n={n} diff=1")).collect();
    assert_eq!(show_rows(&made), expected.join("\n"));
}

#[test]
fn a_row_that_is_bad_in_rounds_of_inner_loops_is_told_once() {
    let pipeline = Pipeline::new("test");
    let starts = changelog("n: 3, 3, 2; event_time: 1, 5, 7; diff: 1, -1, 1");
    let starts = pipeline.read("starts", from_record_batches(vec![starts]));
    // Each outer round counts down from what is left of the one before.
    let left = starts.incremental().iterate(|n| {
        let down = n.iterate(|m| {
            let divided = m.filter((lit(12) / col("n")).gt(lit(0)));
            divided.select([(col("n") - lit(1_i64)).alias("n")])
        });
        let less = n.filter(col("n").gt(lit(1)));
        let less = less.select([(col("n") - lit(1_i64)).alias("n")]);
        less.union([&down])
    });
    let ((sink, made), (dead, letters)) = (collect(), collect());
    let left = left.into_collection("left");
    left.dead_letters_to(dead).write(sink);
    pipeline.run(&RunOptions::new().workers(2)).unwrap();
    assert_eq!(show_rows(&made.take()), "");
    expect![[r#"
        node='left' split='a row of step 4 of the relation, variable' row=0 reason='expression `Int32(12) / n > Int32(0)` failed on {"n":0}: Divide by zero error' data='{"n":0,"event_time":"1970-01-01T00:00:00.001"}'
        node='left' split='a row of step 4 of the relation, variable' row=0 reason='expression `Int32(12) / n > Int32(0)` failed on {"n":0}: Divide by zero error' data='{"n":0,"event_time":"1970-01-01T00:00:00.007"}'"#]].assert_eq(&show_rows(&letters.take()));
}

#[test]
fn an_inner_loop_without_an_end_is_an_error_that_names_it() {
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", from_record_batches(vec![table("n: 1")]));
    let upwards = rows.incremental().iterate(|outer| {
        outer.iterate_with(Iterate::new().max_rounds(20), |n| {
            n.select([(col("n") + lit(1_i64)).alias("n")])
        })
    });
    upwards.into_collection("upwards").write(collect().0);
    let error = pipeline.run(&RunOptions::new().workers(2)).unwrap_err();
    expect![[r#"
        an iteration has not come to an end after 20 rounds
          in transform "upwards"
          It is in step 4 of the relation, iterate.
          Rows still change from one round to the next.
          Hint: Let it come to rows that stay the same, as with a filter that bounds what grows or a `distinct`, or allow more rounds with `Iterate::new().max_rounds(..)`."#]].assert_eq(&error.report());
}
