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

pub mod analyzer;
pub mod artifact;
pub mod batch;
pub mod connectors;
mod error;
pub mod expression;
pub mod graph;
pub mod ops;
mod output;
mod pipeline;
mod plan;
mod predicate;
mod report;
mod runner;
pub mod sink;
pub mod source;
pub mod testing;
pub mod trainer;
pub mod transform;
mod windowing;

pub use analyzer::{Analysis, Analyzer};
pub use artifact::{Artifact, ArtifactId, ArtifactRef, Artifacts};
pub use batch::{BATCH_ROWS, Batch, RowPosition, SplitKey};
pub use error::{Error, Result};
pub use output::{DeadLetter, OnBadRow, Output, dead_letter_schema};
pub use pipeline::{Collection, Pipeline};
pub use plan::Plan;
pub use report::{NodeReport, PhaseReport, RunReport};
pub use runner::{Progress, RunOptions};
pub use sink::{Publication, Published, Sink, SinkWriter};
pub use source::{Position, RowsRead, Source, SourceProperties, Split, SplitReader};
pub use trainer::{Step, Trainer, TrainingContext, TrainingRows};
pub use transform::{Description, Distribution, Operator, Properties, Transform, Watermark};
pub use windowing::Windowing;

pub use datafusion_expr::{Expr, lit};
pub use expression::col;
