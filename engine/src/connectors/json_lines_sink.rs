//! Writes files of JSON lines: a folder of shards or one file, published by one rename.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::file_sink::file_sink_options;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards, accept_columns};
use super::storage::Writing;
use crate::error::Result;
use crate::sink::{Publication, Sink};
use crate::transform::Description;

/// Files with a JSON object a line: one file where the path ends in `.jsonl`, else a folder of shards,
/// `part-00000-of-00002.jsonl` and so on.
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
}

/// Writes rows to one file of JSON lines or a folder of them: see [`JsonLinesSink`].
pub fn json_lines_sink(place: impl AsRef<Path>) -> JsonLinesSink {
    let mut options = ShardOptions::new(place);
    options.one_file = options.target.extension().is_some_and(|e| e == "jsonl");
    JsonLinesSink { options }
}

file_sink_options!(JsonLinesSink);

impl JsonLinesSink {
    pub(crate) fn format(&self) -> Arc<dyn FileFormat> {
        Arc::new(JsonLinesFormat)
    }
}

impl Sink for JsonLinesSink {
    fn describe(&self) -> Description {
        let place = self.options.target.display().to_string();
        Description::new("json_lines_sink", json!({ "place": place }))
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
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
        let shards = Shards::begin(&self.options, self.format(), schema)?;
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
struct JsonLinesFormat;

impl FileFormat for JsonLinesFormat {
    fn extension(&self) -> &'static str {
        "jsonl"
    }

    fn create(
        &self,
        file: Box<dyn Writing>,
        _schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        Ok(Box::new(JsonLinesEncoder {
            file,
            bytes: Vec::new(),
            n_bytes: 0,
        }))
    }
}

struct JsonLinesEncoder {
    file: Box<dyn Writing>,
    bytes: Vec<u8>,
    n_bytes: u64,
}

impl Encoder for JsonLinesEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        self.bytes.clear();
        encode(rows, &mut self.bytes)?;
        // Not by the library's writer, which makes text of an error such as a full disk.
        self.file.write_all(&self.bytes)?;
        self.n_bytes += self.bytes.len() as u64;
        Ok(())
    }

    fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Writing>, EncodeError> {
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests;
