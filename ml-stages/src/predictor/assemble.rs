//! Puts a Predictor together from what was learned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::record_batch::RecordBatch;
use mainstem_engine::artifact::{AnyArtifact, ArtifactId};
use mainstem_engine::trainer::Step;
use mainstem_engine::{ArtifactRef, Artifacts, Description, Error, Result};
use mainstem_transforms::FittedPreprocess;
use mainstem_transforms::onnx_graph::OnnxGraph;
use serde_json::{Value, json};

use super::folder::sha256;
use super::golden::{golden_rows, to_ipc, usable_rows};
use super::manifest::{FORMAT_VERSION, Golden, Manifest, raw_inputs};
use super::{
    Core, FUSED_FILE, Features, GOLDEN_FILE, MINIBATCH_ROWS, MODEL_FILE, PREPROCESS_FILE, Predictor,
};
use crate::model::{Task, TrainedModel};
use crate::onnx::{Backend, FUSED_PREFIX, encode, fuse};

impl Predictor {
    /// Puts preprocessing and model together, and scores the golden rows with `backend`.
    ///
    /// `golden` holds raw rows; those that lack a feature are left out.
    ///
    /// # Errors
    /// If the model takes other features than the preprocessing gives, if no golden row has all
    /// features, or if the back-end does not run the model.
    pub fn assemble(
        fitted: &FittedPreprocess,
        model: &TrainedModel,
        golden: &RecordBatch,
        backend: Backend,
    ) -> Result<Predictor> {
        if fitted.layout() != &model.layout {
            return Err(Error::pipeline(format!(
                "the model {:?} takes other features than the preprocessing gives",
                model.kind
            ))
            .with_hint("Assemble it with the preprocessing that it was trained on."));
        }
        if fitted.layout().width() == 0 {
            return Err(Error::pipeline("the preprocessing gives no feature"));
        }
        let backend = backend.resolve()?;
        let metadata = BTreeMap::from([
            ("mainstem.model_kind".to_owned(), model.kind.to_owned()),
            ("mainstem.preprocess".to_owned(), fitted.fingerprint()),
        ]);
        let (fused, inputs, fused_refused) = match fused_graph(fitted, model) {
            Ok((graph, inputs)) => (Some(encode(&graph, "fused", &metadata)), inputs, None),
            Err(error) if error.is_bug() => return Err(error),
            Err(error) => (
                None,
                raw_inputs(fitted, None)?,
                Some(error.message().to_owned()),
            ),
        };
        let (raw, features) = usable_rows(fitted, golden)?;
        let mut files = BTreeMap::from([
            (
                PREPROCESS_FILE.to_owned(),
                serde_json::to_vec_pretty(fitted)?,
            ),
            (
                MODEL_FILE.to_owned(),
                encode(&model.graph, "model", &metadata),
            ),
        ]);
        files.extend(fused.map(|bytes| (FUSED_FILE.to_owned(), bytes)));
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            created_by: concat!("mainstem ", env!("CARGO_PKG_VERSION")).into(),
            model_kind: model.kind.into(),
            task: model.task,
            inputs,
            layout: fitted.layout().clone(),
            preprocess_fingerprint: fitted.fingerprint(),
            minibatch_rows: MINIBATCH_ROWS,
            losses: model.losses.clone(),
            metrics: Value::Null,
            golden: Golden {
                n_rows: raw.num_rows(),
                backend: backend.name(),
                score_floor: 0.0,
            },
            fused_refused,
            files: BTreeMap::new(),
        };
        let draft = Predictor {
            manifest: Arc::new(manifest),
            core: Arc::new(Core {
                fitted: fitted.clone(),
                golden: raw.slice(0, 0),
                files,
                backend,
                idle: Mutex::default(),
            }),
        };
        draft.with_golden(&raw, &features)
    }

    /// The Predictor with golden rows scored by its own session.
    fn with_golden(self, raw: &RecordBatch, features: &Features) -> Result<Predictor> {
        let scores = self.session()?.scores(features.values())?;
        if let Some(row) = scores.iter().position(|s| s.is_nan()) {
            return Err(Error::data(format!(
                "the model gives no number for golden row {row}"
            )));
        }
        let mut manifest = (*self.manifest).clone();
        manifest.golden.score_floor = score_floor(manifest.task, &scores);
        let golden = golden_rows(raw, features, scores)?;
        let mut files = self.core.files.clone();
        files.insert(GOLDEN_FILE.into(), to_ipc(&golden)?);
        manifest.files = files
            .iter()
            .map(|(name, bytes)| (name.clone(), sha256(bytes)))
            .collect();
        Ok(Predictor {
            manifest: Arc::new(manifest),
            core: Arc::new(Core {
                fitted: self.core.fitted.clone(),
                golden,
                files,
                backend: Arc::clone(&self.core.backend),
                idle: Mutex::new(std::mem::take(&mut *self.idle())),
            }),
        })
    }
}

fn fused_graph(
    fitted: &FittedPreprocess,
    model: &TrainedModel,
) -> Result<(OnnxGraph, Vec<super::RawInput>)> {
    let mut graph = OnnxGraph::with_prefix(FUSED_PREFIX);
    let matrix = fitted.to_onnx(&mut graph)?;
    let inputs = raw_inputs(fitted, Some(&graph))?;
    let fused = fuse(graph, &matrix, fitted.layout().width(), &model.graph)?;
    Ok((fused, inputs))
}

fn score_floor(task: Task, scores: &[f32]) -> f64 {
    match task {
        Task::BinaryClassification => 0.0,
        Task::Regression => {
            let sum: f64 = scores.iter().map(|s| f64::from(s.abs())).sum();
            sum / scores.len().max(1) as f64
        }
    }
}

/// Assembles a Predictor from what earlier phases of the graph have learned.
#[derive(Clone, Debug)]
pub struct AssemblePredictor {
    fitted: ArtifactRef<FittedPreprocess>,
    model: ArtifactRef<TrainedModel>,
    golden: ArtifactRef<RecordBatch>,
    backend: Backend,
    columns: Option<Vec<String>>,
}

impl AssemblePredictor {
    /// Of this preprocessing and this model, with golden rows from [`GoldenRows`](super::GoldenRows).
    pub fn new(
        fitted: &ArtifactRef<FittedPreprocess>,
        model: &ArtifactRef<TrainedModel>,
        golden: &ArtifactRef<RecordBatch>,
    ) -> Self {
        Self {
            fitted: fitted.clone(),
            model: model.clone(),
            golden: golden.clone(),
            backend: Backend::Auto,
            columns: None,
        }
    }

    /// Tells which raw columns the preprocessing reads, where that is known before it is fitted.
    #[must_use]
    pub fn columns(mut self, columns: Option<Vec<String>>) -> Self {
        self.columns = columns;
        self
    }

    /// Sets the back-end that scores the golden rows, and later the rows of this graph.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }
}

impl Step for AssemblePredictor {
    fn describe(&self) -> Description {
        let backend = self.backend.to_string();
        let config = json!({ "backend": backend, "columns": self.columns });
        Description::new("assemble_predictor", config)
    }

    fn needs(&self) -> Vec<ArtifactId> {
        vec![
            self.fitted.id().clone(),
            self.model.id().clone(),
            self.golden.id().clone(),
        ]
    }

    fn run(&self, artifacts: &Artifacts) -> Result<AnyArtifact> {
        let (fitted, model) = (artifacts.get(&self.fitted)?, artifacts.get(&self.model)?);
        let golden = artifacts.get(&self.golden)?;
        Ok(Arc::new(Predictor::assemble(
            &fitted,
            &model,
            &golden,
            self.backend,
        )?))
    }
}
