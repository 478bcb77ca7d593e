//! Which columns each node of a phase must make, so that sources read no others.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;

use super::phases::{Phase, keeps_rows};
use super::ports;
use crate::changelog::own_columns;
use crate::error::Result;
use crate::graph::{Graph, Node, NodeIndex, Port, Stage};
use crate::output::OnBadRow;

/// The columns of a phase.
#[derive(Clone, Debug, Default)]
pub(crate) struct Projection {
    /// The columns to read of each source, in the order of its schema; all where a source is missing here.
    pub(crate) columns: BTreeMap<NodeIndex, Vec<String>>,
    /// The schema of the rows that leave each node in this phase.
    pub(crate) schemas: BTreeMap<NodeIndex, SchemaRef>,
    /// That of the rows that leave by a port after the first, where anything reads it.
    pub(crate) ports: BTreeMap<(NodeIndex, usize), SchemaRef>,
    /// Fewer columns did not go together, so all are read.
    pub(crate) all_columns: bool,
}

/// `None` is all columns.
type Wanted = Option<BTreeSet<String>>;

pub(super) fn project(graph: &Graph, phase: &Phase, schemas: &[Option<SchemaRef>]) -> Projection {
    let columns = wanted_of_sources(graph, phase, schemas);
    // Where fewer columns do not go together, as in a union of different orders, all are read.
    propagate(graph, phase, schemas, columns).unwrap_or_else(|_| Projection {
        columns: BTreeMap::new(),
        schemas: phase
            .nodes
            .iter()
            .filter_map(|&i| Some((i, SchemaRef::clone(schemas[i].as_ref()?))))
            .collect(),
        ports: {
            let first = |index: NodeIndex| schemas[index].clone();
            ports::later_ports(graph, &phase.nodes, &first).unwrap_or_default()
        },
        all_columns: true,
    })
}

/// The columns of each node's rows that anything reads in any phase; `None` is all.
pub(super) fn wanted_anywhere(
    graph: &Graph,
    schemas: &[Option<SchemaRef>],
) -> Vec<Option<Vec<String>>> {
    let mut wanted: Vec<Wanted> = vec![Some(BTreeSet::new()); graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if keeps_rows(node) {
            wanted[index] = None;
        }
        let reads = reads_of(node, &wanted[index]);
        for edge in node.inputs.iter().filter(|e| e.port != Port::DeadLetters) {
            let reads = match ports::differs(graph, edge, schemas) {
                true => &None,
                false => &reads,
            };
            want(&mut wanted[edge.from], reads, schemas[edge.from].as_ref());
        }
    }
    let names = |w: Wanted| w.map(|names| names.into_iter().collect());
    wanted.into_iter().map(names).collect()
}

/// The columns that `node` reads of its inputs where only `made` of its output is wanted.
fn reads_of(node: &Node, made: &Wanted) -> Option<Vec<String>> {
    match &node.stage {
        // A dead letter shows its whole row.
        _ if node.on_bad_row == OnBadRow::DeadLetter => None,
        Stage::Transform(t) => {
            let made: Option<Vec<String>> = made.clone().map(|m| m.into_iter().collect());
            t.reads(made.as_deref())
        }
        Stage::Analysis(a) => a.reads(),
        Stage::Trainer(t) => t.reads(),
        Stage::Source(_) | Stage::Step(_) | Stage::Sink(_) => None,
    }
}

fn want(wanted: &mut Wanted, more: &Option<Vec<String>>, schema: Option<&SchemaRef>) {
    match (&mut *wanted, more) {
        (Some(all), Some(more)) => {
            all.extend(more.iter().cloned());
            // What makes rows changes is never left out.
            let own = schema.map_or_else(Vec::new, |schema| own_columns(schema));
            all.extend(own.into_iter().map(str::to_owned));
        }
        (wanted, None) => *wanted = None,
        (None, Some(_)) => {}
    }
}

fn wanted_of_sources(
    graph: &Graph,
    phase: &Phase,
    schemas: &[Option<SchemaRef>],
) -> BTreeMap<NodeIndex, Vec<String>> {
    let mut wanted: BTreeMap<NodeIndex, Wanted> = BTreeMap::new();
    for &index in phase.nodes.iter().rev() {
        let node = &graph.nodes[index];
        let made = match wanted.get(&index) {
            _ if phase.keeps.contains(&index) => None,
            Some(made) => made.clone(),
            None => Some(BTreeSet::new()),
        };
        let reads = reads_of(node, &made);
        for edge in phase
            .inputs(graph, index)
            .iter()
            .filter(|e| e.port != Port::DeadLetters)
        {
            let slot = wanted
                .entry(edge.from)
                .or_insert_with(|| Some(BTreeSet::new()));
            let reads = match ports::differs(graph, edge, schemas) {
                true => &None,
                false => &reads,
            };
            want(slot, reads, schemas[edge.from].as_ref());
        }
        wanted.insert(index, made);
    }
    let is_source = |i: &NodeIndex| matches!(graph.nodes[*i].stage, Stage::Source(_));
    phase
        .nodes
        .iter()
        .filter(|&i| is_source(i) || phase.kept.contains(i))
        .filter_map(|&i| {
            let names = wanted.get(&i)?.as_ref()?;
            Some((i, in_order(names, schemas[i].as_ref()?)))
        })
        .collect()
}

/// The names in the order of the schema; the first column where no value is wanted, to count rows by.
fn in_order(names: &BTreeSet<String>, schema: &Schema) -> Vec<String> {
    let mut columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .filter(|n| names.contains(n))
        .collect();
    if columns.is_empty() {
        columns.extend(schema.fields().first().map(|f| f.name().clone()));
    }
    columns
}

/// The schemas that follow when sources give only `columns`.
fn propagate(
    graph: &Graph,
    phase: &Phase,
    schemas: &[Option<SchemaRef>],
    columns: BTreeMap<NodeIndex, Vec<String>>,
) -> Result<Projection> {
    let mut made: BTreeMap<NodeIndex, SchemaRef> = BTreeMap::new();
    for &index in &phase.nodes {
        if let Some(names) = columns.get(&index)
            && let Some(schema) = &schemas[index]
        {
            let fields: Vec<_> = schema
                .fields()
                .iter()
                .filter(|f| names.contains(f.name()))
                .cloned()
                .collect();
            made.insert(index, Arc::new(Schema::new(fields)));
            continue;
        }
        let first = |index: NodeIndex| made.get(&index).or(schemas[index].as_ref()).cloned();
        let edges = phase.inputs(graph, index).iter();
        let inputs = edges.map(|edge| ports::schema_of(graph, edge, &first));
        let inputs: Vec<SchemaRef> = inputs.flat_map(Result::transpose).collect::<Result<_>>()?;
        let schema = match &graph.nodes[index].stage {
            Stage::Transform(t) if !phase.kept.contains(&index) => Some(t.output_schema(&inputs)?),
            Stage::Analysis(a) => a.check(&inputs[0]).map(|()| None)?,
            Stage::Trainer(t) => t.check(&inputs[0]).map(|()| None)?,
            _ => schemas[index].clone(),
        };
        made.extend(schema.map(|s| (index, s)));
    }
    let first = |index: NodeIndex| made.get(&index).or(schemas[index].as_ref()).cloned();
    Ok(Projection {
        columns,
        ports: ports::later_ports(graph, &phase.nodes, &first)?,
        schemas: made,
        all_columns: false,
    })
}
