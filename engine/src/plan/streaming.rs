//! Refuses what would never give a row, or a wrong one, on rows that never end or that windows divide.

use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeIndex, Stage};
use crate::transform::Properties;

/// Checks a node against whether its inputs end, and how event time divides them.
pub(super) fn check(graph: &Graph, node: &Node, properties: &Properties) -> Result<()> {
    let errors = [
        check_end(graph, node, properties).err(),
        check_windows(node, properties).err(),
        check_same_windows(graph, node, properties).err(),
    ];
    let errors: Vec<Error> = errors.into_iter().flatten().collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Error::all(errors)),
    }
}

/// What learns from all rows never ends on a source that never ends.
pub(super) fn check_bounded(graph: &Graph, node: &Node) -> Result<()> {
    match node.inputs.iter().find_map(|e| never_ends(graph, e.from)) {
        None => Ok(()),
        Some(source) => Err(Error::pipeline(format!(
            "{:?} learns from all rows, but source {source:?} never ends",
            &*node.id
        ))
        .with_hint(
            "Learn from a bounded collection, and bring the artifact in with `Pipeline::provide`.",
        )),
    }
}

/// The name of a source before this node, or itself, that never ends.
pub(super) fn never_ends(graph: &Graph, node: NodeIndex) -> Option<&str> {
    let mut open = vec![node];
    while let Some(index) = open.pop() {
        let from = &graph.nodes[index];
        match &from.stage {
            Stage::Source(source) if !source.properties().bounded => return Some(&from.id),
            _ => open.extend(from.inputs.iter().map(|e| e.from)),
        }
    }
    None
}

fn check_end(graph: &Graph, node: &Node, properties: &Properties) -> Result<()> {
    let at_end = match &node.stage {
        Stage::Transform(_) => properties.waits_for_end,
        Stage::Sink(sink) => sink.publishes_at_end(),
        _ => false,
    };
    let source = node.inputs.iter().find_map(|e| never_ends(graph, e.from));
    let (true, Some(source)) = (at_end, source) else {
        return Ok(());
    };
    let kind = node.stage.describe().kind;
    let (gives, hint) = match &node.stage {
        Stage::Sink(_) => (
            "publishes nothing before its input ends",
            "Write to a sink that shows rows as they come, such as that of `connectors::into_stream`.",
        ),
        _ if properties.ignores_windows => (
            "gives nothing before its input ends",
            "It knows no windows: take it of a collection that ends, or use aggregates in windows instead.",
        ),
        _ => (
            "gives nothing before its input ends",
            "Divide the rows by `window` before it, or give the global window a trigger, such as `Trigger::after_count(1000).repeatedly()`.",
        ),
    };
    Err(
        Error::pipeline(format!("{kind} {gives}, but source {source:?} never ends"))
            .with_hint(hint),
    )
}

fn check_windows(node: &Node, properties: &Properties) -> Result<()> {
    let ignores = match &node.stage {
        Stage::Transform(_) => properties.ignores_windows,
        Stage::Analysis(_) | Stage::Trainer(_) => true,
        Stage::Source(_) | Stage::Step(_) | Stage::Sink(_) => false,
    };
    let divided = node.inputs.iter().find(|e| !e.windowing.is_default());
    let (true, Some(edge)) = (ignores, divided) else {
        return Ok(());
    };
    let kind = node.stage.describe().kind;
    let takes = match &node.stage {
        Stage::Transform(_) => "takes all rows together",
        _ => "learns from all rows together",
    };
    Err(Error::pipeline(format!("{kind} {takes}, but windows divide them"))
        .with_detail(format!("The rows are divided into {}.", edge.windowing))
        .with_hint("Put `.window(Windowing::global())` before it if that is what you want, where the windows of results stay in their columns; or use what works in windows: aggregates, `distinct`, `top_k`, or `join_windowed`."))
}

fn check_same_windows(graph: &Graph, node: &Node, properties: &Properties) -> Result<()> {
    let mut edges = node.inputs.iter();
    let Some(first) = edges.next().filter(|_| properties.same_windows) else {
        return Ok(());
    };
    let Some(other) = edges.find(|edge| edge.windowing != first.windowing) else {
        return Ok(());
    };
    let said = [first, other].map(|edge| {
        let from = &graph.nodes[edge.from].id;
        format!("The rows of {from:?} are divided into {}.", edge.windowing)
    });
    let [of_first, of_other] = said;
    let kind = node.stage.describe().kind;
    Err(Error::pipeline(format!(
        "{kind} brings rows together that are divided by event time in different ways"
    ))
    .with_detail(of_first)
    .with_detail(of_other)
    .with_hint("Put `window` behind it, or the same before each input."))
}
