//! Reads Parquet files, many at a time by a folder or a pattern.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::SPLIT_ROWS;
use super::agreement::agree;
use super::files::Files;
use super::parquet_file::ParquetBytes;
use super::selection::Selection;
use super::storage::{Storage, StoredFile, has_changed};
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::source::{Position, Source, Split, SplitReader};
use crate::transform::Description;

/// Rows of Parquet files: of one file, of all `*.parquet` of a folder, or of those that match a pattern, at
/// a path or a URL such as `s3://bucket/births/*.parquet` (see [`Storage`]).
///
/// All files must have the same columns, in any order. Text is read as Utf8, however it is stored: as
/// a dictionary, a view, or with large offsets. Nulls are nulls.
/// A split is a run of neighbouring row groups of one file, of about 131,072 rows; a row group of
/// twice as many and more is cut into several, whose pages are passed over without decoding them.
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("births");
/// let births = pipeline.read("births", connectors::parquet("births/2024-*.parquet"));
/// ```
#[derive(Clone)]
pub struct ParquetSource {
    files: Files,
    /// Footers are read once, by the first who needs them.
    loaded: Arc<OnceLock<Loaded>>,
}

/// The rows of Parquet files: see [`ParquetSource`].
pub fn parquet(place: impl AsRef<Path>) -> ParquetSource {
    ParquetSource {
        files: Files::new(place, &["parquet"]),
        loaded: Arc::default(),
    }
}

impl fmt::Debug for ParquetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parquet({:?})", self.files.place())
    }
}

struct Loaded {
    schema: SchemaRef,
    files: Vec<ParquetFile>,
}

struct ParquetFile {
    file: StoredFile,
    footer: ArrowReaderMetadata,
}

#[derive(Serialize, Deserialize)]
struct Locator {
    file: String,
    first_row_group: usize,
    n_row_groups: usize,
    /// The rows of these row groups that are of the split.
    first_row: u64,
    n_rows: u64,
}

impl ParquetSource {
    /// How an object store is reached, where the place is a URL: by default as the environment says.
    #[must_use]
    pub fn storage(self, storage: Storage) -> Self {
        Self {
            files: self.files.storage(storage),
            loaded: Arc::default(),
        }
    }

    fn loaded(&self) -> Result<&Loaded> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = Loaded::read(&self.files)?;
        Ok(self.loaded.get_or_init(|| loaded))
    }
}

impl Loaded {
    fn read(files: &Files) -> Result<Self> {
        let mut read = Vec::new();
        let mut errors = Vec::new();
        for file in files.list()? {
            match ParquetFile::read(file) {
                Ok(file) => read.push(file),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        let schemas: Vec<(String, SchemaRef)> = read
            .iter()
            .map(|f| (f.file.name(), Arc::clone(f.footer.schema())))
            .collect();
        Ok(Self {
            schema: agree(&schemas)?,
            files: read,
        })
    }
}

impl ParquetFile {
    fn read(file: StoredFile) -> Result<Self> {
        let bytes = ParquetBytes::open(&file)?;
        let footer = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())
            .and_then(with_plain_text)
            .map_err(|error| bytes.failure().unwrap_or_else(|| no_footer(&file, error)))?;
        Ok(Self { file, footer })
    }

    fn row_groups(&self) -> &[RowGroupMetaData] {
        self.footer.metadata().row_groups()
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let sizes: Vec<u64> = self.row_groups().iter().map(n_rows).collect();
        let mut splits = Vec::new();
        for (first, n) in runs(&sizes, SPLIT_ROWS) {
            let all_rows: u64 = sizes[first..first + n].iter().sum();
            for (first_row, n_rows) in pieces(all_rows, SPLIT_ROWS) {
                splits.push(self.split(Locator {
                    file: self.file.location().to_owned(),
                    first_row_group: first,
                    n_row_groups: n,
                    first_row,
                    n_rows,
                })?);
            }
        }
        Ok(splits)
    }

    fn split(&self, locator: Locator) -> Result<Split> {
        let (first, n) = (locator.first_row_group, locator.n_row_groups);
        let groups = &self.row_groups()[first..first + n];
        let all_rows: u64 = groups.iter().map(n_rows).sum();
        let all_bytes: u64 = groups.iter().map(|g| unsigned(g.compressed_size())).sum();
        let mut name = format!("{}, {}", self.file.name(), group_names(first, n));
        if locator.n_rows < all_rows {
            name.push_str(&format!(", from row {}", locator.first_row));
        }
        Ok(Split {
            name,
            n_rows: Some(locator.n_rows),
            n_bytes: Some(share(all_bytes, locator.n_rows, all_rows)),
            locator: serde_json::to_value(locator)?,
        })
    }
}

/// The footer with all columns of text read as Utf8.
fn with_plain_text(footer: ArrowReaderMetadata) -> Result<ArrowReaderMetadata, ParquetError> {
    let stored = footer.schema();
    let fields: Vec<Field> = stored
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_data_type(plain_text(f.data_type())))
        .collect();
    if fields
        .iter()
        .zip(stored.fields())
        .all(|(a, b)| a == b.as_ref())
    {
        return Ok(footer);
    }
    let schema = Schema::new_with_metadata(fields, stored.metadata().clone());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    ArrowReaderMetadata::try_new(Arc::clone(footer.metadata()), options)
}

fn plain_text(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => plain_text(values),
        other => other.clone(),
    }
}

fn n_rows(group: &RowGroupMetaData) -> u64 {
    unsigned(group.num_rows())
}

/// Runs of neighbours, as first and count: each is closed once it holds `enough`.
fn runs(sizes: &[u64], enough: u64) -> Vec<(usize, usize)> {
    let mut runs = Vec::new();
    let (mut first, mut held) = (0, 0);
    for (i, size) in sizes.iter().enumerate() {
        // A large one after small ones stands alone.
        if i > first && held + size > enough {
            runs.push((first, i - first));
            (first, held) = (i, 0);
        }
        held += size;
    }
    if first < sizes.len() {
        runs.push((first, sizes.len() - first));
    }
    runs
}

/// A large row group in pieces of about the same size, as first row and count.
fn pieces(n_rows: u64, enough: u64) -> Vec<(u64, u64)> {
    let n_pieces = (n_rows / enough).max(1);
    let size = n_rows.div_ceil(n_pieces).max(1);
    (0..n_rows)
        .step_by(usize::try_from(size).unwrap_or(usize::MAX))
        .map(|first| (first, size.min(n_rows - first)))
        .collect()
}

/// The format counts in signed numbers; a damaged file may hold a negative one.
fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// The part of `whole` that `part` of `all` rows make up.
fn share(whole: u64, part: u64, all: u64) -> u64 {
    (whole as f64 * (part as f64 / all.max(1) as f64)) as u64
}

fn group_names(first: usize, n: usize) -> String {
    match n {
        1 => format!("row group {first}"),
        _ => format!("row groups {first} to {}", first + n - 1),
    }
}

impl Source for ParquetSource {
    fn describe(&self) -> Description {
        Description::new("parquet", json!({ "files": self.files.place() }))
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(Arc::clone(&self.loaded()?.schema))
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let splits: Result<Vec<Vec<Split>>> = self
            .loaded()?
            .files
            .iter()
            .map(ParquetFile::splits)
            .collect();
        Ok(splits?.concat())
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let loaded = self.loaded()?;
        let locator: Locator = serde_json::from_value(split.locator.clone())?;
        let file = loaded
            .files
            .iter()
            .find(|f| f.file.location() == locator.file)
            .ok_or_else(|| has_changed(&locator.file))?;
        file.file.check()?;
        let selection = Selection::new(&loaded.schema, columns)?;
        let name = split.name.clone();
        let reader = ParquetReader::open(file, name, &locator, position, selection)?;
        Ok(Box::new(reader))
    }
}

struct ParquetReader {
    name: String,
    bytes: ParquetBytes,
    reader: ParquetRecordBatchReader,
    selection: Selection,
    /// Rows of the split that have been read, those before the position included.
    n_read: u64,
    n_rows: u64,
    n_bytes: u64,
}

impl ParquetReader {
    fn open(
        file: &ParquetFile,
        name: String,
        locator: &Locator,
        position: Position,
        selection: Selection,
    ) -> Result<Self> {
        let range = locator.first_row_group..locator.first_row_group + locator.n_row_groups;
        let groups = file
            .row_groups()
            .get(range.clone())
            .ok_or_else(|| has_changed(file.file.location()))?;
        let first_row = locator.first_row + position.0;
        let (ahead, offset) = skip(range.zip(groups.iter().map(n_rows)), first_row);

        let bytes = ParquetBytes::open(&file.file)?;
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), file.footer.clone());
        let wanted = selection
            .fields()
            .filter_map(|f| file.footer.schema().index_of(f.name()).ok());
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let all_bytes = groups.iter().map(|g| bytes_of(g, &mask)).sum();
        let all_rows = groups.iter().map(n_rows).sum();
        let n_left = locator.n_rows.saturating_sub(position.0);
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let reader = builder
            .with_batch_size(BATCH_ROWS)
            .with_projection(mask)
            .with_row_groups(ahead)
            .with_offset(count(offset))
            .with_limit(count(n_left))
            .build()
            .map_err(|error| {
                bytes
                    .failure()
                    .unwrap_or_else(|| cannot_decode(&name, position.0, error))
            })?;
        Ok(Self {
            name,
            bytes,
            reader,
            selection,
            n_read: position.0,
            n_rows: locator.n_rows,
            n_bytes: share(all_bytes, locator.n_rows, all_rows),
        })
    }
}

/// The row groups that are left after so many rows, and how many rows of the first of them are not.
fn skip(groups: impl Iterator<Item = (usize, u64)>, mut n_rows: u64) -> (Vec<usize>, u64) {
    let mut left = Vec::new();
    for (group, size) in groups {
        if left.is_empty() && n_rows >= size {
            n_rows -= size;
        } else {
            left.push(group);
        }
    }
    (left, n_rows)
}

/// The bytes that the wanted columns of a row group take.
fn bytes_of(group: &RowGroupMetaData, mask: &ProjectionMask) -> u64 {
    let columns = group.columns().iter().enumerate();
    let wanted = columns.filter(|(leaf, _)| mask.leaf_included(*leaf));
    wanted.map(|(_, c)| unsigned(c.compressed_size())).sum()
}

impl SplitReader for ParquetReader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        let Some(rows) = self.reader.next() else {
            return Ok(None);
        };
        let rows = rows.map_err(|error| {
            let failure = self.bytes.failure();
            failure.unwrap_or_else(|| cannot_decode(&self.name, self.n_read, error))
        })?;
        self.n_read += rows.num_rows() as u64;
        Ok(Some(self.selection.arrange(&rows)?))
    }

    /// The share of the wanted columns' bytes that the rows read so far make up.
    fn bytes_read(&self) -> u64 {
        share(self.n_bytes, self.n_read.min(self.n_rows), self.n_rows)
    }
}

/// The error of rows that stand after `n_read` rows of the split `name`.
fn cannot_decode(
    name: &str,
    n_read: u64,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let place = format!("{name}, at or after row {n_read}");
    Error::data(format!("{place}: the rows cannot be decoded"))
        .with_detail(format!("{error}."))
        .with_hint("The file is damaged: write it again.")
        .with_source(error)
}

fn no_footer(file: &StoredFile, error: ParquetError) -> Error {
    let magic = file.range(0..file.n_bytes().min(4));
    let refused = if magic.is_ok_and(|magic| *magic == *b"PAR1") {
        Error::data(format!("{} is cut short or damaged", file.name()))
            .with_hint("Write it again; a file that is still being written cannot be read.")
    } else {
        Error::data(format!("{} is not a Parquet file", file.name()))
            .with_hint("Name only Parquet files, for example by the pattern \"*.parquet\".")
    };
    refused.with_detail(format!("{error}.")).with_source(error)
}

#[cfg(test)]
mod tests;
