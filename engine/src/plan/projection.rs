//! Which columns each node of a phase must make, so that sources read no others.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;

use super::lower::has_positions;
use super::phases::{Phase, keeps_rows};
use super::ports;
use crate::changelog::own_columns;
use crate::error::Result;
use crate::graph::{Edge, Graph, Node, NodeIndex, Port, Stage};
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

/// What is wanted of the rows of a node.
#[derive(Clone, Debug)]
struct OfNode {
    first: Wanted,
    /// By the ports whose rows have other columns than those of the first.
    others: BTreeMap<usize, Wanted>,
}

impl OfNode {
    fn nothing() -> Self {
        Self {
            first: Some(BTreeSet::new()),
            others: BTreeMap::new(),
        }
    }

    /// All columns of all ports that anything reads.
    fn everything(graph: &Graph, index: NodeIndex, schemas: &[Option<SchemaRef>]) -> Self {
        let edges = graph.nodes.iter().flat_map(|node| &node.inputs);
        let others = edges.filter(|e| e.from == index && ports::differs(graph, e, schemas));
        let others = others.filter_map(|edge| match edge.port {
            Port::Out(port) => Some((port, None)),
            Port::DeadLetters => None,
        });
        Self {
            first: None,
            others: others.collect(),
        }
    }

    /// The columns to be read of a source or of kept rows; of rows with other columns by other ports all are.
    fn to_read(&self) -> Option<&BTreeSet<String>> {
        match self.others.is_empty() {
            true => self.first.as_ref(),
            false => None,
        }
    }

    /// What is wanted of the port by which rows of this edge leave.
    fn of_port(
        &mut self,
        edge: &Edge,
        graph: &Graph,
        schemas: &[Option<SchemaRef>],
    ) -> &mut Wanted {
        match edge.port {
            Port::Out(port) if ports::differs(graph, edge, schemas) => {
                let other = self.others.entry(port);
                other.or_insert_with(|| Some(BTreeSet::new()))
            }
            _ => &mut self.first,
        }
    }
}

/// The columns of each node's rows that anything reads in any phase, of its first port and of those with the same
/// columns; `None` is all.
pub(super) fn wanted_anywhere(
    graph: &Graph,
    schemas: &[Option<SchemaRef>],
) -> Vec<Option<Vec<String>>> {
    let mut wanted = vec![OfNode::nothing(); graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if keeps_rows(node) {
            wanted[index] = OfNode::everything(graph, index, schemas);
        }
        let reads = reads_of(graph, node, &wanted[index]);
        for edge in node.inputs.iter().filter(|e| e.port != Port::DeadLetters) {
            let slot = wanted[edge.from].of_port(edge, graph, schemas);
            want(slot, &reads, schemas[edge.from].as_ref());
        }
    }
    wanted.into_iter().map(|of| names(&of.first)).collect()
}

fn names(wanted: &Wanted) -> Option<Vec<String>> {
    let wanted = wanted.as_ref()?;
    Some(wanted.iter().cloned().collect())
}

/// The columns that `node` reads of its inputs where only `made` of its output is wanted.
fn reads_of(graph: &Graph, node: &Node, made: &OfNode) -> Option<Vec<String>> {
    match &node.stage {
        // A dead letter shows its whole row.
        _ if node.on_bad_row == OnBadRow::DeadLetter => None,
        Stage::Transform(t) => {
            let by_values = || !node.inputs.iter().all(|edge| has_positions(graph, edge));
            if t.properties().orders_as_rows_stand && by_values() {
                return None;
            }
            let mut reads = t.reads(names(&made.first).as_deref())?;
            for (port, wanted) in &made.others {
                reads.extend(t.reads_for_port(*port, names(wanted).as_deref())?);
            }
            Some(reads)
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
    let mut wanted: BTreeMap<NodeIndex, OfNode> = BTreeMap::new();
    for &index in phase.nodes.iter().rev() {
        let node = &graph.nodes[index];
        let made = match wanted.remove(&index) {
            _ if phase.keeps.contains(&index) => OfNode::everything(graph, index, schemas),
            Some(made) => made,
            None => OfNode::nothing(),
        };
        let reads = reads_of(graph, node, &made);
        for edge in phase
            .inputs(graph, index)
            .iter()
            .filter(|e| e.port != Port::DeadLetters)
        {
            let slot = wanted.entry(edge.from).or_insert_with(OfNode::nothing);
            let slot = slot.of_port(edge, graph, schemas);
            want(slot, &reads, schemas[edge.from].as_ref());
        }
        wanted.insert(index, made);
    }
    let is_source = |i: &NodeIndex| matches!(graph.nodes[*i].stage, Stage::Source(_));
    phase
        .nodes
        .iter()
        .filter(|&i| is_source(i) || phase.kept.contains(i))
        .filter_map(|&i| {
            let names = wanted.get(&i)?.to_read()?;
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
