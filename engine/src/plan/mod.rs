//! A checked graph, divided into phases.
//!
//! ```text
//! Graph ──check──▶ schemas of all edges ──phases──▶ 1: steps, one dataflow, trainers
//!                  (all errors together)            2: steps, one dataflow, trainers ...
//! ```

mod check;
mod explain;
mod phases;
mod projection;
mod pruning;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::graph::{Graph, NodeIndex};
use crate::report::RunReport;
use crate::runner::{self, RunOptions};

pub(crate) use phases::{Chain, Phase};

/// A checked graph, divided into phases, ready to run.
///
/// An artifact edge cuts a graph: what uses an artifact runs in a later phase than what learns it, and
/// reads its sources again, or what [`Collection::cache`](crate::Collection::cache) kept on disk.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) graph: Arc<Graph>,
    /// The schema of each node's output; `None` where a node has none.
    pub(crate) schemas: Vec<Option<SchemaRef>>,
    pub(crate) phases: Vec<Phase>,
}

impl Plan {
    pub(crate) fn new(graph: Graph) -> Result<Self> {
        let schemas = check::check(&graph)?;
        let phases = phases::divide(&graph, &schemas);
        Ok(Self {
            graph: Arc::new(graph),
            schemas,
            phases,
        })
    }

    /// Runs the plan.
    ///
    /// # Errors
    /// The first failure of the run. Nothing is published then.
    pub fn run(&self, options: &RunOptions) -> Result<RunReport> {
        runner::run(self, options)
    }

    /// The phases, scans, fused transforms and kept rows, as text.
    pub fn explain(&self) -> String {
        explain::text(self)
    }

    /// The graph as a Mermaid flowchart, a group per phase.
    pub fn explain_mermaid(&self) -> String {
        explain::mermaid(self)
    }

    /// The schema of the rows that leave the node `id`; `None` if there is no such node, or no rows leave it.
    pub fn schema_of(&self, id: &str) -> Option<&SchemaRef> {
        let index: NodeIndex = self.graph.nodes.iter().position(|n| &*n.id == id)?;
        self.schemas[index].as_ref()
    }
}

#[cfg(test)]
mod tests;
