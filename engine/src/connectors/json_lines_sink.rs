//! Writes files of JSON lines: a folder of shards or one file, published by one rename.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::bytes_encoder::BytesEncoder;
use super::compressed_file::compression_at;
use super::compression::FileCompression;
use super::file_sink::file_sink_options;
use super::files::ends_in;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards, accept_columns};
use super::storage::Writing;
use crate::error::Result;
use crate::sink::{Publication, Sink};
use crate::transform::Description;

/// Files with a JSON object a line: one file where the path ends in `.jsonl`, `.jsonl.gz` or `.jsonl.zst`, else a
/// folder of shards, `part-00000-of-00002.jsonl` and so on, which [`JsonLinesSink::compression`] compresses.
///
/// Rows of a worker keep their order; one file holds those of worker 0 first. Nothing can be seen
/// until the run has ended well: then the file or the whole folder appears by one rename, or, at a URL,
/// file after file and `_SUCCESS` at the end. Where there are no rows, one file without a line is published, which does not tell the columns.
///
/// Null is written as `null`, and so are NaN and the infinities, which JSON does not have. Structs,
/// maps and lists are nested, dates and timestamps text in ISO 8601, bytes text in hexadecimal; a
/// dictionary is written as its values. With the schema given to
/// [`json_lines`](super::json_lines), all other values are read again to the bit.
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("export");
/// let births = pipeline.read("births", connectors::parquet("births"));
/// births.write(connectors::json_lines_sink("births.jsonl"));
/// ```
#[derive(Clone, Debug)]
pub struct JsonLinesSink {
    options: ShardOptions,
    compression: Option<FileCompression>,
}

/// Plain, by gzip, by zstd.
const EXTENSIONS: [&str; 3] = ["jsonl", "jsonl.gz", "jsonl.zst"];

/// Writes rows to one file of JSON lines or a folder of them: see [`JsonLinesSink`].
pub fn json_lines_sink(place: impl AsRef<Path>) -> JsonLinesSink {
    let mut options = ShardOptions::new(place);
    options.one_file = ends_in(&options.target.to_string_lossy(), &EXTENSIONS);
    JsonLinesSink {
        options,
        compression: None,
    }
}

file_sink_options!(JsonLinesSink);

impl JsonLinesSink {
    pub(crate) fn format(&self) -> Result<Arc<dyn FileFormat>> {
        let compression = compression_at(&self.options, self.compression)?;
        Ok(Arc::new(JsonLinesFormat(compression)))
    }

    /// How the shards of a folder are compressed, each for itself: by default not at all.
    ///
    /// The one file of a place such as `births.jsonl.gz` is compressed as its name says.
    #[must_use]
    pub fn compression(mut self, compression: FileCompression) -> Self {
        self.compression = Some(compression);
        self
    }
}

impl Sink for JsonLinesSink {
    fn describe(&self) -> Description {
        let place = self.options.target.display().to_string();
        let mut config = json!({ "place": place });
        if let Some(compression) = self.compression {
            config["compression"] = compression.name().into();
        }
        Description::new("json_lines_sink", config)
    }

    fn place(&self) -> Option<String> {
        Some(self.options.place())
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        compression_at(&self.options, self.compression)?;
        let schema = self.options.file_schema(schema)?;
        accept_columns(&schema, "JSON lines", |field| {
            let refused = try_column(field).err()?;
            Some(format!("{refused}."))
        })
    }

    fn publishes_at_end(&self) -> bool {
        true
    }

    fn begin(&self, schema: &SchemaRef) -> Result<Box<dyn Publication>> {
        let shards = Shards::begin(&self.options, self.format()?, schema)?;
        Ok(Box::new(shards))
    }
}

/// Writes a null of a column: what cannot be written is refused even so.
fn try_column(field: &Field) -> Result<(), ArrowError> {
    let column = arrow::array::new_null_array(field.data_type(), 1);
    let schema = Schema::new(vec![field.clone().with_nullable(true)]);
    let rows = RecordBatch::try_new(Arc::new(schema), vec![column])?;
    encode(&rows, &mut Vec::new())
}

fn encode(rows: &RecordBatch, bytes: &mut Vec<u8>) -> Result<(), ArrowError> {
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, LineDelimited>(bytes);
    writer.write(rows)?;
    writer.finish()
}

#[derive(Debug)]
struct JsonLinesFormat(FileCompression);

impl FileFormat for JsonLinesFormat {
    fn extension(&self) -> &'static str {
        self.0.extension_of(EXTENSIONS)
    }

    fn create(
        &self,
        file: Box<dyn Writing>,
        _schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        let encode = |rows: &RecordBatch, bytes: &mut Vec<u8>| Ok(encode(rows, bytes)?);
        Ok(Box::new(BytesEncoder::begin(file, self.0, &[], encode)?))
    }
}

#[cfg(test)]
mod tests;
