//! Refuses windows in which a row that is taken back might never have been.

use arrow::datatypes::SchemaRef;

use super::ports;
use crate::changelog::{has_time, is_changelog};
use crate::error::{Error, Result};
use crate::graph::{Edge, Graph, Node, NodeIndex, Stage};
use crate::transform::{ChangeTimes, Properties};

/// Checks a node against what the times of its changes say; `schema_of` are the columns that leave a node.
pub(super) fn check(
    graph: &Graph,
    node: &Node,
    inputs: &[SchemaRef],
    properties: &Properties,
    schema_of: &dyn Fn(NodeIndex) -> Option<SchemaRef>,
) -> Result<()> {
    check_row_time(node, inputs, properties)?;
    let effect = match properties.needs_row_times {
        true => taking_effect(graph, &node.inputs, schema_of),
        false => None,
    };
    let Some(from) = effect else {
        return Ok(());
    };
    Err(Error::pipeline(format!("windows would deal the changes of {:?} by when they take effect", &*from.id))
        .with_detail("A row that is taken back has the event time at which it is no longer there, which may be in a window in which the row never was.")
        .with_hint("Say with `Windowing::row_time(col(\"…\"))` which column says when a row was, such as that from which its event time was assigned; or aggregate without windows, which says at each instant what is there."))
}

/// Refuses a row time of rows that have but one time.
fn check_row_time(node: &Node, inputs: &[SchemaRef], properties: &Properties) -> Result<()> {
    if !matches!(node.stage, Stage::Transform(_)) || properties.row_wise {
        return Ok(());
    }
    let mut edges = node.inputs.iter().zip(inputs);
    let time = edges.find_map(|(edge, schema)| {
        let time = edge.windowing.row_time.as_ref();
        time.filter(|_| !is_changelog(schema))
    });
    match time {
        None => Ok(()),
        Some(time) => Err(Error::pipeline(format!(
            "windows have the row time `{time}`, but the rows are no changes"
        ))
        .with_detail("Rows that are no changes are in the windows of their event time.")
        .with_hint("Give them this time with `assign_timestamps`; of changes, put `window` behind what makes them, such as `upserts`.")),
    }
}

/// A node that says of the changes on these edges when they take effect, in place of when their rows were.
fn taking_effect<'a>(
    graph: &'a Graph,
    edges: &'a [Edge],
    schema_of: &dyn Fn(NodeIndex) -> Option<SchemaRef>,
) -> Option<&'a Node> {
    let mut open: Vec<&Edge> = edges.iter().collect();
    while let Some(edge) = open.pop() {
        let schema = ports::schema_of(graph, edge, schema_of).ok().flatten();
        let from = &graph.nodes[edge.from];
        if !schema.is_some_and(|schema| is_changelog(&schema) && has_time(&schema)) {
            continue;
        }
        let times = match &from.stage {
            Stage::Source(source) => source.properties().change_times,
            Stage::Transform(_) => from.properties().change_times,
            Stage::Analysis(_) | Stage::Trainer(_) | Stage::Sink(_) | Stage::Step(_) => continue,
        };
        match times {
            ChangeTimes::Row => {}
            ChangeTimes::Kept => open.extend(&from.inputs),
            ChangeTimes::Effect => return Some(from),
        }
    }
    None
}
