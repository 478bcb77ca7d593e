//! Writes Avro files: a folder of shards, published whole.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_avro::compression::CompressionCodec;
use arrow_avro::writer::format::AvroOcfFormat;
use arrow_avro::writer::{AvroWriter, WriterBuilder};
use serde_json::json;

use super::file_sink::file_sink_options;
use super::held_file::HeldFile;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards, accept_columns};
use super::storage::Writing;
use crate::error::Result;
use crate::sink::{Publication, Sink};
use crate::transform::Description;

/// A folder of Avro files (object container files), `part-00000-of-00002.avro` and so on.
///
/// Each worker writes shards of its own; rows of a worker keep their order. Nothing can be seen until
/// the run has ended well: then the whole folder appears by one rename, or, at a URL, file after file and
/// `_SUCCESS` at the end. Where there are no rows, one file with the schema is published. Blocks are
/// compressed by snappy.
///
/// Avro has fewer types: whole numbers of 8 and 16 bits, and unsigned ones of 32, are written as the next
/// larger type, a dictionary as its values, and what Avro has no type for is refused. Names of columns
/// must be names in Avro: letters, digits and `_`, no digit first. Nulls are nulls.
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("export");
/// let births = pipeline.read("births", connectors::parquet("births"));
/// births.write(connectors::avro_sink("out/births"));
/// ```
#[derive(Clone, Debug)]
pub struct AvroSink {
    options: ShardOptions,
}

/// Writes rows to a folder of Avro files: see [`AvroSink`].
pub fn avro_sink(folder: impl AsRef<Path>) -> AvroSink {
    AvroSink {
        options: ShardOptions::new(folder),
    }
}

file_sink_options!(AvroSink);

impl AvroSink {
    pub(crate) fn format(&self) -> Arc<dyn FileFormat> {
        Arc::new(AvroFormat)
    }
}

impl Sink for AvroSink {
    fn describe(&self) -> Description {
        let folder = self.options.target.display().to_string();
        Description::new("avro_sink", json!({ "folder": folder }))
    }

    fn place(&self) -> Option<String> {
        Some(self.options.place())
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        let schema = self.options.file_schema(schema)?;
        accept_columns(&schema, "Avro", |field| {
            if !is_name(field.name()) {
                return Some(
                    "It is no name in Avro: letters, digits and `_`, no digit first.".to_owned(),
                );
            }
            try_column(field).err()?;
            Some("Avro has no type for it, or for what is inside of it.".to_owned())
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

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Writes a row of a column: what cannot be written is refused even so.
fn try_column(field: &Field) -> Result<(), EncodeError> {
    let schema = Schema::new(vec![field.clone().with_nullable(true)]);
    let column = arrow::array::new_null_array(field.data_type(), 1);
    let rows = RecordBatch::try_new(Arc::new(schema.clone()), vec![column])?;
    let mut writer = AvroWriter::new(Vec::new(), written_schema(&schema))?;
    writer.write(&as_written(&rows)?)?;
    Ok(writer.finish()?)
}

/// The schema of a file, in types that Avro has.
fn written_schema(schema: &Schema) -> Schema {
    let field = |f: &Arc<Field>| {
        let written = written_type(f.data_type()).unwrap_or_else(|| f.data_type().clone());
        Field::new(f.name(), written, f.is_nullable())
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

/// The type that stands for one that Avro does not have.
fn written_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::Dictionary(_, values) => {
            written_type(values).unwrap_or_else(|| values.as_ref().clone())
        }
        _ => return None,
    })
}

fn as_written(rows: &RecordBatch) -> Result<RecordBatch, EncodeError> {
    let columns: Result<Vec<ArrayRef>, _> = rows
        .columns()
        .iter()
        .map(|column| match written_type(column.data_type()) {
            Some(written) => cast(column, &written),
            None => Ok(Arc::clone(column)),
        })
        .collect();
    let schema = written_schema(&rows.schema());
    Ok(RecordBatch::try_new(Arc::new(schema), columns?)?)
}

#[derive(Debug)]
struct AvroFormat;

impl FileFormat for AvroFormat {
    fn extension(&self) -> &'static str {
        "avro"
    }

    fn create(
        &self,
        file: Box<dyn Writing>,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        let file = HeldFile::new(file);
        let writer = WriterBuilder::new(written_schema(schema))
            .with_compression(Some(CompressionCodec::Snappy))
            .build::<_, AvroOcfFormat>(file.clone())?;
        Ok(Box::new(AvroEncoder { writer, file }))
    }
}

struct AvroEncoder {
    writer: AvroWriter<HeldFile>,
    file: HeldFile,
}

impl Encoder for AvroEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        match rows.num_rows() {
            0 => Ok(()),
            _ => Ok(self.writer.write(&as_written(rows)?)?),
        }
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
