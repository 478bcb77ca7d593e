//! Which rows of its sources a phase needs, so that sources pass the others over.
//!
//! ```text
//! births ─▶ filter a ─▶ sink       births need only give rows for which a OR b is true
//!        └▶ filter b ─▶ sink       births ─▶ sink as well: all rows
//! ```
//!
//! The filters stay: what a source passes over is up to the source, and correctness never depends on it.
//! Where something goes by a watermark, what makes it must see all rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;

use super::phases::Phase;
use super::ports;
use crate::graph::{Graph, Node, NodeIndex, Port, Stage};
use crate::source::Source;

/// The sources of a phase that need not give all rows, as they are then read.
pub(super) fn prune(
    graph: &Graph,
    phase: &Phase,
    schemas: &[Option<SchemaRef>],
) -> BTreeMap<NodeIndex, Arc<dyn Source>> {
    // What the rows of each node must meet to be of use; `None` where all rows are.
    let mut wanted: BTreeMap<NodeIndex, Option<Expr>> = BTreeMap::new();
    // Those behind which something goes by the watermark.
    let mut timed: BTreeSet<NodeIndex> = BTreeSet::new();
    let mut pruned = BTreeMap::new();
    for &index in phase.nodes.iter().rev() {
        let node = &graph.nodes[index];
        let made = match phase.keeps.contains(&index) {
            true => None,
            false => wanted.remove(&index).flatten(),
        };
        let reads = match &node.stage {
            Stage::Transform(transform) => {
                let inputs = phase.inputs(graph, index).iter();
                let inputs: Option<Vec<SchemaRef>> = inputs
                    .map(|edge| match edge.port {
                        Port::Out(_) => {
                            let first = |index: NodeIndex| schemas[index].clone();
                            ports::schema_of(graph, edge, &first).ok().flatten()
                        }
                        Port::DeadLetters => None,
                    })
                    .collect();
                let by_watermark = node.properties().makes_watermarks && timed.contains(&index);
                let made = made.as_ref().filter(|_| !by_watermark);
                inputs.and_then(|inputs| transform.reads_rows(&inputs, made))
            }
            Stage::Source(source) if !phase.kept.contains(&index) => {
                pruned.extend(made.and_then(|p| source.prune(&p)).map(|s| (index, s)));
                None
            }
            _ => None,
        };
        let is_timed = goes_by_watermark(node) || timed.contains(&index);
        for edge in phase.inputs(graph, index) {
            timed.extend(is_timed.then_some(edge.from));
            let reads = match edge.port {
                Port::Out(_) => reads.clone(),
                Port::DeadLetters => None,
            };
            let both = match wanted.remove(&edge.from) {
                None => reads,
                Some(others) => others.zip(reads).map(|(a, b)| a.or(b)),
            };
            wanted.insert(edge.from, both);
        }
    }
    pruned
}

/// True unless it is known that a watermark changes nothing of what the node gives.
fn goes_by_watermark(node: &Node) -> bool {
    match &node.stage {
        Stage::Transform(transform) => !transform.properties().row_wise,
        Stage::Sink(_) => false,
        Stage::Source(_) | Stage::Analysis(_) | Stage::Trainer(_) | Stage::Step(_) => true,
    }
}
