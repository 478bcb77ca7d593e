//! Writes Parquet files: a folder of shards, published whole.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::json;

use super::SPLIT_ROWS;
use super::file_sink::file_sink_options;
use super::held_file::HeldFile;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards, accept_columns};
use super::storage::Writing;
use crate::error::{Error, Result};
use crate::expression::check_column;
use crate::sink::{Publication, Sink};
use crate::transform::Description;

/// How the pages of a Parquet file are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParquetCompression {
    /// Fast, and read everywhere.
    #[default]
    Snappy,
    /// Smaller and slower: level 3 of zstd.
    Zstd,
    /// zstd of this level, from 1, fast, to 22, small; others are taken as the nearest of these.
    ZstdLevel(u8),
    /// The fastest to read, and larger than zstd: the raw variant, which all newer readers know.
    Lz4,
    /// Not at all.
    None,
}

impl ParquetCompression {
    fn codec(self) -> Result<Compression, EncodeError> {
        let zstd = |level: i32| ZstdLevel::try_new(level).map(Compression::ZSTD);
        Ok(match self {
            Self::Snappy => Compression::SNAPPY,
            Self::Zstd => zstd(3)?,
            Self::ZstdLevel(level) => zstd(i32::from(level.clamp(1, 22)))?,
            Self::Lz4 => Compression::LZ4_RAW,
            Self::None => Compression::UNCOMPRESSED,
        })
    }
}

/// A column of floats that differ in more values than this gives its dictionary up; others do at 1 MiB.
///
/// A row group of 131,072 scores that all differ fills 1 MiB, so that its dictionary would never be given
/// up. Measured for such Float64, with snappy: 55 ns and 10.1 bytes a value with that dictionary, 8 ns and
/// 8.2 bytes with this bound, 4 ns and 8.0 bytes without any. Where 500 values repeat, a dictionary saves more
/// than half of the bytes, 1.1 against 2.8, and takes no more time: so floats do start with one.
const MOST_DIFFERENT_FLOATS: usize = 16_384;

/// How a file is laid out.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    compression: ParquetCompression,
    row_group_rows: u64,
    max_row_group_bytes: u64,
    /// Columns that are not dictionary-encoded.
    plain: Vec<String>,
    /// Columns of floats that keep a dictionary of any size that others may have.
    large_dictionary: Vec<String>,
    /// Columns with a bloom filter.
    bloom: Vec<String>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            compression: ParquetCompression::default(),
            // What is read back as splits of this size balances over workers.
            row_group_rows: SPLIT_ROWS,
            max_row_group_bytes: 128 << 20,
            plain: Vec::new(),
            large_dictionary: Vec::new(),
            bloom: Vec::new(),
        }
    }
}

impl Layout {
    fn properties(&self, schema: &Schema) -> Result<WriterProperties, EncodeError> {
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut properties = WriterProperties::builder()
            .set_compression(self.compression.codec()?)
            .set_max_row_group_row_count(Some(count(self.row_group_rows)))
            .set_max_row_group_bytes(Some(count(self.max_row_group_bytes)))
            // Minima and maxima of pages too, by which readers pass them over.
            .set_statistics_enabled(EnabledStatistics::Page);
        for field in schema.fields() {
            let width = match field.data_type() {
                DataType::Float32 => 4,
                DataType::Float64 => 8,
                _ => continue,
            };
            if !self.large_dictionary.contains(field.name()) {
                let column = ColumnPath::new(vec![field.name().clone()]);
                let most_bytes = MOST_DIFFERENT_FLOATS * width;
                properties = properties.set_column_dictionary_page_size_limit(column, most_bytes);
            }
        }
        for name in &self.plain {
            let column = ColumnPath::new(vec![name.clone()]);
            properties = properties.set_column_dictionary_enabled(column, false);
        }
        for name in &self.bloom {
            let column = ColumnPath::new(vec![name.clone()]);
            properties = properties.set_column_bloom_filter_enabled(column, true);
        }
        Ok(properties.build())
    }

    /// Checks that the columns with options of their own are there and not nested.
    fn check(&self, schema: &Schema) -> Result<()> {
        let named = self.plain.iter().chain(&self.large_dictionary);
        let named = named.chain(&self.bloom);
        let wrong = named.filter_map(|name| match check_column(name, schema) {
            Err(error) => Some(error),
            Ok(place) if schema.field(place).data_type().is_nested() => Some(Error::pipeline(
                format!("column {name:?} is nested and takes no options of its own"),
            )),
            Ok(_) => None,
        });
        let wrong: Vec<Error> = wrong.collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::all(wrong)),
        }
    }
}

/// A folder of Parquet files, `part-00000-of-00002.parquet` and so on.
///
/// Each worker writes shards of its own, and begins another where one has 512 column chunks, such as 64 row
/// groups of 8 columns; rows of a worker keep their order. Nothing can be seen until
/// the run has ended well: then the whole folder appears by one rename, or, where the place is a URL such as
/// `s3://bucket/births`, its files appear one after the other, and `_SUCCESS` when all are there. Where there are no rows, one
/// file with the schema is published. Nulls are nulls.
///
/// A folder that is not empty is refused before the first row is read, unless
/// [`ParquetSink::overwrite`] is set.
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("copy");
/// let births = pipeline.read("births", connectors::parquet("births"));
/// births.write(connectors::parquet_sink("out/births").rows_per_file(1_000_000));
/// ```
#[derive(Clone, Debug)]
pub struct ParquetSink {
    options: ShardOptions,
    layout: Layout,
}

/// Writes rows to a folder of Parquet files: see [`ParquetSink`].
pub fn parquet_sink(folder: impl AsRef<Path>) -> ParquetSink {
    ParquetSink {
        options: ShardOptions::new(folder),
        layout: Layout::default(),
    }
}

impl ParquetSink {
    /// How pages are compressed.
    #[must_use]
    pub fn compression(mut self, compression: ParquetCompression) -> Self {
        self.layout.compression = compression;
        self
    }

    /// Closes a row group after so many rows, at least one: by default 131,072, as many as a split has.
    #[must_use]
    pub fn row_group_rows(mut self, n_rows: u64) -> Self {
        self.layout.row_group_rows = n_rows.max(1);
        self
    }

    /// Closes a row group once it has about so many encoded bytes, by default 128 MiB: a worker holds the
    /// row group that it writes in memory.
    #[must_use]
    pub fn max_row_group_bytes(mut self, max_bytes: u64) -> Self {
        self.layout.max_row_group_bytes = max_bytes.max(1);
        self
    }

    /// Columns whose values are written as they are; others start as a dictionary, which is given up in a
    /// row group where it grows larger than 1 MiB or, where a column holds floats, than 16,384 values.
    #[must_use]
    pub fn without_dictionary(
        mut self,
        columns: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let columns = columns.into_iter().map(Into::into);
        self.layout.plain.extend(columns);
        self
    }

    /// Columns of floats whose dictionary may take 1 MiB, as that of others: for more than 16,384
    /// different values that each stand in many rows.
    #[must_use]
    pub fn with_dictionary(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let columns = columns.into_iter().map(Into::into);
        self.layout.large_dictionary.extend(columns);
        self
    }

    /// Columns that get a bloom filter in each row group, for readers that look for single values.
    #[must_use]
    pub fn bloom_filter(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let columns = columns.into_iter().map(Into::into);
        self.layout.bloom.extend(columns);
        self
    }
}

file_sink_options!(ParquetSink);

impl ParquetSink {
    pub(crate) fn format(&self) -> Arc<dyn FileFormat> {
        Arc::new(ParquetFormat {
            layout: self.layout.clone(),
        })
    }
}

impl Sink for ParquetSink {
    fn describe(&self) -> Description {
        let folder = self.options.target.display().to_string();
        Description::new("parquet_sink", json!({ "folder": folder }))
    }

    fn place(&self) -> Option<String> {
        Some(self.options.place())
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        let schema = self.options.file_schema(schema)?;
        self.layout.check(&schema)?;
        accept_columns(&schema, "Parquet", |field| {
            if has_union(field) {
                return Some("Parquet has no unions.".to_owned());
            }
            let refused = try_column(field).err()?;
            Some(format!("{refused}."))
        })
    }

    fn publishes_at_end(&self) -> bool {
        true
    }

    fn begin(&self, schema: &SchemaRef) -> Result<Box<dyn Publication>> {
        let shards = Shards::begin(&self.options, self.format(), schema)?;
        Ok(Box::new(shards))
    }
}

/// Writes no rows of a column: what cannot be written is refused even so.
fn try_column(field: &Field) -> Result<(), EncodeError> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![field.clone()]));
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None)?;
    writer.write(&RecordBatch::new_empty(schema))?;
    writer.close()?;
    Ok(())
}

/// The library panics at unions.
fn has_union(field: &Field) -> bool {
    match field.data_type() {
        DataType::Union(..) => true,
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner)
        | DataType::Map(inner, _)
        | DataType::RunEndEncoded(_, inner) => has_union(inner),
        DataType::Struct(fields) => fields.iter().any(|f| has_union(f)),
        _ => false,
    }
}

#[derive(Debug)]
struct ParquetFormat {
    layout: Layout,
}

impl FileFormat for ParquetFormat {
    fn extension(&self) -> &'static str {
        "parquet"
    }

    fn create(
        &self,
        file: Box<dyn Writing>,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        let properties = self.layout.properties(schema)?;
        // The library gives a finished file back only after it has made text of an error such as a full disk.
        let file = HeldFile::new(file);
        let writer = ArrowWriter::try_new(file.clone(), Arc::clone(schema), Some(properties))?;
        Ok(Box::new(ParquetEncoder {
            writer,
            small_groups: self.layout.row_group_rows < 4_096
                || self.layout.max_row_group_bytes < 1 << 20,
            file,
        }))
    }
}

/// A file ends when it has so many column chunks: the footer, which tells of each, is held in memory until then.
///
/// That takes about 1.5 kB for a chunk of seven pages, so 800 kB; the file has 8 columns of 8 million rows, or 80
/// of 800,000.
const MOST_CHUNKS: usize = 512;

/// Rows that are written at once where each might be a row group.
const MOST_GROUPS: usize = 256;

struct ParquetEncoder {
    writer: ArrowWriter<HeldFile>,
    /// A batch may become many row groups.
    small_groups: bool,
    file: HeldFile,
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        if !self.small_groups {
            return Ok(self.writer.write(rows)?);
        }
        // The library recurses over the row groups that it makes of a batch, and its stack ends.
        for first in (0..rows.num_rows()).step_by(MOST_GROUPS) {
            let n_rows = MOST_GROUPS.min(rows.num_rows() - first);
            self.writer.write(&rows.slice(first, n_rows))?;
        }
        Ok(())
    }

    fn n_bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    fn held_bytes(&self) -> u64 {
        self.writer.memory_size() as u64
    }

    fn has_grown(&self) -> bool {
        let groups = self.writer.flushed_row_groups();
        let n_columns = groups.first().map_or(0, |group| group.num_columns());
        groups.len() * n_columns >= MOST_CHUNKS
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn Writing>, EncodeError> {
        self.writer.finish()?;
        Ok(self.file.take()?)
    }
}

#[cfg(test)]
mod tests;
