//! What a run has done, node by node.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::artifact::{Artifact, ArtifactRef, Artifacts};
use crate::error::Result;
use crate::sink::Published;

/// What one node has done in one phase, over all workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeReport {
    /// The node's id.
    pub node: String,
    /// The node's kind.
    pub kind: String,
    /// Rows taken in; for a source, rows read.
    pub rows_in: u64,
    /// Rows pushed out of all ports, dead letters not counted.
    pub rows_out: u64,
    /// Rows left out on purpose.
    pub filtered: u64,
    /// Rows refused: dropped or dead letters.
    pub rejected: u64,
    /// Rows behind the allowed lateness.
    pub late: u64,
    /// Bytes of memory that the rows taken in fill.
    pub bytes_in: u64,
    /// Batches taken in.
    pub batches: u64,
    /// Time spent in the node, summed over workers.
    pub busy: Duration,
}

/// One phase of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PhaseReport {
    /// What the phase was for: the nodes it ended in.
    pub ends_in: Vec<String>,
    /// From its start to its end.
    pub wall: Duration,
    /// The nodes that were at work, in the order of the graph.
    pub nodes: Vec<NodeReport>,
    /// The most bytes that any source instance had in flight.
    pub peak_credit_bytes: u64,
}

/// What a run has done.
#[derive(Clone, Debug, Default)]
pub struct RunReport {
    /// The pipeline's name.
    pub pipeline: String,
    /// How many workers ran.
    pub workers: usize,
    /// From start to end.
    pub wall: Duration,
    /// The phases, in order.
    pub phases: Vec<PhaseReport>,
    /// What each sink has published, by node.
    pub published: Vec<(String, Published)>,
    /// What was learned.
    pub artifacts: Artifacts,
}

impl RunReport {
    /// What the node behind `reference` has learned.
    ///
    /// # Errors
    /// If the pipeline has no such node.
    pub fn artifact<T: Artifact>(&self, reference: &ArtifactRef<T>) -> Result<Arc<T>> {
        self.artifacts.get(reference)
    }
}
