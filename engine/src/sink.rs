//! The contract of a sink: where rows go, published whole or not at all.

use std::fmt;
use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::transform::Description;

/// What a sink has published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The files, in order, as paths or URLs; empty for a sink without files.
    pub files: Vec<PathBuf>,
    /// How many rows they hold.
    pub n_rows: u64,
    /// How many bytes they take.
    pub n_bytes: u64,
}

/// Where rows go.
///
/// ```text
/// begin ──▶ writer(0) write* finish ─┐
///      └──▶ writer(1) write* finish ─┴─▶ commit        (all or nothing)
///                         any failure ──▶ abort
/// ```
pub trait Sink: Send + Sync + fmt::Debug {
    /// What it is, for `explain()` and for the graph as data.
    fn describe(&self) -> Description;

    /// The place it fills, told in such a way that equal places are equal, and that a place in another one begins with
    /// that and a slash. Two sinks of a pipeline must not fill one place, nor one of them a place in the other's.
    ///
    /// `None`, the default, where each sink has a place of its own.
    fn place(&self) -> Option<String> {
        None
    }

    /// Checks that rows of this schema can be written.
    ///
    /// # Errors
    /// A pipeline error that names the column it cannot write.
    fn accepts(&self, schema: &SchemaRef) -> Result<()>;

    /// Nothing of it can be seen before the run ends, so that it is refused where the rows never do.
    fn publishes_at_end(&self) -> bool {
        false
    }

    /// True if it takes a changelog as it is, with the column `diff`; one that does not take rows back is
    /// refused such rows while planning. False by default.
    fn takes_changes(&self) -> bool {
        false
    }

    /// Starts one publication, before the first row is read.
    ///
    /// # Errors
    /// If the place cannot be written to, or already holds something that must stay.
    fn begin(&self, schema: &SchemaRef) -> Result<Box<dyn Publication>>;
}

/// One publication under way: nothing of it can be seen until [`Publication::commit`].
pub trait Publication: Send + Sync {
    /// The writer of one worker. Called once per worker.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn writer(&self, worker: usize) -> Result<Box<dyn SinkWriter>>;

    /// Makes all that was written visible at once.
    ///
    /// # Errors
    /// If it cannot; nothing is visible then.
    fn commit(&self) -> Result<Published>;

    /// Removes all that was written. Called after a failure; what cannot be removed stays hidden.
    fn abort(&self);
}

/// The writer of one worker.
pub trait SinkWriter: Send {
    /// True if writing waits for no other machine nor program: a worker may do it itself then, where it reads such
    /// rows. False, the default, is always safe.
    fn at_hand(&self) -> bool {
        false
    }

    /// Writes rows.
    ///
    /// # Errors
    /// Ends the run, and the publication is aborted.
    fn write(&mut self, rows: &RecordBatch) -> Result<()>;

    /// How many bytes of memory the writer keeps, about, such as rows of a group that is not full yet.
    ///
    /// The engine asks after every call and holds it against the memory budget of the run.
    fn buffered_bytes(&self) -> u64 {
        0
    }

    /// Closes what is open; called once, after the last row.
    ///
    /// # Errors
    /// As [`SinkWriter::write`].
    fn finish(&mut self) -> Result<()>;
}
