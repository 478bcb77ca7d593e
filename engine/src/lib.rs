//! The dataflow engine of Mainstem: a graph as data, a plan in phases, and a runner.
//!
//! ```text
//!  Pipeline ──▶ Graph ──▶ Plan ──▶ Runner (timely, N workers) ──▶ RunReport
//!                          │ all errors together, before a file is read
//! ```
//!
//! The engine knows nothing of machine learning. It knows seven nouns, each a trait:
//! [`Source`], [`Transform`], [`Analysis`] (an [`Analyzer`] in a graph), [`Trainer`], [`Step`], [`Sink`],
//! and [`Operator`], a transform at work on one worker.
//!
//! # What it traces
//! Spans are nested `run` (field `pipeline`) > `phase` (`number`) > `node` (`id`). Events are, by level:
//! `warn` what went wrong and did not stop the run; `info` the beginning and the totals of a run, and the
//! totals of each phase; `debug` each split that is opened, and the totals of each node; `trace` a `node` span
//! for each call of a node, so nothing is traced per batch at a higher level. An error that ends a run is
//! returned, and is not logged as an error too.

pub mod aggregates;
pub mod analyzer;
pub mod artifact;
pub mod batch;
pub mod changelog;
pub mod connectors;
mod error;
pub mod event_time;
pub mod expression;
pub mod graph;
pub mod incremental;
mod keys;
pub mod ops;
mod output;
mod pipeline;
mod plan;
mod predicate;
#[cfg(feature = "prometheus")]
pub mod prometheus;
mod report;
mod runner;
mod running;
pub mod sink;
pub mod source;
pub mod state;
pub mod testing;
pub mod trainer;
pub mod transform;
pub mod windowing;

pub use analyzer::{Analysis, Analyzer};
pub use artifact::{Artifact, ArtifactId, ArtifactRef, Artifacts};
pub use batch::{BATCH_ROWS, Batch, RowPosition, RowUnit, SplitKey};
pub use error::{Error, Result};
pub use incremental::{GroupedRelation, Iterate, Relation};
pub use output::{DeadLetter, OnBadRow, Output, dead_letter_schema};
pub use pipeline::{Collection, Pipeline};
pub use plan::{Learned, Lowered, Place, Plan, Size};
pub use report::{
    Machine, NodeInput, NodeReport, PhaseReport, PublishedFile, Role, RunReport, Series, TimeLine,
    WatermarkReport,
};
pub use runner::{CancelToken, Clock, Progress, RunOptions};
pub use running::Running;
pub use sink::{Publication, Published, Sink, SinkWriter};
pub use source::{Lines, Position, RowsRead, Source, SourceProperties, Split, SplitReader, Wake};
pub use state::StatePart;
pub use trainer::{Step, Trainer, TrainingContext, TrainingRows};
pub use transform::{
    ChangeTimes, Description, Distribution, OnChangelog, Operator, Properties, SplitEvent,
    Transform, Watermark,
};
pub use windowing::{Accumulation, Trigger, Window, WindowFn, Windowing};

#[cfg(feature = "datafusion")]
pub use datafusion;
pub use datafusion_expr::{Expr, lit};
pub use expression::col;
