//! Which columns a trainer learns from, and the checks that every trainer makes of them.

use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use arrow::record_batch::RecordBatch;
use mainstem_engine::artifact::{ArtifactId, ArtifactRef, Artifacts};
use mainstem_engine::expression::check_column;
use mainstem_engine::{Error, Result};
use mainstem_transforms::{FEATURES_COLUMN, FeatureLayout, FittedPreprocess, features_type};
use serde::{Deserialize, Serialize};

use crate::model::Task;

/// Where a trainer finds the layout of the feature matrix.
///
/// It is made from a reference to the [`FittedPreprocess`] that made the features, or to a
/// [`FeatureLayout`] where you made them yourself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutRef {
    artifact: ArtifactId,
    kind: LayoutKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayoutKind {
    FittedPreprocess,
    FeatureLayout,
}

impl From<&ArtifactRef<FittedPreprocess>> for LayoutRef {
    fn from(fitted: &ArtifactRef<FittedPreprocess>) -> Self {
        Self {
            artifact: fitted.id().clone(),
            kind: LayoutKind::FittedPreprocess,
        }
    }
}

impl From<&ArtifactRef<FeatureLayout>> for LayoutRef {
    fn from(layout: &ArtifactRef<FeatureLayout>) -> Self {
        Self {
            artifact: layout.id().clone(),
            kind: LayoutKind::FeatureLayout,
        }
    }
}

impl LayoutRef {
    fn read(&self, artifacts: &Artifacts) -> Result<FeatureLayout> {
        let id = &self.artifact;
        Ok(match self.kind {
            LayoutKind::FittedPreprocess => {
                let fitted = artifacts.get_by_id::<FittedPreprocess>(id)?;
                fitted.layout().clone()
            }
            LayoutKind::FeatureLayout => (*artifacts.get_by_id::<FeatureLayout>(id)?).clone(),
        })
    }
}

/// The columns of a trainer's rows: the features, the label and perhaps a weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingColumns {
    layout: LayoutRef,
    label: String,
    weight: Option<String>,
}

impl TrainingColumns {
    pub(crate) fn new(layout: LayoutRef, label: String) -> Self {
        Self {
            layout,
            label,
            weight: None,
        }
    }

    pub(crate) fn set_weight(&mut self, column: String) {
        self.weight = Some(column);
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = vec![FEATURES_COLUMN.to_owned(), self.label.clone()];
        names.extend(self.weight.clone());
        names
    }

    pub(crate) fn needs(&self) -> Vec<ArtifactId> {
        vec![self.layout.artifact.clone()]
    }

    pub(crate) fn layout(&self, artifacts: &Artifacts) -> Result<FeatureLayout> {
        self.layout.read(artifacts)
    }

    /// Whatever the schema can tell.
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        let checks = [
            check_features(schema),
            check_number("label", &self.label, schema),
            match &self.weight {
                Some(weight) => check_number("weight", weight, schema),
                None => Ok(()),
            },
        ];
        let errors: Vec<Error> = checks.into_iter().filter_map(Result::err).collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::all(errors))
        }
    }

    /// The values of a batch, of which row 0 is training row `first_row`.
    pub(crate) fn read(
        &self,
        rows: &RecordBatch,
        first_row: u64,
        layout: &FeatureLayout,
        task: Task,
    ) -> Result<Examples> {
        let at = Place { first_row };
        let labels = self.read_labels(rows, task, at)?;
        let weights = match &self.weight {
            Some(name) => Some(read_weights(rows, name, at)?),
            None => None,
        };
        Ok(Examples {
            features: read_features(rows, layout, at)?,
            width: layout.width(),
            labels,
            weights,
        })
    }

    fn read_labels(&self, rows: &RecordBatch, task: Task, at: Place) -> Result<Vec<f64>> {
        let labels = read_numbers(rows, "label", &self.label, at)?;
        let wrong = |y: &f64| match task {
            Task::Regression => !y.is_finite(),
            Task::BinaryClassification => *y != 0.0 && *y != 1.0,
        };
        match labels.iter().position(wrong) {
            None => Ok(labels),
            Some(row) if task == Task::Regression => Err(Error::data(format!(
                "{}: label {:?} is {}",
                at.row(row),
                self.label,
                labels[row]
            ))
            .with_hint("Filter such rows out before training.")),
            Some(row) => Err(Error::data(format!(
                "{}: label {:?} must be 0 or 1, found {}",
                at.row(row),
                self.label,
                labels[row]
            ))
            .with_hint(
                "A classifier learns the probability of 1: compare the column with the value sought.",
            )),
        }
    }
}

/// The values of a batch in the form that trainers take.
pub(crate) struct Examples {
    features: ArrayRef,
    width: usize,
    /// A label per row.
    pub(crate) labels: Vec<f64>,
    weights: Option<Vec<f64>>,
}

impl Examples {
    pub(crate) fn n_rows(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn weight(&self, row: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |w| w[row])
    }

    /// The features of all rows, one row after the other.
    pub(crate) fn features(&self) -> &[f32] {
        self.features.as_primitive::<Float32Type>().values()
    }

    /// The features of each row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        // A layout of no columns would make chunks of no size.
        let features = self.features();
        (0..self.n_rows()).map(move |row| &features[row * self.width..(row + 1) * self.width])
    }
}

/// Where a batch stands among the training rows.
#[derive(Clone, Copy)]
struct Place {
    first_row: u64,
}

impl Place {
    fn row(self, row: usize) -> impl fmt::Display {
        format!("training row {}", self.first_row + row as u64)
    }
}

fn check_features(schema: &Schema) -> Result<()> {
    let index = check_column(FEATURES_COLUMN, schema)
        .map_err(|e| e.with_hint("Add the features by `featurize` before training."))?;
    let found = schema.field(index).data_type();
    match found {
        DataType::List(item) if *item.data_type() == DataType::Float32 => Ok(()),
        _ => Err(Error::pipeline(format!(
            "column {FEATURES_COLUMN:?} must be {}, found {found}",
            features_type()
        ))
        .with_hint("Add the features by `featurize` before training.")),
    }
}

fn check_number(role: &str, name: &str, schema: &Schema) -> Result<()> {
    let found = schema.field(check_column(name, schema)?).data_type();
    if found.is_numeric() || *found == DataType::Boolean {
        return Ok(());
    }
    Err(Error::pipeline(format!(
        "{role} {name:?} must be numeric or Boolean, found {found}"
    ))
    .with_hint("Add a column that compares or casts it, by `with_column`."))
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name)
        .ok_or_else(|| Error::bug(format!("training rows lack column {name:?}")))
}

fn read_numbers(rows: &RecordBatch, role: &str, name: &str, at: Place) -> Result<Vec<f64>> {
    let numbers = cast(column(rows, name)?, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>();
    match (0..numbers.len()).find(|&row| numbers.is_null(row)) {
        None => Ok(numbers.values().to_vec()),
        Some(row) => Err(
            Error::data(format!("{}: {role} {name:?} is null", at.row(row)))
                .with_hint("Filter such rows out before training."),
        ),
    }
}

fn read_weights(rows: &RecordBatch, name: &str, at: Place) -> Result<Vec<f64>> {
    let weights = read_numbers(rows, "weight", name, at)?;
    match weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
        None => Ok(weights),
        Some(row) => Err(Error::data(format!(
            "{}: weight {name:?} must be 0 or more, found {}",
            at.row(row),
            weights[row]
        ))),
    }
}

fn read_features(rows: &RecordBatch, layout: &FeatureLayout, at: Place) -> Result<ArrayRef> {
    let width = layout.width();
    let lists = column(rows, FEATURES_COLUMN)?
        .as_list_opt::<i32>()
        .ok_or_else(|| Error::bug("the features are not a list"))?;
    let offsets = lists.value_offsets();
    let wrong =
        |row: &usize| lists.is_null(*row) || (offsets[row + 1] - offsets[*row]) as usize != width;
    if let Some(row) = (0..lists.len()).find(wrong) {
        return Err(Error::data(format!(
            "{}: column {FEATURES_COLUMN:?} must hold {width} values, found {}",
            at.row(row),
            if lists.is_null(row) {
                "null".into()
            } else {
                lists.value_length(row).to_string()
            },
        ))
        .with_hint("The features must come from the preprocessing that the trainer was given."));
    }
    let start = offsets[0] as usize;
    let values = lists.values().slice(start, lists.len() * width);
    let floats = values
        .as_primitive_opt::<Float32Type>()
        .ok_or_else(|| Error::bug("the features are not 32-bit floats"))?;
    if let Some(place) = floats.values().iter().position(|x| !x.is_finite()) {
        let feature = layout
            .columns()
            .iter()
            .rfind(|c| c.offset <= place % width)
            .map_or("", |c| &c.name);
        return Err(Error::data(format!(
            "{}: feature {feature:?} is {}",
            at.row(place / width),
            floats.value(place)
        ))
        .with_hint("Impute it in the preprocessing, or filter such rows out."));
    }
    Ok(values)
}

/// What a trainer says that was given no rows, or none that count.
pub(crate) fn no_rows(label: &str) -> Error {
    Error::data(format!(
        "there are no training rows of a weight over 0 to learn {label:?} from"
    ))
    .with_hint("Look for a filter or a join before the trainer that keeps no row.")
}
