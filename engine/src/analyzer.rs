//! The contract of an analyzer: a full pass over rows that ends in an artifact.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::artifact::{AnyArtifact, Artifact, ArtifactId, Artifacts};
use crate::error::{Error, Result};
use crate::transform::Description;

/// A full pass over rows that ends in an [`Artifact`].
///
/// The engine keeps one accumulator per split and merges them in split order, so the result does not
/// depend on the number of workers. Laws, kept by the conformance suite: `merge` is associative, a fresh
/// accumulator is neutral, and `load(save(a))` is `a`.
pub trait Analyzer: Send + Sync + fmt::Debug {
    /// What has been seen so far.
    type Accumulator: Send + 'static;
    /// What is learned.
    type Output: Artifact;

    /// An accumulator that has seen nothing.
    fn create_accumulator(&self) -> Self::Accumulator;

    /// Takes in rows.
    ///
    /// # Errors
    /// If a row cannot be taken in.
    fn add(&self, accumulator: &mut Self::Accumulator, rows: &RecordBatch) -> Result<()>;

    /// Takes in what another accumulator has seen, as if it came after.
    ///
    /// # Errors
    /// If the two do not fit.
    fn merge(&self, accumulator: &mut Self::Accumulator, other: Self::Accumulator) -> Result<()>;

    /// The artifact.
    ///
    /// # Errors
    /// If too little was seen to learn anything.
    fn finish(&self, accumulator: Self::Accumulator) -> Result<Self::Output>;

    /// How many bytes of memory an accumulator keeps, about, beyond its own fields.
    ///
    /// The engine holds the sum of all against the memory budget of the run. It asks after every batch,
    /// so this must not walk through the state. 0, the default, is for accumulators of a fixed size.
    fn accumulator_bytes(&self, _accumulator: &Self::Accumulator) -> u64 {
        0
    }

    /// How many bytes of memory the artifact keeps, about; 0, the default, is for small ones.
    ///
    /// The engine holds it against the memory budget of the run, to its end.
    fn artifact_bytes(&self, _artifact: &Self::Output) -> u64 {
        0
    }

    /// The accumulator as rows, for snapshots and refits.
    ///
    /// # Errors
    /// If it cannot be written down.
    fn save(&self, accumulator: &Self::Accumulator) -> Result<RecordBatch>;

    /// The accumulator that [`Analyzer::save`] gave.
    ///
    /// # Errors
    /// If the rows are not of this analyzer.
    fn load(&self, saved: &RecordBatch) -> Result<Self::Accumulator>;

    /// Takes rows out again that were added before.
    ///
    /// # Errors
    /// A pipeline error where the analyzer cannot forget, which is the default.
    fn retract(&self, _accumulator: &mut Self::Accumulator, _rows: &RecordBatch) -> Result<()> {
        Err(
            Error::pipeline(format!("{self:?} cannot take rows out again"))
                .with_hint("Fit anew on the rows that are left."),
        )
    }
}

/// An accumulator whose type only its analyzer knows.
pub type AnyAccumulator = Box<dyn Any + Send>;

/// An [`Analyzer`] with its types erased; every analyzer is one.
pub trait DynAnalyzer: Send + Sync + fmt::Debug {
    /// See [`Analyzer::create_accumulator`].
    fn create(&self) -> AnyAccumulator;
    /// See [`Analyzer::add`].
    ///
    /// # Errors
    /// As [`Analyzer::add`].
    fn add_rows(&self, accumulator: &mut AnyAccumulator, rows: &RecordBatch) -> Result<()>;
    /// See [`Analyzer::merge`].
    ///
    /// # Errors
    /// As [`Analyzer::merge`].
    fn merge_with(&self, accumulator: &mut AnyAccumulator, other: AnyAccumulator) -> Result<()>;
    /// See [`Analyzer::accumulator_bytes`].
    fn bytes_of(&self, accumulator: &AnyAccumulator) -> u64;
    /// See [`Analyzer::finish`].
    ///
    /// # Errors
    /// As [`Analyzer::finish`].
    fn finish_any(&self, accumulator: AnyAccumulator) -> Result<AnyArtifact>;
    /// See [`Analyzer::artifact_bytes`].
    fn bytes_of_artifact(&self, artifact: &AnyArtifact) -> u64;
}

fn foreign() -> Error {
    Error::bug("an accumulator was given to another analyzer")
}

impl<A: Analyzer> DynAnalyzer for A {
    fn create(&self) -> AnyAccumulator {
        Box::new(self.create_accumulator())
    }

    fn add_rows(&self, accumulator: &mut AnyAccumulator, rows: &RecordBatch) -> Result<()> {
        self.add(accumulator.downcast_mut().ok_or_else(foreign)?, rows)
    }

    fn merge_with(&self, accumulator: &mut AnyAccumulator, other: AnyAccumulator) -> Result<()> {
        let other = other.downcast().map_err(|_| foreign())?;
        self.merge(accumulator.downcast_mut().ok_or_else(foreign)?, *other)
    }

    fn bytes_of(&self, accumulator: &AnyAccumulator) -> u64 {
        accumulator
            .downcast_ref()
            .map_or(0, |a| self.accumulator_bytes(a))
    }

    fn finish_any(&self, accumulator: AnyAccumulator) -> Result<AnyArtifact> {
        let accumulator = accumulator.downcast().map_err(|_| foreign())?;
        Ok(Arc::new(self.finish(*accumulator)?))
    }

    fn bytes_of_artifact(&self, artifact: &AnyArtifact) -> u64 {
        artifact
            .downcast_ref()
            .map_or(0, |a| self.artifact_bytes(a))
    }
}

/// A node of the graph that learns by one full pass: it checks itself, and builds its analyzer from
/// what earlier phases have learned.
pub trait Analysis: Send + Sync + fmt::Debug {
    /// What it is, for `explain()` and for the graph as data.
    fn describe(&self) -> Description;

    /// Checks the schema of the rows.
    ///
    /// # Errors
    /// A pipeline error that names the column, what was expected and what was found.
    fn check(&self, input: &SchemaRef) -> Result<()>;

    /// The artifacts that `build` reads.
    fn needs(&self) -> Vec<ArtifactId> {
        Vec::new()
    }

    /// The columns it reads; `None`, the default, is all. Sources then read no others.
    fn reads(&self) -> Option<Vec<String>> {
        None
    }

    /// The analyzer.
    ///
    /// # Errors
    /// If the artifacts do not fit.
    fn build(&self, artifacts: &Artifacts) -> Result<Arc<dyn DynAnalyzer>>;
}
