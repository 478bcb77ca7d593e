//! Writes Parquet files: a folder of shards, published whole.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::SPLIT_ROWS;
use super::file_sink::file_sink_options;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards, accept_columns};
use super::storage::Writing;
use crate::error::Result;
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
    /// Not at all.
    None,
}

/// A folder of Parquet files, `part-00000-of-00002.parquet` and so on.
///
/// Each worker writes shards of its own; rows of a worker keep their order. Nothing can be seen until
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
    compression: ParquetCompression,
}

/// Writes rows to a folder of Parquet files: see [`ParquetSink`].
pub fn parquet_sink(folder: impl AsRef<Path>) -> ParquetSink {
    ParquetSink {
        options: ShardOptions::new(folder),
        compression: ParquetCompression::default(),
    }
}

impl ParquetSink {
    /// How pages are compressed.
    #[must_use]
    pub fn compression(mut self, compression: ParquetCompression) -> Self {
        self.compression = compression;
        self
    }
}

file_sink_options!(ParquetSink);

impl ParquetSink {
    pub(crate) fn format(&self) -> Arc<dyn FileFormat> {
        Arc::new(ParquetFormat {
            compression: self.compression,
        })
    }
}

impl Sink for ParquetSink {
    fn describe(&self) -> Description {
        let folder = self.options.target.display().to_string();
        Description::new("parquet_sink", json!({ "folder": folder }))
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        let schema = self.options.file_schema(schema)?;
        accept_columns(&schema, "Parquet", |field| {
            if has_union(field) {
                return Some("Parquet has no unions.".to_owned());
            }
            let refused = try_column(field).err()?;
            Some(format!("{refused}."))
        })
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
    compression: ParquetCompression,
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
        let compression = match self.compression {
            ParquetCompression::Snappy => Compression::SNAPPY,
            ParquetCompression::Zstd => Compression::ZSTD(ZstdLevel::try_new(3)?),
            ParquetCompression::None => Compression::UNCOMPRESSED,
        };
        let properties = WriterProperties::builder()
            .set_compression(compression)
            // What is read back as splits of this size balances over workers.
            .set_max_row_group_row_count(Some(SPLIT_ROWS as usize))
            .build();
        let file = Held(Arc::new(Mutex::new(Some(file))));
        let writer = ArrowWriter::try_new(file.clone(), Arc::clone(schema), Some(properties))?;
        Ok(Box::new(ParquetEncoder { writer, file }))
    }
}

struct ParquetEncoder {
    writer: ArrowWriter<Held>,
    file: Held,
}

/// The file, held by the library and by us: the library gives a finished file back only after it has
/// made text of an error such as a full disk.
#[derive(Clone)]
struct Held(Arc<Mutex<Option<Box<dyn Writing>>>>);

impl Held {
    fn with<T>(&self, act: impl FnOnce(&mut dyn Writing) -> io::Result<T>) -> io::Result<T> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => act(&mut **file),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn take(&self) -> io::Result<Box<dyn Writing>> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.take().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with(|file| file.flush())
    }
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        Ok(self.writer.write(rows)?)
    }

    fn n_bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn Writing>, EncodeError> {
        self.writer.finish()?;
        Ok(self.file.take()?)
    }
}

#[cfg(test)]
mod tests;
