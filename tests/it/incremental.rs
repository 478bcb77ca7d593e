//! Components of a graph that changes, connected and strongly so: what is kept up to date is what a fresh computation gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int8Array, Int64Array};
use arrow::datatypes::{DataType, Field, Int8Type, Int64Type, Schema, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use mainstem::engine::aggregates::min;
use mainstem::engine::connectors::{collect, from_record_batches};
use mainstem::engine::expression::cast;
use mainstem::engine::expression::functions::math::expr_fn::{ceil, log2};
use mainstem::engine::ops::{JoinKind, Watermarks};
use mainstem::engine::{Collection, Pipeline, Relation, RunOptions, col, lit};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Edge = (i64, i64);

/// Edges that are added, or taken back, at a time.
fn changes(edges: &[Edge], at: i64, diff: i8) -> RecordBatch {
    let ints = |of: fn(&Edge) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(edges.iter().map(of)))
    };
    let int = |name| Field::new(name, DataType::Int64, false);
    let diffs = Field::new("diff", DataType::Int8, false);
    let schema = Schema::new(vec![int("from"), int("to"), int("at"), diffs]);
    let columns: Vec<ArrayRef> = vec![
        ints(|e| e.0),
        ints(|e| e.1),
        Arc::new(Int64Array::from(vec![at; edges.len()])),
        Arc::new(Int8Array::from(vec![diff; edges.len()])),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// The least node that each node is connected with.
fn components(edges: &Collection) -> Collection {
    components_by(edges, |nodes, nearer| {
        nodes.iterate(|least| nearer(least, nodes))
    })
}

/// The same, where nodes of few bits enter the loop first.
fn components_entering(edges: &Collection) -> Collection {
    components_by(edges, |nodes, nearer| {
        let n_bits = cast(ceil(log2(col("least") + lit(1.0))), DataType::Int64);
        nodes.iterate_entering(n_bits * lit(64_i64), nearer)
    })
}

/// What a loop makes of what it has made and of the nodes.
type Body<'a> = &'a dyn Fn(&Relation, &Relation) -> Relation;

fn components_by(edges: &Collection, iterate: fn(&Relation, Body<'_>) -> Relation) -> Collection {
    let edges = edges.incremental();
    let back = edges.select([col("to").alias("from"), col("from").alias("to")]);
    let both = edges.select([col("from"), col("to")]).union([&back]);
    let nodes = both
        .select([col("from").alias("node"), col("from").alias("least")])
        .distinct();
    let nearer = |least: &Relation, nodes: &Relation| {
        least
            .join(&both, JoinKind::Inner, [(col("node"), col("from"))])
            .select([col("to").alias("node"), col("least")])
            .union([nodes])
            .group_by([col("node")])
            .agg([min(col("least")).alias("least")])
    };
    iterate(&nodes, &nearer).into_collection("components")
}

/// Each edge that lies on a circle, by a loop around two others: edges are cut between nodes that the same least node
/// does not come to, forwards and then backwards, until none is.
fn on_circles(edges: &Collection) -> Collection {
    let edges = edges.incremental().select([col("from"), col("to")]);
    let edges = edges.distinct();
    let turned =
        |edges: &Relation| edges.select([col("to").alias("from"), col("from").alias("to")]);
    let cut = |edges: &Relation| {
        let nodes = edges.select([col("to").alias("node"), col("to").alias("least")]);
        let nodes = nodes.distinct();
        let least = nodes.iterate(|least| {
            least
                .join(edges, JoinKind::Inner, [(col("node"), col("from"))])
                .select([col("to").alias("node"), col("least")])
                .union([&nodes])
                .group_by([col("node")])
                .agg([min(col("least")).alias("least")])
        });
        let of_from = least.select([col("node").alias("a"), col("least").alias("of_a")]);
        let of_to = least.select([col("node").alias("b"), col("least").alias("of_b")]);
        edges
            .join(&of_from, JoinKind::Inner, [(col("from"), col("a"))])
            .join(&of_to, JoinKind::Inner, [(col("to"), col("b"))])
            .filter(col("of_a").eq(col("of_b")))
            .select([col("from"), col("to")])
    };
    let kept = edges.iterate(|edges| turned(&cut(&turned(&cut(edges)))));
    let kept = kept.select([col("from").alias("node"), col("to").alias("least")]);
    kept.into_collection("on circles")
}

/// By hand: the edges whose end comes back to their beginning.
fn on_circles_by_hand(edges: &[Edge]) -> BTreeSet<Edge> {
    let mut next: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (from, to) in edges {
        next.entry(*from).or_default().push(*to);
    }
    let comes_to = |from: i64, to: i64| {
        let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
        while let Some(at) = open.pop() {
            let near = next.get(&at).into_iter().flatten();
            open.extend(near.filter(|to| seen.insert(**to)));
        }
        seen.contains(&to)
    };
    let edges = edges.iter().copied();
    edges.filter(|(from, to)| comes_to(*to, *from)).collect()
}

/// What a relation of two columns has come to at each of two times, and how many rows changed at the second.
fn run(
    make: fn(&Collection) -> Collection,
    rounds: Vec<RecordBatch>,
    n_workers: usize,
) -> ([BTreeSet<(i64, i64)>; 2], usize) {
    let pipeline = Pipeline::new("graph");
    let edges = pipeline
        .read("edges", from_record_batches(rounds))
        .assign_timestamps(col("at"), Watermarks::monotone().splits_in_order(true));
    let (sink, made) = collect();
    make(&edges).write(sink);
    pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
    let mut there: [BTreeMap<(i64, i64), i64>; 2] = Default::default();
    let mut n_changed = 0;
    for rows in made.take() {
        let int = |name: &str| rows[name].as_primitive::<Int64Type>().values();
        let times = rows["event_time"]
            .as_primitive::<TimestampMillisecondType>()
            .values();
        let diffs = rows["diff"].as_primitive::<Int8Type>().values();
        for row in 0..rows.num_rows() {
            n_changed += usize::from(times[row] == 1);
            for (time, there) in there.iter_mut().enumerate() {
                if times[row] <= time as i64 {
                    let key = (int("node")[row], int("least")[row]);
                    *there.entry(key).or_default() += i64::from(diffs[row]);
                }
            }
        }
    }
    let contents = there.map(|there| {
        assert!(there.values().all(|n| (0..=1).contains(n)));
        there
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .map(|(row, _)| row)
            .collect()
    });
    (contents, n_changed)
}

/// By hand: the least node spreads until nothing changes.
fn by_hand(edges: &[Edge]) -> BTreeMap<i64, i64> {
    let nodes = edges
        .iter()
        .flat_map(|(from, to)| [(*from, *from), (*to, *to)]);
    let mut least: BTreeMap<i64, i64> = nodes.collect();
    loop {
        let before = least.clone();
        for (from, to) in edges {
            let both = least[from].min(least[to]);
            least.insert(*from, both);
            least.insert(*to, both);
        }
        if least == before {
            return least;
        }
    }
}

fn as_map(rows: BTreeSet<(i64, i64)>) -> BTreeMap<i64, i64> {
    let n_rows = rows.len();
    let map: BTreeMap<i64, i64> = rows.into_iter().collect();
    assert_eq!(map.len(), n_rows, "a node is in one component");
    map
}

#[test]
fn components_of_a_graph_follow_edges_that_are_taken_back() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut node = || rng.random_range(0..2_000_i64);
    let edges: Vec<Edge> = (0..3_000).map(|_| (node(), node())).collect();
    let (removed, left) = edges.split_at(30);
    for n_workers in 1..=3 {
        for components in [components, components_entering] {
            let rounds = vec![changes(&edges, 0, 1), changes(removed, 1, -1)];
            let (rows, n_changed) = run(components, rounds, n_workers);
            let [before, after] = rows.map(as_map);
            assert_eq!(before, by_hand(&edges));
            assert_eq!(after, by_hand(left));
            let ([fresh, _], _) = run(components, vec![changes(left, 0, 1)], n_workers);
            let fresh = as_map(fresh);
            assert_eq!(after, fresh);
            assert!(
                (1..fresh.len() / 10).contains(&n_changed),
                "{n_changed} rows changed"
            );
        }
    }
}

#[test]
fn circles_of_a_graph_follow_edges_that_are_taken_back() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut node = || rng.random_range(0..300_i64);
    let edges: BTreeSet<Edge> = (0..450).map(|_| (node(), node())).collect();
    let edges: Vec<Edge> = edges.into_iter().collect();
    // Some of those on circles, and some others.
    let (removed, left): (Vec<Edge>, Vec<Edge>) =
        edges.iter().partition(|(from, to)| (from + to) % 40 == 3);
    let (all, some) = (on_circles_by_hand(&edges), on_circles_by_hand(&left));
    assert!(all.len() > 100 && some.len() < all.len() - removed.len() / 2);
    for n_workers in 1..=3 {
        let rounds = vec![changes(&edges, 0, 1), changes(&removed, 1, -1)];
        let ([before, after], _) = run(on_circles, rounds, n_workers);
        assert_eq!(before, all);
        assert_eq!(after, some);
    }
}
