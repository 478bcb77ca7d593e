//! Writes TFRecord files of tf.Example: a folder of shards, published whole.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::json;
use tfrecord::io::sync::try_write_record;

use super::file_sink::file_sink_options;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards, accept_columns};
use super::storage::Writing;
use super::tfrecord_types::Values;
use crate::error::{Error, Result};
use crate::sink::{Publication, Sink};
use crate::transform::Description;

/// A folder of TFRecord files of tf.Example, `part-00000-of-00002.tfrecord` and so on.
///
/// Each worker writes shards of its own; rows of a worker keep their order. Nothing can be seen until
/// the run has ended well: then the whole folder appears by one rename, or, at a URL, file after file and
/// `_SUCCESS` at the end. Where there are no rows, one file without a record is published, which does not
/// tell the columns.
///
/// Each column is a feature: Booleans and whole numbers as integers of 64 bits, floats of 32 bits as such,
/// text and bytes as bytes, and lists of these as several values. A null is a feature that the record
/// lacks; a null in a list is an error. Other types are refused, also Float64, which would lose digits.
/// The bytes of a record depend on its row alone.
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("export");
/// let births = pipeline.read("births", connectors::parquet("births"));
/// births.write(connectors::tfrecord_sink("out/births"));
/// ```
#[derive(Clone, Debug)]
pub struct TfRecordSink {
    options: ShardOptions,
}

/// Writes rows to a folder of TFRecord files of tf.Example: see [`TfRecordSink`].
pub fn tfrecord_sink(folder: impl AsRef<Path>) -> TfRecordSink {
    TfRecordSink {
        options: ShardOptions::new(folder),
    }
}

file_sink_options!(TfRecordSink);

impl Sink for TfRecordSink {
    fn describe(&self) -> Description {
        let folder = self.options.target.display().to_string();
        Description::new("tfrecord_sink", json!({ "folder": folder }))
    }

    fn place(&self) -> Option<String> {
        Some(self.options.place())
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        let schema = self.options.file_schema(schema)?;
        accept_columns(&schema, "tf.Example", |field| match field.data_type() {
            DataType::List(items) => written_type(items.data_type()).err(),
            other => written_type(other).err(),
        })
    }

    fn publishes_at_end(&self) -> bool {
        true
    }

    fn begin(&self, schema: &SchemaRef) -> Result<Box<dyn Publication>> {
        let shards = Shards::begin(&self.options, Arc::new(TfRecordFormat), schema)?;
        Ok(Box::new(shards))
    }
}

/// The type in which values are written, or why they cannot be.
fn written_type(data_type: &DataType) -> Result<DataType, String> {
    match Values::of(data_type) {
        _ if matches!(data_type, DataType::UInt64) => {
            Err("A feature holds integers of 64 bits with a sign.".to_owned())
        }
        _ if matches!(data_type, DataType::Float64) => {
            Err("A feature holds floats of 32 bits.".to_owned())
        }
        // Text is bytes that are known to be UTF-8.
        Some(Values::Text) => Ok(DataType::Binary),
        Some(values) => Ok(values.data_type()),
        None => Err("A feature holds integers, floats of 32 bits or bytes.".to_owned()),
    }
}

#[derive(Debug)]
struct TfRecordFormat;

impl FileFormat for TfRecordFormat {
    fn extension(&self) -> &'static str {
        "tfrecord"
    }

    fn create(
        &self,
        file: Box<dyn Writing>,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        Ok(Box::new(TfRecordEncoder {
            names: schema.fields().iter().map(|f| f.name().clone()).collect(),
            file,
            bytes: Vec::new(),
            n_bytes: 0,
        }))
    }
}

struct TfRecordEncoder {
    names: Vec<String>,
    file: Box<dyn Writing>,
    bytes: Vec<u8>,
    n_bytes: u64,
}

impl Encoder for TfRecordEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        let columns: Vec<Feature> = rows
            .columns()
            .iter()
            .map(Feature::new)
            .collect::<Result<_, _>>()?;
        self.bytes.clear();
        for row in 0..rows.num_rows() {
            let mut features = Vec::new();
            for (name, column) in self.names.iter().zip(&columns) {
                if let Some(feature) = column.encode(row)? {
                    let mut entry = Vec::with_capacity(feature.len() + name.len() + 8);
                    put(&mut entry, 1, name.as_bytes());
                    put(&mut entry, 2, &feature);
                    put(&mut features, 1, &entry);
                }
            }
            let mut example = Vec::with_capacity(features.len() + 8);
            put(&mut example, 1, &features);
            try_write_record(&mut self.bytes, example)?;
        }
        // Not by the library, which wraps an error such as a full disk.
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

/// A column as features: the messages `BytesList`, `FloatList` and `Int64List` are fields 1 to 3 of one.
struct Feature {
    /// Where the values of a row are, for a list.
    lists: Option<ArrayRef>,
    values: ArrayRef,
}

impl Feature {
    fn new(column: &ArrayRef) -> Result<Self, EncodeError> {
        let (lists, values) = match column.data_type() {
            DataType::List(_) => {
                let values = Arc::clone(column.as_list::<i32>().values());
                (Some(Arc::clone(column)), values)
            }
            _ => (None, Arc::clone(column)),
        };
        let plain = match values.data_type() {
            DataType::Dictionary(_, plain) => cast(&values, plain)?,
            _ => values,
        };
        let values = cast(&plain, &written_type(plain.data_type())?)?;
        Ok(Self { lists, values })
    }

    /// The message of one row; nothing for a null.
    fn encode(&self, row: usize) -> Result<Option<Vec<u8>>, EncodeError> {
        let range = match &self.lists {
            Some(lists) if lists.is_null(row) => return Ok(None),
            None if self.values.is_null(row) => return Ok(None),
            Some(lists) => {
                let offsets = lists.as_list::<i32>().value_offsets();
                offsets[row] as usize..offsets[row + 1] as usize
            }
            None => row..row + 1,
        };
        if range.clone().any(|i| self.values.is_null(i)) {
            let refused = "a list holds a null, which tf.Example does not have";
            return Err(Error::data(refused).into());
        }
        let mut list = Vec::new();
        let field = match self.values.data_type() {
            DataType::Int64 => {
                let values = &self.values.as_primitive::<Int64Type>().values()[range];
                let mut packed = Vec::with_capacity(values.len() * 2);
                values
                    .iter()
                    .for_each(|v| put_varint(&mut packed, *v as u64));
                put(&mut list, 1, &packed);
                3
            }
            DataType::Float32 => {
                let values = &self.values.as_primitive::<Float32Type>().values()[range];
                let packed: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                put(&mut list, 1, &packed);
                2
            }
            _ => {
                let values = self.values.as_binary::<i32>();
                range.for_each(|i| put(&mut list, 1, values.value(i)));
                1
            }
        };
        let mut feature = Vec::with_capacity(list.len() + 8);
        put(&mut feature, field, &list);
        Ok(Some(feature))
    }
}

/// Appends a field of Protocol Buffers that has a length.
fn put(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(field << 3 | 2);
    put_varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests;
