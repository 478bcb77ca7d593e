//! Writes Parquet files: a folder of shards, published by one rename.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::SPLIT_ROWS;
use super::agreement::agree;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards};
use super::staging::Existing;
use crate::error::{Error, Result};
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
/// the run has ended well: then the whole folder appears by one rename. Where there are no rows, one
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
    /// Starts a new file after so many rows, at least one.
    #[must_use]
    pub fn rows_per_file(mut self, n_rows: u64) -> Self {
        self.options.rows_per_file = Some(n_rows.max(1));
        self
    }

    /// How pages are compressed.
    #[must_use]
    pub fn compression(mut self, compression: ParquetCompression) -> Self {
        self.compression = compression;
        self
    }

    /// Replaces a folder that is there, once the new one is whole.
    ///
    /// The old folder is moved aside, the new one takes its name, and the old one is removed: two
    /// renames, between which a reader finds nothing. A folder that holds anything but Parquet files
    /// is refused.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.options.existing = Existing::when(overwrite);
        self
    }
}

impl Sink for ParquetSink {
    fn describe(&self) -> Description {
        let folder = self.options.target.display().to_string();
        Description::new("parquet_sink", json!({ "folder": folder }))
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        if schema.fields().is_empty() {
            return Err(Error::pipeline(
                "rows without columns cannot be written to Parquet",
            ));
        }
        agree(&[("the rows to write".to_owned(), Arc::clone(schema))])?;
        let errors: Vec<Error> = schema
            .fields()
            .iter()
            .filter_map(|field| {
                let one = Schema::new(vec![Arc::clone(field)]);
                let error = ArrowSchemaConverter::new().convert(&one).err()?;
                Some(
                    Error::pipeline(format!(
                        "column {:?} of type {} cannot be written to Parquet",
                        field.name(),
                        field.data_type()
                    ))
                    .with_detail(format!("{error}."))
                    .with_hint("Cast it, or leave it out with `select`."),
                )
            })
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::all(errors))
        }
    }

    fn begin(&self, schema: &SchemaRef) -> Result<Box<dyn Publication>> {
        let format = ParquetFormat {
            compression: self.compression,
        };
        let shards = Shards::begin(&self.options, Arc::new(format), schema)?;
        Ok(Box::new(shards))
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

    fn create(&self, file: File, schema: &SchemaRef) -> Result<Box<dyn Encoder>, EncodeError> {
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
        let writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties))?;
        Ok(Box::new(ParquetEncoder(writer)))
    }
}

struct ParquetEncoder(ArrowWriter<File>);

impl Encoder for ParquetEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        Ok(self.0.write(rows)?)
    }

    fn finish(self: Box<Self>) -> Result<File, EncodeError> {
        Ok(self.0.into_inner()?)
    }
}

#[cfg(test)]
mod tests;
