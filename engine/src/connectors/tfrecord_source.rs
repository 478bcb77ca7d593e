//! Reads TFRecord files of tf.Example, many at a time by a folder or a pattern.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::agreement::column_twice;
use super::file_source::{Once, file_of_split, file_source};
use super::files::Files;
use super::hive::{HiveColumns, HiveOptions, hive_options};
use super::storage::StoredFile;
use super::tfrecord_reader::{Records, TfRecordReader};
use super::tfrecord_types::{Column, Sample};
use crate::error::{Error, Result};
use crate::expression::check_column;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::transform::Description;

/// How many records are looked at, over all files, to find the columns and their types.
const SAMPLE_ROWS: usize = 1_000;

/// Rows of TFRecord files of tf.Example: of one file, of all `*.tfrecord`, `*.tfrecords` and `*.tfrec` of a
/// folder, also with `.gz` at the end, or of those that match a pattern, at a path or a URL (see
/// [`Storage`](super::Storage)). Each file is one split.
///
/// **Columns.** Each feature is a column. Without a schema, the first 1,000 records, taken evenly from all
/// files, decide: Int64, Float32, Utf8, or Binary where some bytes are not UTF-8; a list of these where a
/// record holds several values. The columns stand in the order of their names, as those of a tf.Example
/// have no order. A schema may also ask for Boolean, other whole numbers, Float64 and dictionaries of text.
///
/// **Nulls.** A feature that a record lacks is null, and where a column is no list, so is one without values.
///
/// **Bad rows.** A record is a bad row if it is no tf.Example, or if a feature does not hold what its column
/// does: values of another type, several where one belongs, text that is not UTF-8, or nothing where null
/// must not be. The row of the dead letter is the number of the record, from 0. A checksum that does not
/// match ends the run, as does a file that is cut short.
///
/// Folders named `column=value` below the place are columns: see [`TfRecordSource::hive_columns`].
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("images");
/// let images = pipeline.read("images", connectors::tfrecord("train-*.tfrecord.gz"));
/// ```
#[derive(Clone)]
pub struct TfRecordSource {
    files: Files,
    hive: HiveOptions,
    declared: Option<SchemaRef>,
    column_types: Vec<(String, DataType)>,
    max_row_bytes: u64,
    /// Samples are read once, by the first who needs them.
    loaded: Once<Loaded>,
}

/// The rows of TFRecord files of tf.Example: see [`TfRecordSource`].
pub fn tfrecord(place: impl AsRef<Path>) -> TfRecordSource {
    const EXTENSIONS: &[&str] = &[
        "tfrecord",
        "tfrecords",
        "tfrec",
        "tfrecord.gz",
        "tfrecords.gz",
        "tfrec.gz",
    ];
    TfRecordSource {
        files: Files::new(place, EXTENSIONS),
        hive: HiveOptions::default(),
        declared: None,
        column_types: Vec::new(),
        max_row_bytes: 128 << 20,
        loaded: Once::default(),
    }
}

impl TfRecordSource {
    /// The columns and their types, instead of a guess.
    #[must_use]
    pub fn schema(self, schema: SchemaRef) -> Self {
        Self {
            declared: Some(schema),
            ..self.afresh()
        }
    }

    /// The type of one column, whatever the sample or the schema says.
    #[must_use]
    pub fn column_type(mut self, column: impl Into<String>, data_type: DataType) -> Self {
        self.column_types.push((column.into(), data_type));
        self.afresh()
    }

    /// How long a record may be, by default 128 MiB and at most 1 GiB: a longer one ends the run.
    #[must_use]
    pub fn max_row_bytes(mut self, n_bytes: u64) -> Self {
        self.max_row_bytes = n_bytes.min(1 << 30);
        self.afresh()
    }

    fn load(&self) -> Result<Loaded> {
        let files = self.files.list()?;
        let schema = match &self.declared {
            Some(declared) => Arc::clone(declared),
            None => self.infer(&files)?,
        };
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| (**f).clone()).collect();
        for (column, data_type) in &self.column_types {
            let place = check_column(column, &schema)?;
            fields[place].set_data_type(data_type.clone());
        }
        let schema = Schema::new(fields);
        check_declared(&schema)?;
        let hive = self.hive.columns(&self.files.place(), &files)?;
        Ok(Loaded {
            schema: hive.schema(&schema),
            file_schema: Arc::new(schema),
            hive,
            files,
        })
    }

    fn infer(&self, files: &[StoredFile]) -> Result<SchemaRef> {
        let rows_per_file = (SAMPLE_ROWS / files.len()).max(10);
        let mut sample = Sample::default();
        for file in files {
            let mut records = Records::open(file, self.max_row_bytes)?;
            for _ in 0..rows_per_file {
                let Some((_, record)) = records.next_record()? else {
                    break;
                };
                // Other records are reported when they are read for good.
                for (name, feature) in record.unwrap_or_default() {
                    sample.add(name, &feature);
                }
            }
        }
        let schema = sample.schema();
        if schema.fields().is_empty() {
            let names: Vec<String> = files.iter().take(3).map(StoredFile::name).collect();
            let more = if files.len() > 3 { " and others" } else { "" };
            return Err(Error::data(format!(
                "no tf.Example with a feature was found in {}{more}",
                names.join(", ")
            ))
            .with_hint("Check the files, or give the columns by `.schema(…)`."));
        }
        Ok(Arc::new(schema))
    }
}

fn check_declared(schema: &Schema) -> Result<()> {
    if schema.fields().is_empty() {
        return Err(Error::pipeline(
            "the schema of TFRecord files must have columns",
        ));
    }
    if let Some(twice) = column_twice(schema) {
        return Err(
            Error::pipeline(format!("the schema given has two columns {twice:?}"))
                .with_hint("Rename one of them."),
        );
    }
    let refused = schema
        .fields()
        .iter()
        .filter(|f| Column::of(f.data_type()).is_none());
    let errors: Vec<Error> = refused
        .map(|f| {
            let (name, data_type) = (f.name(), f.data_type());
            Error::pipeline(format!(
                "column {name:?} of type {data_type} cannot be read from tf.Example"
            ))
            .with_detail("A feature holds integers, floats of 32 bits or bytes.")
            .with_hint("Read it as one of these, or as a list of them, and cast it afterwards.")
        })
        .collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Error::all(errors)),
    }
}

hive_options!(TfRecordSource, afresh);

file_source!(TfRecordSource, "tfrecord");

#[derive(Clone)]
struct Loaded {
    /// The columns of the files, then those of their folders.
    schema: SchemaRef,
    file_schema: SchemaRef,
    hive: HiveColumns,
    files: Vec<StoredFile>,
}

#[derive(Serialize, Deserialize)]
struct Locator {
    file: String,
}

impl Source for TfRecordSource {
    fn describe(&self) -> Description {
        let types: Vec<_> = self
            .column_types
            .iter()
            .map(|(c, t)| json!([c, t.to_string()]))
            .collect();
        Description::new(
            "tfrecord",
            json!({ "files": self.files.place(), "column_types": types }),
        )
    }

    fn place(&self) -> Option<String> {
        Some(self.files.root())
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(Arc::clone(&self.loaded()?.schema))
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |file: &StoredFile| {
            Ok(Split {
                name: file.name(),
                locator: serde_json::to_value(Locator {
                    file: file.location().to_owned(),
                })?,
                n_rows: None,
                n_bytes: Some(file.n_bytes()),
            })
        };
        self.loaded()?.files.iter().map(split).collect()
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let loaded = self.loaded()?;
        let locator: Locator = serde_json::from_value(split.locator.clone())?;
        let (number, file) = file_of_split(&loaded.files, &locator.file, |f| f)?;
        let records = Records::open(file, self.max_row_bytes)?;
        let selection = loaded.hive.of_file(&loaded.file_schema, columns)?;
        let reader = TfRecordReader::new(records, &loaded.file_schema, selection, position.0)?;
        let reader = Box::new(reader);
        loaded.hive.reader(number, reader, &loaded.schema, columns)
    }
}

#[cfg(test)]
mod tests;
