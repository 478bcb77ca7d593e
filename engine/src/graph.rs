//! The graph as data: nodes, what they are, and the edges between them.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::analyzer::Analysis;
use crate::artifact::ArtifactId;
use crate::error::{Error, Result};
use crate::output::OnBadRow;
use crate::sink::Sink;
use crate::source::Source;
use crate::trainer::{Step, Trainer};
use crate::transform::{Description, Properties, Transform};
use crate::windowing::Windowing;

/// The place of a node in [`Graph::nodes`]; inputs always stand before what reads them.
pub type NodeIndex = usize;

/// One of the nouns that stand in a graph. Each checks and builds itself.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Rows come in.
    Source(Arc<dyn Source>),
    /// Rows to rows.
    Transform(Arc<dyn Transform>),
    /// Rows to an artifact, in one pass.
    Analysis(Arc<dyn Analysis>),
    /// Rows to an artifact, in many passes.
    Trainer(Arc<dyn Trainer>),
    /// Artifacts to an artifact.
    Step(Arc<dyn Step>),
    /// Rows go out.
    Sink(Arc<dyn Sink>),
}

impl Stage {
    /// What it is.
    pub fn describe(&self) -> Description {
        match self {
            Self::Source(s) => s.describe(),
            Self::Transform(s) => s.describe(),
            Self::Analysis(s) => s.describe(),
            Self::Trainer(s) => s.describe(),
            Self::Step(s) => s.describe(),
            Self::Sink(s) => s.describe(),
        }
    }

    /// The artifacts it reads.
    pub fn needs(&self) -> Vec<ArtifactId> {
        match self {
            Self::Source(_) | Self::Sink(_) => Vec::new(),
            Self::Transform(s) => s.needs(),
            Self::Analysis(s) => s.needs(),
            Self::Trainer(s) => s.needs(),
            Self::Step(s) => s.needs(),
        }
    }

    /// What messages call it.
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::Transform(_) => "transform",
            Self::Analysis(_) => "analysis",
            Self::Trainer(_) => "trainer",
            Self::Step(_) => "step",
            Self::Sink(_) => "sink",
        }
    }

    /// True if it ends in an artifact of the node's name.
    pub fn learns(&self) -> bool {
        matches!(self, Self::Analysis(_) | Self::Trainer(_) | Self::Step(_))
    }
}

/// Which output of a node an edge leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// An output of the transform itself, by number.
    Out(usize),
    /// The rows that the node has rejected.
    DeadLetters,
}

/// Rows from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The node the rows come from.
    pub from: NodeIndex,
    /// The output they leave by.
    pub port: Port,
    /// How event time divides them.
    pub windowing: Windowing,
}

/// A node: its id, what it is, and what it reads.
#[derive(Clone, Debug)]
pub struct Node {
    /// The id, stable from run to run: the path of names in the pipeline.
    pub id: ArtifactId,
    /// What it is.
    pub stage: Stage,
    /// The edges that end here, in the order of the inputs.
    pub inputs: Vec<Edge>,
    /// What happens to rows it cannot take.
    pub on_bad_row: OnBadRow,
    /// Its output is kept on disk once made, for later phases.
    pub cached: bool,
}

impl Node {
    /// What the planner knows of its stage.
    pub fn properties(&self) -> Properties {
        match &self.stage {
            Stage::Transform(t) => t.properties(),
            Stage::Source(_) => Properties {
                n_inputs: Some(0),
                ..Properties::default()
            },
            Stage::Step(_) => Properties {
                n_inputs: Some(0),
                ports: Vec::new(),
                ..Properties::default()
            },
            Stage::Analysis(_) | Stage::Trainer(_) | Stage::Sink(_) => Properties {
                ports: Vec::new(),
                ..Properties::default()
            },
        }
    }
}

/// A pipeline as data.
#[derive(Clone, Default)]
pub struct Graph {
    /// The pipeline's name.
    pub name: String,
    /// The nodes; inputs stand before what reads them.
    pub nodes: Vec<Node>,
    /// Mistakes made while composing, which the plan reports.
    pub mistakes: Vec<Error>,
}

impl Graph {
    /// The graph as JSON: ids, kinds, versions, configurations and edges.
    ///
    /// Closures appear by the name of their node and with `"portable": false`.
    pub fn to_json(&self) -> Value {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| self.node_to_json(node))
            .collect();
        json!({ "pipeline": self.name, "nodes": nodes })
    }

    /// The graph as JSON for another process, which can build every node of it again.
    ///
    /// # Errors
    /// A pipeline error for each node that holds a closure, by its name: closures cannot travel.
    pub fn to_portable_json(&self) -> Result<Value> {
        let closures: Vec<Error> = self
            .nodes
            .iter()
            .filter(|node| !node.properties().portable)
            .map(|node| {
                Error::pipeline("a closure cannot leave this process")
                    .at_node(&node.id)
                    .with_hint("Say it with expressions, or run the pipeline here.")
            })
            .collect();
        if closures.is_empty() {
            Ok(self.to_json())
        } else {
            Err(Error::all(closures).in_graph(self))
        }
    }

    fn node_to_json(&self, node: &Node) -> Value {
        let Description {
            kind,
            version,
            config,
        } = node.stage.describe();
        let inputs: Vec<Value> = node
            .inputs
            .iter()
            .map(|edge| {
                let from = &self.nodes[edge.from];
                let port = match edge.port {
                    Port::Out(i) => from.properties().ports.get(i).cloned().unwrap_or_default(),
                    Port::DeadLetters => "dead_letters".into(),
                };
                json!({ "from": &*from.id, "port": port, "windowing": edge.windowing.to_json() })
            })
            .collect();
        let needs: Vec<String> = node.stage.needs().iter().map(ToString::to_string).collect();
        json!({
            "id": &*node.id, "kind": kind, "version": version, "config": config,
            "inputs": inputs, "artifacts": needs, "portable": node.properties().portable,
        })
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph({:?}, {} nodes)", self.name, self.nodes.len())
    }
}
