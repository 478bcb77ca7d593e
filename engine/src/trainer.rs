//! The contract of a trainer: an analyzer that may pass many times and ends in a model.

use std::fmt;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::artifact::{AnyArtifact, ArtifactId, Artifacts};
use crate::error::Result;
use crate::transform::Description;

/// Rows that can be read as often as a trainer likes, always in the same order.
///
/// The engine writes them as Arrow IPC files in split order, so the order does not depend on the
/// number of workers and the rows do not stay in memory.
pub trait TrainingRows: Send + Sync {
    /// The schema of every batch.
    fn schema(&self) -> SchemaRef;

    /// How many rows there are.
    fn n_rows(&self) -> u64;

    /// One pass over all rows, from the first.
    fn epoch(&self) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send + '_>;
}

/// What a trainer may use of the machine, and how it hears that the run has been given up.
pub trait TrainingContext: Send + Sync {
    /// How many threads the trainer may keep busy.
    fn n_threads(&self) -> usize;

    /// Fails when the run has failed or been stopped elsewhere: to be called at least once a second.
    ///
    /// # Errors
    /// The failure of the run.
    fn check(&self) -> Result<()>;

    /// Tells the user how far it is: `done` of `total` rows in all epochs together.
    fn progress(&self, done: u64, total: u64);
}

/// A step that learns a model from rows it may read many times.
///
/// The same rows, options and seed give the same model, byte for byte, with any number of threads.
pub trait Trainer: Send + Sync + fmt::Debug {
    /// What it is, for `explain()` and for the graph as data.
    fn describe(&self) -> Description;

    /// Checks the schema of the rows.
    ///
    /// # Errors
    /// A pipeline error that names the column, what was expected and what was found.
    fn check(&self, input: &SchemaRef) -> Result<()>;

    /// The artifacts that `train` reads.
    fn needs(&self) -> Vec<ArtifactId> {
        Vec::new()
    }

    /// The columns it reads; `None`, the default, is all. Only these are kept on disk for it.
    fn reads(&self) -> Option<Vec<String>> {
        None
    }

    /// Learns the model.
    ///
    /// # Errors
    /// If the rows cannot be learned from: none at all, a label that is null, a loss that is not a number.
    fn train(
        &self,
        artifacts: &Artifacts,
        rows: &dyn TrainingRows,
        context: &dyn TrainingContext,
    ) -> Result<AnyArtifact>;
}

/// A step over artifacts alone: it reads no rows and ends in another artifact.
pub trait Step: Send + Sync + fmt::Debug {
    /// What it is, for `explain()` and for the graph as data.
    fn describe(&self) -> Description;

    /// The artifacts it reads.
    fn needs(&self) -> Vec<ArtifactId>;

    /// Does the step, once, on the driver.
    ///
    /// # Errors
    /// If the artifacts do not fit, or what it writes cannot be written.
    fn run(&self, artifacts: &Artifacts) -> Result<AnyArtifact>;
}
