//! Reads Parquet files, many at a time by a folder or a pattern.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

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
use super::files::{Files, cannot_read, file_name};
use super::selection::Selection;
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::source::{Position, Source, Split, SplitReader};
use crate::transform::Description;

/// Rows of Parquet files: of one file, of all `*.parquet` of a folder, or of those that match a pattern.
///
/// All files must have the same columns, in any order. Text is read as Utf8, however it is stored: as
/// a dictionary, a view, or with large offsets. Nulls are nulls.
/// A split is a run of neighbouring row groups of one file, of about 131,072 rows; a larger row group
/// is a split of its own.
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("births");
/// let births = pipeline.read("births", connectors::parquet("births/2024-*.parquet"));
/// ```
#[derive(Debug)]
pub struct ParquetSource {
    files: Files,
    /// Footers are read once, by the first who needs them.
    loaded: OnceLock<Loaded>,
}

/// The rows of Parquet files: see [`ParquetSource`].
pub fn parquet(place: impl AsRef<Path>) -> ParquetSource {
    ParquetSource {
        files: Files::new(place, "parquet"),
        loaded: OnceLock::new(),
    }
}

#[derive(Debug)]
struct Loaded {
    schema: SchemaRef,
    files: Vec<ParquetFile>,
}

#[derive(Debug)]
struct ParquetFile {
    path: PathBuf,
    stamp: Stamp,
    footer: ArrowReaderMetadata,
}

/// What tells that a file has changed since its footer was read.
#[derive(Debug, PartialEq)]
struct Stamp {
    n_bytes: u64,
    modified: Option<SystemTime>,
}

#[derive(Serialize, Deserialize)]
struct Locator {
    file: PathBuf,
    first_row_group: usize,
    n_row_groups: usize,
}

impl ParquetSource {
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
        for path in files.list()? {
            match ParquetFile::read(path) {
                Ok(file) => read.push(file),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        let schemas: Vec<(String, SchemaRef)> = read
            .iter()
            .map(|f| (file_name(&f.path), Arc::clone(f.footer.schema())))
            .collect();
        Ok(Self {
            schema: agree(&schemas)?,
            files: read,
        })
    }
}

impl ParquetFile {
    fn read(path: PathBuf) -> Result<Self> {
        let file = File::open(&path).map_err(|e| cannot_read(&path, e))?;
        let stamp = Stamp::of(&path)?;
        let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
            .and_then(with_plain_text)
            .map_err(|error| no_footer(&path, error))?;
        Ok(Self {
            path,
            stamp,
            footer,
        })
    }

    fn row_groups(&self) -> &[RowGroupMetaData] {
        self.footer.metadata().row_groups()
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let sizes: Vec<u64> = self.row_groups().iter().map(n_rows).collect();
        runs(&sizes, SPLIT_ROWS)
            .into_iter()
            .map(|(first, n)| {
                let groups = &self.row_groups()[first..first + n];
                let locator = Locator {
                    file: self.path.clone(),
                    first_row_group: first,
                    n_row_groups: n,
                };
                Ok(Split {
                    name: format!("{}, {}", file_name(&self.path), group_names(first, n)),
                    locator: serde_json::to_value(locator)?,
                    n_rows: Some(groups.iter().map(n_rows).sum()),
                    n_bytes: Some(
                        groups
                            .iter()
                            .map(|g| g.compressed_size().max(0) as u64)
                            .sum(),
                    ),
                })
            })
            .collect()
    }
}

impl Stamp {
    fn of(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).map_err(|e| cannot_read(path, e))?;
        Ok(Self {
            n_bytes: found.len(),
            modified: found.modified().ok(),
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
    group.num_rows().max(0) as u64
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
            .find(|f| f.path == locator.file)
            .ok_or_else(|| has_changed(&locator.file))?;
        if Stamp::of(&file.path)? != file.stamp {
            return Err(has_changed(&file.path));
        }
        let selection = Selection::new(&loaded.schema, columns)?;
        Ok(Box::new(ParquetReader::open(
            file, &locator, position, selection,
        )?))
    }
}

struct ParquetReader {
    path: PathBuf,
    /// The row groups of the split from here on: the number of each and its rows.
    groups: Vec<(usize, u64)>,
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
        locator: &Locator,
        position: Position,
        selection: Selection,
    ) -> Result<Self> {
        let range = locator.first_row_group..locator.first_row_group + locator.n_row_groups;
        let all = file
            .row_groups()
            .get(range.clone())
            .ok_or_else(|| has_changed(&file.path))?;
        let groups: Vec<(usize, u64)> = range.zip(all.iter().map(n_rows)).collect();

        // Row groups that have been read whole are not opened again.
        let mut offset = position.0;
        let mut ahead = Vec::new();
        for (group, n_rows) in &groups {
            if ahead.is_empty() && offset >= *n_rows {
                offset -= n_rows;
            } else {
                ahead.push(*group);
            }
        }

        let opened = File::open(&file.path).map_err(|e| cannot_read(&file.path, e))?;
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(opened, file.footer.clone());
        let wanted: Vec<usize> = selection
            .fields()
            .filter_map(|f| file.footer.schema().index_of(f.name()).ok())
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let n_bytes = all
            .iter()
            .flat_map(RowGroupMetaData::columns)
            .enumerate()
            .filter(|(i, _)| mask.leaf_included(i % builder.parquet_schema().num_columns()))
            .map(|(_, column)| column.compressed_size().max(0) as u64)
            .sum();
        let mut builder = builder
            .with_batch_size(BATCH_ROWS)
            .with_projection(mask)
            .with_row_groups(ahead);
        if offset > 0 {
            builder = builder.with_offset(usize::try_from(offset).unwrap_or(usize::MAX));
        }
        let reader = builder
            .build()
            .map_err(|error| cannot_decode(&file.path, &groups, position.0, error))?;
        Ok(Self {
            path: file.path.clone(),
            n_rows: groups.iter().map(|(_, n)| n).sum(),
            groups,
            reader,
            selection,
            n_read: position.0,
            n_bytes,
        })
    }
}

impl SplitReader for ParquetReader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        let Some(rows) = self.reader.next() else {
            return Ok(None);
        };
        let rows =
            rows.map_err(|error| cannot_decode(&self.path, &self.groups, self.n_read, error))?;
        self.n_read += rows.num_rows() as u64;
        Ok(Some(self.selection.arrange(&rows)?))
    }

    /// The share of the wanted columns' bytes that the rows read so far make up.
    fn bytes_read(&self) -> u64 {
        let share = self.n_read.min(self.n_rows) as f64 / self.n_rows.max(1) as f64;
        (self.n_bytes as f64 * share) as u64
    }
}

fn no_footer(path: &Path, error: ParquetError) -> Error {
    let error = match io_error(error) {
        Ok(error) => return cannot_read(path, error),
        Err(error) => error,
    };
    let mut magic = [0; 4];
    let begins_well = File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok_and(|()| &magic == b"PAR1");
    let refused = if begins_well {
        Error::data(format!("{} is cut short or damaged", file_name(path)))
            .with_hint("Write it again; a file that is still being written cannot be read.")
    } else {
        Error::data(format!("{} is not a Parquet file", file_name(path)))
            .with_hint("Name only Parquet files, for example by the pattern \"*.parquet\".")
    };
    refused.with_detail(format!("{error}.")).with_source(error)
}

fn has_changed(path: &Path) -> Error {
    Error::data(format!(
        "{} has changed since it was first read",
        file_name(path)
    ))
    .with_hint("Run again, and write new files beside those that are being read.")
}

/// The error of rows that stand after `n_read` rows of the split.
fn cannot_decode(
    path: &Path,
    groups: &[(usize, u64)],
    n_read: u64,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let mut row = n_read;
    let mut place = file_name(path);
    for (group, n_rows) in groups {
        if row < *n_rows {
            place = format!("{place}, row group {group}, at or after row {row}");
            break;
        }
        row -= n_rows;
    }
    Error::data(format!("{place}: the rows cannot be decoded"))
        .with_detail(format!("{error}."))
        .with_hint("The file is damaged: write it again.")
        .with_source(error)
}

/// The failure of the disk inside an error, or the error itself.
fn io_error(error: ParquetError) -> Result<std::io::Error, ParquetError> {
    match error {
        ParquetError::External(inner) => inner
            .downcast::<std::io::Error>()
            .map(|e| *e)
            .map_err(ParquetError::External),
        other => Err(other),
    }
}

#[cfg(test)]
mod tests;
