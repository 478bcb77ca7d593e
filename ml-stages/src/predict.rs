//! Scores rows with a Predictor.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_engine::artifact::ArtifactId;
use mainstem_engine::{
    ArtifactRef, Artifacts, Batch, Collection, Description, Error, Operator, Output, Properties,
    Result, Transform,
};
use mainstem_transforms::FittedPreprocess;
use serde_json::json;

use crate::model::TrainedModel;
use crate::onnx::Backend;
use crate::predictor::{
    AssemblePredictor, GoldenRows, LentSession, PREDICTION_COLUMN, Predictor, check_inputs,
    feature_at, missing, write_matrix,
};

/// Adds the score of each row as a 32-bit float, never null.
///
/// A row that lacks a feature after preprocessing, or whose score is not a number, is a bad row; the
/// reason names the feature.
#[derive(Clone, Debug)]
pub struct Predict {
    predictor: ArtifactRef<Predictor>,
    column: String,
    inputs: Option<SchemaRef>,
    raw_columns: Option<Vec<String>>,
}

impl Predict {
    /// With this Predictor, into the column [`PREDICTION_COLUMN`].
    pub fn new(predictor: ArtifactRef<Predictor>) -> Self {
        Self {
            predictor,
            column: PREDICTION_COLUMN.into(),
            inputs: None,
            raw_columns: None,
        }
    }

    /// Sets the name of the score column.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>) -> Self {
        self.column = name.into();
        self
    }

    /// Tells which raw columns the Predictor takes, where they are known before it is learned, so that
    /// they are checked while planning and sources read no others.
    #[must_use]
    pub fn inputs(mut self, raw: SchemaRef) -> Self {
        self.raw_columns = Some(raw.fields().iter().map(|f| f.name().clone()).collect());
        self.inputs = Some(raw);
        self
    }
}

/// Prediction on collections.
pub trait PredictCollection {
    /// The rows with the column [`PREDICTION_COLUMN`], by a Predictor that is known already.
    #[must_use]
    fn predict(&self, predictor: &Predictor) -> Collection;

    /// The rows with their score as `column`, by a Predictor that this graph learns.
    #[must_use]
    fn predict_with(&self, predictor: &ArtifactRef<Predictor>, column: &str) -> Collection;

    /// The Predictor of what this graph learns; the first of these rows become its golden rows.
    fn assemble(
        &self,
        fitted: &ArtifactRef<FittedPreprocess>,
        model: &ArtifactRef<TrainedModel>,
        backend: Backend,
    ) -> ArtifactRef<Predictor>;
}

impl PredictCollection for Collection {
    fn predict(&self, predictor: &Predictor) -> Collection {
        let name = self.next_name("predict");
        let known = Arc::new(predictor.clone());
        let reference = self.pipeline().provide(&format!("{name}/predictor"), known);
        let predict = Predict::new(reference).inputs(predictor.fitted().input_schema());
        self.named(name).apply(predict)
    }

    fn predict_with(&self, predictor: &ArtifactRef<Predictor>, column: &str) -> Collection {
        self.apply(Predict {
            predictor: predictor.clone(),
            column: column.into(),
            inputs: None,
            raw_columns: columns_of(self, predictor.id()),
        })
    }

    fn assemble(
        &self,
        fitted: &ArtifactRef<FittedPreprocess>,
        model: &ArtifactRef<TrainedModel>,
        backend: Backend,
    ) -> ArtifactRef<Predictor> {
        let name = self.next_name("assemble_predictor");
        let columns = columns_of(self, fitted.id());
        let mut keep = GoldenRows::new();
        if let Some(columns) = &columns {
            keep = keep.columns(columns);
        }
        let golden = self.named(format!("{name}/golden")).analyze(keep);
        let assemble = AssemblePredictor::new(fitted, model, &golden)
            .backend(backend)
            .columns(columns);
        self.pipeline().step(&name, assemble)
    }
}

/// The raw columns that the node of an artifact says it reads, if it does.
fn columns_of(rows: &Collection, artifact: &ArtifactId) -> Option<Vec<String>> {
    let graph = rows.pipeline().graph();
    let node = graph.nodes.iter().find(|n| n.id == *artifact)?;
    let columns = node.stage.describe().config.get("columns")?.clone();
    serde_json::from_value(columns).ok()?
}

impl Transform for Predict {
    fn describe(&self) -> Description {
        Description::new("predict", json!({ "column": self.column }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let rows = &inputs[0];
        if let Some(raw) = &self.inputs {
            check_inputs(raw, rows)?;
        }
        if rows.index_of(&self.column).is_ok() {
            return Err(
                Error::pipeline(format!("column {:?} is there already", self.column)).with_hint(
                    "Choose another name for the score, or leave that column out before.",
                ),
            );
        }
        let mut fields = rows.fields().to_vec();
        fields.push(Arc::new(Field::new(&self.column, DataType::Float32, false)));
        Ok(Arc::new(Schema::new(fields)))
    }

    fn build(&self, artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let predictor = artifacts.get(&self.predictor)?;
        Ok(Box::new(PredictOperator {
            session: None,
            predictor: (*predictor).clone(),
            spec: self.clone(),
            schema: None,
            matrix: Vec::new(),
        }))
    }

    fn needs(&self) -> Vec<ArtifactId> {
        vec![self.predictor.id().clone()]
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().keeps_positions(true).blocking(true)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let (raw, wanted) = (self.raw_columns.as_ref()?, wanted?);
        let mut columns: Vec<String> = wanted
            .iter()
            .filter(|c| **c != self.column)
            .cloned()
            .collect();
        for name in raw {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        Some(columns)
    }
}

struct PredictOperator {
    predictor: Predictor,
    /// Made ready for the first rows: a worker that gets none of a short job need not wait for it.
    session: Option<LentSession>,
    spec: Predict,
    schema: Option<SchemaRef>,
    /// The feature matrix of the batch at hand; its memory serves the next one too.
    matrix: Vec<f32>,
}

impl Operator for PredictOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let schema = match &self.schema {
            Some(schema) => Arc::clone(schema),
            None => {
                let schema = self.spec.output_schema(&[batch.rows().schema()])?;
                Arc::clone(self.schema.insert(schema))
            }
        };
        let batch = self.complete_rows(batch, out)?;
        let session = match &mut self.session {
            Some(session) => session,
            slot => slot.insert(self.predictor.session()?),
        };
        let scores = session.scores(&self.matrix)?;
        let (batch, scores) = numbers_only(batch, scores, out)?;
        let mut columns = batch.rows().columns().to_vec();
        columns.push(Arc::new(Float32Array::from(scores)) as ArrayRef);
        let rows = RecordBatch::try_new(schema, columns)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        (self.matrix.capacity() * size_of::<f32>()) as u64
    }
}

impl PredictOperator {
    /// The rows that have all features, which are then in the matrix; the others are rejected.
    fn complete_rows(&mut self, batch: Batch, out: &mut Output) -> Result<Batch> {
        let fitted = self.predictor.fitted();
        let batch = match write_matrix(fitted, batch.rows(), &mut self.matrix) {
            Ok(()) => batch,
            Err(_) => row_by_row(fitted, &batch, &mut self.matrix, out)?,
        };
        let width = fitted.layout().width();
        let missing = missing(&self.matrix, width);
        if missing.is_empty() {
            return Ok(batch);
        }
        let mut complete = vec![true; batch.n_rows()];
        for (row, column) in missing {
            complete[row] = false;
            let feature = feature_at(fitted.layout(), column);
            out.reject(&batch, row, format!("feature {feature} is missing"))?;
        }
        let mut kept = Vec::with_capacity(self.matrix.len());
        for (row, features) in self.matrix.chunks_exact(width).enumerate() {
            if complete[row] {
                kept.extend_from_slice(features);
            }
        }
        self.matrix = kept;
        batch.filter(&BooleanArray::from(complete))
    }
}

/// The rows on which no expression of the preprocessing fails, whose features are then in `matrix`; the
/// others are rejected.
fn row_by_row(
    fitted: &FittedPreprocess,
    batch: &Batch,
    matrix: &mut Vec<f32>,
    out: &mut Output,
) -> Result<Batch> {
    // What fails without rows is the schema, and is no row's fault.
    write_matrix(fitted, &batch.rows().slice(0, 0), matrix)?;
    let mut good = Vec::with_capacity(batch.n_rows());
    for row in 0..batch.n_rows() {
        let outcome = write_matrix(fitted, &batch.rows().slice(row, 1), matrix);
        good.push(outcome.is_ok());
        if let Err(error) = outcome {
            out.reject(batch, row, error.to_string().replace("\n  ", ": "))?;
        }
    }
    let kept = batch.filter(&BooleanArray::from(good))?;
    write_matrix(fitted, kept.rows(), matrix)?;
    Ok(kept)
}

/// The rows whose score is a number, with it; the others are rejected.
fn numbers_only(batch: Batch, mut scores: Vec<f32>, out: &mut Output) -> Result<(Batch, Vec<f32>)> {
    if !scores.iter().any(|s| s.is_nan()) {
        return Ok((batch, scores));
    }
    for (row, score) in scores.iter().enumerate() {
        if score.is_nan() {
            out.reject(&batch, row, "the score is not a number")?;
        }
    }
    let mask: BooleanArray = scores.iter().map(|s| Some(!s.is_nan())).collect();
    scores.retain(|s| !s.is_nan());
    Ok((batch.filter(&mask)?, scores))
}
