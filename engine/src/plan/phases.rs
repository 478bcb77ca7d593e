//! Divides a graph into phases: nothing waits in memory for an artifact.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::projection::{self, Projection};
use super::{encoding, pruning};
use crate::graph::{Graph, Node, NodeIndex, Port, Stage};
use crate::source::Source;
use crate::transform::Distribution;

/// What runs together: steps on the driver, then one dataflow, then trainers on the rows it kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase {
    /// Steps over artifacts, in order, before the dataflow.
    pub(crate) steps: Vec<NodeIndex>,
    /// The nodes of the dataflow, in order; empty if there is none.
    pub(crate) nodes: Vec<NodeIndex>,
    /// The analyses, trainers and sinks that the dataflow ends in.
    pub(crate) ends: Vec<NodeIndex>,
    /// Nodes whose rows are kept on disk for later phases.
    pub(crate) keeps: Vec<NodeIndex>,
    /// Nodes that stand for their kept rows; nothing before them runs again.
    pub(crate) kept: BTreeSet<NodeIndex>,
    /// Transforms that run as one operator, in the order of their first node.
    pub(crate) chains: Vec<Chain>,
    /// Sources that pass over rows which no node of the phase needs, in place of those of the graph.
    pub(crate) pruned: BTreeMap<NodeIndex, Arc<dyn Source>>,
    /// The columns that are read and made.
    pub(crate) projection: Projection,
}

/// Neighbours that run as one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) members: Vec<NodeIndex>,
}

impl Phase {
    /// How many feeds it reads on each worker: sources, and kept rows by the port they left by.
    pub(crate) fn n_feeds(&self, graph: &Graph) -> usize {
        let kept = self.nodes.iter().flat_map(|&i| self.inputs(graph, i));
        let kept: BTreeSet<_> = kept
            .filter(|e| self.kept.contains(&e.from))
            .map(|e| (e.from, e.port))
            .collect();
        let sources = self.nodes.iter().filter(|&i| {
            matches!(graph.nodes[*i].stage, Stage::Source(_)) && !self.kept.contains(i)
        });
        kept.len() + sources.count()
    }

    /// The edges of the phase that end in `node`; none for a node that stands for kept rows.
    pub(crate) fn inputs<'a>(&self, graph: &'a Graph, node: NodeIndex) -> &'a [crate::graph::Edge] {
        if self.kept.contains(&node) {
            &[]
        } else {
            &graph.nodes[node].inputs
        }
    }
}

/// Divides the graph into phases, in the order in which they run.
pub(super) fn divide(graph: &Graph, schemas: &[Option<SchemaRef>]) -> Vec<Phase> {
    let levels = levels(graph);
    let n_phases = levels.iter().map(|l| l + 1).max().unwrap_or(0);
    let mut phases: Vec<Phase> = Vec::with_capacity(n_phases);
    let mut made: BTreeSet<NodeIndex> = BTreeSet::new();
    for level in 0..n_phases {
        let at = |test: fn(&Stage) -> bool| -> Vec<NodeIndex> {
            (0..graph.nodes.len())
                .filter(|&i| levels[i] == level && test(&graph.nodes[i].stage))
                .collect()
        };
        let ends = at(|s| matches!(s, Stage::Analysis(_) | Stage::Trainer(_) | Stage::Sink(_)));
        let steps = at(|s| matches!(s, Stage::Step(_)));
        let (nodes, kept) = ancestors(graph, &ends, &made);
        let mut phase = Phase {
            steps,
            nodes,
            ends,
            kept,
            ..Phase::default()
        };
        // Worth keeping only if a later phase reads it.
        phase.keeps = phase
            .nodes
            .iter()
            .copied()
            .filter(|&i| keeps_rows(&graph.nodes[i]) && !phase.kept.contains(&i))
            .filter(|&i| read_after(graph, &levels, i, level))
            .collect();
        made.extend(&phase.keeps);
        phase.chains = chains(graph, &phase);
        phase.projection = projection::project(graph, &phase, schemas);
        phase.pruned = pruning::prune(graph, &phase, schemas);
        let encoded = encoding::encode(graph, &phase, &phase.pruned);
        phase.pruned.extend(encoded);
        phases.push(phase);
    }
    phases.retain(|p| !p.steps.is_empty() || !p.nodes.is_empty());
    phases
}

/// The phase in which each node runs first.
fn levels(graph: &Graph) -> Vec<usize> {
    let mut levels: Vec<usize> = Vec::with_capacity(graph.nodes.len());
    let mut available: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        let from_inputs = node
            .inputs
            .iter()
            .map(|e| levels[e.from])
            .max()
            .unwrap_or(0);
        let needs = node.stage.needs();
        let from_needs = needs
            .iter()
            .filter_map(|id| available.get(&**id))
            .max()
            .copied();
        let level = from_inputs.max(from_needs.unwrap_or(0));
        // A step runs before the dataflow of its phase, which may use what it learns.
        let learned = if matches!(node.stage, Stage::Step(_)) {
            level
        } else {
            level + 1
        };
        if node.stage.learns() {
            available.insert(&node.id, learned);
        }
        levels.push(level);
    }
    levels
}

/// The nodes that `ends` need, back to the sources or to kept rows, in order.
fn ancestors(
    graph: &Graph,
    ends: &[NodeIndex],
    made: &BTreeSet<NodeIndex>,
) -> (Vec<NodeIndex>, BTreeSet<NodeIndex>) {
    let mut found: BTreeSet<NodeIndex> = BTreeSet::new();
    let mut kept = BTreeSet::new();
    let mut open: Vec<NodeIndex> = ends.to_vec();
    while let Some(index) = open.pop() {
        if !found.insert(index) {
            continue;
        }
        if made.contains(&index) {
            kept.insert(index);
        } else {
            open.extend(graph.nodes[index].inputs.iter().map(|e| e.from));
        }
    }
    (found.into_iter().collect(), kept)
}

/// True if its rows are kept on disk where a later phase reads them.
pub(super) fn keeps_rows(node: &Node) -> bool {
    let once = matches!(&node.stage, Stage::Source(s) if !s.properties().repeatable);
    node.cached || once
}

/// True if an end of a later phase reads what `node` makes.
fn read_after(graph: &Graph, levels: &[usize], node: NodeIndex, level: usize) -> bool {
    let later: Vec<NodeIndex> = (0..graph.nodes.len())
        .filter(|&i| levels[i] > level && !matches!(graph.nodes[i].stage, Stage::Step(_)))
        .collect();
    ancestors(graph, &later, &BTreeSet::new()).0.contains(&node)
}

/// Groups row-wise transforms with the only reader of their rows.
fn chains(graph: &Graph, phase: &Phase) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    for &index in &phase.nodes {
        if phase.kept.contains(&index) || !matches!(graph.nodes[index].stage, Stage::Transform(_)) {
            continue;
        }
        let before = match phase.inputs(graph, index) {
            [edge] if edge.port == Port::Out(0) => Some(edge.from),
            _ => None,
        };
        let extends = before.filter(|&from| can_fuse(graph, phase, from, index));
        match extends.and_then(|from| chains.iter_mut().find(|c| c.members.last() == Some(&from))) {
            Some(chain) => chain.members.push(index),
            None => chains.push(Chain {
                members: vec![index],
            }),
        }
    }
    chains
}

fn can_fuse(graph: &Graph, phase: &Phase, from: NodeIndex, to: NodeIndex) -> bool {
    let fusible = |index: NodeIndex| {
        let p = graph.nodes[index].properties();
        matches!(graph.nodes[index].stage, Stage::Transform(_))
            && p.row_wise
            && !p.blocking
            && p.distribution == Distribution::Keep
    };
    let readers = phase
        .nodes
        .iter()
        .flat_map(|&i| phase.inputs(graph, i))
        .filter(|e| e.from == from && e.port == Port::Out(0));
    // What makes watermarks holds a capability of its own, and so leads its chain.
    let leads = graph.nodes[to].properties().makes_watermarks;
    fusible(from) && fusible(to) && !leads && !phase.keeps.contains(&from) && readers.count() == 1
}
