//! Checks a graph: every node against the schemas that reach it, all errors together.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use super::{change_times, places, ports, streaming};
use crate::changelog::{has_time, is_changelog};
use crate::error::{Error, Result};
use crate::event_time::DIFF;
use crate::graph::{Graph, Node, NodeIndex, Port, Stage};
use crate::output::OnBadRow;
use crate::runner::guard;
use crate::transform::{Distribution, OnChangelog};

/// The output schema of each node.
pub(super) fn check(graph: &Graph) -> Result<Vec<Option<SchemaRef>>> {
    let mut errors: Vec<Error> = graph.mistakes.clone();
    check_ids(graph, &mut errors);
    check_ends(graph, &mut errors);
    places::check(graph, &mut errors);
    let mut schemas: Vec<Option<SchemaRef>> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        errors.extend(
            check_needs(graph, index)
                .into_iter()
                .map(|e| e.at_node(&node.id)),
        );
        // A source or a transform of the user's may panic while it is asked for its schema.
        match guard(&node.id, || check_node(graph, node, &schemas)) {
            Ok(schema) => schemas.push(schema),
            Err(error) => {
                errors.extend(error.errors().iter().map(|e| e.clone().at_node(&node.id)));
                schemas.push(None);
            }
        }
    }
    if errors.is_empty() {
        Ok(schemas)
    } else {
        Err(Error::all(errors))
    }
}

pub(super) fn check_ids(graph: &Graph, errors: &mut Vec<Error>) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        *seen.entry(&node.id).or_default() += 1;
    }
    for (id, count) in seen {
        if count > 1 {
            errors.push(
                Error::pipeline(format!("{count} nodes are named {id:?}"))
                    .with_hint("Give each a name of its own with `named`."),
            );
        }
        if id.is_empty() {
            errors.push(Error::pipeline("a node has an empty name"));
        }
    }
}

/// A graph must end somewhere, and so must dead letters.
fn check_ends(graph: &Graph, errors: &mut Vec<Error>) {
    let ends = |n: &Node| n.stage.learns() || matches!(n.stage, Stage::Sink(_));
    if !graph.nodes.iter().any(ends) {
        errors.push(
            Error::pipeline(format!(
                "pipeline {:?} has no sink and learns nothing",
                graph.name
            ))
            .with_hint("End a collection with `write`, `analyze` or `train`."),
        );
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        let mut readers = graph.nodes.iter().flat_map(|n| &n.inputs);
        if node.on_bad_row == OnBadRow::DeadLetter
            && !readers.any(|e| e.from == index && e.port == Port::DeadLetters)
        {
            errors.push(
                Error::pipeline("dead letters go nowhere")
                    .with_hint("Write `dead_letters()` to a sink, or choose `OnBadRow::Drop`.")
                    .at_node(&node.id),
            );
        }
    }
}

fn check_needs(graph: &Graph, index: NodeIndex) -> Vec<Error> {
    let node = &graph.nodes[index];
    let earlier = &graph.nodes[..index];
    node.stage
        .needs()
        .iter()
        .filter(|id| !earlier.iter().any(|n| n.id == **id && n.stage.learns()))
        .map(|id| {
            Error::pipeline(format!("artifact {id:?} is learned by no earlier node of this pipeline"))
                .with_hint("References belong to the pipeline that gave them; bring a value from elsewhere with `Pipeline::provide`.")
        })
        .collect()
}

fn check_node(
    graph: &Graph,
    node: &Node,
    schemas: &[Option<SchemaRef>],
) -> Result<Option<SchemaRef>> {
    let mut inputs: Vec<SchemaRef> = Vec::with_capacity(node.inputs.len());
    for edge in &node.inputs {
        match ports::schema_of(graph, edge, &|index| schemas[index].clone())? {
            Some(schema) => inputs.push(schema),
            // What comes before is wrong and has been reported.
            None => return Ok(None),
        }
    }
    let properties = node.properties();
    if let Some(expected) = properties.n_inputs
        && expected != inputs.len()
    {
        let found = inputs.len();
        return Err(Error::pipeline(format!(
            "expected {expected} inputs, found {found}"
        )));
    }
    if properties.makes_watermarks {
        check_behind_sources(graph, node)?;
    }
    if properties.blocking && !properties.row_wise {
        return Err(
            Error::pipeline("a blocking transform must treat each row alone")
                .with_hint("Leave `row_wise` of its properties set, or `blocking` unset."),
        );
    }
    streaming::check(graph, node, &properties)?;
    check_takes_changes(node, &inputs)?;
    change_times::check(graph, node, &inputs, &properties, &|index| {
        schemas[index].clone()
    })?;
    match &node.stage {
        Stage::Source(source) => named_once(source.schema()?).map(Some),
        Stage::Transform(transform) if inputs.is_empty() => {
            let kind = transform.describe().kind;
            Err(Error::pipeline(format!("{kind} needs at least one input")))
        }
        Stage::Transform(transform) => {
            let schema = named_once(transform.output_schema(&inputs)?)?;
            let carries = properties.on_changelog == OnChangelog::Carry;
            if carries && !is_changelog(&schema) && inputs.iter().any(|i| is_changelog(i)) {
                let kind = transform.describe().kind;
                return Err(Error::pipeline(format!(
                    "{kind} loses column {DIFF:?} of a changelog"
                ))
                .with_detail("Without it a row that is taken back would count as a row.")
                .with_hint("Keep the column as it is, or take `changes()` first."));
            }
            check_relation_moves(graph, node, &schema)?;
            Ok(Some(schema))
        }
        Stage::Analysis(analysis) => {
            streaming::check_bounded(graph, node)?;
            analysis.check(&inputs[0]).map(|()| None)
        }
        Stage::Trainer(trainer) => {
            streaming::check_bounded(graph, node)?;
            trainer.check(&inputs[0]).map(|()| None)
        }
        Stage::Sink(sink) => sink.accepts(&inputs[0]).map(|()| None),
        Stage::Step(_) => Ok(None),
    }
}

/// Refuses changes where a row that is taken back would count as a row.
fn check_takes_changes(node: &Node, inputs: &[SchemaRef]) -> Result<()> {
    let takes = match &node.stage {
        Stage::Sink(sink) => sink.takes_changes(),
        Stage::Transform(_) => node.properties().on_changelog != OnChangelog::Refuse,
        Stage::Analysis(_) | Stage::Trainer(_) => false,
        Stage::Source(_) | Stage::Step(_) => true,
    };
    if takes || !inputs.iter().any(|input| is_changelog(input)) {
        return Ok(());
    }
    let kind = node.stage.describe().kind;
    let error = Error::pipeline(format!("{kind} does not take a changelog"))
        .with_detail("A row that is taken back would count as a row.");
    Err(match &node.stage {
        Stage::Sink(_) => error.with_hint(
            "Write its `changes()`, which are plain rows with a column that says what each changes.",
        ),
        _ => error.with_hint(
            "Take its `changes()` for plain rows, or do this before the rows become changes.",
        ),
    })
}

/// A watermark is made per split, so rows must come from their splits as they were read.
fn check_behind_sources(graph: &Graph, node: &Node) -> Result<()> {
    let mut open: Vec<NodeIndex> = node.inputs.iter().map(|e| e.from).collect();
    while let Some(index) = open.pop() {
        let from = &graph.nodes[index];
        let properties = from.properties();
        let stays =
            (0..from.inputs.len()).all(|i| *properties.distribution_of(i) == Distribution::Keep);
        if matches!(from.stage, Stage::Transform(_)) && !(properties.immediate && stays) {
            return Err(Error::pipeline(format!(
                "event time is assigned behind {:?}, which brings rows of several splits together",
                &*from.id
            ))
            .with_hint("Assign it right behind the source; row-wise transforms and unions may stand between."));
        }
        open.extend(from.inputs.iter().map(|e| e.from));
    }
    Ok(())
}

fn named_once(schema: SchemaRef) -> Result<SchemaRef> {
    let mut names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    names.sort_unstable();
    let mut twice: Vec<&str> = names
        .windows(2)
        .filter(|w| w[0] == w[1])
        .map(|w| w[0])
        .collect();
    twice.dedup();
    if let Some(name) = twice.first() {
        return Err(
            Error::pipeline(format!("column {name:?} is there more than once"))
                .with_hint("Give each column a name of its own."),
        );
    }
    Ok(schema)
}

/// A relation gives what has taken effect once event time has passed it: without one, when the input ends.
fn check_relation_moves(graph: &Graph, node: &Node, schema: &SchemaRef) -> Result<()> {
    let is_relation = matches!(&node.stage, Stage::Transform(t) if t.incremental().is_some());
    let mut inputs = node.inputs.iter();
    match inputs.find_map(|e| streaming::never_ends(graph, e.from)) {
        Some(source) if is_relation && !has_time(schema) => Err(Error::pipeline(format!(
            "a relation without an event time waits for the end, but source {source:?} never ends"
        ))
        .with_hint("Give the rows their event time with `assign_timestamps`.")),
        _ => Ok(()),
    }
}
