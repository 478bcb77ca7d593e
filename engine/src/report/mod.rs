//! What a run has done, node by node: as a table, as JSON, and as one HTML page.
//!
//! ```text
//!                  ┌─▶ text   Display, 100 columns
//! runner ─▶ RunReport ─▶ json   to_json(), stable names with units
//!                  └─▶ html   to_html(), one page without anything from outside
//! ```

mod html;
mod json;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod units;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::artifact::{Artifact, ArtifactRef, Artifacts};
use crate::error::{Error, Result};
use crate::sink::Published;

pub(crate) use text::shorten;
pub(crate) use write::check_place;

/// Which part a node plays in a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Rows come in.
    Source,
    /// Rows to rows.
    #[default]
    Transform,
    /// Stands for rows that an earlier phase kept on disk.
    Kept,
    /// Rows to an artifact, in one pass.
    Analysis,
    /// Rows to an artifact, in many passes.
    Trainer,
    /// Artifacts to an artifact.
    Step,
    /// Rows go out.
    Sink,
}

/// Where the rows of a node come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeInput {
    /// The id of the node that made them.
    pub from: String,
    /// The output they left by: the transform's own name for it, or `dead_letters`.
    pub port: String,
}

/// Where event time stands behind a node, over all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WatermarkReport {
    /// The watermark: all rows with an earlier event time have left, but for late ones; in milliseconds since
    /// 1970. `None` where there is none yet.
    pub at_ms: Option<i64>,
    /// How far it is behind the clock of the run.
    #[serde(rename = "lag_seconds", serialize_with = "as_seconds_if_known")]
    pub lag: Option<Duration>,
    /// Who holds it back: a source and its split, or the node that waits.
    pub held_back_by: String,
}

fn as_seconds_if_known<S: Serializer>(
    time: &Option<Duration>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.serialize_some(&time.as_secs_f64()),
        None => to.serialize_none(),
    }
}

impl WatermarkReport {
    /// How far it is behind the clock, in words.
    pub(crate) fn lag_in_words(&self) -> String {
        match self.lag {
            Some(lag) => units::duration(lag),
            None => "none yet".into(),
        }
    }
}

/// What one node has done in one phase, over all workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeReport {
    /// The node's id.
    pub node: String,
    /// The node's kind.
    pub kind: String,
    /// Which part it plays in the phase.
    pub role: Role,
    /// Its configuration, as `explain()` shows it; empty where it has none.
    pub config: String,
    /// The edges that end in it, in the order of its inputs.
    pub inputs: Vec<NodeInput>,
    /// The artifacts it reads.
    pub uses: Vec<String>,
    /// What happens to rows it cannot take: `fail`, `drop` or `dead_letter`.
    pub on_bad_row: String,
    /// Rows taken in; for a source, rows read; for a trainer, rows of all its passes.
    pub rows_in: u64,
    /// Rows pushed out of all ports, dead letters not counted.
    pub rows_out: u64,
    /// Rows left out on purpose.
    pub filtered: u64,
    /// Rows refused: dropped or dead letters.
    pub rejected: u64,
    /// Rows behind the allowed lateness.
    pub late: u64,
    /// Rows that stood behind the watermark where it is made, whether they were late in the end or not.
    pub behind: u64,
    /// Where event time stood behind the node; `None` where rows have none, or where none will come any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkReport>,
    /// Rows that a source did not read, because what it knows of them shows that nobody wants them.
    /// They are not among [`NodeReport::rows_in`].
    pub pruned: u64,
    /// Bytes of memory that the rows taken in fill.
    pub bytes_in: u64,
    /// Bytes of storage that a source has read; 0 where it does not tell.
    pub bytes_read: u64,
    /// Batches taken in.
    pub batches: u64,
    /// Time spent in the node, summed over workers.
    #[serde(rename = "busy_seconds", serialize_with = "as_seconds")]
    pub busy: Duration,
    /// The most bytes that the node kept between calls, over all workers.
    pub peak_state_bytes: u64,
}

fn as_seconds<S: Serializer>(time: &Duration, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

/// One phase of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PhaseReport {
    /// What the phase was for: the nodes it ended in.
    pub ends_in: Vec<String>,
    /// When it began, counted from the start of the run.
    #[serde(rename = "started_seconds", serialize_with = "as_seconds")]
    pub started: Duration,
    /// From its start to its end.
    #[serde(rename = "wall_seconds", serialize_with = "as_seconds")]
    pub wall: Duration,
    /// The nodes that were at work: steps, then the dataflow, each in the order of the graph.
    pub nodes: Vec<NodeReport>,
    /// The most bytes that any instance of a source had in flight, or of an operator that makes rows in lots.
    pub peak_credit_bytes: u64,
}

/// Rows that a node has let through, along the time line.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Series {
    /// The node's id.
    pub node: String,
    /// The phase, from 1.
    pub phase: usize,
    /// A source, kept rows, a trainer or a sink.
    pub role: Role,
    /// All rows until each moment of [`TimeLine::at`].
    pub rows: Vec<u64>,
}

/// How a run went on, looked at from time to time: at most 240 moments, however long it ran.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeLine {
    /// The moments, counted from the start of the run.
    pub at: Vec<Duration>,
    /// The memory of the whole process at each moment, in bytes; 0 where the system does not tell.
    pub memory_bytes: Vec<u64>,
    /// The rows of each source, trainer and sink in each phase.
    pub series: Vec<Series>,
}

/// The machine of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Cores that the process may use.
    pub cores: usize,
    /// Memory that the process may use: of the machine, or of its control group where that is less.
    pub memory_bytes: u64,
    /// The operating system, such as `linux`.
    pub system: String,
    /// The processor's architecture, such as `x86_64`.
    pub architecture: String,
}

/// A file that a sink has published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PublishedFile {
    /// The path or the address.
    pub path: PathBuf,
    /// Its size, where it could be asked for.
    pub bytes: Option<u64>,
}

/// What a run has done, or had done when it failed.
///
/// Prints as a table of at most 100 columns. [`RunReport::to_json`] is for programs,
/// [`RunReport::write_html`] for people.
#[derive(Clone, Debug, Default)]
pub struct RunReport {
    /// The pipeline's name.
    pub pipeline: String,
    /// How many workers ran.
    pub workers: usize,
    /// When it started, by the clock on the wall; `None` where no run has taken place.
    pub started: Option<SystemTime>,
    /// From start to end.
    pub wall: Duration,
    /// Why it failed. A run that fails returns its error; a report of it is only found in the files
    /// that [`RunOptions::report_html`](crate::RunOptions::report_html) names.
    pub error: Option<Error>,
    /// The phases, in order; of a failed run, those that had begun.
    pub phases: Vec<PhaseReport>,
    /// What each sink has published, by node.
    pub published: Vec<(String, Published)>,
    /// The files of [`RunReport::published`], by node, with the sizes of local ones.
    pub files: Vec<(String, Vec<PublishedFile>)>,
    /// How the run went on.
    pub time_line: TimeLine,
    /// The most memory that the whole process was seen to use during the run; 0 where the system
    /// does not tell.
    pub peak_memory_bytes: u64,
    /// The options of the run, by name.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// The machine.
    pub machine: Machine,
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

    /// The counters of the node `id`, summed over the phases in which it ran; of its state, the most.
    pub fn node(&self, id: &str) -> Option<NodeReport> {
        let nodes = self.nodes().map(|(_, n)| n).filter(|n| n.node == id);
        nodes.cloned().reduce(|a, b| NodeReport {
            rows_in: a.rows_in + b.rows_in,
            rows_out: a.rows_out + b.rows_out,
            filtered: a.filtered + b.filtered,
            rejected: a.rejected + b.rejected,
            late: a.late + b.late,
            behind: a.behind + b.behind,
            watermark: b.watermark.or(a.watermark),
            pruned: a.pruned + b.pruned,
            bytes_in: a.bytes_in + b.bytes_in,
            bytes_read: a.bytes_read + b.bytes_read,
            batches: a.batches + b.batches,
            busy: a.busy + b.busy,
            peak_state_bytes: a.peak_state_bytes.max(b.peak_state_bytes),
            ..a
        })
    }

    /// Rows that all sources have read, in all phases together.
    pub fn rows_read(&self) -> u64 {
        self.of_sources(|n| n.rows_in)
    }

    /// Bytes of storage that all sources have read, in all phases together; sources that do not tell
    /// are not counted.
    pub fn bytes_read(&self) -> u64 {
        self.of_sources(|n| n.bytes_read)
    }

    /// Rows that any node has refused, in all phases together.
    pub fn rejected(&self) -> u64 {
        self.nodes().map(|(_, n)| n.rejected).sum()
    }

    /// The node whose watermark is the furthest behind, with the number of its phase, from 1.
    ///
    /// `None` where rows have no event time, or none will come any more. Of equal ones the first.
    pub fn furthest_behind(&self) -> Option<(usize, &NodeReport)> {
        let at = |n: &NodeReport| n.watermark.as_ref().map(|w| w.at_ms);
        let known = self.nodes().filter(|(_, n)| n.watermark.is_some());
        known.reduce(|a, b| if at(b.1) < at(a.1) { b } else { a })
    }

    /// The node that was busy the longest in one phase, with the number of the phase, from 1.
    ///
    /// `None` if nothing was busy. Of equal ones the first.
    pub fn slowest(&self) -> Option<(usize, &NodeReport)> {
        let busy = self.nodes().filter(|(_, n)| !n.busy.is_zero());
        busy.reduce(|a, b| if b.1.busy > a.1.busy { b } else { a })
    }

    /// The busy time of all nodes in all phases.
    pub fn busy(&self) -> Duration {
        self.nodes().map(|(_, n)| n.busy).sum()
    }

    /// A node's part of [`RunReport::busy`], from 0 to 1.
    pub fn busy_share(&self, node: &NodeReport) -> f64 {
        let all = self.busy().as_secs_f64();
        if all > 0.0 {
            node.busy.as_secs_f64() / all
        } else {
            0.0
        }
    }

    fn of_sources(&self, of: impl Fn(&NodeReport) -> u64) -> u64 {
        let sources = self.nodes().filter(|(_, n)| n.role == Role::Source);
        sources.map(|(_, n)| of(n)).sum()
    }

    /// All nodes of all phases, with the number of the phase, from 1.
    fn nodes(&self) -> impl Iterator<Item = (usize, &NodeReport)> {
        let phases = self.phases.iter().enumerate();
        phases.flat_map(|(i, phase)| phase.nodes.iter().map(move |n| (i + 1, n)))
    }

    /// True for the node of this phase that [`RunReport::slowest`] names.
    fn is_slowest(&self, phase: usize, node: &NodeReport) -> bool {
        self.slowest()
            .is_some_and(|(p, n)| p == phase && n.node == node.node)
    }
}

impl NodeReport {
    /// Rows taken in for each second in which the node was busy: its own speed on one core.
    fn rate(&self) -> String {
        if self.rows_in == 0 {
            return "-".into();
        }
        units::rate(self.rows_in, self.busy)
    }
}
