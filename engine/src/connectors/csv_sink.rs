//! Writes CSV files: a folder of shards or one file, published whole.

use std::path::Path;
use std::sync::Arc;

use arrow::csv::WriterBuilder;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::bytes_encoder::BytesEncoder;
use super::compressed_file::{compressed, compression_at};
use super::compression::FileCompression;
use super::file_sink::file_sink_options;
use super::files::ends_in;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards, accept_columns};
use super::storage::Writing;
use crate::error::Result;
use crate::sink::{Publication, Sink};
use crate::transform::Description;

/// CSV files with a header: one file where the path ends in `.csv`, `.csv.gz` or `.csv.zst`, else a folder of
/// shards, `part-00000-of-00002.csv` and so on, which [`CsvSink::compression`] compresses.
///
/// Rows of a worker keep their order; one file holds those of worker 0 first. Nothing can be seen
/// until the run has ended well: then the file or the whole folder appears by one rename, or, where the
/// place is a URL such as `s3://bucket/births`, its files appear one after the other, and `_SUCCESS` when all
/// are there. One file there waits on the local disk until it is whole. Where there
/// are no rows, the header alone is published.
///
/// Null is written as an empty field, and so is empty text: both are null when they are read again.
/// Numbers are written so that they are read again to the bit. Columns of lists, structs or maps are
/// refused.
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("export");
/// let births = pipeline.read("births", connectors::parquet("births"));
/// births.write(connectors::csv_sink("births.csv"));
/// ```
#[derive(Clone, Debug)]
pub struct CsvSink {
    options: ShardOptions,
    delimiter: u8,
    compression: Option<FileCompression>,
}

/// Plain, by gzip, by zstd.
const EXTENSIONS: [&str; 3] = ["csv", "csv.gz", "csv.zst"];

/// Writes rows to one CSV file or a folder of them: see [`CsvSink`].
pub fn csv_sink(place: impl AsRef<Path>) -> CsvSink {
    let mut options = ShardOptions::new(place);
    options.one_file = ends_in(&options.target.to_string_lossy(), &EXTENSIONS);
    CsvSink {
        options,
        delimiter: b',',
        compression: None,
    }
}

impl CsvSink {
    /// What stands between two fields: by default a comma.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// How the shards of a folder are compressed, each for itself: by default not at all.
    ///
    /// The one file of a place such as `births.csv.gz` is compressed as its name says.
    #[must_use]
    pub fn compression(mut self, compression: FileCompression) -> Self {
        self.compression = Some(compression);
        self
    }
}

file_sink_options!(CsvSink);

impl CsvSink {
    pub(crate) fn format(&self) -> Result<Arc<dyn FileFormat>> {
        Ok(Arc::new(CsvFormat {
            delimiter: self.delimiter,
            // One file is put together from shards, and has one header.
            header: !self.options.one_file,
            compression: compression_at(&self.options, self.compression)?,
        }))
    }
}

impl Sink for CsvSink {
    fn describe(&self) -> Description {
        let place = self.options.target.display().to_string();
        let delimiter = char::from(self.delimiter).to_string();
        let mut config = json!({ "place": place, "delimiter": delimiter });
        if let Some(compression) = self.compression {
            config["compression"] = compression.name().into();
        }
        Description::new("csv_sink", config)
    }

    fn place(&self) -> Option<String> {
        Some(self.options.place())
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        compression_at(&self.options, self.compression)?;
        let schema = self.options.file_schema(schema)?;
        accept_columns(&schema, "CSV", |field| {
            let nested = field.data_type().is_nested();
            nested.then(|| "A field of CSV holds one value.".to_owned())
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

#[derive(Clone, Copy, Debug)]
struct CsvFormat {
    delimiter: u8,
    header: bool,
    compression: FileCompression,
}

impl CsvFormat {
    /// The bytes of rows, without a header.
    fn encode(&self, rows: &RecordBatch, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        let builder = WriterBuilder::new().with_delimiter(self.delimiter);
        Ok(builder.with_header(false).build(bytes).write(rows)?)
    }

    fn header(&self, schema: &SchemaRef) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = Vec::new();
        let builder = WriterBuilder::new().with_delimiter(self.delimiter);
        let mut writer = builder.with_header(true).build(&mut bytes);
        writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
        drop(writer);
        Ok(bytes)
    }
}

impl FileFormat for CsvFormat {
    fn extension(&self) -> &'static str {
        self.compression.extension_of(EXTENSIONS)
    }

    fn create(
        &self,
        file: Box<dyn Writing>,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        let header = match self.header {
            true => self.header(schema)?,
            false => Vec::new(),
        };
        let format = *self;
        let encode = move |rows: &RecordBatch, bytes: &mut Vec<u8>| format.encode(rows, bytes);
        let encoder = BytesEncoder::begin(file, self.compression, &header, encode)?;
        Ok(Box::new(encoder))
    }

    fn preamble(&self, schema: &SchemaRef) -> Result<Vec<u8>, EncodeError> {
        Ok(compressed(&self.header(schema)?, self.compression)?)
    }
}

#[cfg(test)]
mod tests;
