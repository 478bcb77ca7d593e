//! Writes Arrow IPC files: a folder of shards, published whole.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{DictionaryHandling, FileWriter, IpcWriteOptions};
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::file_sink::file_sink_options;
use super::growing_dictionary::GrowingDictionaries;
use super::held_file::HeldFile;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards, accept_columns};
use super::storage::Writing;
use crate::error::Result;
use crate::sink::{Publication, Sink};
use crate::transform::Description;

/// A folder of Arrow IPC files (also known as Feather 2), `part-00000-of-00002.arrow` and so on.
///
/// Each worker writes shards of its own; rows of a worker keep their order. Nothing can be seen until
/// the run has ended well: then the whole folder appears by one rename, or, at a URL, file after file and
/// `_SUCCESS` at the end. Where there are no rows, one file with the schema is published. All types are
/// kept as they are, nulls too; buffers are compressed where [`IpcSink::compression`] says so.
///
/// A file holds one dictionary for each column that is encoded by one: it takes in the values of all
/// batches, so that it may outgrow keys of 8 or 16 bits, which is an error.
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("copy");
/// let births = pipeline.read("births", connectors::parquet("births"));
/// births.write(connectors::ipc_sink("out/births"));
/// ```
#[derive(Clone, Debug)]
pub struct IpcSink {
    options: ShardOptions,
    compression: IpcCompression,
}

/// How the buffers of an Arrow IPC file are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpcCompression {
    /// Not at all: a reader may use them where they stand in the file.
    #[default]
    None,
    /// Fast: LZ4 in frames, as Feather does by default.
    Lz4,
    /// Smaller and slower: zstd.
    Zstd,
}

/// Writes rows to a folder of Arrow IPC files: see [`IpcSink`].
pub fn ipc_sink(folder: impl AsRef<Path>) -> IpcSink {
    IpcSink {
        options: ShardOptions::new(folder),
        compression: IpcCompression::default(),
    }
}

impl IpcSink {
    /// How buffers are compressed: by default not at all.
    #[must_use]
    pub fn compression(mut self, compression: IpcCompression) -> Self {
        self.compression = compression;
        self
    }
}

file_sink_options!(IpcSink);

impl Sink for IpcSink {
    fn describe(&self) -> Description {
        let folder = self.options.target.display().to_string();
        Description::new("ipc_sink", json!({ "folder": folder }))
    }

    fn place(&self) -> Option<String> {
        Some(self.options.place())
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        let schema = self.options.file_schema(schema)?;
        accept_columns(&schema, "Arrow IPC", |field| {
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

impl IpcSink {
    pub(crate) fn format(&self) -> Arc<dyn FileFormat> {
        Arc::new(IpcFormat(self.compression))
    }
}

/// Writes no rows of a column: what cannot be written is refused even so.
fn try_column(field: &Field) -> Result<(), ArrowError> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![field.clone()]));
    GrowingDictionaries::new(&schema)?;
    let options = options(IpcCompression::None)?;
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options)?;
    writer.write(&RecordBatch::new_empty(schema))?;
    writer.finish()
}

fn options(compression: IpcCompression) -> Result<IpcWriteOptions, ArrowError> {
    let codec = match compression {
        IpcCompression::None => None,
        IpcCompression::Lz4 => Some(CompressionType::LZ4_FRAME),
        IpcCompression::Zstd => Some(CompressionType::ZSTD),
    };
    IpcWriteOptions::default()
        .with_dictionary_handling(DictionaryHandling::Delta)
        .try_with_compression(codec)
}

#[derive(Debug)]
struct IpcFormat(IpcCompression);

impl FileFormat for IpcFormat {
    fn extension(&self) -> &'static str {
        "arrow"
    }

    fn create(
        &self,
        file: Box<dyn Writing>,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        let file = HeldFile::new(file);
        Ok(Box::new(IpcEncoder {
            writer: FileWriter::try_new_with_options(file.clone(), schema, options(self.0)?)?,
            dictionaries: GrowingDictionaries::new(schema)?,
            file,
        }))
    }
}

struct IpcEncoder {
    writer: FileWriter<HeldFile>,
    dictionaries: GrowingDictionaries,
    file: HeldFile,
}

impl Encoder for IpcEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        let rows = self.dictionaries.grow(rows)?;
        Ok(self.writer.write(&rows)?)
    }

    fn n_bytes(&self) -> u64 {
        self.file.n_bytes()
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn Writing>, EncodeError> {
        self.writer.finish()?;
        Ok(self.file.take()?)
    }
}

#[cfg(test)]
mod tests;
