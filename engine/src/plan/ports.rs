//! The schemas of rows by the port they leave by.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::graph::{Edge, Graph, NodeIndex, Port, Stage};
use crate::output::dead_letter_schema;

/// The schema of the rows of an edge, where `first` knows that of the first port of each node; `None` where
/// it does not.
///
/// # Errors
/// What the transform that the edge comes from says of its inputs.
pub(super) fn schema_of(
    graph: &Graph,
    edge: &Edge,
    first: &dyn Fn(NodeIndex) -> Option<SchemaRef>,
) -> Result<Option<SchemaRef>> {
    let node = &graph.nodes[edge.from];
    match (edge.port, &node.stage) {
        (Port::DeadLetters, _) => Ok(Some(dead_letter_schema())),
        (Port::Out(port), Stage::Transform(transform)) if port > 0 => {
            if first(edge.from).is_none() {
                return Ok(None);
            }
            let inputs = node.inputs.iter().map(|e| schema_of(graph, e, first));
            let inputs: Option<Vec<SchemaRef>> = inputs.collect::<Result<_>>()?;
            let schema = inputs.map(|inputs| transform.port_schema(port, &inputs));
            schema.transpose()
        }
        (Port::Out(_), _) => Ok(first(edge.from)),
    }
}

/// True if the rows of an edge have other columns than those that leave by the first port.
pub(super) fn differs(graph: &Graph, edge: &Edge, schemas: &[Option<SchemaRef>]) -> bool {
    let first = |index: NodeIndex| schemas[index].clone();
    match edge.port {
        Port::Out(port) if port > 0 => {
            let of_edge = schema_of(graph, edge, &first);
            of_edge.ok().flatten() != schemas[edge.from]
        }
        _ => false,
    }
}

/// The schemas of all edges that leave one of `nodes` by a port after the first.
///
/// # Errors
/// As [`schema_of`].
pub(super) fn later_ports(
    graph: &Graph,
    nodes: &[NodeIndex],
    first: &dyn Fn(NodeIndex) -> Option<SchemaRef>,
) -> Result<BTreeMap<(NodeIndex, usize), SchemaRef>> {
    let mut schemas = BTreeMap::new();
    for edge in graph.nodes.iter().flat_map(|n| &n.inputs) {
        if let Port::Out(port) = edge.port
            && port > 0
            && nodes.contains(&edge.from)
        {
            let schema = schema_of(graph, edge, first)?;
            schemas.extend(schema.map(|schema| ((edge.from, port), schema)));
        }
    }
    Ok(schemas)
}
