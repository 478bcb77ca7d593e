//! Replaces a transform by what it needs where one of its inputs must be whole before another is read.
//!
//! ```text
//! left ──▶ join ──▶           right ──▶ join/build           phase 1: learns a table
//! right ─┘           becomes                ┆ artifact
//!                              left ──▶ join ──▶             phase 2: looks each row up in it
//! ```
//!
//! So nothing waits in memory for the other side, and what learns is a node of its own in `explain()`
//! and in the report.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::{check, ports, projection, streaming};
use crate::analyzer::Analysis;
use crate::artifact::ArtifactId;
use crate::error::{Error, Result};
use crate::graph::{Edge, Graph, Node, NodeIndex, Port, Stage};
use crate::output::OnBadRow;
use crate::transform::Transform;

/// A graph with the schema of each node's output.
pub(super) type Checked = (Graph, Vec<Option<SchemaRef>>);

/// How much the sources before an input hold, where that is known while planning.
///
/// What a filter leaves of it, or a join makes of it, is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many rows.
    pub n_rows: Option<u64>,
    /// How many bytes, as they are stored.
    pub n_bytes: Option<u64>,
}

/// The place of a transform in its graph, for [`Transform::lower`].
#[derive(Debug)]
pub struct Place<'a> {
    graph: &'a Graph,
    node: &'a Node,
    inputs: Vec<SchemaRef>,
    wanted: Option<&'a [String]>,
}

impl Place<'_> {
    /// The transform's id.
    pub fn id(&self) -> &ArtifactId {
        &self.node.id
    }

    /// The schemas of the inputs.
    pub fn inputs(&self) -> &[SchemaRef] {
        &self.inputs
    }

    /// The columns of the output that anything reads; `None` is all. The others may be left out.
    pub fn wanted(&self) -> Option<&[String]> {
        self.wanted
    }

    /// How much the sources before input `n` hold. Lists their splits.
    pub fn size(&self, n: usize) -> Size {
        match self.node.inputs.get(n) {
            Some(edge) => size_of(self.graph, edge.from),
            None => Size::default(),
        }
    }

    /// True if input `n` ends.
    pub fn is_bounded(&self, n: usize) -> bool {
        let edge = self.node.inputs.get(n);
        edge.is_none_or(|edge| streaming::never_ends(self.graph, edge.from).is_none())
    }

    /// True if each row that comes in by input `n` is one row of a source, whose place in it is known.
    pub fn has_positions(&self, n: usize) -> bool {
        let edge = self.node.inputs.get(n);
        edge.is_none_or(|edge| has_positions(self.graph, edge))
    }
}

/// True if each row that comes by this edge is one row of a source, whose place in it is known.
pub(super) fn has_positions(graph: &Graph, edge: &Edge) -> bool {
    let mut open: Vec<&Edge> = vec![edge];
    while let Some(edge) = open.pop() {
        let from = &graph.nodes[edge.from];
        let kept = match &from.stage {
            Stage::Source(_) => true,
            _ => from.properties().keeps_positions,
        };
        if !kept || edge.port == Port::DeadLetters {
            return false;
        }
        open.extend(&from.inputs);
    }
    true
}

/// What takes the place of a transform: it learns from some inputs and reads the others.
#[derive(Debug)]
pub struct Lowered {
    /// What is learned first.
    pub learns: Vec<Learned>,
    /// Makes the rows; names what is learned in [`Transform::needs`].
    pub transform: Arc<dyn Transform>,
    /// The numbers of the inputs that it reads, in its own order.
    pub inputs: Vec<usize>,
}

impl Lowered {
    /// A transform that reads all `n_inputs` inputs in their order and learns nothing first.
    pub fn to(transform: impl Transform + 'static, n_inputs: usize) -> Self {
        Self {
            learns: Vec::new(),
            transform: Arc::new(transform),
            inputs: (0..n_inputs).collect(),
        }
    }
}

/// An analysis over one input of a transform.
#[derive(Debug)]
pub struct Learned {
    /// Its name; the artifact is `NODE/NAME`.
    pub name: &'static str,
    /// The number of the input that it learns from.
    pub input: usize,
    /// The analysis.
    pub analysis: Arc<dyn Analysis>,
}

/// The graph with each transform replaced that asks for it. `narrow` lets them leave out columns that nothing reads.
pub(super) fn lower(graph: &Graph, schemas: &[Option<SchemaRef>], narrow: bool) -> Result<Checked> {
    let wanted = projection::wanted_anywhere(graph, schemas);
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    let mut made: Vec<Option<SchemaRef>> = Vec::with_capacity(graph.nodes.len());
    let mut places: Vec<NodeIndex> = Vec::with_capacity(graph.nodes.len());
    let mut learned: Vec<NodeIndex> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let edges: Vec<Edge> = node
            .inputs
            .iter()
            .map(|edge| Edge {
                from: places[edge.from],
                ..edge.clone()
            })
            .collect();
        let mut inputs = edges.clone();
        let mut stage = node.stage.clone();
        if let Stage::Transform(transform) = &node.stage {
            let place = Place {
                graph,
                node,
                inputs: inputs_of(graph, node, schemas)?,
                wanted: wanted[index].as_deref().filter(|_| narrow),
            };
            if let Some(lowered) = transform.lower(&place).map_err(|e| e.at_node(&node.id))? {
                for Learned {
                    name,
                    input,
                    analysis,
                } in lowered.learns
                {
                    learned.push(nodes.len());
                    made.push(None);
                    nodes.push(Node {
                        id: Arc::from(format!("{}/{name}", node.id)),
                        stage: Stage::Analysis(analysis),
                        inputs: vec![edges[input].clone()],
                        on_bad_row: OnBadRow::Fail,
                        cached: false,
                    });
                }
                inputs = lowered.inputs.iter().map(|&n| edges[n].clone()).collect();
                stage = Stage::Transform(lowered.transform);
            }
        }
        places.push(nodes.len());
        made.push(schemas[index].clone());
        nodes.push(Node {
            id: ArtifactId::clone(&node.id),
            stage,
            inputs,
            ..node.clone()
        });
    }
    let lowered = Graph {
        name: graph.name.clone(),
        nodes,
        mistakes: Vec::new(),
    };
    let mut errors = Vec::new();
    check::check_ids(&lowered, &mut errors);
    for index in learned {
        let node = &lowered.nodes[index];
        errors.extend(streaming::check_bounded(&lowered, node).err());
    }
    match errors.is_empty() {
        true => Ok((lowered, made)),
        false => Err(Error::all(errors)),
    }
}

fn inputs_of(graph: &Graph, node: &Node, schemas: &[Option<SchemaRef>]) -> Result<Vec<SchemaRef>> {
    node.inputs
        .iter()
        .map(|edge| {
            let schema = ports::schema_of(graph, edge, &|index| schemas[index].clone())?;
            schema.ok_or_else(|| Error::bug("an edge has no schema"))
        })
        .collect()
}

/// The sum over the sources before `index`; unknown where one does not know, or cannot be listed now.
fn size_of(graph: &Graph, index: NodeIndex) -> Size {
    let node = &graph.nodes[index];
    if let Stage::Source(source) = &node.stage {
        // What is wrong with the source is reported when it is read.
        return source.splits().map_or(Size::default(), |splits| Size {
            n_rows: splits.iter().map(|s| s.n_rows).sum(),
            n_bytes: splits.iter().map(|s| s.n_bytes).sum(),
        });
    }
    let sizes: Vec<Size> = node.inputs.iter().map(|e| size_of(graph, e.from)).collect();
    Size {
        n_rows: sizes.iter().map(|s| s.n_rows).sum(),
        n_bytes: sizes.iter().map(|s| s.n_bytes).sum(),
    }
}
