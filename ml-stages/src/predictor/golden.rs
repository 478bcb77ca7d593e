//! Golden rows: raw rows with their features and scores, kept with a Predictor and replayed at load.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float32Array};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use mainstem_engine::{Error, Result};
use mainstem_transforms::{FEATURES_COLUMN, FeatureLayout, FittedPreprocess, features_type};

use super::features::{Features, feature_at, raw_columns};
use super::tolerance::{SCORE_TOLERANCE, relative_difference};

/// The name of the score in golden rows.
pub(super) const SCORE_COLUMN: &str = "prediction";

/// The raw columns and the features of the rows among `rows` that have all features.
pub(super) fn usable_rows(
    fitted: &FittedPreprocess,
    rows: &RecordBatch,
) -> Result<(RecordBatch, Features)> {
    for field in fitted.input_schema().fields() {
        if [FEATURES_COLUMN, SCORE_COLUMN].contains(&field.name().as_str()) {
            return Err(Error::pipeline(format!(
                "the raw column {:?} is named like a column that a Predictor adds",
                field.name()
            ))
            .with_hint("Rename the column before it is preprocessed."));
        }
    }
    let raw = raw_columns(rows, &fitted.input_schema())?;
    let features = Features::of(fitted, &raw)?;
    let mut usable = vec![true; raw.num_rows()];
    for (row, _) in features.missing() {
        usable[row] = false;
    }
    let usable = BooleanArray::from(usable);
    if usable.true_count() == 0 {
        return Err(Error::data("none of the golden rows has all features")
            .with_detail(format!("{} rows were looked at.", raw.num_rows()))
            .with_hint("Impute the columns that are often missing."));
    }
    let list = filter(features.list(), &usable)?;
    let features = Features::new(list.as_list::<i32>().clone(), fitted.layout())?;
    Ok((filter_record_batch(&raw, &usable)?, features))
}

/// The golden rows as they are kept.
pub(super) fn golden_rows(
    raw: &RecordBatch,
    features: &Features,
    scores: Vec<f32>,
) -> Result<RecordBatch> {
    let mut fields = raw.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(
        FEATURES_COLUMN,
        features_type(),
        false,
    )));
    fields.push(Arc::new(Field::new(SCORE_COLUMN, DataType::Float32, false)));
    let mut columns = raw.columns().to_vec();
    columns.push(Arc::new(features.list().clone()));
    columns.push(Arc::new(Float32Array::from(scores)) as ArrayRef);
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}

/// The bytes of an Arrow IPC file with these rows.
pub(super) fn to_ipc(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = FileWriter::try_new(Vec::new(), &rows.schema())?;
    writer.write(rows)?;
    Ok(writer.into_inner()?)
}

/// The rows of an Arrow IPC file.
pub(super) fn from_ipc(bytes: &[u8]) -> Result<RecordBatch> {
    let reader = FileReader::try_new(std::io::Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(arrow::compute::concat_batches(&schema, &batches)?)
}

/// What golden rows promise.
pub(super) struct Expected {
    /// The features.
    pub(super) features: Features,
    /// The scores.
    pub(super) scores: Float32Array,
}

impl Expected {
    /// Takes the promise out of golden rows.
    pub(super) fn of(golden: &RecordBatch, layout: &FeatureLayout) -> Result<Self> {
        let lacks = || Error::data("the golden rows lack their features or their score");
        let features = golden
            .column_by_name(FEATURES_COLUMN)
            .and_then(|c| c.as_list_opt::<i32>())
            .ok_or_else(lacks)?;
        let scores = golden
            .column_by_name(SCORE_COLUMN)
            .and_then(|c| c.as_primitive_opt::<Float32Type>())
            .ok_or_else(lacks)?;
        Ok(Self {
            features: Features::new(features.clone(), layout)?,
            scores: scores.clone(),
        })
    }

    /// Checks that the features are equal bit by bit.
    pub(super) fn check_features(&self, found: &Features, layout: &FeatureLayout) -> Result<()> {
        let pairs = self.features.values().iter().zip(found.values());
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        let Some(at) = pairs.clone().position(differs) else {
            return Ok(());
        };
        let (row, column) = (at / layout.width(), at % layout.width());
        Err(Error::data(format!(
            "golden row {row}: feature {} is {:?}, expected {:?}",
            feature_at(layout, column),
            found.values()[at],
            self.features.values()[at]
        ))
        .with_detail(format!(
            "{} of {} feature values differ.",
            pairs.filter(|&p| differs(p)).count(),
            self.features.values().len()
        ))
        .with_hint("Save the Predictor anew with this release."))
    }

    /// Checks that the scores are within the tolerance.
    pub(super) fn check_scores(&self, found: &[f32], floor: f64, backend: &str) -> Result<()> {
        for (row, (&expected, &found)) in self.scores.values().iter().zip(found).enumerate() {
            let difference = relative_difference(expected, found, floor);
            if difference > SCORE_TOLERANCE {
                return Err(Error::data(format!(
                    "golden row {row}: the score is {found:?}, expected {expected:?}"
                ))
                .with_detail(format!(
                    "The relative difference is {difference:e}, at most {SCORE_TOLERANCE:e} is allowed, on the back-end {backend}."
                ))
                .with_hint("Choose another back-end, or save the Predictor anew."));
            }
        }
        Ok(())
    }
}
