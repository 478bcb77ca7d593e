//! A Predictor as a scalar function of DataFusion, for SQL and for expressions.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, Float32Array, Float32Builder};
use arrow::datatypes::{DataType, Float32Type, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use mainstem_engine::{ArtifactRef, Artifacts, Batch, Error, OnBadRow, Output, Result, Transform};

use crate::predict::Predict;
use crate::predictor::{PREDICTION_COLUMN, Predictor};

impl Predictor {
    /// The Predictor as a scalar function `name` of DataFusion: its arguments are the raw columns, in
    /// the order of [`FittedPreprocess::input_schema`](mainstem_transforms::FittedPreprocess::input_schema),
    /// its value is the score, a 32-bit float.
    ///
    /// The scores come from the very operator that predicts in pipelines. Arguments are cast to the types
    /// of the raw columns. A query has no place for dead letters: a row that lacks a feature ends it with
    /// an error, unless [`PredictFunction::null_on_bad_row`] gives such rows null.
    ///
    /// ```no_run
    /// # use mainstem_ml_stages::{Backend, Predictor};
    /// # use mainstem_engine::col;
    /// let predictor = Predictor::load("births/predictor", Backend::Auto)?;
    /// let score = predictor.function("predict_weight").into_scalar();
    /// let weight = score.call(vec![col("is_male"), col("mother_age")]);
    /// # let _ = weight;
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    pub fn function(&self, name: impl Into<String>) -> PredictFunction {
        let raw = self.fitted().input_schema();
        let types = raw.fields().iter().map(|f| f.data_type().clone()).collect();
        let signature = Signature::exact(types, Volatility::Immutable);
        let names: Vec<String> = raw.fields().iter().map(|f| f.name().clone()).collect();
        PredictFunction {
            name: name.into(),
            signature: signature
                .clone()
                .with_parameter_names(names)
                .unwrap_or(signature),
            raw,
            predictor: self.clone(),
            on_bad_row: OnBadRow::DeadLetter,
        }
    }
}

/// A Predictor as a scalar function: see [`Predictor::function`].
#[derive(Clone)]
pub struct PredictFunction {
    name: String,
    signature: Signature,
    raw: SchemaRef,
    predictor: Predictor,
    /// `Drop` for null, `DeadLetter` to learn the reason of the first.
    on_bad_row: OnBadRow,
}

impl PredictFunction {
    /// Whether a row that has no score gets null; by default it ends the query with an error.
    #[must_use]
    pub fn null_on_bad_row(mut self, null: bool) -> Self {
        self.on_bad_row = match null {
            true => OnBadRow::Drop,
            false => OnBadRow::DeadLetter,
        };
        self
    }

    /// The function as DataFusion's sessions and expressions take it.
    pub fn into_scalar(self) -> ScalarUDF {
        ScalarUDF::new_from_impl(self)
    }

    /// The score of each row; null where it has none and that is allowed.
    fn scores(&self, rows: RecordBatch) -> Result<Float32Array> {
        let n_rows = rows.num_rows();
        let mut artifacts = Artifacts::none();
        artifacts.insert("predictor", Arc::new(self.predictor.clone()));
        let predict = Predict::new(ArtifactRef::<Predictor>::new("predictor"));
        let mut operator = predict.build(&artifacts)?;
        let mut out = Output::new(self.on_bad_row);
        operator.on_batch(0, Batch::new(rows), &mut out)?;
        if let Some(letter) = out.take_dead_letters().first() {
            return Err(Error::data(letter.reason.clone()));
        }
        let mut scores = Float32Builder::with_capacity(n_rows);
        for (_, made) in out.take() {
            let column = made.rows().column_by_name(PREDICTION_COLUMN);
            let Some(values) = column.and_then(|c| c.as_primitive_opt::<Float32Type>()) else {
                continue;
            };
            for (i, score) in values.values().iter().enumerate() {
                // Rows that are missing before this one were bad.
                let at = made.position(i).row as usize;
                scores.append_nulls(at.saturating_sub(scores.values_slice().len()));
                scores.append_value(*score);
            }
        }
        scores.append_nulls(n_rows.saturating_sub(scores.values_slice().len()));
        Ok(scores.finish())
    }
}

/// Two functions are one if they have one name and one model behind the same preprocessing.
impl PartialEq for PredictFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.on_bad_row == other.on_bad_row
            && self.predictor.same_as(&other.predictor)
    }
}

impl Eq for PredictFunction {}

impl Hash for PredictFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for PredictFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictFunction")
            .field("name", &self.name)
            .field("predictor", &self.predictor)
            .finish_non_exhaustive()
    }
}

impl ScalarUDFImpl for PredictFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Float32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let constant = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let n_rows = if constant { 1 } else { args.number_rows };
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.raw), columns, &options)?;
        let scores = self.scores(rows).map_err(|error| match error.is_data() {
            true => DataFusionError::Execution(error.message().to_owned()),
            false => DataFusionError::External(Box::new(error)),
        })?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&scores, 0)?),
            false => ColumnarValue::Array(Arc::new(scores)),
        })
    }
}

#[cfg(test)]
mod tests;
