//! Fitting and featurizing as operations on collections.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float32Array, ListArray};
use arrow::compute::filter;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use mainstem_engine::{
    ArtifactId, ArtifactRef, Artifacts, Batch, Collection, Description, Error, Operator, Output,
    Properties, Result, Transform,
};
use serde_json::json;

use crate::fit::{AnalyzePhase, Finish};
use crate::fitted::{FittedPreprocess, list};
use crate::layout::{FEATURES_COLUMN, features_type};
use crate::preprocess::Preprocess;

/// Preprocessing on collections.
pub trait PreprocessCollection {
    /// Fits `preprocess` over all rows: a pass for each phase, and a step that ends in the artifact.
    ///
    /// The nodes are `fit/analyze-1` and so on, and `fit`; [`Collection::named`] gives another name.
    #[must_use]
    fn fit(&self, preprocess: &Preprocess) -> ArtifactRef<FittedPreprocess>;

    /// The rows with their features in the column [`FEATURES_COLUMN`], of [`features_type`].
    ///
    /// A row with a feature that is missing (null or NaN) is rejected.
    #[must_use]
    fn featurize(&self, fitted: &ArtifactRef<FittedPreprocess>) -> Collection;
}

impl PreprocessCollection for Collection {
    fn fit(&self, preprocess: &Preprocess) -> ArtifactRef<FittedPreprocess> {
        let name = self.next_name("fit");
        let mut ids = Vec::new();
        for (id, phase) in AnalyzePhase::all(preprocess, &name) {
            let _: ArtifactRef<crate::fit::PhaseLearned> = self.named(&id).analyze(phase);
            ids.push(id);
        }
        self.pipeline().step(&name, Finish::new(preprocess, ids))
    }

    fn featurize(&self, fitted: &ArtifactRef<FittedPreprocess>) -> Collection {
        let graph = self.pipeline().graph();
        let node = graph.nodes.iter().find(|n| n.id == *fitted.id());
        let columns = node.and_then(|n| {
            let columns = n.stage.describe().config.get("columns")?.clone();
            serde_json::from_value(columns).ok()
        });
        self.apply(Featurize {
            fitted: fitted.clone(),
            columns,
        })
    }
}

/// Appends the feature matrix to the rows.
#[derive(Clone, Debug)]
pub struct Featurize {
    fitted: ArtifactRef<FittedPreprocess>,
    /// The raw columns that are read; `None` where only the artifact knows.
    columns: Option<Vec<String>>,
}

impl Featurize {
    /// The features that `fitted` makes.
    pub fn new(fitted: &ArtifactRef<FittedPreprocess>) -> Self {
        Self {
            fitted: fitted.clone(),
            columns: None,
        }
    }
}

impl Transform for Featurize {
    fn describe(&self) -> Description {
        Description::new("featurize", json!({ "fitted": &**self.fitted.id() }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        if inputs[0].index_of(FEATURES_COLUMN).is_ok() {
            return Err(
                Error::pipeline(format!("column {FEATURES_COLUMN:?} is there already"))
                    .with_hint("Rename or leave out that column before `featurize`."),
            );
        }
        let mut fields = inputs[0].fields().to_vec();
        fields.push(Arc::new(Field::new(
            FEATURES_COLUMN,
            features_type(),
            false,
        )));
        Ok(Arc::new(Schema::new(fields)))
    }

    fn build(&self, artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(FeaturizeOperator {
            fitted: artifacts.get(&self.fitted)?,
            spec: self.clone(),
        }))
    }

    fn needs(&self) -> Vec<ArtifactId> {
        vec![ArtifactId::clone(self.fitted.id())]
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().keeps_positions(true)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let mut columns = self.columns.clone()?;
        for name in wanted? {
            if name != FEATURES_COLUMN && !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        Some(columns)
    }
}

struct FeaturizeOperator {
    fitted: Arc<FittedPreprocess>,
    spec: Featurize,
}

impl Operator for FeaturizeOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, floats) = match self.fitted.floats(batch.rows()) {
            Ok(floats) => (batch, floats),
            Err(_) => self.row_by_row(&batch, out)?,
        };
        let width = self.fitted.layout().width();
        let features = list(floats, width, batch.n_rows())?;
        let (batch, features) = self.without_missing(batch, features, out)?;
        let schema = self.spec.output_schema(&[batch.rows().schema()])?;
        let mut columns = batch.rows().columns().to_vec();
        columns.push(features);
        let rows = RecordBatch::try_new(schema, columns)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

impl FeaturizeOperator {
    /// Rejects the rows that an expression fails on; a wrong schema fails for every row.
    fn row_by_row(&self, batch: &Batch, out: &mut Output) -> Result<(Batch, Vec<f32>)> {
        self.fitted.floats(&batch.rows().slice(0, 0))?;
        let mut good = Vec::with_capacity(batch.n_rows());
        for row in 0..batch.n_rows() {
            let outcome = self.fitted.floats(&batch.rows().slice(row, 1));
            good.push(outcome.is_ok());
            if let Err(error) = outcome {
                out.reject(batch, row, error.to_string().replace("\n  ", ": "))?;
            }
        }
        let kept = batch.filter(&BooleanArray::from(good))?;
        let floats = self.fitted.floats(kept.rows())?;
        Ok((kept, floats))
    }

    /// Rejects the rows of which a feature is missing.
    fn without_missing(
        &self,
        batch: Batch,
        features: ListArray,
        out: &mut Output,
    ) -> Result<(Batch, ArrayRef)> {
        let floats: &[f32] = match features.values().as_any().downcast_ref::<Float32Array>() {
            Some(floats) => floats.values(),
            None => return Err(Error::bug("the features are no floats")),
        };
        if !floats.iter().any(|x| x.is_nan()) {
            return Ok((batch, Arc::new(features)));
        }
        let width = self.fitted.layout().width().max(1);
        let mut good = Vec::with_capacity(batch.n_rows());
        for (row, floats) in floats.chunks_exact(width).enumerate() {
            let missing = self.fitted.missing_in(floats);
            good.push(missing.is_none());
            if let Some(name) = missing {
                let reason = format!(
                    "feature {name:?} is missing: {}",
                    self.raw(name, &batch, row)
                );
                out.reject(&batch, row, reason)?;
            }
        }
        let good = BooleanArray::from(good);
        Ok((batch.filter(&good)?, filter(&features, &good)?))
    }

    /// The raw values that a feature of a row comes from.
    fn raw(&self, feature: &str, batch: &Batch, row: usize) -> String {
        let show = |name: &String| {
            let column = batch.rows().column_by_name(name)?;
            if column.is_null(row) {
                return Some(format!("{name} is null"));
            }
            let value = array_value_to_string(column, row).ok()?;
            Some(format!("{name} is {value:?}"))
        };
        let columns = self.fitted.columns_of(feature);
        let shown: Vec<String> = columns.iter().filter_map(show).collect();
        shown.join(", ")
    }
}

#[cfg(test)]
mod tests;
