//! Which rows of its sources a phase needs, so that sources pass the others over.
//!
//! ```text
//! births ─▶ filter a ─▶ sink       births need only give rows for which a OR b is true
//!        └▶ filter b ─▶ sink       births ─▶ sink as well: all rows
//! ```
//!
//! The filters stay: what a source passes over is up to the source, and correctness never depends on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;

use super::phases::Phase;
use super::ports;
use crate::graph::{Graph, NodeIndex, Port, Stage};
use crate::source::Source;

/// The sources of a phase that need not give all rows, as they are then read.
pub(super) fn prune(
    graph: &Graph,
    phase: &Phase,
    schemas: &[Option<SchemaRef>],
) -> BTreeMap<NodeIndex, Arc<dyn Source>> {
    // What the rows of each node must meet to be of use; `None` where all rows are.
    let mut wanted: BTreeMap<NodeIndex, Option<Expr>> = BTreeMap::new();
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
                inputs.and_then(|inputs| transform.reads_rows(&inputs, made.as_ref()))
            }
            Stage::Source(source) if !phase.kept.contains(&index) => {
                pruned.extend(made.and_then(|p| source.prune(&p)).map(|s| (index, s)));
                None
            }
            _ => None,
        };
        for edge in phase.inputs(graph, index) {
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
