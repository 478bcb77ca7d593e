//! Fitted preprocessing: closed, serialisable, row-wise.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, ListArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layout::{FeatureLayout, features_type};
use crate::learned::Learned;
use crate::onnx_graph::{OnnxGraph, Value};
use crate::preprocess::Preprocess;
use crate::program::Program;
use crate::values::{Kind, MISSING, UNKNOWN, Values};
use crate::{onnx_matrix, stored_schema};

/// A [`Preprocess`] with all that it had to learn: what turns raw rows into features, everywhere.
///
/// A row depends on nothing but its own raw columns, so rows may come in batches of any size. A feature
/// that is missing (null, NaN, the empty text) is NaN in the matrix and null in [`FittedPreprocess::apply`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct FittedPreprocess {
    stored: Arc<Stored>,
    program: Arc<Program>,
    /// The step that makes each feature.
    places: Vec<usize>,
    layout: FeatureLayout,
}

/// What is written down; all else follows from it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    #[serde(with = "stored_schema")]
    input_schema: SchemaRef,
    features: Preprocess,
    learned: Learned,
}

const VERSION: u32 = 1;

impl FittedPreprocess {
    pub(crate) fn new(features: Preprocess, schema: SchemaRef, learned: Learned) -> Result<Self> {
        Self::try_from(Stored {
            version: VERSION,
            input_schema: schema,
            features,
            learned,
        })
    }

    /// The raw columns it reads, with the types it was fitted on; text of any form is Utf8.
    pub fn input_schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.stored.input_schema)
    }

    /// Where each feature stands in the matrix.
    pub fn layout(&self) -> &FeatureLayout {
        &self.layout
    }

    /// What was fitted.
    pub fn preprocess(&self) -> &Preprocess {
        &self.stored.features
    }

    /// What was learned.
    pub fn learned(&self) -> &Learned {
        &self.stored.learned
    }

    /// The features of each row as a list of 32-bit floats, [`features_type`], all in one buffer.
    ///
    /// A number is rounded once, from 64 bits. An index that can be unknown has a place for it at the
    /// end. A missing feature is NaN.
    ///
    /// # Errors
    /// If a raw column is not there or of another type, or an expression fails on a row.
    pub fn matrix(&self, rows: &RecordBatch) -> Result<ListArray> {
        let floats = self.floats(rows)?;
        list(floats, self.layout.width(), rows.num_rows())
    }

    /// The floats of [`FittedPreprocess::matrix`], row by row.
    ///
    /// # Errors
    /// As [`FittedPreprocess::matrix`].
    pub fn floats(&self, rows: &RecordBatch) -> Result<Vec<f32>> {
        let mut floats = Vec::new();
        self.write_floats(rows, &mut floats)?;
        Ok(floats)
    }

    /// [`FittedPreprocess::floats`] into a buffer, whose memory is used again and whose values go.
    ///
    /// # Errors
    /// As [`FittedPreprocess::matrix`].
    pub fn write_floats(&self, rows: &RecordBatch, floats: &mut Vec<f32>) -> Result<()> {
        let values = self.program.run(rows)?;
        let width = self.layout.width();
        floats.clear();
        if width == 0 {
            return Ok(());
        }
        let n_rows = rows.num_rows();
        floats.reserve(n_rows * width);
        // All features of some rows, then of the next, so that their part of the matrix stays in the cache.
        for first in (0..n_rows).step_by(BLOCK_ROWS) {
            let end = n_rows.min(first + BLOCK_ROWS);
            floats.resize(end * width, 0.0);
            let block = &mut floats[first * width..];
            for (column, place) in self.layout.columns().iter().zip(&self.places) {
                let kind = self.program.kind(*place);
                let values = &values[self.program.values_of(*place)];
                write(values, first, kind, block, column.offset, width)?;
            }
        }
        Ok(())
    }

    /// One column per feature, for tests and a look at them: numbers as Float64, indexes as Int64 (an
    /// unknown one is -1), one-hot features as lists; missing is null.
    ///
    /// # Errors
    /// As [`FittedPreprocess::matrix`].
    pub fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let all = self.program.run(rows)?;
        let values = |place: usize| &all[self.program.values_of(place)];
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (name, place) in self.stored.features.names().zip(&self.places) {
            let column: ArrayRef = match self.program.kind(*place) {
                kind @ Kind::OneHot { depth } => {
                    let mut floats = vec![0.0; rows.num_rows() * depth];
                    write(values(*place), 0, kind, &mut floats, 0, depth)?;
                    Arc::new(list(floats, depth, rows.num_rows())?)
                }
                _ => values(*place).to_array(),
            };
            fields.push(Field::new(name, column.data_type().clone(), true));
            columns.push(column);
        }
        Ok(RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            columns,
        )?)
    }

    /// Adds the raw columns as inputs of shape `[N, 1]` and the nodes that make the matrix, bit by bit
    /// as [`FittedPreprocess::matrix`] does; gives the matrix, FLOAT of shape `[N, width]`.
    ///
    /// Numbers of all types enter as DOUBLE, with NaN for null; text as STRING, with the empty text for
    /// null; Booleans as BOOL, which has no null. Integers beyond 2^53 are rounded on the way in.
    ///
    /// # Errors
    /// A pipeline error for each feature that ONNX cannot express.
    pub fn to_onnx(&self, graph: &mut OnnxGraph) -> Result<Value> {
        let values = self.program.to_onnx(graph)?;
        let features = self
            .places
            .iter()
            .map(|p| (&values[*p], self.program.kind(*p)));
        let matrix = onnx_matrix::concat(features, graph);
        graph.prune();
        Ok(matrix)
    }

    /// The SHA-256 of the serialised form, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        // Writing plain data into memory cannot fail; were it to, the fingerprint would match nothing.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(Sha256::digest(bytes))
    }

    /// The name of a feature that is missing in a row of the matrix.
    pub(crate) fn missing_in(&self, row: &[f32]) -> Option<&str> {
        let place = row.iter().position(|x| x.is_nan())?;
        let covers = |c: &&crate::FeatureColumn| place < c.offset + c.kind.width();
        self.layout.columns().iter().find(covers).map(|c| &*c.name)
    }

    /// The raw columns that a feature reads.
    pub(crate) fn columns_of(&self, name: &str) -> Vec<String> {
        let features = self.stored.features.features();
        let found = features.iter().find(|f| f.name == name);
        found.map(|f| f.feature.columns()).unwrap_or_default()
    }
}

impl TryFrom<Stored> for FittedPreprocess {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self> {
        if stored.version != VERSION {
            return Err(Error::data(format!(
                "the preprocessing has version {}, expected {VERSION}",
                stored.version
            ))
            .with_hint("Fit it anew with this version of Mainstem."));
        }
        let mut program = Program::new(&stored.input_schema);
        let (mut places, mut kinds, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for named in stored.features.features() {
            let name = &named.name;
            let located = |e: Error| e.with_detail(format!("In feature {name:?}."));
            match program.add(&named.feature, &stored.learned) {
                Ok(place) => match program.kind(place).feature_kind() {
                    Some(kind) => {
                        places.push(place);
                        kinds.push((name.clone(), kind));
                    }
                    None => errors.push(located(Error::pipeline(
                        "text cannot stand in the feature matrix",
                    ))),
                },
                Err(error) => errors.push(located(error)),
            }
        }
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        Ok(Self {
            stored: Arc::new(stored),
            program: Arc::new(program),
            places,
            layout: FeatureLayout::new(kinds),
        })
    }
}

impl From<FittedPreprocess> for Stored {
    fn from(fitted: FittedPreprocess) -> Self {
        Arc::unwrap_or_clone(fitted.stored)
    }
}

impl PartialEq for FittedPreprocess {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl fmt::Debug for FittedPreprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.stored.features.names().collect();
        write!(
            f,
            "FittedPreprocess({} columns: {})",
            self.layout.width(),
            names.join(", ")
        )
    }
}

/// Rows whose features are written before those of the next.
const BLOCK_ROWS: usize = 256;

/// Writes a feature, from row `first` on, into its columns of a part of the matrix, which holds zeros.
fn write(
    values: &Values,
    first: usize,
    kind: Kind,
    floats: &mut [f32],
    offset: usize,
    width: usize,
) -> Result<()> {
    if width == 0 {
        return Ok(());
    }
    let rows = floats.chunks_exact_mut(width);
    match kind {
        Kind::Number => {
            for (row, x) in rows.zip(&values.numbers()?[first..]) {
                row[offset] = *x as f32;
            }
        }
        Kind::Index { depth, .. } => {
            for (row, index) in rows.zip(&values.indexes()?[first..]) {
                row[offset] = match *index {
                    MISSING => f32::NAN,
                    UNKNOWN => depth as f32,
                    index => index as f32,
                };
            }
        }
        Kind::OneHot { depth } => {
            for (row, index) in rows.zip(&values.indexes()?[first..]) {
                if let Some(place) = usize::try_from(*index).ok().filter(|i| *i < depth) {
                    row[offset + place] = 1.0;
                }
            }
        }
        Kind::Text => return Err(Error::bug("text stands in the feature matrix")),
    }
    Ok(())
}

/// Lists of `width` floats each, over one buffer.
pub(crate) fn list(floats: Vec<f32>, width: usize, n_rows: usize) -> Result<ListArray> {
    let DataType::List(item) = features_type() else {
        return Err(Error::bug("the features are no list"));
    };
    let too_many = || {
        Error::data(format!(
            "{n_rows} rows of {width} features do not fit into one batch"
        ))
        .with_hint("Give fewer rows at once.")
    };
    if i32::try_from(floats.len()).is_err() {
        return Err(too_many());
    }
    let offsets: ScalarBuffer<i32> = (0..=n_rows).map(|row| (row * width) as i32).collect();
    let values = Arc::new(Float32Array::from(floats));
    Ok(ListArray::try_new(
        item,
        OffsetBuffer::new(offsets),
        values,
        None,
    )?)
}
