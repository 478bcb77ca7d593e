//! The footer of a file: its row groups, and the types that its columns are read as.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Encoding, EncodingMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use super::super::parquet_file::ParquetBytes;
use super::super::storage::StoredFile;
use super::instants::types_without_loss;
use crate::error::{Error, Result};

/// An open file, as it were: its footer, and where the rest is.
#[derive(Debug)]
pub(super) struct ParquetFile {
    /// Its number among all files that were listed.
    pub(super) number: usize,
    pub(super) file: StoredFile,
    pub(super) footer: ArrowReaderMetadata,
}

impl ParquetFile {
    pub(super) fn read(number: usize, file: StoredFile) -> Result<Self> {
        let bytes = ParquetBytes::open_footer(&file)?;
        let footer = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())
            .map_err(|error| bytes.failure().unwrap_or_else(|| no_footer(&file, error)))?;
        Ok(Self {
            number,
            file,
            footer,
        })
    }

    /// The file with its columns of the types that they are read as: text as dictionaries where `is_dictionary`
    /// says so by name, else plain.
    pub(super) fn with_types_read(self, is_dictionary: impl Fn(&str) -> bool) -> Result<Self> {
        let footer = as_read(&self.footer, is_dictionary);
        let footer = footer.map_err(|error| no_footer(&self.file, error))?;
        Ok(Self { footer, ..self })
    }

    pub(super) fn row_groups(&self) -> &[RowGroupMetaData] {
        self.footer.metadata().row_groups()
    }

    /// The file with those of the columns read as dictionaries that these row groups hold as such
    /// throughout; `None` where there are none.
    ///
    /// # Errors
    /// As the library says; it has accepted the same types without dictionaries.
    pub(super) fn with_dictionaries(
        &self,
        groups: Range<usize>,
        columns: &[String],
    ) -> Result<Option<Self>> {
        let groups = self.row_groups().get(groups).unwrap_or_default();
        let schema = self.footer.schema();
        let is_stored = |name: &str| {
            let Ok(place) = schema.index_of(name) else {
                return false;
            };
            let mask = ProjectionMask::roots(self.footer.parquet_schema(), [place]);
            let of_group = |group: &RowGroupMetaData| {
                let leaves = group.columns().iter().enumerate();
                let mut chunks = leaves.filter(|(leaf, _)| mask.leaf_included(*leaf));
                chunks.all(|(_, chunk)| is_dictionary_throughout(chunk))
            };
            *schema.field(place).data_type() == DataType::Utf8 && groups.iter().all(of_group)
        };
        let stored: Vec<&String> = columns.iter().filter(|name| is_stored(name)).collect();
        if stored.is_empty() {
            return Ok(None);
        }
        let footer = as_read(&self.footer, |name| {
            let is_one = |f: &Field| is_text_dictionary(f.data_type());
            stored.iter().any(|of| *of == name) || schema.field_with_name(name).is_ok_and(is_one)
        });
        Ok(Some(Self {
            number: self.number,
            file: self.file.clone(),
            footer: footer.map_err(|error| no_footer(&self.file, error))?,
        }))
    }

    /// The schema with these columns of the types that this file gives them.
    pub(super) fn types_of(&self, schema: &SchemaRef, columns: &[String]) -> SchemaRef {
        if columns.is_empty() {
            return Arc::clone(schema);
        }
        let fields = schema.fields().iter().map(|field| {
            let own = self.footer.schema().field_with_name(field.name());
            match own {
                Ok(own) if columns.contains(field.name()) => {
                    let typed = field
                        .as_ref()
                        .clone()
                        .with_data_type(own.data_type().clone());
                    Arc::new(typed)
                }
                _ => Arc::clone(field),
            }
        });
        let fields: Vec<_> = fields.collect();
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
    }
}

/// The footer with the columns of the types that they are read as.
fn as_read(
    footer: &ArrowReaderMetadata,
    is_dictionary: impl Fn(&str) -> bool,
) -> Result<ArrowReaderMetadata, ParquetError> {
    let stored = footer.schema();
    let fields: Vec<Field> = stored
        .fields()
        .iter()
        .zip(types_without_loss(footer))
        .map(|(f, data_type)| {
            let plain = plain_text(&data_type);
            let read = match plain == DataType::Utf8 && is_dictionary(f.name()) {
                true => text_dictionary(),
                false => plain,
            };
            // The field itself may carry how keys are kept, which no longer holds.
            Field::new(f.name(), read, f.is_nullable()).with_metadata(f.metadata().clone())
        })
        .collect();
    if fields
        .iter()
        .zip(stored.fields())
        .all(|(a, b)| a == b.as_ref())
    {
        return Ok(footer.clone());
    }
    let schema = Schema::new_with_metadata(fields, stored.metadata().clone());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    ArrowReaderMetadata::try_new(Arc::clone(footer.metadata()), options)
}

/// True if all pages of the chunk are known to hold places in one dictionary.
fn is_dictionary_throughout(chunk: &ColumnChunkMetaData) -> bool {
    let is_one = |mask: &EncodingMask| {
        mask.is_only(Encoding::RLE_DICTIONARY) || mask.is_only(Encoding::PLAIN_DICTIONARY)
    };
    chunk.dictionary_page_offset().is_some() && chunk.page_encoding_stats_mask().is_some_and(is_one)
}

fn text_dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

pub(super) fn is_text_dictionary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(_, values) if plain_text(values) == DataType::Utf8)
}

fn plain_text(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => plain_text(values),
        other => other.clone(),
    }
}

pub(super) fn check_dictionaries(schema: &Schema, dictionaries: &[String]) -> Result<()> {
    let mut errors = Vec::new();
    for name in dictionaries {
        match crate::expression::check_column(name, schema) {
            Err(error) => errors.push(error),
            Ok(place) if !is_text_dictionary(schema.field(place).data_type()) => {
                let found = schema.field(place).data_type();
                let wrong = format!("column {name:?} must hold text to be read as a dictionary");
                errors.push(Error::pipeline(format!("{wrong}, found {found}")));
            }
            Ok(_) => {}
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Error::all(errors)),
    }
}

/// The format counts in signed numbers; a damaged file may hold a negative one.
pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn n_rows(group: &RowGroupMetaData) -> u64 {
    unsigned(group.num_rows())
}

fn no_footer(file: &StoredFile, error: ParquetError) -> Error {
    let magic = file.range(0..file.n_bytes().min(4));
    let refused = if magic.is_ok_and(|magic| *magic == *b"PAR1") {
        Error::data(format!("{} is cut short or damaged", file.name()))
            .with_hint("Write it again; a file that is still being written cannot be read.")
    } else {
        Error::data(format!("{} is not a Parquet file", file.name()))
            .with_hint("Name only Parquet files, for example by the pattern \"*.parquet\".")
    };
    refused.with_detail(format!("{error}.")).with_source(error)
}
