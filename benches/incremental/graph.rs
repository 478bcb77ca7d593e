//! A random graph, and its connected components by hand.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// From one node to another.
pub(crate) type Edge = (i64, i64);

/// Edges between random nodes.
pub(crate) fn random_graph(n_nodes: usize, n_edges: usize) -> Vec<Edge> {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let n = i64::try_from(n_nodes).unwrap_or(i64::MAX);
    (0..n_edges)
        .map(|_| (rng.random_range(0..n), rng.random_range(0..n)))
        .collect()
}

/// The least node that each node is connected with, by union and find.
pub(crate) fn components_by_hand(edges: &[Edge]) -> BTreeMap<i64, i64> {
    let mut parents: BTreeMap<i64, i64> = BTreeMap::new();
    for (from, to) in edges {
        let (a, b) = (root(&mut parents, *from), root(&mut parents, *to));
        // The lesser is the root, so that it is the least of all.
        parents.insert(a.max(b), a.min(b));
    }
    let nodes: Vec<i64> = parents.keys().copied().collect();
    nodes
        .into_iter()
        .map(|node| (node, root(&mut parents, node)))
        .collect()
}

fn root(parents: &mut BTreeMap<i64, i64>, node: i64) -> i64 {
    let mut at = node;
    loop {
        let parent = *parents.entry(at).or_insert(at);
        if parent == at {
            break;
        }
        at = parent;
    }
    let mut from = node;
    while from != at {
        from = parents.insert(from, at).unwrap_or(at);
    }
    at
}
