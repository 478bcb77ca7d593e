//! Saves a Predictor as a step of the graph that has learned it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mainstem_engine::artifact::{AnyArtifact, ArtifactId};
use mainstem_engine::trainer::Step;
use mainstem_engine::{Artifact, ArtifactRef, Artifacts, Description, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::Predictor;

type AsJson = Arc<dyn Fn(&Artifacts) -> Result<Value> + Send + Sync>;

/// Writes a Predictor into a folder, with measures in its manifest, and ends in what it wrote.
///
/// The folder is replaced whole; see [`Predictor::save`].
#[derive(Clone)]
pub struct SavePredictor {
    predictor: ArtifactRef<Predictor>,
    folder: PathBuf,
    metrics: Vec<(String, ArtifactId, AsJson)>,
}

impl SavePredictor {
    /// Of this Predictor into this folder.
    pub fn new(predictor: &ArtifactRef<Predictor>, folder: impl Into<PathBuf>) -> Self {
        Self {
            predictor: predictor.clone(),
            folder: folder.into(),
            metrics: Vec::new(),
        }
    }

    /// Adds what `measured` learns, such as an evaluation, to the manifest's metrics as `name`.
    #[must_use]
    pub fn metrics<T: Artifact + Serialize>(
        mut self,
        name: impl Into<String>,
        measured: &ArtifactRef<T>,
    ) -> Self {
        let reference = measured.clone();
        let as_json: AsJson =
            Arc::new(move |artifacts| Ok(serde_json::to_value(&*artifacts.get(&reference)?)?));
        self.metrics
            .push((name.into(), measured.id().clone(), as_json));
        self
    }
}

impl fmt::Debug for SavePredictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavePredictor")
            .field("predictor", &self.predictor)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Step for SavePredictor {
    fn describe(&self) -> Description {
        Description::new("save_predictor", json!({ "folder": self.folder }))
    }

    fn needs(&self) -> Vec<ArtifactId> {
        let metrics = self.metrics.iter().map(|(_, id, _)| id.clone());
        std::iter::once(self.predictor.id().clone())
            .chain(metrics)
            .collect()
    }

    fn run(&self, artifacts: &Artifacts) -> Result<AnyArtifact> {
        let mut predictor = (*artifacts.get(&self.predictor)?).clone();
        if !self.metrics.is_empty() {
            let measured = self
                .metrics
                .iter()
                .map(|(name, _, as_json)| Ok((name.clone(), as_json(artifacts)?)))
                .collect::<Result<serde_json::Map<String, Value>>>()?;
            predictor = predictor.with_metrics(Value::Object(measured));
        }
        predictor.save(&self.folder)?;
        Ok(Arc::new(predictor))
    }
}
