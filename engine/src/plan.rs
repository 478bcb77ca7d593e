//! Checks a graph and divides it into phases.

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::report::RunReport;
use crate::runner::RunOptions;

/// A checked graph.
#[derive(Debug)]
pub struct Plan {
    graph: Graph,
}

impl Plan {
    pub(crate) fn new(graph: Graph) -> Result<Self> {
        Ok(Self { graph })
    }

    /// Runs the plan.
    ///
    /// # Errors
    /// The first failure.
    pub fn run(&self, _options: &RunOptions) -> Result<RunReport> {
        Err(Error::bug(format!("{:?} has no runner", self.graph)))
    }
}
