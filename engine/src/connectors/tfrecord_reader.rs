//! Reads the rows of one TFRecord file of tf.Example, bad ones apart.

use std::collections::HashMap;
use std::io::BufReader;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanArray, Float32Builder, Int64Builder, ListBuilder,
    StringBuilder,
};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use tfrecord::io::sync::{try_read_len, try_read_record_data};
use tfrecord::{Example, FeatureKind, Record};

use super::compression::{PlainBytes, Progress, read_failed};
use super::csv_types::parse;
use super::selection::Selection;
use super::storage::StoredFile;
use super::tfrecord_types::{Column, Values, described, n_values};
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::output::{DeadLetter, Output};
use crate::source::SplitReader;

/// Records are given on when they fill so much, however few they are.
const MAX_CHUNK_BYTES: usize = 16 << 20;

/// The features of a record by their names, or why it is none.
pub(crate) type Features = Result<HashMap<String, FeatureKind>, String>;

/// The records of a file.
pub(crate) struct Records {
    file: StoredFile,
    bytes: BufReader<PlainBytes>,
    progress: Progress,
    next: u64,
    max_row_bytes: u64,
}

impl Records {
    pub(crate) fn open(file: &StoredFile, max_row_bytes: u64) -> Result<Self> {
        let bytes = PlainBytes::open(file)?;
        Ok(Self {
            file: file.clone(),
            progress: bytes.progress(),
            bytes: BufReader::with_capacity(256 << 10, bytes),
            next: 0,
            max_row_bytes,
        })
    }

    /// The next record and its bytes; nothing at the end.
    pub(crate) fn next_record(&mut self) -> Result<Option<(usize, Features)>> {
        let number = self.next;
        self.next += 1;
        let n_bytes = try_read_len(&mut self.bytes, true);
        let Some(n_bytes) = n_bytes.map_err(|e| self.failed(number, e))? else {
            return Ok(None);
        };
        if n_bytes as u64 > self.max_row_bytes {
            return Err(Error::data(format!(
                "{}, record {number}: the record is longer than {} bytes",
                self.file.name(),
                self.max_row_bytes
            ))
            .with_hint("Raise `max_row_bytes`, if the record is what it should be."));
        }
        let record = try_read_record_data(&mut self.bytes, n_bytes, true);
        let record = record.map_err(|e| self.failed(number, e))?;
        let features = match Example::from_bytes(record) {
            Ok(example) => Ok(example
                .into_iter()
                .filter_map(|(name, feature)| Some((name, feature.into_kinds()?)))
                .collect()),
            Err(error) => Err(format!("it is no tf.Example ({error})")),
        };
        Ok(Some((n_bytes, features)))
    }

    fn failed(&self, number: u64, error: tfrecord::Error) -> Error {
        let place = format!("{}, record {number}", self.file.name());
        let message = match error {
            tfrecord::Error::IoError(io) if io.kind() != std::io::ErrorKind::UnexpectedEof => {
                return read_failed(&self.file, io);
            }
            tfrecord::Error::IoError(_) | tfrecord::Error::UnexpectedEof => {
                format!("{place}: the file ends in the middle of it")
            }
            tfrecord::Error::ChecksumMismatch { expect, found } => {
                format!("{place}: its checksum is {found:#010x}, expected {expect:#010x}")
            }
            other => format!("{place}: {other}"),
        };
        Error::data(message).with_hint("Copy the file anew, or leave it out.")
    }
}

/// An open file.
pub(crate) struct TfRecordReader {
    records: Records,
    name: String,
    schema: SchemaRef,
    columns: Vec<Column>,
    selection: Selection,
    /// Good rows that were read before the position asked for.
    to_skip: u64,
}

/// A record that is no row, by its place in the chunk.
struct BadRow {
    row: usize,
    reason: String,
}

impl TfRecordReader {
    pub(crate) fn new(
        records: Records,
        schema: &SchemaRef,
        selection: Selection,
        position: u64,
    ) -> Result<Self> {
        let columns = schema.fields().iter().map(|f| {
            Column::of(f.data_type()).ok_or_else(|| Error::bug("a column was not checked"))
        });
        Ok(Self {
            name: records.file.name(),
            records,
            schema: Arc::clone(schema),
            columns: columns.collect::<Result<_>>()?,
            selection,
            to_skip: position,
        })
    }

    /// The next records: the good ones as columns, and the bad ones.
    fn read_chunk(&mut self) -> Result<Option<Chunk>> {
        let first = self.records.next;
        let mut n_bytes = 0;
        let mut values: Vec<Vec<Option<FeatureKind>>> = vec![Vec::new(); self.columns.len()];
        let (mut n_rows, mut bad) = (0, Vec::new());
        while n_rows < BATCH_ROWS && n_bytes < MAX_CHUNK_BYTES {
            let Some((size, record)) = self.records.next_record()? else {
                break;
            };
            n_bytes += size;
            let taken = record.and_then(|features| self.take(features));
            let row = match taken {
                Ok(row) => row,
                Err(reason) => {
                    bad.push(BadRow {
                        row: n_rows,
                        reason,
                    });
                    vec![None; self.columns.len()]
                }
            };
            for (column, value) in values.iter_mut().zip(row) {
                column.push(value);
            }
            n_rows += 1;
        }
        if n_rows == 0 {
            return Ok(None);
        }
        let mut good = vec![true; n_rows];
        for bad in &bad {
            good[bad.row] = false;
        }
        let mut columns = Vec::with_capacity(values.len());
        for ((column, field), values) in self.columns.iter().zip(self.schema.fields()).zip(values) {
            let read = build(column, &values);
            let converted = parse(&read, field.data_type())?;
            if converted.null_count() > read.null_count() {
                let (name, data_type) = (field.name(), field.data_type());
                for (row, good) in good.iter_mut().enumerate() {
                    if *good && converted.is_null(row) && read.is_valid(row) {
                        *good = false;
                        let reason = format!(
                            "column {name:?} must hold {data_type}, found a value out of its range"
                        );
                        bad.push(BadRow { row, reason });
                    }
                }
            }
            columns.push(converted);
        }
        bad.sort_by_key(|b| b.row);
        let mask = BooleanArray::from(good);
        if !bad.is_empty() {
            for column in &mut columns {
                *column = filter(column, &mask)?;
            }
        }
        Ok(Some(Chunk {
            first,
            columns,
            n_good: n_rows - bad.len(),
            bad,
        }))
    }

    /// The values of the columns, or why the record is no row.
    fn take(
        &self,
        mut features: HashMap<String, FeatureKind>,
    ) -> Result<Vec<Option<FeatureKind>>, String> {
        let mut row = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter().zip(self.schema.fields()) {
            let name = field.name();
            let feature = features
                .remove(name)
                .filter(|f| column.is_list || n_values(f) > 0);
            let Some(feature) = feature else {
                if !field.is_nullable() {
                    return Err(format!("column {name:?} must not be null"));
                }
                row.push(None);
                continue;
            };
            let (data_type, n) = (field.data_type(), n_values(&feature));
            if !column.values.fit(&feature) {
                let found = described(&feature);
                return Err(format!(
                    "column {name:?} must hold {data_type}, found {found}"
                ));
            }
            if !column.is_list && n > 1 {
                return Err(format!("column {name:?} must hold one value, found {n}"));
            }
            if let (Values::Text, FeatureKind::Bytes(values)) = (column.values, &feature)
                && let Some(other) = values.iter().find(|v| std::str::from_utf8(v).is_err())
            {
                let found = String::from_utf8_lossy(&other[..other.len().min(80)]);
                return Err(format!("column {name:?} must hold UTF-8, found {found:?}"));
            }
            row.push(Some(feature));
        }
        Ok(row)
    }
}

/// Records that were read together.
struct Chunk {
    /// The number of the first record.
    first: u64,
    columns: Vec<ArrayRef>,
    n_good: usize,
    bad: Vec<BadRow>,
}

/// A column in the type that holds its values as they are.
fn build(column: &Column, features: &[Option<FeatureKind>]) -> ArrayRef {
    macro_rules! build {
        ($builder:expr, $kind:ident, $value:expr) => {{
            if column.is_list {
                let mut lists = ListBuilder::new($builder);
                for feature in features {
                    if let Some(FeatureKind::$kind(values)) = feature {
                        for value in values {
                            lists.values().append_value($value(value));
                        }
                    }
                    lists.append(feature.is_some());
                }
                Arc::new(lists.finish())
            } else {
                let mut builder = $builder;
                for feature in features {
                    match feature {
                        Some(FeatureKind::$kind(values)) => {
                            builder.append_option(values.first().map($value));
                        }
                        _ => builder.append_null(),
                    }
                }
                Arc::new(builder.finish())
            }
        }};
    }
    match column.values {
        Values::Int64 => build!(Int64Builder::new(), I64, |v: &i64| *v),
        Values::Float32 => build!(Float32Builder::new(), F32, |v: &f32| *v),
        Values::Bytes => build!(BinaryBuilder::new(), Bytes, |v: &Vec<u8>| v.clone()),
        // Checked before: nothing is lost.
        Values::Text => build!(StringBuilder::new(), Bytes, |v: &Vec<u8>| {
            String::from_utf8_lossy(v).into_owned()
        }),
    }
}

impl SplitReader for TfRecordReader {
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<RecordBatch>> {
        loop {
            let Some(chunk) = self.read_chunk()? else {
                return Ok(None);
            };
            let n_good = chunk.n_good;
            let skipped = self.to_skip.min(n_good as u64) as usize;
            // Bad rows at the end of a chunk were rejected with its good ones.
            let read_before = self.to_skip > 0 && skipped == n_good;
            self.to_skip -= skipped as u64;
            if read_before {
                continue;
            }
            for (n_bad_before, bad) in chunk.bad.into_iter().enumerate() {
                if bad.row - n_bad_before >= skipped {
                    out.reject_record(DeadLetter {
                        split: self.name.clone(),
                        row: chunk.first + bad.row as u64,
                        reason: bad.reason,
                        data: String::new(),
                    })?;
                }
            }
            // No row at all where all are bad: their letters are not kept until a good one comes.
            let rows = self.selection.pick(&chunk.columns, n_good)?;
            return Ok(Some(rows.slice(skipped, n_good - skipped)));
        }
    }

    fn bytes_read(&self) -> u64 {
        self.records.progress.n_bytes()
    }
}
