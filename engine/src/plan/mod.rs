//! A checked graph, divided into phases.
//!
//! ```text
//! Graph ──check──▶ schemas of all edges ──lower──▶ joins as two nodes ──phases──▶ 1: steps, one dataflow, trainers
//!                  (all errors together)                                          2: steps, one dataflow, trainers ...
//! ```

mod change_times;
mod check;
mod encoding;
mod explain;
mod lower;
mod outline;
mod phases;
mod places;
mod ports;
mod projection;
mod pruning;
mod streaming;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::graph::{Graph, NodeIndex};
use crate::report::RunReport;
use crate::runner::{self, RunOptions};

pub use lower::{Learned, Lowered, Place, Size};
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
        let schemas = check::check(&graph).map_err(|e| e.in_graph(&graph))?;
        let lowered = |narrow| {
            let lowered = lower::lower(&graph, &schemas, narrow);
            Ok(Self::divide(
                lowered.map_err(|e: Error| e.in_graph(&graph))?,
            ))
        };
        let narrow = lowered(true)?;
        // Where fewer columns do not go together in one phase, no node may leave any out.
        let fits = |plan: &Self| plan.phases.iter().all(|p| !p.projection.all_columns);
        if fits(&narrow) {
            return Ok(narrow);
        }
        lowered(false)
    }

    fn divide((graph, schemas): lower::Checked) -> Self {
        let phases = phases::divide(&graph, &schemas);
        Self {
            graph: Arc::new(graph),
            schemas,
            phases,
        }
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

    /// [`Plan::explain`], after what the options mean for this plan: workers, memory budget, and how much of
    /// it each source may have in flight.
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, connectors, testing::table};
    /// let pipeline = Pipeline::new("births");
    /// let (sink, _) = connectors::collect();
    /// pipeline.read("births", connectors::from_record_batches(vec![table("age: 30")])).write(sink);
    /// let options = RunOptions::new().workers(2).memory_bytes(100_000_000);
    /// let text = pipeline.plan()?.explain_with(&options);
    /// assert!(text.starts_with(
    ///     "2 workers, memory budget 100 MB\n  \
    ///      phase 1: at most 25 MB of rows in flight, 12.5 MB for each source and worker\n\n\
    ///      pipeline \"births\": 1 phase\n"
    /// ));
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    pub fn explain_with(&self, options: &RunOptions) -> String {
        format!("{}\n{}", runner::explain(self, options), self.explain())
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
