//! The feature matrix of a batch, as a model reads it.

use arrow::array::{Array, AsArray, ListArray};
use arrow::datatypes::{DataType, Float32Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_engine::expression::check_column;
use mainstem_engine::{Error, Result};
use mainstem_transforms::{FeatureLayout, FittedPreprocess};

/// The feature matrix of some rows: one contiguous buffer, owned by Arrow.
pub(crate) struct Features {
    list: ListArray,
    width: usize,
}

impl Features {
    /// The features of `rows`, which hold the raw columns among others.
    pub(crate) fn of(fitted: &FittedPreprocess, rows: &RecordBatch) -> Result<Self> {
        let raw = raw_columns(rows, &fitted.input_schema())?;
        Self::new(fitted.matrix(&raw)?, fitted.layout())
    }

    /// A matrix of this layout.
    pub(crate) fn new(list: ListArray, layout: &FeatureLayout) -> Result<Self> {
        let features = Self {
            list,
            width: layout.width(),
        };
        let (n_values, n_rows) = (features.values().len(), features.list.len());
        if n_values != n_rows * features.width {
            return Err(Error::bug(format!(
                "a matrix of {n_rows} rows by {} holds {n_values} values",
                features.width
            )));
        }
        Ok(features)
    }

    /// All values, row by row.
    pub(crate) fn values(&self) -> &[f32] {
        let offsets = self.list.value_offsets();
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
            return &[];
        };
        let values = self.list.values().as_primitive::<Float32Type>().values();
        &values[*first as usize..*last as usize]
    }

    /// The matrix as Arrow has it.
    pub(crate) fn list(&self) -> &ListArray {
        &self.list
    }

    /// See [`missing`].
    pub(crate) fn missing(&self) -> Vec<(usize, usize)> {
        missing(self.values(), self.width)
    }
}

/// Writes the feature matrix of `rows`, which hold the raw columns among others, over what `matrix` holds.
///
/// # Errors
/// If a raw column is missing or of another type, or an expression fails on a row.
pub(crate) fn write_matrix(
    fitted: &FittedPreprocess,
    rows: &RecordBatch,
    matrix: &mut Vec<f32>,
) -> Result<()> {
    check_inputs(&fitted.input_schema(), &rows.schema())?;
    fitted.write_floats(rows, matrix)
}

/// The first missing feature of each row of a matrix that has one: the row, and the column.
pub(crate) fn missing(matrix: &[f32], width: usize) -> Vec<(usize, usize)> {
    // Looks at many values at once: leaving at the first would be slower where there is none.
    let in_part = |part: &[f32]| part.iter().fold(false, |seen, v| seen | v.is_nan());
    if width == 0 || !matrix.chunks(1024).any(in_part) {
        return Vec::new();
    }
    matrix
        .chunks_exact(width)
        .enumerate()
        .filter_map(|(row, values)| Some((row, values.iter().position(|v| v.is_nan())?)))
        .collect()
}

/// The name of the feature in a column of the matrix, with its place where a feature takes several.
pub(crate) fn feature_at(layout: &FeatureLayout, column: usize) -> String {
    let found = layout
        .columns()
        .iter()
        .find(|c| (c.offset..c.offset + c.kind.width()).contains(&column));
    match found {
        Some(c) if c.kind.width() == 1 => format!("{:?}", c.name),
        Some(c) => format!("{:?}[{}]", c.name, column - c.offset),
        None => format!("column {column}"),
    }
}

/// The raw columns among the columns of `rows`.
pub(crate) fn raw_columns(rows: &RecordBatch, inputs: &SchemaRef) -> Result<RecordBatch> {
    check_inputs(inputs, &rows.schema())?;
    let places = inputs
        .fields()
        .iter()
        .map(|f| Ok(rows.schema().index_of(f.name())?))
        .collect::<Result<Vec<usize>>>()?;
    Ok(rows.project(&places)?)
}

/// Checks that the raw columns are there and of their types; text may come in any of Arrow's forms.
///
/// # Errors
/// A pipeline error for each column that is not.
pub(crate) fn check_inputs(inputs: &SchemaRef, rows: &SchemaRef) -> Result<()> {
    let wrong: Vec<Error> = inputs
        .fields()
        .iter()
        .filter_map(|expected| {
            let place = match check_column(expected.name(), rows) {
                Ok(place) => place,
                Err(error) => return Some(error),
            };
            let found = rows.field(place).data_type();
            let fits =
                found == expected.data_type() || is_text(found) && is_text(expected.data_type());
            (!fits).then(|| {
                Error::pipeline(format!(
                    "column {:?} must be {}, as in training, found {found}",
                    expected.name(),
                    expected.data_type()
                ))
                .with_hint("Cast it before the prediction.")
            })
        })
        .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::all(wrong))
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}
