//! Which columns of text a source may give as the dictionaries that they are stored as.
//!
//! A dictionary is made into plain text only to be looked at value by value; who looks at each value of
//! a dictionary once, such as a grouping by that column, says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::phases::Phase;
use crate::graph::{Graph, NodeIndex, Port, Stage};
use crate::source::Source;

/// The sources of a phase, of those `pruned` as they are read, with columns that may come encoded.
pub(super) fn encode(
    graph: &Graph,
    phase: &Phase,
    pruned: &BTreeMap<NodeIndex, Arc<dyn Source>>,
) -> BTreeMap<NodeIndex, Arc<dyn Source>> {
    // Of each node, the columns that all who read it take encoded.
    let mut taken: BTreeMap<NodeIndex, BTreeSet<String>> = BTreeMap::new();
    for &index in &phase.nodes {
        for edge in phase.inputs(graph, index) {
            let columns: BTreeSet<String> = match (&graph.nodes[index].stage, edge.port) {
                (Stage::Transform(t), Port::Out(_)) => t.takes_encoded().into_iter().collect(),
                _ => BTreeSet::new(),
            };
            taken
                .entry(edge.from)
                .and_modify(|all| all.retain(|c| columns.contains(c)))
                .or_insert(columns);
        }
    }
    let is_kept = |i: &NodeIndex| phase.kept.contains(i) || phase.keeps.contains(i);
    let mut encoded = BTreeMap::new();
    for (index, columns) in taken
        .into_iter()
        .filter(|(i, c)| !is_kept(i) && !c.is_empty())
    {
        let Stage::Source(source) = &graph.nodes[index].stage else {
            continue;
        };
        let source = pruned.get(&index).unwrap_or(source);
        let columns: Vec<String> = columns.into_iter().collect();
        encoded.extend(source.encoded(&columns).map(|source| (index, source)));
    }
    encoded
}
