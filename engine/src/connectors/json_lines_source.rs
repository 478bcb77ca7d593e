//! Reads files of JSON lines, many at a time by a folder or a pattern.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::json;

use super::agreement::column_twice;
use super::compression::FileCompression;
use super::file_source::{Once, file_of_split, file_source};
use super::files::Files;
use super::hive::{HiveColumns, HiveOptions, hive_options};
use super::json_lines_reader::{JsonLinesReader, LineReader, check_readable};
use super::json_types::Kind;
use super::storage::StoredFile;
use super::text_splits::{Locator, Place, RowEnds, SPLIT_BYTES, TextSplits, splits_of};
use crate::error::{Error, Result};
use crate::expression::check_column;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::transform::Description;

/// How many rows are looked at, over all files, to find the columns and their types.
const SAMPLE_ROWS: usize = 10_000;

/// Rows of files with a JSON object a line: of one file, of all `*.jsonl`, `*.ndjson` and `*.json` of a
/// folder, or of those that match a pattern, at a path or a URL (see [`Storage`](super::Storage)).
///
/// Files that end in `.gz` or `.zst` are decompressed as they are read, each as one split. Of others,
/// every 16 MiB or so are a split. Empty lines are passed over.
///
/// **Columns.** Without a schema, the first 10,000 rows, taken evenly from all files, decide: the names in
/// the order in which they are met, and for each Boolean, Int64, Float64, a list, a struct, else Utf8.
/// A name that the sample does not hold, or the schema, is passed over. Whole numbers too large for Int64
/// make a column Utf8, and so do nulls alone. With a schema, dates and timestamps are read from text in
/// ISO 8601 or from whole numbers of their unit since 1970, and bytes from text in hexadecimal.
///
/// **Values.** A name that an object lacks is null. Numbers and Booleans in a column of text are read as
/// they are written. Whole numbers are read exactly: `1.5` is no Int64,
/// nor a date. A number too large for a float, such as `1e400`, is none of its values.
///
/// **Bad rows.** A line is a bad row if it is no JSON object, holds a value that is not of the column's
/// type, a null where the schema has none, or text that is not UTF-8. Every column is checked, also one
/// that nobody wants. The dead letter holds the line; its row is the number of the line, from 1.
///
/// **Files that change.** A local file that is another one when its last byte is read than when it was listed
/// ends the run, be it shorter or longer: rows are neither cut nor added.
///
/// Folders named `column=value` below the place are columns: see [`JsonLinesSource::hive_columns`].
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("events");
/// let events = pipeline.read("events", connectors::json_lines("events/*.jsonl.gz"));
/// ```
#[derive(Clone)]
pub struct JsonLinesSource {
    files: Files,
    hive: HiveOptions,
    declared: Option<SchemaRef>,
    column_types: Vec<(String, DataType)>,
    max_row_bytes: u64,
    split_bytes: u64,
    /// Samples are read once, by the first who needs them.
    loaded: Once<Loaded>,
}

/// The rows of files of JSON lines: see [`JsonLinesSource`].
pub fn json_lines(place: impl AsRef<Path>) -> JsonLinesSource {
    const EXTENSIONS: &[&str] = &[
        "jsonl",
        "ndjson",
        "json",
        "jsonl.gz",
        "ndjson.gz",
        "json.gz",
        "jsonl.zst",
        "ndjson.zst",
        "json.zst",
    ];
    JsonLinesSource {
        files: Files::new(place, EXTENSIONS),
        hive: HiveOptions::default(),
        declared: None,
        column_types: Vec::new(),
        max_row_bytes: 128 << 20,
        split_bytes: SPLIT_BYTES,
        loaded: Once::default(),
    }
}

impl JsonLinesSource {
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

    /// How long a line may be, by default 128 MiB and at most 1 GiB: a longer one ends the run.
    #[must_use]
    pub fn max_row_bytes(mut self, n_bytes: u64) -> Self {
        self.max_row_bytes = n_bytes.min(1 << 30);
        self.afresh()
    }

    /// How many bytes of a file are one split: by default 16 MiB.
    #[must_use]
    pub fn split_bytes(mut self, n_bytes: u64) -> Self {
        self.split_bytes = n_bytes.max(1);
        self.afresh()
    }

    fn load(&self) -> Result<Loaded> {
        let stored = self.files.list()?;
        let schema = match &self.declared {
            Some(declared) => Arc::clone(declared),
            None => self.infer(&stored)?,
        };
        let schema = self.with_column_types(&schema)?;
        let hive = self.hive.columns(&self.files.place(), &stored)?;
        let files = stored.into_iter().map(|file| {
            let large = file.n_bytes() > self.split_bytes;
            let splits =
                (large && FileCompression::of(&file) == FileCompression::None).then(|| {
                    let first = Place::default();
                    let splits = TextSplits::new(&file, RowEnds::Lines, first, self.split_bytes);
                    Arc::new(splits)
                });
            (file, splits)
        });
        Ok(Loaded {
            schema: hive.schema(&schema),
            file_schema: schema,
            hive,
            files: files.collect(),
        })
    }

    fn with_column_types(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| (**f).clone()).collect();
        for (column, data_type) in &self.column_types {
            let place = check_column(column, schema)?;
            fields[place].set_data_type(data_type.clone());
        }
        let schema = Schema::new(fields);
        if schema.fields().is_empty() {
            return Err(Error::pipeline(
                "the schema of JSON lines must have columns",
            ));
        }
        if let Some(twice) = column_twice(&schema) {
            return Err(
                Error::pipeline(format!("the schema given has two columns {twice:?}"))
                    .with_hint("Rename one of them."),
            );
        }
        check_readable(&schema)?;
        Ok(Arc::new(schema))
    }

    fn infer(&self, files: &[StoredFile]) -> Result<SchemaRef> {
        let rows_per_file = (SAMPLE_ROWS / files.len()).max(10);
        let mut whole = Kind::Object(Vec::new());
        for file in files {
            let mut lines = LineReader::open(file, None, self.max_row_bytes)?;
            let chunk = lines.read(rows_per_file)?;
            for (_, line) in chunk.lines() {
                // Other lines are reported when they are read for good.
                if let Some(kind @ Kind::Object(_)) = Kind::of(line) {
                    whole.merge(kind);
                }
            }
        }
        let schema = whole.schema();
        if schema.fields().is_empty() {
            let names: Vec<String> = files.iter().take(3).map(StoredFile::name).collect();
            let more = if files.len() > 3 { " and others" } else { "" };
            return Err(Error::data(format!(
                "no JSON object with a name in it was found in {}{more}",
                names.join(", ")
            ))
            .with_hint("Check the files, or give the columns by `.schema(…)`."));
        }
        Ok(Arc::new(schema))
    }
}

hive_options!(JsonLinesSource, afresh);

file_source!(JsonLinesSource, "json_lines");

#[derive(Clone)]
struct Loaded {
    /// The columns of the files, then those of their folders.
    schema: SchemaRef,
    file_schema: SchemaRef,
    hive: HiveColumns,
    /// With where the splits of a large one begin.
    files: Vec<(StoredFile, Option<Arc<TextSplits>>)>,
}

impl Source for JsonLinesSource {
    fn describe(&self) -> Description {
        let types: Vec<_> = self
            .column_types
            .iter()
            .map(|(c, t)| json!([c, t.to_string()]))
            .collect();
        Description::new(
            "json_lines",
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
        let files = &self.loaded()?.files;
        splits_of(files.iter().map(|(file, within)| (file, within.as_deref())))
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let loaded = self.loaded()?;
        let locator: Locator = serde_json::from_value(split.locator.clone())?;
        let (number, (file, splits)) = file_of_split(&loaded.files, &locator.file, |(f, _)| f)?;
        let part = match splits {
            None => None,
            Some(splits) => Some(splits.range(locator.part)?),
        };
        let lines = LineReader::open(file, part, self.max_row_bytes)?;
        let selection = loaded.hive.of_file(&loaded.file_schema, columns)?;
        let n_bytes = split.n_bytes.unwrap_or(u64::MAX);
        let reader =
            JsonLinesReader::new(lines, &loaded.file_schema, selection, position.0, n_bytes);
        let reader = Box::new(reader);
        loaded.hive.reader(number, reader, &loaded.schema, columns)
    }
}

#[cfg(test)]
mod tests;
