//! Tests of relations at work: at each instant they are what a fresh computation gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use expect_test::expect;
use proptest::prelude::*;

use crate::aggregates::{AggregateExt, avg, count, max, min, sum};
use crate::connectors::{collect, from_record_batches};
use crate::error::{Error, Result};
use crate::expression::when;
use crate::ops::{JoinKind, Watermarks};
use crate::testing::{changelog, contents_at, show_rows, table};
use crate::{
    Collection, Description, Expr, Iterate, Output, Pipeline, Position, Relation, RunOptions,
    Source, Split, SplitReader, col, lit,
};

/// What reaches a sink behind `make`, which gets a collection for each of the tables.
pub(super) fn run(
    tables: &[arrow::record_batch::RecordBatch],
    n_workers: usize,
    make: impl FnOnce(&[Collection]) -> Collection,
) -> Vec<arrow::record_batch::RecordBatch> {
    let pipeline = Pipeline::new("test");
    let read = |(n, rows): (usize, &arrow::record_batch::RecordBatch)| {
        // Several splits, which several workers read.
        let half = rows.num_rows() / 2;
        let parts = vec![
            rows.slice(0, half),
            rows.slice(half, rows.num_rows() - half),
        ];
        pipeline.read(&format!("rows-{n}"), from_record_batches(parts))
    };
    let inputs: Vec<Collection> = tables.iter().enumerate().map(read).collect();
    let (sink, made) = collect();
    make(&inputs).write(sink);
    pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
    made.take()
}

#[test]
fn a_join_of_two_changelogs_carries_what_is_taken_back() {
    let left = changelog("k: 1, 1, 2; a: x, x, y; event_time: 1, 5, 2; diff: 1, -1, 1");
    let right = changelog("k: 1, 2, 2; b: 10, 20, 20; event_time: 3, 1, 4; diff: 1, 1, -1");
    let made = run(&[left, right], 2, |inputs| {
        inputs[0].join(&inputs[1], JoinKind::Inner, [(col("k"), col("k"))])
    });
    expect![[r#"
        k=1 a='x' b=10 event_time=3 diff=1
        k=1 a='x' b=10 event_time=5 diff=-1
        k=2 a='y' b=20 event_time=2 diff=1
        k=2 a='y' b=20 event_time=4 diff=-1"#]]
    .assert_eq(&show_rows(&made));
}

#[test]
fn rows_without_a_time_have_been_there_always() {
    let changes = changelog("k: 1, 2; event_time: 7, 8; diff: 1, 1");
    let names = table("k: 1, 2; name: one, two");
    let made = run(&[changes, names], 1, |inputs| {
        inputs[0].join(&inputs[1], JoinKind::Left, [(col("k"), col("k"))])
    });
    expect![[r#"
        k=1 name='one' event_time=7 diff=1
        k=2 name='two' event_time=8 diff=1"#]]
    .assert_eq(&show_rows(&made));
}

#[test]
fn expressions_over_text_and_aggregates_are_computed() {
    let rows = table("name: Ann, Bob, Al, null; n: 1, 2, 3, 4");
    let made = run(&[rows], 2, |inputs| {
        let rows = inputs[0].incremental();
        let first = crate::expression::functions::string::expr_fn::upper(col("name"));
        let named = rows.filter(col("name").is_not_null());
        let by_name = named.select([first.alias("name"), (col("n") * lit(10)).alias("n")]);
        let large = sum(col("n")).filter(col("n").gt(lit(10))).build().unwrap();
        let totals = by_name.group_by([]).agg([
            (sum(col("n")) / count(lit(1))).alias("ratio"),
            max(col("name")).alias("last"),
            large.alias("large"),
            avg(col("n")).alias("mean"),
        ]);
        totals.into_collection("totals")
    });
    assert_eq!(
        show_rows(&made),
        "ratio=20 last='BOB' large=50 mean=20.0 diff=1"
    );
}

#[test]
fn a_failure_inside_is_an_error_of_the_node() {
    let pipeline = Pipeline::new("test");
    let rows = table(&format!("n: {}, 1", i64::MAX));
    let rows = pipeline.read("rows", from_record_batches(vec![rows]));
    let (sink, _) = collect();
    let sums = rows.incremental().group_by([]).agg([sum(col("n"))]);
    sums.into_collection("sums").write(sink);
    let error = pipeline.run(&RunOptions::new().workers(2)).unwrap_err();
    expect![[r#"
        a sum does not fit Int64
          in transform "sums"
          It is the sum of all rows.
          Hint: Cast the values to Float64 before they are summed."#]]
    .assert_eq(&error.to_string());
}

/// The nodes of a path from 0 to 5 that are reached, by a loop that is made of the first of them and of what goes one
/// edge further.
pub(super) fn along_a_path(
    n_workers: usize,
    goes_round: impl FnOnce(&Relation, &dyn Fn(&Relation, &Relation) -> Relation) -> Relation,
) -> Result<String> {
    let pipeline = Pipeline::new("test");
    let edges = table("from: 0, 1, 2, 3, 4; to: 1, 2, 3, 4, 5");
    let edges = pipeline.read("edges", from_record_batches(vec![edges]));
    let edges = edges.incremental();
    let start = edges
        .filter(col("from").eq(lit(0)))
        .select([col("from").alias("node")]);
    let reached = goes_round(&start, &|reached, start| {
        let next = reached.join(&edges, JoinKind::Inner, [(col("node"), col("from"))]);
        let next = next.select([col("to").alias("node")]);
        next.union([start]).distinct()
    });
    let (sink, made) = collect();
    reached.into_collection("reached").write(sink);
    pipeline.run(&RunOptions::new().workers(n_workers))?;
    Ok(show_rows(&made.take()))
}

#[test]
fn a_loop_may_take_as_many_rounds_as_it_is_given() {
    let expected = expect![[r#"
        an iteration has not come to an end after 4 rounds
          in transform "reached"
          It is in step 8 of the relation, iterate.
          Rows still change from one round to the next.
          Hint: Let it come to rows that stay the same, as with a filter that bounds what grows or a `distinct`, or allow more rounds with `Iterate::new().max_rounds(..)`."#]];
    let reached = |max_rounds, n_workers| {
        along_a_path(n_workers, |start, further| {
            let options = Iterate::new().max_rounds(max_rounds);
            start.iterate_with(options, |reached| further(reached, start))
        })
    };
    for n_workers in 1..=2 {
        let all = (0..6).map(|node| format!("node={node} diff=1"));
        assert_eq!(
            reached(5, n_workers).unwrap(),
            all.collect::<Vec<_>>().join("\n")
        );
        let error = reached(4, n_workers).unwrap_err();
        expected.assert_eq(&error.to_string());
    }
}

/// A ring of which each edge comes at an instant of its own and goes at another, all of which are worked on at once.
#[test]
fn a_loop_comes_to_an_end_at_each_of_many_instants() {
    let n_nodes = 60_i64;
    let lives: Vec<Life> = (0..n_nodes)
        .map(|n| {
            (
                n + 10,
                (n + 1) % n_nodes + 10,
                7 * n,
                Some(7 * n_nodes + 3 * n),
            )
        })
        .collect();
    let made = run(&[changes_of(&lives, "n")], 2, |inputs| {
        let edges = inputs[0].incremental();
        let edges = edges.select([col("k").alias("from"), col("n").alias("to")]);
        components(&edges).into_collection("components")
    });
    for time in (0..17 * n_nodes).step_by(97) {
        let edges = there(&lives, time).into_iter();
        let edges: Vec<_> = edges.map(|(k, n)| (k, n - 2)).collect();
        assert_eq!(
            contents_at(&made, Some(time)),
            naive_components(&edges),
            "at {time}"
        );
    }
}

#[test]
fn a_loop_that_counts_upwards_is_an_error_of_the_node() {
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", from_record_batches(vec![table("n: 1")]));
    let upwards = rows
        .incremental()
        .iterate_with(Iterate::new().max_rounds(50), |n| {
            n.select([(col("n") + lit(1_i64)).alias("n")])
        });
    upwards.into_collection("upwards").write(collect().0);
    let error = pipeline.run(&RunOptions::new().workers(2)).unwrap_err();
    assert!(error.is_pipeline());
    expect![[r#"
        an iteration has not come to an end after 50 rounds
          in transform "upwards"
          It is in step 3 of the relation, iterate.
          Rows still change from one round to the next.
          Hint: Let it come to rows that stay the same, as with a filter that bounds what grows or a `distinct`, or allow more rounds with `Iterate::new().max_rounds(..)`."#]].assert_eq(&error.report());
}

#[test]
fn what_loops_keep_counts_as_state_of_the_node() {
    // A path of 200 nodes, along which the least one is carried.
    let nodes = |from: i64| {
        let all: Vec<String> = (from..from + 200).map(|n| n.to_string()).collect();
        all.join(", ")
    };
    let peak = |make: &dyn Fn(&Relation) -> Relation| {
        let pipeline = Pipeline::new("test");
        let rows = table(&format!("from: {}; to: {}", nodes(0), nodes(1)));
        let rows = pipeline.read("rows", from_record_batches(vec![rows]));
        let (sink, _) = collect();
        make(&rows.incremental())
            .into_collection("made")
            .write(sink);
        let report = pipeline.run(&RunOptions::new().workers(1)).unwrap();
        report.node("made").unwrap().peak_state_bytes
    };
    let (plain, loops) = (peak(&Relation::distinct), peak(&components));
    // Each row waits once, and is in the index of distinct rows, among those that are there, and in what leaves.
    assert!((200 * 96..200 * 96 * 4).contains(&plain), "{plain}");
    // Edges both ways, by node and as distinct nodes, what a round makes of them and what is least in it. Since the
    // rows never change again, rounds that are over are forgotten.
    assert!(loops > 3 * plain, "{loops} and {plain}");
}

#[test]
fn many_rows_leave_while_few_of_them_are_under_way() {
    let all: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let rows = table(&format!(
        "k: {}; n: {}",
        "1, ".repeat(299) + "1",
        all.join(", ")
    ));
    let peak = |credit_bytes: u64| {
        let pipeline = Pipeline::new("test");
        let read = |name: &str| {
            let rows = pipeline.read(name, from_record_batches(vec![rows.clone()]));
            rows.incremental()
        };
        let right = read("right").select([col("k").alias("j"), col("n").alias("m")]);
        let pairs = read("left").join(&right, JoinKind::Inner, [(col("k"), col("j"))]);
        let (sink, made) = collect();
        pairs.into_collection("pairs").write(sink);
        let options = RunOptions::new().workers(2).credit_bytes(credit_bytes);
        let report = pipeline.run(&options).unwrap();
        let n_rows: usize = made.take().iter().map(|rows| rows.num_rows()).sum();
        assert_eq!(n_rows, 90_000);
        report.phases[0].peak_credit_bytes
    };
    let (much, little) = (peak(1 << 30), peak(1));
    // One batch on a worker, and as many as the credit of an operator allows.
    assert!(little < 400_000 && much > 500_000, "{little} and {much}");
}

/// A row that is there from a time on, until another.
pub(super) type Life = (i64, i64, i64, Option<i64>);

pub(super) fn lives(n: usize) -> impl Strategy<Value = Vec<Life>> {
    let life = (0i64..4, 0i64..3, 0i64..8, prop::option::of(1i64..6));
    prop::collection::vec(life, 0..n)
}

/// The changes of rows, named `k` and `name`; a key of 3 is null.
pub(super) fn changes_of(lives: &[Life], name: &str) -> arrow::record_batch::RecordBatch {
    let mut rows = vec![(0, 0, 0, 0)];
    for (k, n, from, stays) in lives {
        rows.push((*k, *n, *from, 1));
        rows.extend(stays.map(|stays| (*k, *n, from + stays, -1)));
    }
    let column = |of: fn(&(i64, i64, i64, i64)) -> String| {
        rows.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let text = format!(
        "k: {}; {name}: {}; event_time: {}; diff: {}",
        column(|r| if r.0 == 3 {
            "null".into()
        } else {
            r.0.to_string()
        }),
        column(|r| r.1.to_string()),
        column(|r| r.2.to_string()),
        column(|r| r.3.to_string()),
    );
    changelog(&text).slice(1, rows.len() - 1)
}

/// The rows that are there at a time.
pub(super) fn there(lives: &[Life], time: i64) -> Vec<(Option<i64>, i64)> {
    let alive = lives.iter().filter(|(_, _, from, stays)| {
        *from <= time && stays.is_none_or(|stays| time < from + stays)
    });
    alive
        .map(|(k, n, ..)| ((*k != 3).then_some(*k), *n))
        .collect()
}

fn text(value: Option<i64>) -> String {
    value.map_or("null".into(), |value| value.to_string())
}

fn sorted(mut lines: Vec<String>) -> String {
    lines.sort();
    lines.join("\n")
}

/// A join by hand, each pair looked at.
pub(super) fn naive_join(
    kind: JoinKind,
    left: &[(Option<i64>, i64)],
    right: &[(Option<i64>, i64)],
) -> String {
    let matches = |l: &(Option<i64>, i64), r: &(Option<i64>, i64)| l.0.is_some() && l.0 == r.0;
    let mut lines = Vec::new();
    let (inner, left_only, right_only) = match kind {
        JoinKind::Inner => (true, false, false),
        JoinKind::Left => (true, true, false),
        JoinKind::Right => (true, false, true),
        JoinKind::Full => (true, true, true),
        _ => (false, false, false),
    };
    for l in left {
        let partners: Vec<_> = right.iter().filter(|r| matches(l, r)).collect();
        if inner {
            lines.extend(
                partners
                    .iter()
                    .map(|r| format!("k={} a={} b={}", text(l.0), l.1, r.1)),
            );
        }
        if left_only && partners.is_empty() {
            lines.push(format!("k={} a={} b=null", text(l.0), l.1));
        }
        if (kind == JoinKind::LeftSemi && !partners.is_empty())
            || (kind == JoinKind::LeftAnti && partners.is_empty())
        {
            lines.push(format!("k={} a={}", text(l.0), l.1));
        }
    }
    if right_only {
        let alone = right.iter().filter(|r| !left.iter().any(|l| matches(l, r)));
        lines.extend(alone.map(|r| format!("k={} a=null b={}", text(r.0), r.1)));
    }
    sorted(lines)
}

/// The least node that each node is connected with, by walking from each.
pub(super) fn naive_components(edges: &[(Option<i64>, i64)]) -> String {
    let mut near: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for (from, to) in edges {
        let from = from.unwrap_or(3);
        near.entry(from).or_default().insert(to + 2);
        near.entry(to + 2).or_default().insert(from);
    }
    let least = |node: i64| {
        let (mut seen, mut open) = (BTreeSet::from([node]), vec![node]);
        while let Some(at) = open.pop() {
            open.extend(near[&at].iter().filter(|next| seen.insert(**next)));
        }
        seen.first().copied().unwrap_or(node)
    };
    sorted(
        near.keys()
            .map(|node| format!("node={node} least={}", least(*node)))
            .collect(),
    )
}

/// The connected components of a graph that changes.
pub(super) fn components(edges: &Relation) -> Relation {
    let (edges, nodes) = both_ways(edges);
    nodes.iterate(|least| nearer(least, &nodes, &edges))
}

/// The components of a graph whose edges are `lives`; `enters` says that nodes enter the loop one after the other.
pub(super) fn components_of(lives: &Collection, enters: bool) -> Collection {
    let key = when(col("k").is_null(), lit(3_i64)).otherwise(col("k"));
    let edges = lives.incremental().select([
        key.unwrap().alias("from"),
        (col("n") + lit(2_i64)).alias("to"),
    ]);
    let components = match enters {
        false => components(&edges),
        true => components_entering(&edges, (lit(4_i64) - col("least")) * lit(3_i64)),
    };
    components.into_collection("components")
}

/// The same, where each node enters in the round that this gives for its label, `least`.
pub(super) fn components_entering(edges: &Relation, round: Expr) -> Relation {
    let (edges, nodes) = both_ways(edges);
    nodes.iterate_entering(round, |least, nodes| nearer(least, nodes, &edges))
}

/// The edges of a graph in both directions, and its nodes, each with itself as the least.
fn both_ways(edges: &Relation) -> (Relation, Relation) {
    let back = edges.select([col("to").alias("from"), col("from").alias("to")]);
    let edges = edges.union([&back]);
    let nodes = edges.select([col("from").alias("node"), col("from").alias("least")]);
    (edges, nodes.distinct())
}

/// The least node that each node hears of from those near it, or is itself.
pub(super) fn nearer(least: &Relation, nodes: &Relation, edges: &Relation) -> Relation {
    least
        .join(edges, JoinKind::Inner, [(col("node"), col("from"))])
        .select([col("to").alias("node"), col("least")])
        .union([nodes])
        .group_by([col("node")])
        .agg([min(col("least")).alias("least")])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn joins_are_what_a_fresh_join_gives_at_each_instant(
        left in lives(10),
        right in lives(10),
        n_workers in 1usize..4,
    ) {
        use JoinKind::{Full, Inner, Left, LeftAnti, LeftSemi, Right};
        for kind in [Inner, Left, Right, Full, LeftSemi, LeftAnti] {
            let tables = [changes_of(&left, "a"), changes_of(&right, "b")];
            let made = run(&tables, n_workers, |inputs| {
                inputs[0].join(&inputs[1], kind, [(col("k"), col("k"))])
            });
            for time in 0..14 {
                let expected = naive_join(kind, &there(&left, time), &there(&right, time));
                prop_assert_eq!(contents_at(&made, Some(time)), expected, "{:?} at {}", kind, time);
            }
        }
    }

    /// Three changing collections, an aggregate of the first two, and what is computed of it.
    #[test]
    fn chains_of_joins_and_aggregates_are_too(
        a in lives(8),
        b in lives(8),
        c in lives(8),
        n_workers in 1usize..4,
    ) {
        let tables = [changes_of(&a, "a"), changes_of(&b, "b"), changes_of(&c, "c")];
        let made = run(&tables, n_workers, |inputs| {
            let [a, b, c] = [0, 1, 2].map(|n| inputs[n].incremental());
            let pairs = a.join(&b, JoinKind::Inner, [(col("k"), col("k"))]);
            let sums = pairs.group_by([col("k")]).agg([
                sum(col("a") * col("b")).alias("product"),
                count(lit(1)).alias("n"),
            ]);
            let of_c = c.select([col("k")]).distinct();
            let kept = sums.join(&of_c, JoinKind::LeftSemi, [(col("k"), col("k"))]);
            kept.filter(col("product").gt(lit(0))).into_collection("kept")
        });
        for time in 0..14 {
            let [a, b, c] = [&a, &b, &c].map(|lives| there(lives, time));
            let mut sums: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
            for (k, of_a) in a.iter().filter_map(|(k, a)| Some(((*k)?, *a))) {
                for (_, of_b) in b.iter().filter(|(of, _)| *of == Some(k)) {
                    let slot = sums.entry(k).or_default();
                    *slot = (slot.0 + of_a * of_b, slot.1 + 1);
                }
            }
            let kept = sums.into_iter().filter(|(k, (product, _))| {
                *product > 0 && c.iter().any(|(of, _)| of == &Some(*k))
            });
            let expected = kept.map(|(k, (product, n))| format!("k={k} product={product} n={n}"));
            prop_assert_eq!(contents_at(&made, Some(time)), sorted(expected.collect()), "at {}", time);
        }
    }

    #[test]
    fn components_of_a_graph_are_those_of_a_fresh_search_at_each_instant(
        edges in lives(14),
        apart in prop::sample::select(vec![1_i64, 1_000_000_000_000]),
        n_workers in 1usize..4,
    ) {
        let edges: Vec<Life> = edges
            .into_iter()
            .map(|(k, n, from, stays)| (k, n, from * apart, stays.map(|stays| stays * apart)))
            .collect();
        let made = run(&[changes_of(&edges, "n")], n_workers, |inputs| {
            let key = crate::expression::when(col("k").is_null(), lit(3_i64)).otherwise(col("k")).unwrap();
            let edges = inputs[0].incremental();
            let edges = edges.select([key.alias("from"), (col("n") + lit(2_i64)).alias("to")]);
            components(&edges).into_collection("components")
        });
        for time in (0..14).map(|time| time * apart) {
            let expected = naive_components(&there(&edges, time));
            prop_assert_eq!(contents_at(&made, Some(time)), expected, "at {}", time);
        }
    }
}

/// Rows of two rounds; the second comes only once something of the first has left.
#[derive(Debug)]
struct TwoRounds {
    rounds: [arrow::record_batch::RecordBatch; 2],
    left: Arc<Mutex<Receiver<()>>>,
}

impl Source for TwoRounds {
    fn describe(&self) -> Description {
        Description::new("two_rounds", serde_json::Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(self.rounds[0].schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        Ok(vec![Split {
            name: "both".into(),
            locator: serde_json::Value::Null,
            n_rows: None,
            n_bytes: None,
        }])
    }

    fn open(
        &self,
        _split: &Split,
        _position: Position,
        _columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        Ok(Box::new(Reader {
            rounds: self.rounds.to_vec(),
            left: Arc::clone(&self.left),
            has_paused: false,
        }))
    }
}

struct Reader {
    rounds: Vec<arrow::record_batch::RecordBatch>,
    left: Arc<Mutex<Receiver<()>>>,
    has_paused: bool,
}

impl SplitReader for Reader {
    fn next_batch(
        &mut self,
        _out: &mut Output,
    ) -> Result<Option<arrow::record_batch::RecordBatch>> {
        if self.rounds.len() == 1 && !self.has_paused {
            // None yet: what has been read goes on before more is asked for.
            self.has_paused = true;
            return Ok(Some(self.rounds[0].slice(0, 0)));
        }
        if self.rounds.len() == 1 {
            let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            // Long enough for any machine; a run that is right waits a few milliseconds.
            let waited = left.recv_timeout(Duration::from_secs(20));
            waited.map_err(|_| Error::data("nothing of the first round has left"))?;
        }
        Ok((!self.rounds.is_empty()).then(|| self.rounds.remove(0)))
    }
}

#[test]
fn changes_leave_once_the_watermark_has_passed_them_and_not_at_the_end() {
    let loops = |rows: &Relation| components(&rows.select([col("from"), col("to")]));
    let plain = |rows: &Relation| rows.select([col("from").alias("node")]).distinct();
    for make in [&plain as &dyn Fn(&Relation) -> Relation, &loops] {
        for n_workers in [1, 2] {
            let (sender, left) = channel();
            let rounds = [
                table("from: 1, 2, 9; to: 2, 3, 9; at: 0, 0, 1"),
                table("from: 3; to: 4; at: 1"),
            ];
            let pipeline = Pipeline::new("test");
            let source = TwoRounds {
                rounds,
                left: Arc::new(Mutex::new(left)),
            };
            let rows = pipeline
                .read("rows", source)
                .assign_timestamps(col("at"), Watermarks::monotone());
            let (sink, _) = collect();
            let made = make(&rows.incremental()).into_collection("made");
            let told = made.map_batches(move |rows| {
                let _ = sender.send(());
                Ok(rows)
            });
            told.write(sink);
            pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
        }
    }
}
