//! Compares predictions with labels in one pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, Float64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_engine::analyzer::DynAnalyzer;
use mainstem_engine::artifact::{ArtifactRef, Artifacts};
use mainstem_engine::expression::check_column;
use mainstem_engine::{Analysis, Analyzer, Collection, Description, Error, OnBadRow, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::accumulator::SliceSums;
use super::evaluation::{Evaluation, Scored, Slice};
use super::usable_rows::UsableRows;
use crate::model::Task;

/// Compares one or several columns of predictions with the label, over all rows and by slice.
///
/// Labels and predictions are numeric or Boolean, labels of a classification 0 or 1, predictions of it
/// probabilities. A row with a null, a NaN or another label is a bad row, see [`Evaluate::on_bad_row`];
/// behind [`EvaluateCollection::evaluate`] the reason names the column, and the place of the row. A null
/// in a column of [`Evaluate::by`] is a slice of its own.
///
/// Sums are kept per split and merged in split order, so the metrics do not depend on the number of
/// workers. The AUC is exact: memory grows with the number of different scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    task: Task,
    label: String,
    predictions: Vec<String>,
    by: Vec<String>,
    #[serde(skip)]
    on_bad_row: OnBadRow,
}

impl Evaluate {
    /// Compares predicted values in the column `prediction` with the column `label`.
    pub fn regression(label: impl Into<String>, prediction: impl Into<String>) -> Self {
        Self {
            task: Task::Regression,
            label: label.into(),
            predictions: vec![prediction.into()],
            by: Vec::new(),
            on_bad_row: OnBadRow::Fail,
        }
    }

    /// Compares probabilities in the column `prediction` with the column `label`.
    pub fn classification(label: impl Into<String>, prediction: impl Into<String>) -> Self {
        Self {
            task: Task::BinaryClassification,
            ..Self::regression(label, prediction)
        }
    }

    /// Sets several columns of predictions, compared in one pass, in place of the one given.
    #[must_use]
    pub fn predictions(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.predictions = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the columns each of whose values is a slice; none by default.
    #[must_use]
    pub fn by(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets what becomes of rows that cannot be evaluated; by default the first one ends the run.
    ///
    /// Nothing reads dead letters here, so they are only counted, in the node `evaluate/rows` of the report.
    #[must_use]
    pub fn on_bad_row(mut self, policy: OnBadRow) -> Self {
        self.on_bad_row = policy;
        self
    }

    fn names(&self) -> Vec<String> {
        let mut names = vec![self.label.clone()];
        names.extend(self.predictions.iter().chain(&self.by).cloned());
        names
    }

    fn labels(&self, rows: &RecordBatch) -> Result<Float64Array> {
        let labels = cast(column(rows, &self.label)?, &DataType::Float64)?;
        let labels = labels.as_primitive::<Float64Type>();
        refuse("label", &self.label, labels, |y| match self.task {
            Task::Regression => y.is_nan(),
            Task::BinaryClassification => y != 0.0 && y != 1.0,
        })?;
        Ok(labels.clone())
    }

    fn scores(&self, rows: &RecordBatch) -> Result<Vec<Float32Array>> {
        let read = |name: &String| {
            let values = cast(column(rows, name)?, &DataType::Float32)?;
            let values = values.as_primitive::<Float32Type>();
            refuse("prediction", name, values, f32::is_nan)?;
            Ok(values.clone())
        };
        self.predictions.iter().map(read).collect()
    }
}

/// Evaluates rows in a pipeline.
pub trait EvaluateCollection {
    /// Compares predictions with labels; see [`Evaluate`].
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, connectors, testing::table};
    /// use mainstem_ml_stages::evaluate::{Evaluate, EvaluateCollection};
    ///
    /// let pipeline = Pipeline::new("how-good");
    /// let births = table("weight: 7.0, 8.0, 5.0; guess: 7.0, 7.0, 7.0; twin: false, false, true");
    /// let evaluation = pipeline
    ///     .read("births", connectors::from_record_batches(vec![births]))
    ///     .evaluate(Evaluate::regression("weight", "guess").by(["twin"]));
    /// let report = pipeline.run(&RunOptions::new().workers(1))?;
    /// let found = report.artifact(&evaluation)?;
    /// let twins = found.metrics("twin=true", "guess").and_then(|m| m.rmse());
    /// assert_eq!(twins, Some(2.0));
    /// println!("{found}");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    fn evaluate(&self, evaluate: Evaluate) -> ArtifactRef<Evaluation>;
}

impl EvaluateCollection for Collection {
    fn evaluate(&self, evaluate: Evaluate) -> ArtifactRef<Evaluation> {
        let name = self.next_name("evaluate");
        self.named(format!("{name}/rows"))
            .apply(UsableRows {
                task: evaluate.task,
                label: evaluate.label.clone(),
                predictions: evaluate.predictions.clone(),
            })
            .on_bad_row(evaluate.on_bad_row)
            .named(name)
            .analyze(evaluate)
    }
}

impl Analysis for Evaluate {
    fn describe(&self) -> Description {
        Description::new("evaluate", json!(self))
    }

    fn check(&self, input: &SchemaRef) -> Result<()> {
        let mut errors = Vec::new();
        if self.predictions.is_empty() {
            errors.push(Error::pipeline("there is no prediction to evaluate"));
        }
        errors.extend(check_number("label", &self.label, input).err());
        for prediction in &self.predictions {
            errors.extend(check_number("prediction", prediction, input).err());
        }
        for name in &self.by {
            errors.extend(check_column(name, input).err());
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::all(errors))
        }
    }

    fn reads(&self) -> Option<Vec<String>> {
        Some(self.names())
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Arc<dyn DynAnalyzer>> {
        Ok(Arc::new(self.clone()))
    }
}

/// All rows, or a column by its place in `by` and its value.
type SliceKey = Option<(usize, Option<String>)>;

/// The slices seen so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationSums {
    slices: BTreeMap<SliceKey, SliceSums>,
}

impl Analyzer for Evaluate {
    type Accumulator = EvaluationSums;
    type Output = Evaluation;

    fn create_accumulator(&self) -> EvaluationSums {
        EvaluationSums::default()
    }

    fn add(&self, accumulator: &mut EvaluationSums, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let labels = self.labels(rows)?;
        let scores = self.scores(rows)?;
        let mut take = |key: SliceKey, rows: &mut dyn Iterator<Item = usize>| {
            let sums = accumulator
                .slices
                .entry(key)
                .or_insert_with(|| SliceSums::new(scores.len()));
            for row in rows {
                let label = labels.value(row);
                sums.add_label(label);
                for (sums, scores) in sums.predictions.iter_mut().zip(&scores) {
                    sums.add(label, scores.value(row), self.task);
                }
            }
        };
        take(None, &mut (0..rows.num_rows()));
        for (place, name) in self.by.iter().enumerate() {
            let values = cast(column(rows, name)?, &DataType::Utf8)?;
            for (value, rows) in group(values.as_string::<i32>()) {
                take(
                    Some((place, value.map(str::to_owned))),
                    &mut rows.into_iter(),
                );
            }
        }
        Ok(())
    }

    fn merge(&self, accumulator: &mut EvaluationSums, other: EvaluationSums) -> Result<()> {
        for (key, sums) in other.slices {
            match accumulator.slices.get_mut(&key) {
                Some(there) => there.merge(sums),
                None => {
                    accumulator.slices.insert(key, sums);
                }
            }
        }
        Ok(())
    }

    fn finish(&self, accumulator: EvaluationSums) -> Result<Evaluation> {
        if accumulator.slices.is_empty() {
            return Err(Error::data(format!(
                "there are no rows to evaluate the predictions of {:?} on",
                self.label
            ))
            .with_hint("Look for a filter or a join before it that keeps no row."));
        }
        let slice = |(key, sums): (SliceKey, SliceSums)| Slice {
            name: match key {
                None => "all".into(),
                Some((place, value)) => {
                    format!("{}={}", self.by[place], value.as_deref().unwrap_or("null"))
                }
            },
            n_rows: sums.n_rows,
            predictions: (self.predictions.iter().enumerate())
                .map(|(i, name)| Scored {
                    prediction: name.clone(),
                    metrics: sums.metrics(i, self.task),
                })
                .collect(),
        };
        Ok(Evaluation {
            task: self.task,
            slices: accumulator.slices.into_iter().map(slice).collect(),
        })
    }

    fn save(&self, accumulator: &EvaluationSums) -> Result<RecordBatch> {
        let row = |row: (&SliceKey, &SliceSums)| Ok(serde_json::to_string(&row)?);
        let rows: Vec<String> = accumulator.slices.iter().map(row).collect::<Result<_>>()?;
        let rows: ArrayRef = Arc::new(StringArray::from(rows));
        Ok(RecordBatch::try_from_iter([("slice", rows)])?)
    }

    fn load(&self, saved: &RecordBatch) -> Result<EvaluationSums> {
        let rows = column(saved, "slice")?.as_string::<i32>();
        let row = |row: Option<&str>| Ok(serde_json::from_str(row.unwrap_or_default())?);
        let slices = rows.iter().map(row).collect::<Result<_>>()?;
        Ok(EvaluationSums { slices })
    }
}

/// The rows of each value.
fn group(values: &StringArray) -> BTreeMap<Option<&str>, Vec<usize>> {
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (row, value) in values.iter().enumerate() {
        groups.entry(value).or_default().push(row);
    }
    groups
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name)
        .ok_or_else(|| Error::bug(format!("rows to evaluate lack column {name:?}")))
}

fn check_number(role: &str, name: &str, schema: &Schema) -> Result<()> {
    let found = schema.field(check_column(name, schema)?).data_type();
    if found.is_numeric() || *found == DataType::Boolean {
        return Ok(());
    }
    Err(Error::pipeline(format!(
        "{role} {name:?} must be numeric or Boolean, found {found}"
    )))
}

fn refuse<T: arrow::datatypes::ArrowPrimitiveType>(
    role: &str,
    name: &str,
    values: &arrow::array::PrimitiveArray<T>,
    wrong: impl Fn(T::Native) -> bool,
) -> Result<()>
where
    T::Native: std::fmt::Display,
{
    for value in values {
        let found = match value {
            None => "null".to_owned(),
            Some(value) if wrong(value) => value.to_string(),
            Some(_) => continue,
        };
        return Err(
            Error::data(format!("{role} {name:?} is {found} in a row to evaluate"))
                .with_hint("Filter such rows out before the evaluation."),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
