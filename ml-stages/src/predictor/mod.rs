//! A Predictor: fitted preprocessing, a model and what both promise, in memory and as one folder.
//!
//! ```text
//!  FittedPreprocess ─┐                              manifest.json    schema, hashes, metrics
//!  TrainedModel ─────┼─ assemble ─▶ Predictor ─ save ─▶ preprocess.json  the fitted preprocessing
//!  golden rows ──────┘                 ▲            model.onnx       features to score
//!                                      └── load ─── fused.onnx       raw columns to features and score
//!                                       (replays)   golden.arrow     rows with their features and scores
//! ```

mod assemble;
mod features;
mod folder;
mod golden;
mod golden_rows;
mod manifest;
mod save;
mod session;
#[cfg(test)]
pub(crate) mod tests;
mod tolerance;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use mainstem_engine::{
    ArtifactRef, Artifacts, BATCH_ROWS, Batch, OnBadRow, Output, Result, Transform,
};
use mainstem_transforms::FittedPreprocess;

use crate::onnx::{InferenceBackend, InferenceSession};
use crate::predict::Predict;

pub use assemble::AssemblePredictor;
pub use golden_rows::GoldenRows;
pub use manifest::{FORMAT_VERSION, Golden, Manifest, NullAs, OnnxType, RawInput};
pub use save::SavePredictor;
pub use tolerance::SCORE_TOLERANCE;

pub(crate) use features::{Features, check_inputs, feature_at, missing, raw_columns, write_matrix};
pub(crate) use session::LentSession;
pub(crate) use tolerance::relative_difference;

/// The name of the score column, where no other is asked for.
pub const PREDICTION_COLUMN: &str = "prediction";

/// Rows given to a model at once.
const MINIBATCH_ROWS: usize = BATCH_ROWS;

const PREPROCESS_FILE: &str = "preprocess.json";
const MODEL_FILE: &str = "model.onnx";
const FUSED_FILE: &str = "fused.onnx";
const GOLDEN_FILE: &str = "golden.arrow";

/// Fitted preprocessing and a model, ready to predict. Cloning is cheap.
///
/// Null and NaN in raw columns follow the preprocessing; a row that still lacks a feature after it has
/// no prediction: it is a bad row, never a null.
#[derive(Clone)]
pub struct Predictor {
    manifest: Arc<Manifest>,
    core: Arc<Core>,
}

struct Core {
    fitted: FittedPreprocess,
    golden: RecordBatch,
    /// The bytes of every file of the folder but the manifest.
    files: BTreeMap<String, Vec<u8>>,
    backend: Arc<dyn InferenceBackend>,
    /// Sessions that nobody uses; the lock is held to take one or give it back, never to run it.
    idle: Mutex<Vec<Box<dyn InferenceSession>>>,
}

impl Predictor {
    /// The same Predictor with these measures in its manifest.
    #[must_use]
    pub fn with_metrics(self, metrics: serde_json::Value) -> Self {
        let manifest = Manifest {
            metrics,
            ..(*self.manifest).clone()
        };
        Self {
            manifest: Arc::new(manifest),
            ..self
        }
    }

    /// The rows with their score in the column [`PREDICTION_COLUMN`], by the very operator that
    /// predicts in pipelines.
    ///
    /// # Errors
    /// A pipeline error if a raw column is missing or of another type, and a data error, with the row,
    /// if a row lacks a feature.
    pub fn predict_batch(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let reference = ArtifactRef::<Predictor>::new("predictor");
        let mut artifacts = Artifacts::none();
        artifacts.insert("predictor", Arc::new(self.clone()));
        let predict = Predict::new(reference).inputs(self.fitted().input_schema());
        let schema = predict.output_schema(&[rows.schema()])?;
        let mut operator = predict.build(&artifacts)?;
        let mut out = Output::new(OnBadRow::Fail);
        operator.on_batch(0, Batch::new(rows.clone()), &mut out)?;
        let made: Vec<RecordBatch> = out
            .take()
            .into_iter()
            .map(|(_, b)| b.rows().clone())
            .collect();
        match made.as_slice() {
            [one] => Ok(one.clone()),
            many => Ok(concat_batches(&schema, many)?),
        }
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The name of the back-end that scores, with its version.
    pub fn backend_name(&self) -> String {
        self.core.backend.name()
    }

    /// The preprocessing.
    pub fn fitted(&self) -> &FittedPreprocess {
        &self.core.fitted
    }

    /// The golden rows: raw columns, `features` and `prediction`.
    pub fn golden(&self) -> &RecordBatch {
        &self.core.golden
    }

    /// The bytes of `model.onnx`: from the feature matrix to the score.
    pub fn model_onnx(&self) -> &[u8] {
        self.file(MODEL_FILE).unwrap_or_default()
    }

    /// The bytes of `fused.onnx`: from raw columns to features and score; `None` where it could not be
    /// written, for the reason in the manifest.
    pub fn fused_onnx(&self) -> Option<&[u8]> {
        self.file(FUSED_FILE)
    }

    /// True if both have one preprocessing and one model.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core) || self.core.files == other.core.files
    }

    fn file(&self, name: &str) -> Option<&[u8]> {
        self.core.files.get(name).map(Vec::as_slice)
    }

    pub(crate) fn backend(&self) -> &Arc<dyn InferenceBackend> {
        &self.core.backend
    }

    /// A session for one caller, ready from an earlier use or loaded now.
    pub(crate) fn session(&self) -> Result<LentSession> {
        let idle = self.idle().pop();
        let session = match idle {
            Some(session) => session,
            None => self.core.backend.load(self.model_onnx())?,
        };
        Ok(LentSession::new(self.clone(), session))
    }

    fn give_back(&self, session: Box<dyn InferenceSession>) {
        self.idle().push(session);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn InferenceSession>>> {
        self.core
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Predictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Predictor")
            .field("model_kind", &self.manifest.model_kind)
            .field("backend", &self.backend_name())
            .finish_non_exhaustive()
    }
}
