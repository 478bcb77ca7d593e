//! Writes CSV files: a folder of shards or one file, published by one rename.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::csv::{Writer, WriterBuilder};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::agreement::agree;
use super::shards::{EncodeError, Encoder, FileFormat, ShardOptions, Shards};
use super::staging::Existing;
use crate::error::{Error, Result};
use crate::sink::{Publication, Sink};
use crate::transform::Description;

/// CSV files with a header: one file where the path ends in `.csv`, else a folder of shards,
/// `part-00000-of-00002.csv` and so on.
///
/// Rows of a worker keep their order; one file holds those of worker 0 first. Nothing can be seen
/// until the run has ended well: then the file or the whole folder appears by one rename. Where there
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
}

/// Writes rows to one CSV file or a folder of them: see [`CsvSink`].
pub fn csv_sink(place: impl AsRef<Path>) -> CsvSink {
    let mut options = ShardOptions::new(place);
    options.one_file = options.target.extension().is_some_and(|e| e == "csv");
    CsvSink {
        options,
        delimiter: b',',
    }
}

impl CsvSink {
    /// What stands between two fields: by default a comma.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Starts a new file of the folder after so many rows, at least one; one file stays one.
    #[must_use]
    pub fn rows_per_file(mut self, n_rows: u64) -> Self {
        self.options.rows_per_file = Some(n_rows.max(1));
        self
    }

    /// Replaces what is there, once the new rows are whole; a folder that holds anything but CSV files
    /// is refused.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.options.existing = Existing::when(overwrite);
        self
    }
}

impl Sink for CsvSink {
    fn describe(&self) -> Description {
        let place = self.options.target.display().to_string();
        let delimiter = char::from(self.delimiter).to_string();
        Description::new(
            "csv_sink",
            json!({ "place": place, "delimiter": delimiter }),
        )
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        if schema.fields().is_empty() {
            return Err(Error::pipeline(
                "rows without columns cannot be written to CSV",
            ));
        }
        agree(&[("the rows to write".to_owned(), Arc::clone(schema))])?;
        let nested = schema.fields().iter().filter(|f| f.data_type().is_nested());
        let errors: Vec<Error> = nested
            .map(|f| {
                Error::pipeline(format!(
                    "column {:?} of type {} cannot be written to CSV",
                    f.name(),
                    f.data_type()
                ))
                .with_hint("Make text of it, leave it out with `select`, or write Parquet.")
            })
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::all(errors))
        }
    }

    fn begin(&self, schema: &SchemaRef) -> Result<Box<dyn Publication>> {
        let format = CsvFormat {
            delimiter: self.delimiter,
            // One file is put together from shards, and has one header.
            header: !self.options.one_file,
        };
        let shards = Shards::begin(&self.options, Arc::new(format), schema)?;
        Ok(Box::new(shards))
    }
}

#[derive(Debug)]
struct CsvFormat {
    delimiter: u8,
    header: bool,
}

impl CsvFormat {
    fn writer<W: Write>(&self, file: W, header: bool) -> Writer<W> {
        WriterBuilder::new()
            .with_delimiter(self.delimiter)
            .with_header(header)
            .build(file)
    }
}

impl FileFormat for CsvFormat {
    fn extension(&self) -> &'static str {
        "csv"
    }

    fn create(&self, file: File, schema: &SchemaRef) -> Result<Box<dyn Encoder>, EncodeError> {
        let mut writer = self.writer(BufWriter::new(file), self.header);
        if self.header {
            writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
        }
        Ok(Box::new(CsvEncoder(writer)))
    }

    fn preamble(&self, schema: &SchemaRef) -> Result<Vec<u8>, EncodeError> {
        let mut header = Vec::new();
        self.writer(&mut header, true)
            .write(&RecordBatch::new_empty(Arc::clone(schema)))?;
        Ok(header)
    }
}

struct CsvEncoder(Writer<BufWriter<File>>);

impl Encoder for CsvEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        Ok(self.0.write(rows)?)
    }

    fn finish(self: Box<Self>) -> Result<File, EncodeError> {
        let file = self.0.into_inner();
        Ok(file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?)
    }
}

#[cfg(test)]
mod tests;
