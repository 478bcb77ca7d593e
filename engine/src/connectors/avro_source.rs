//! Reads Avro files, many at a time by a folder or a pattern.

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_avro::reader::ReaderBuilder;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::avro_blocks::{AvroBlocks, Block};
use super::avro_header::AvroHeader;
use super::compression::{Progress, read_failed};
use super::file_source::{Described, Once, file_of_split, file_source};
use super::files::Files;
use super::hive::{HiveOptions, hive_options};
use super::selection::Selection;
use super::storage::StoredFile;
use super::unharmed::unharmed;
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::transform::Description;

/// How many bytes of a file are one split; it must not depend on the number of workers.
const SPLIT_BYTES: u64 = 16 << 20;

/// Rows of Avro files (object container files): of one file, of all `*.avro` of a folder, or of those that
/// match a pattern, at a path or a URL (see [`Storage`](super::Storage)).
///
/// Of a file, the blocks that begin in 16 MiB are a split. Blocks may be compressed by deflate, snappy or
/// zstandard. All files must have the same columns, in any order; columns that nobody wants are not
/// decoded. A union with null is a column with nulls, any other a dense union; records are structs, arrays
/// lists, enums dictionaries, uuids and fixed bytes of a fixed size.
///
/// A file that is cut short or damaged ends the run: a block is one piece, of which no row is read if one
/// cannot be.
///
/// Folders named `column=value` below the place are columns: see [`AvroSource::hive_columns`].
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("births");
/// let births = pipeline.read("births", connectors::avro("births/*.avro"));
/// ```
#[derive(Clone)]
pub struct AvroSource {
    files: Files,
    hive: HiveOptions,
    split_bytes: u64,
    /// Headers are read once, by the first who needs them.
    loaded: Once<Loaded>,
}

/// The rows of Avro files: see [`AvroSource`].
pub fn avro(place: impl AsRef<Path>) -> AvroSource {
    AvroSource {
        files: Files::new(place, &["avro"]),
        hive: HiveOptions::default(),
        split_bytes: SPLIT_BYTES,
        loaded: Once::default(),
    }
}

impl AvroSource {
    /// How many bytes of a file are one split: by default 16 MiB.
    #[must_use]
    pub fn split_bytes(self, n_bytes: u64) -> Self {
        Self {
            split_bytes: n_bytes.max(1),
            ..self.afresh()
        }
    }

    fn load(&self) -> Result<Loaded> {
        let tells = |file: &AvroFile| (file.stored.clone(), Arc::clone(&file.schema));
        Described::load(&self.files, &self.hive, AvroFile::open, tells)
    }
}

hive_options!(AvroSource, afresh);

file_source!(AvroSource, "avro");

type Loaded = Described<AvroFile>;

/// What a file tells of itself before its rows are read.
struct AvroFile {
    stored: StoredFile,
    schema: SchemaRef,
    header: AvroHeader,
}

impl AvroFile {
    fn open(stored: &StoredFile) -> Result<Self> {
        if stored.n_bytes() == 0 {
            return Err(
                Error::data(format!("{} is empty, expected Avro", stored.name()))
                    .with_hint("Leave the file out."),
            );
        }
        let no_header = |error| {
            decode_failed(stored, error, "the header cannot be read as Avro")
                .with_hint("An Avro file begins with \"Obj\" and its schema.")
        };
        let header = AvroHeader::read(stored.open(0)?).map_err(no_header)?;
        if let Err(codec) = &header.codec {
            let found = format!("its blocks are compressed by {codec}, which is not read");
            return Err(Error::data(format!("{}: {found}", stored.name()))
                .with_hint("Write it anew with deflate, snappy, zstandard or no compression."));
        }
        let reader = unharmed(|| ReaderBuilder::new().build(header.bytes.as_slice()));
        let reader = reader.map_err(|error| {
            decode_failed(stored, error, "the schema cannot be read as columns")
        })?;
        Ok(Self {
            stored: stored.clone(),
            schema: reader.schema(),
            header,
        })
    }
}

/// What the library says, unless the file itself could not be read or is cut short.
fn decode_failed(stored: &StoredFile, error: ArrowError, what: &str) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            let ours = io.get_ref().and_then(|e| e.downcast_ref::<Error>());
            return match ours {
                Some(ours) => ours.clone(),
                None => {
                    let copy = std::io::Error::new(io.kind(), io.to_string());
                    read_failed(stored, copy)
                }
            };
        }
        cause = inner.source();
    }
    Error::data(format!("{}: {what}", stored.name()))
        .with_detail(format!("{error}."))
        .with_source(error)
}

#[derive(Serialize, Deserialize)]
struct Locator {
    file: String,
    from: u64,
    to: u64,
}

impl Source for AvroSource {
    fn describe(&self) -> Description {
        Description::new("avro", json!({ "files": self.files.place() }))
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
        let mut splits = Vec::new();
        for file in &self.loaded()?.files {
            let (first, end) = (file.header.n_bytes, file.stored.n_bytes());
            let n_parts = (end - first.min(end)).div_ceil(self.split_bytes).max(1);
            for part in 0..n_parts {
                let from = first + part * self.split_bytes;
                let to = from.saturating_add(self.split_bytes).min(end);
                splits.push(Split {
                    name: match n_parts {
                        1 => file.stored.name(),
                        n => format!("{}, part {} of {n}", file.stored.name(), part + 1),
                    },
                    locator: serde_json::to_value(Locator {
                        file: file.stored.location().to_owned(),
                        from,
                        to,
                    })?,
                    n_rows: None,
                    n_bytes: Some(to.saturating_sub(from)),
                });
            }
        }
        Ok(splits)
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let loaded = self.loaded()?;
        let Locator { file, from, to } = serde_json::from_value(split.locator.clone())?;
        let (number, file) = file_of_split(&loaded.files, &file, |f| &f.stored)?;
        let selection = loaded.hive.of_file(&loaded.file_schema, columns)?;
        let mut wanted: Vec<usize> = selection
            .fields()
            .filter_map(|f| file.schema.index_of(f.name()).ok())
            .collect();
        wanted.sort_unstable();
        if wanted.is_empty() {
            // A row without a column would have no length.
            wanted.push(0);
        }
        let progress = Progress::default();
        let AvroHeader { sync, n_bytes, .. } = file.header;
        let blocks = AvroBlocks::open(&file.stored, sync, n_bytes, (from, to), &progress)?;
        let reader = Box::new(AvroReader {
            file: Arc::clone(file),
            blocks,
            wanted,
            rows: None,
            selection,
            to_skip: position.0,
            progress,
            n_bytes: to.saturating_sub(from),
        });
        loaded.hive.reader(number, reader, &loaded.schema, columns)
    }
}

/// An open file, or a part of one.
struct AvroReader {
    file: Arc<AvroFile>,
    blocks: AvroBlocks,
    /// The places of the columns in the file.
    wanted: Vec<usize>,
    /// Rows of the last block that are still to be given.
    rows: Option<RecordBatch>,
    selection: Selection,
    to_skip: u64,
    progress: Progress,
    n_bytes: u64,
}

impl AvroReader {
    /// The rows of the next block; none at the end.
    fn next_block(&mut self) -> Result<Option<RecordBatch>> {
        let stored = &self.file.stored;
        loop {
            let block = self.blocks.next().map_err(|e| read_failed(stored, e))?;
            let Some(block) = block else {
                return Ok(None);
            };
            if block.n_rows > 0 || block.n_bytes > 0 {
                return self.decode(block).map(Some);
            }
        }
    }

    fn decode(&self, block: Block) -> Result<RecordBatch> {
        let Block {
            at, n_rows, bytes, ..
        } = block;
        let stored = &self.file.stored;
        let damaged = |why: &str| read_failed(stored, self.blocks.damaged(at, why));
        if n_rows == 0 {
            return Err(damaged("it holds more than the 0 rows that it says"));
        }
        let builder = ReaderBuilder::new()
            .with_batch_size(n_rows)
            .with_projection(self.wanted.clone());
        let bytes = Cursor::new(self.file.header.bytes.as_slice()).chain(Cursor::new(bytes));
        let mut reader = unharmed(|| builder.build(bytes))
            .map_err(|e| decode_failed(stored, e, "the header cannot be used"))?;
        let rows = unharmed(|| reader.next().transpose()).map_err(|e| {
            let what = format!("the rows of the block at byte {at} cannot be decoded");
            decode_failed(stored, e, &what).with_hint("Copy the file anew, or leave it out.")
        })?;
        let rows = rows
            .filter(|rows| rows.num_rows() == n_rows)
            .ok_or_else(|| {
                damaged(&format!(
                    "it holds less than the {n_rows} rows that it says"
                ))
            })?;
        match unharmed(|| reader.next().transpose()) {
            Ok(None) => Ok(rows),
            _ => Err(damaged(&format!(
                "it holds more than the {n_rows} rows that it says"
            ))),
        }
    }
}

impl SplitReader for AvroReader {
    /// Blocks are small: several are one batch.
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        let (mut parts, mut n_rows) = (Vec::new(), 0);
        while n_rows < BATCH_ROWS {
            let rows = match self.rows.take() {
                Some(rows) => rows,
                None => match self.next_block()? {
                    Some(rows) => rows,
                    None => break,
                },
            };
            let n_skipped = self.to_skip.min(rows.num_rows() as u64) as usize;
            self.to_skip -= n_skipped as u64;
            let n_left = rows.num_rows() - n_skipped;
            let n_taken = n_left.min(BATCH_ROWS - n_rows);
            if n_taken < n_left {
                let at = n_skipped + n_taken;
                self.rows = Some(rows.slice(at, n_left - n_taken));
            }
            if n_taken > 0 {
                parts.push(rows.slice(n_skipped, n_taken));
                n_rows += n_taken;
            }
        }
        let rows = match parts.as_slice() {
            [] => return Ok(None),
            [rows] => rows.clone(),
            [first, ..] => concat_batches(first.schema_ref(), &parts)?,
        };
        Ok(Some(self.selection.arrange(&rows)?))
    }

    fn bytes_read(&self) -> u64 {
        self.progress.n_bytes().min(self.n_bytes)
    }
}

#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod tests;
