//! What a run has done, node by node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

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
    /// Rows of a source that were left out unread, since filters behind it need none of them; not in
    /// `rows_in`.
    pub pruned: u64,
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

impl RunReport {
    /// The counters of the node `id`, summed over the phases in which it ran.
    pub fn node(&self, id: &str) -> Option<NodeReport> {
        let nodes = self
            .phases
            .iter()
            .flat_map(|p| &p.nodes)
            .filter(|n| n.node == id);
        nodes.cloned().reduce(|a, b| NodeReport {
            rows_in: a.rows_in + b.rows_in,
            rows_out: a.rows_out + b.rows_out,
            filtered: a.filtered + b.filtered,
            rejected: a.rejected + b.rejected,
            late: a.late + b.late,
            pruned: a.pruned + b.pruned,
            bytes_in: a.bytes_in + b.bytes_in,
            batches: a.batches + b.batches,
            busy: a.busy + b.busy,
            ..a
        })
    }

    /// The report as JSON; durations are in seconds.
    pub fn to_json(&self) -> serde_json::Value {
        let published = |(node, p): &(String, Published)| serde_json::json!({ "node": node, "files": p.files, "rows": p.n_rows, "bytes": p.n_bytes });
        serde_json::json!({
            "pipeline": self.pipeline,
            "workers": self.workers,
            "wall_seconds": self.wall.as_secs_f64(),
            "phases": self.phases.iter().map(phase_to_json).collect::<Vec<_>>(),
            "published": self.published.iter().map(published).collect::<Vec<_>>(),
        })
    }
}

fn phase_to_json(phase: &PhaseReport) -> serde_json::Value {
    let nodes: Vec<_> = phase
        .nodes
        .iter()
        .map(|n| {
            serde_json::json!({
                "node": n.node, "kind": n.kind, "rows_in": n.rows_in, "rows_out": n.rows_out,
                "filtered": n.filtered, "rejected": n.rejected, "late": n.late, "pruned": n.pruned,
                "bytes_in": n.bytes_in, "batches": n.batches, "busy_seconds": n.busy.as_secs_f64(),
            })
        })
        .collect();
    serde_json::json!({
        "ends_in": phase.ends_in,
        "wall_seconds": phase.wall.as_secs_f64(),
        "peak_credit_bytes": phase.peak_credit_bytes,
        "nodes": nodes,
    })
}

/// A table: a line per phase and node, with rows, bytes and busy time.
impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header([
            "phase", "node", "kind", "rows in", "rows out", "filtered", "rejected", "MB in",
            "busy s",
        ]);
        for (number, phase) in self.phases.iter().enumerate() {
            for node in &phase.nodes {
                table.add_row([
                    (number + 1).to_string(),
                    node.node.clone(),
                    node.kind.clone(),
                    node.rows_in.to_string(),
                    node.rows_out.to_string(),
                    node.filtered.to_string(),
                    node.rejected.to_string(),
                    format!("{:.1}", node.bytes_in as f64 / 1e6),
                    format!("{:.2}", node.busy.as_secs_f64()),
                ]);
            }
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        let (wall, workers) = (self.wall.as_secs_f64(), self.workers);
        write!(
            f,
            "pipeline {:?}: {wall:.2} s with {workers} workers",
            self.pipeline
        )?;
        for (node, published) in &self.published {
            let (n_rows, n_files) = (published.n_rows, published.files.len());
            write!(f, "\n{node}: {n_rows} rows in {n_files} files")?;
        }
        Ok(())
    }
}
