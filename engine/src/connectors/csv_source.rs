//! Reads CSV files, many at a time by a folder or a pattern.

use std::path::Path;
use std::sync::Arc;

use arrow::compute::{can_cast_types, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::agreement::{agree, column_twice};
use super::compression::FileCompression;
use super::csv_dialect::Dialect;
use super::csv_reader::{CsvReader, FirstLine, Layout, Part};
use super::csv_types::infer_type;
use super::file_source::{Once, file_of_split, file_source};
use super::files::Files;
use super::hive::{HiveColumns, HiveOptions, hive_options};
use super::selection::Selection;
use super::storage::StoredFile;
use super::text_splits::{Locator, SPLIT_BYTES, TextSplits, splits_of};
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::expression::check_column;
use crate::output::{OnBadRow, Output};
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::transform::Description;

/// How many rows are looked at, over all files, to find the types of the columns.
const SAMPLE_ROWS: usize = 10_000;

/// Rows of CSV files: of one file, of all `*.csv` of a folder, or of those that match a pattern, at a
/// path or a URL such as `s3://bucket/births/*.csv` (see [`Storage`](super::Storage)).
///
/// Files that end in `.gz` or `.zst` are decompressed as they are read; of a folder, `*.csv.gz` and
/// `*.csv.zst` are read too.
///
/// The first line names the columns, unless [`CsvSource::schema`] is given; columns without a name are
/// called `column_1` and so on by their place. All files must have the same columns; where they have
/// a header, in any order.
///
/// **Splits.** A file of more than 16 MiB is several splits of about that size, which all workers read at
/// once. Quoted line breaks never divide a row: where a split begins is found by looking through the
/// quotes before it, once per file and while earlier splits are read. A compressed file is one split.
///
/// **Types.** Without a schema, the first 10,000 rows, taken evenly from all files, decide: Int64,
/// Float64, Boolean (`true` and `false`), Date32, Timestamp in microseconds, or in nanoseconds where a
/// value has more than six digits of a second, else Utf8. Whole numbers too large for Int64 are Utf8, and so is a column of nothing but nulls. What the sample gets wrong,
/// such as postal codes with leading zeros, is set right by [`CsvSource::column_type`].
///
/// **Nulls.** An empty field is null, quoted or not; so are the [`CsvSource::null_spellings`].
///
/// **Bad rows.** A line is a bad row if it has too few or too many fields, a value that is not of the
/// column's type (an instant with more digits than the type has, or for a date with a time of the day, too), a null where the schema has none, or text that is not UTF-8. The other lines of
/// the file are read. Every column is checked, also one that nobody wants, so that what is bad never
/// depends on the rest of the pipeline. The dead letter holds the line as it stands in the file; its
/// row is the **number of the line, from 1**, the header counted, and where quoted fields hold line
/// breaks, the line where the row begins.
///
/// Empty lines are passed over.
///
/// **Files that change.** A local file that is another one when its last byte is read than when it was listed
/// ends the run, be it shorter or longer: rows are neither cut nor added.
///
/// Folders named `column=value` below the place are columns: see [`CsvSource::hive_columns`].
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("census");
/// let adults = pipeline.read("adults", connectors::csv("adult.test").trim(true).null_spellings(["?"]));
/// ```
#[derive(Clone)]
pub struct CsvSource {
    files: Files,
    hive: HiveOptions,
    declared: Option<SchemaRef>,
    has_header: Option<bool>,
    skip_lines: u64,
    dialect: Dialect,
    column_types: Vec<(String, DataType)>,
    split_bytes: u64,
    /// Headers and samples are read once, by the first who needs them.
    loaded: Once<Loaded>,
}

/// The rows of CSV files: see [`CsvSource`].
pub fn csv(place: impl AsRef<Path>) -> CsvSource {
    CsvSource {
        files: Files::new(place, &["csv", "csv.gz", "csv.zst"]),
        hive: HiveOptions::default(),
        declared: None,
        has_header: None,
        skip_lines: 0,
        dialect: Dialect::default(),
        column_types: Vec::new(),
        split_bytes: SPLIT_BYTES,
        loaded: Once::default(),
    }
}

impl CsvSource {
    /// The columns and their types, instead of a header and a guess.
    ///
    /// The files have no header then, unless [`CsvSource::has_header`] says so; it must have these names.
    /// A Boolean may be written as `true`, `yes`, `on`, `1` and their opposites, in any case.
    #[must_use]
    pub fn schema(self, schema: SchemaRef) -> Self {
        Self {
            declared: Some(schema),
            ..self.afresh()
        }
    }

    /// Whether the first line names the columns: by default yes, and with a schema no.
    #[must_use]
    pub fn has_header(self, has_header: bool) -> Self {
        Self {
            has_header: Some(has_header),
            ..self.afresh()
        }
    }

    /// How many lines at the start of each file are passed over, before the header if there is one.
    #[must_use]
    pub fn skip_lines(self, n_lines: u64) -> Self {
        Self {
            skip_lines: n_lines,
            ..self.afresh()
        }
    }

    /// What stands between two fields: by default a comma.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.dialect.delimiter = delimiter;
        self.afresh()
    }

    /// The type of one column, whatever the sample or the schema says.
    #[must_use]
    pub fn column_type(mut self, column: impl Into<String>, data_type: DataType) -> Self {
        self.column_types.push((column.into(), data_type));
        self.afresh()
    }

    /// What quotes a field that holds delimiters or line breaks: by default `"`. Two stand for one.
    #[must_use]
    pub fn quote(mut self, quote: u8) -> Self {
        self.dialect.quote = Some(quote);
        self.afresh()
    }

    /// Whether fields can be quoted: by default yes. If not, a quote is a character like others.
    #[must_use]
    pub fn quoting(mut self, quoting: bool) -> Self {
        self.dialect.quote = match quoting {
            true => self.dialect.quote.or(Some(b'"')),
            false => None,
        };
        self.afresh()
    }

    /// What begins a line that is passed over as a comment: by default nothing.
    ///
    /// A file with comments is one split, however large it is.
    #[must_use]
    pub fn comment(mut self, mark: u8) -> Self {
        self.dialect.comment = Some(mark);
        self.afresh()
    }

    /// How long a row may be, by default 128 MiB and at most 1 GiB: a longer one ends the run.
    ///
    /// It is what a quote that is never closed can cost of memory.
    #[must_use]
    pub fn max_row_bytes(mut self, n_bytes: u64) -> Self {
        self.dialect.max_row_bytes = n_bytes.min(1 << 30);
        self.afresh()
    }

    /// How many bytes of a file are one split: by default 16 MiB.
    #[must_use]
    pub fn split_bytes(mut self, n_bytes: u64) -> Self {
        self.split_bytes = n_bytes.max(1);
        self.afresh()
    }

    /// Whether white space around values and names is left out: by default no.
    ///
    /// With this a line of white space alone counts as empty.
    #[must_use]
    pub fn trim(mut self, trim: bool) -> Self {
        self.dialect.trim = trim;
        self.afresh()
    }

    /// Values that mean null, besides the empty field; compared after trimming.
    #[must_use]
    pub fn null_spellings(
        mut self,
        spellings: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.dialect.nulls = spellings.into_iter().map(Into::into).collect();
        self.afresh()
    }

    fn header(&self) -> bool {
        self.has_header.unwrap_or(self.declared.is_none())
    }

    fn load(&self) -> Result<Loaded> {
        self.dialect.check()?;
        if let Some(declared) = &self.declared {
            check_declared(declared)?;
        }
        let files = self.files.each(|file| self.look_at(file))?;
        let schema = match &self.declared {
            Some(declared) => self.with_column_types(declared)?,
            None => self.infer(&files)?,
        };
        let stored = files.iter().map(|f| &f.file);
        let hive = self.hive.columns(&self.files.place(), stored)?;
        Ok(Loaded {
            schema: hive.schema(&schema),
            file_schema: schema,
            hive,
            files,
        })
    }

    fn with_column_types(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| (**f).clone()).collect();
        for (column, data_type) in &self.column_types {
            let place = check_column(column, schema)?;
            fields[place].set_data_type(data_type.clone());
        }
        let schema = Schema::new(fields);
        check_declared(&schema)?;
        Ok(Arc::new(schema))
    }

    fn look_at(&self, file: StoredFile) -> Result<CsvFile> {
        let large = file.n_bytes() > self.split_bytes
            && FileCompression::of(&file) == FileCompression::None
            && self.dialect.comment.is_none();
        let named = self.declared.is_none() || self.header();
        let first = match large || named {
            true => CsvReader::first_line(&file, self.skip_lines, &self.dialect)?,
            false => None,
        };
        let from = first.as_ref().map(|line| match self.header() {
            true => line.next,
            false => line.from,
        });
        let splits = from.filter(|_| large).map(|from| {
            let ends = self.dialect.row_ends();
            Arc::new(TextSplits::new(&file, ends, from, self.split_bytes))
        });
        let names = match named {
            true => Some(self.names(&file, first)?),
            false => None,
        };
        let file = CsvFile {
            file,
            names,
            splits,
        };
        if let (Some(declared), Some(found)) = (&self.declared, file.columns()) {
            let declared = ("the schema given".to_owned(), as_text(declared));
            agree(&[declared, found]).map_err(|error| {
                error.with_hint(
                    "Correct the schema, or pass the header over by `.skip_lines(1).has_header(false)`.",
                )
            })?;
        }
        Ok(file)
    }

    /// The names of the columns of one file by its first line.
    fn names(&self, file: &StoredFile, first: Option<FirstLine>) -> Result<Vec<String>> {
        let Some(first) = first else {
            let expected = if self.header() { "a header" } else { "rows" };
            return Err(
                Error::data(format!("{} is empty, expected {expected}", file.name()))
                    .with_hint("Leave the file out, or give the columns by `.schema(…)`."),
            );
        };
        let names = first.fields.into_iter().enumerate().map(|(i, name)| {
            if self.header() && !name.is_empty() {
                name
            } else {
                format!("column_{}", i + 1)
            }
        });
        Ok(names.collect())
    }

    fn infer(&self, files: &[CsvFile]) -> Result<SchemaRef> {
        let columns: Vec<(String, SchemaRef)> = files.iter().filter_map(CsvFile::columns).collect();
        let names = &agree(&columns)?;
        let rows_per_file = (SAMPLE_ROWS / files.len()).max(10);
        let all = Selection::new(names, None)?;
        let mut sample = Vec::new();
        for file in files {
            let layout = self.layout(names, file.names.as_deref());
            let mut reader = CsvReader::open(
                &file.file,
                Part::Whole,
                layout,
                all.clone(),
                0,
                rows_per_file,
            )?;
            // Lines without the right fields are reported when they are read for good.
            let mut ignored = Output::new(OnBadRow::Drop);
            while let Some(rows) = reader.next_batch(&mut ignored)? {
                if rows.num_rows() > 0 {
                    sample.push(rows);
                    break;
                }
            }
        }
        let sample: RecordBatch = concat_batches(names, &sample)?;
        let fields: Result<Vec<Field>> = sample
            .columns()
            .iter()
            .zip(names.fields())
            .map(|(column, field)| Ok(Field::new(field.name(), infer_type(column)?, true)))
            .collect();
        self.with_column_types(&Arc::new(Schema::new(fields?)))
    }

    fn layout(&self, schema: &SchemaRef, header: Option<&[String]>) -> Layout {
        let places = schema.fields().iter().enumerate().map(|(i, field)| {
            let named = |names: &[String]| names.iter().position(|n| n == field.name());
            header.and_then(named).unwrap_or(i)
        });
        Layout {
            schema: Arc::clone(schema),
            places: places.collect(),
            has_header: self.header(),
            skip_lines: self.skip_lines,
            dialect: self.dialect.clone(),
        }
    }
}

hive_options!(CsvSource, afresh);

file_source!(CsvSource, "csv");

#[derive(Clone)]
struct Loaded {
    /// The columns of the files, then those of their folders.
    schema: SchemaRef,
    file_schema: SchemaRef,
    hive: HiveColumns,
    files: Vec<CsvFile>,
}

#[derive(Clone)]
struct CsvFile {
    file: StoredFile,
    /// The names of its columns, where it tells them.
    names: Option<Vec<String>>,
    /// Where its splits begin, if it is more than one.
    splits: Option<Arc<TextSplits>>,
}

impl CsvFile {
    /// Its name, and its columns as text.
    fn columns(&self) -> Option<(String, SchemaRef)> {
        let fields: Vec<Field> = self.names.as_ref()?.iter().map(|n| text_field(n)).collect();
        Some((self.file.name(), Arc::new(Schema::new(fields))))
    }
}

fn text_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn as_text(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|f| text_field(f.name()))
        .collect();
    Arc::new(Schema::new(fields))
}

fn check_declared(schema: &Schema) -> Result<()> {
    if schema.fields().is_empty() {
        return Err(Error::pipeline("the schema of CSV files must have columns"));
    }
    if let Some(twice) = column_twice(schema) {
        return Err(
            Error::pipeline(format!("the schema given has two columns {twice:?}"))
                .with_hint("Rename one of them."),
        );
    }
    let readable = |f: &&FieldRef| {
        !f.data_type().is_nested() && can_cast_types(&DataType::Utf8, f.data_type())
    };
    let errors: Vec<Error> = schema
        .fields()
        .iter()
        .filter(|f| !readable(f))
        .map(|f| {
            Error::pipeline(format!(
                "column {:?} of type {} cannot be read from CSV",
                f.name(),
                f.data_type()
            ))
            .with_hint("Read it as Utf8 and take it apart afterwards.")
        })
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Error::all(errors))
    }
}

impl Source for CsvSource {
    fn describe(&self) -> Description {
        let config = json!({
            "files": self.files.place(),
            "has_header": self.header(),
            "skip_lines": self.skip_lines,
            "delimiter": char::from(self.dialect.delimiter).to_string(),
            "quote": self.dialect.quote.map(|q| char::from(q).to_string()),
            "comment": self.dialect.comment.map(|c| char::from(c).to_string()),
            "trim": self.dialect.trim,
            "null_spellings": self.dialect.nulls,
            "column_types": self
                .column_types
                .iter()
                .map(|(c, t)| json!([c, t.to_string()]))
                .collect::<Vec<_>>(),
        });
        Description::new("csv", config)
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
        splits_of(files.iter().map(|f| (&f.file, f.splits.as_deref())))
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let loaded = self.loaded()?;
        let locator: Locator = serde_json::from_value(split.locator.clone())?;
        let (number, file) = file_of_split(&loaded.files, &locator.file, |f| &f.file)?;
        let layout = self.layout(&loaded.file_schema, file.names.as_deref());
        let selection = loaded.hive.of_file(&loaded.file_schema, columns)?;
        let part = match &file.splits {
            None => Part::Whole,
            Some(splits) => {
                let (from, to) = splits.range(locator.part)?;
                let n_bytes = splits.n_bytes(locator.part);
                Part::Bytes { from, to, n_bytes }
            }
        };
        let reader = CsvReader::open(&file.file, part, layout, selection, position.0, BATCH_ROWS)?;
        let reader = Box::new(reader);
        loaded.hive.reader(number, reader, &loaded.schema, columns)
    }
}

#[cfg(test)]
mod tests;
