//! Reads the rows of one CSV file, bad ones apart.
//!
//! ```text
//! records (crate csv) ─▶ a column of text each ─▶ cast to its type ─▶ rows
//!          │ fields, UTF-8                          │ a value that got lost
//!          └───────────────▶ bad rows ◀─────────────┘
//! ```

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow::array::{Array, ArrayBuilder, ArrayRef, AsArray, BooleanArray, StringBuilder};
use arrow::compute::filter;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use csv::{ByteRecord, Position as Place};

use super::csv_source::Dialect;
use super::csv_types::parse;
use super::selection::Selection;
use super::storage::StoredFile;
use crate::error::{Error, Result};
use crate::output::{DeadLetter, Output};
use crate::source::SplitReader;

/// Of a bad row, no more than this is kept.
const MAX_RAW_BYTES: u64 = 64 << 10;

/// What is known of a file before its rows are read.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// All columns of the file, as the source promised them.
    pub(crate) schema: SchemaRef,
    /// The field in which each of them stands.
    pub(crate) places: Vec<usize>,
    pub(crate) has_header: bool,
    pub(crate) skip_lines: u64,
    pub(crate) dialect: Dialect,
}

/// An open file.
pub(crate) struct CsvReader {
    file: StoredFile,
    records: Records,
    record: ByteRecord,
    start: Start,
    layout: Layout,
    selection: Selection,
    chunk_rows: usize,
    /// Good rows that were read before the position asked for.
    to_skip: u64,
}

type Records = csv::Reader<Box<dyn Read + Send>>;

/// Where the records begin: the bytes and lines that were passed over before.
#[derive(Clone, Copy, Debug)]
struct Start {
    byte: u64,
    line: u64,
}

/// A row that is left out of its chunk.
struct BadRow {
    row: usize,
    reason: String,
}

/// The next records of a file, as text.
struct Chunk {
    columns: Vec<StringBuilder>,
    /// Where each record begins and ends.
    places: Vec<(Place, Place)>,
    bad: Vec<BadRow>,
}

impl CsvReader {
    /// The fields of the first line, or nothing where there is none.
    pub(crate) fn first_line(
        file: &StoredFile,
        skip_lines: u64,
        dialect: &Dialect,
    ) -> Result<Option<Vec<String>>> {
        let (mut records, _) = open_records(file, skip_lines, dialect)?;
        let mut record = ByteRecord::new();
        if !records
            .read_byte_record(&mut record)
            .map_err(|e| cannot_parse(file, e))?
        {
            return Ok(None);
        }
        let names: Result<Vec<&str>, _> = record.iter().map(std::str::from_utf8).collect();
        let names = names.map_err(|error| {
            Error::data(format!(
                "{}, line {}: the header is not UTF-8",
                file.name(),
                skip_lines + 1
            ))
            .with_source(error)
        })?;
        let trim = |name: &str| if dialect.trim { name.trim() } else { name }.to_owned();
        Ok(Some(names.into_iter().map(trim).collect()))
    }

    pub(crate) fn open(
        file: &StoredFile,
        layout: Layout,
        selection: Selection,
        position: u64,
        chunk_rows: usize,
    ) -> Result<Self> {
        let (mut records, start) = open_records(file, layout.skip_lines, &layout.dialect)?;
        let mut record = ByteRecord::new();
        if layout.has_header {
            records
                .read_byte_record(&mut record)
                .map_err(|e| cannot_parse(file, e))?;
        }
        Ok(Self {
            file: file.clone(),
            records,
            record,
            start,
            layout,
            selection,
            chunk_rows,
            to_skip: position,
        })
    }

    fn read_chunk(&mut self) -> Result<Chunk> {
        let n_columns = self.layout.places.len();
        let column = || StringBuilder::with_capacity(self.chunk_rows, self.chunk_rows * 8);
        let mut chunk = Chunk {
            columns: (0..n_columns).map(|_| column()).collect(),
            places: Vec::with_capacity(self.chunk_rows),
            bad: Vec::new(),
        };
        while chunk.places.len() < self.chunk_rows {
            let place = self.records.position().clone();
            let more = self.records.read_byte_record(&mut self.record);
            if !more.map_err(|e| cannot_parse(&self.file, e))? {
                break;
            }
            if self.is_blank() {
                continue;
            }
            let read = match self.is_open_ended(&place)? {
                true => Err("a quote is not closed".to_owned()),
                false => self.append(&mut chunk.columns),
            };
            chunk.places.push((place, self.records.position().clone()));
            if let Err(reason) = read {
                let row = chunk.places.len() - 1;
                // Columns that got a value already keep it; the row is filtered out.
                for column in &mut chunk.columns {
                    if column.len() == row {
                        column.append_null();
                    }
                }
                chunk.bad.push(BadRow { row, reason });
            }
        }
        Ok(chunk)
    }

    fn is_blank(&self) -> bool {
        self.layout.dialect.trim
            && self.layout.places.len() > 1
            && self.record.len() == 1
            && self.record.as_slice().iter().all(u8::is_ascii_whitespace)
    }

    /// True for a record at the end of the file that ends inside quotes, as one that a stray quote opened.
    fn is_open_ended(&self, place: &Place) -> Result<bool> {
        let next = self.records.position();
        let ends_the_file = self.start.byte + next.byte() >= self.file.n_bytes();
        if !ends_the_file || next.line() <= place.line() + 1 {
            return Ok(false);
        }
        let raw = self.raw(place.byte(), next.byte())?;
        Ok(raw.iter().filter(|b| **b == b'"').count() % 2 == 1)
    }

    /// Appends the fields of the record, or says why it is not a row.
    fn append(&self, columns: &mut [StringBuilder]) -> Result<(), String> {
        let (expected, found) = (self.layout.places.len(), self.record.len());
        if found != expected {
            let fields = if expected == 1 { "field" } else { "fields" };
            return Err(format!("expected {expected} {fields}, found {found}"));
        }
        let dialect = &self.layout.dialect;
        for (i, column) in columns.iter_mut().enumerate() {
            let bytes = self.record.get(self.layout.places[i]).unwrap_or_default();
            let value = std::str::from_utf8(bytes).map_err(|_| {
                let name = self.layout.schema.field(i).name();
                format!(
                    "column {name:?} must hold UTF-8, found {:?}",
                    String::from_utf8_lossy(bytes)
                )
            })?;
            let value = if dialect.trim { value.trim() } else { value };
            let null = value.is_empty() || dialect.nulls.iter().any(|n| n == value);
            column.append_option((!null).then_some(value));
        }
        Ok(())
    }

    /// The good rows of a chunk, all columns, and its bad ones in order.
    fn convert(
        &self,
        mut chunk: Chunk,
        n_rows: usize,
    ) -> Result<(Vec<ArrayRef>, usize, Vec<BadRow>)> {
        let mut good = vec![true; n_rows];
        for bad in &chunk.bad {
            good[bad.row] = false;
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(chunk.columns.len());
        for (field, text) in self.layout.schema.fields().iter().zip(&mut chunk.columns) {
            let text: ArrayRef = Arc::new(text.finish());
            let values = parse(&text, field.data_type())?;
            let text = text.as_string::<i32>();
            let lost = values.null_count() > text.null_count();
            let forbidden = !field.is_nullable() && values.null_count() > 0;
            if lost || forbidden {
                for row in (0..n_rows).filter(|row| values.is_null(*row)) {
                    let found = text.is_valid(row).then(|| text.value(row));
                    if good[row] && (found.is_some() || forbidden) {
                        let reason = misfit(field.name(), field.data_type(), found);
                        chunk.bad.push(BadRow { row, reason });
                        good[row] = false;
                    }
                }
            }
            columns.push(values);
        }
        if chunk.bad.is_empty() {
            return Ok((columns, n_rows, chunk.bad));
        }
        chunk.bad.sort_by_key(|bad| bad.row);
        let mask = BooleanArray::from(good);
        for column in &mut columns {
            *column = filter(column, &mask)?;
        }
        Ok((columns, mask.true_count(), chunk.bad))
    }
}

/// Why a value is none of the column's; `found` is nothing for a null.
fn misfit(column: &str, data_type: &DataType, found: Option<&str>) -> String {
    match found {
        Some(found) => format!("column {column:?} must hold {data_type}, found {found:?}"),
        None => format!("column {column:?} must not be null"),
    }
}

impl SplitReader for CsvReader {
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<RecordBatch>> {
        loop {
            let mut chunk = self.read_chunk()?;
            if chunk.places.is_empty() {
                return Ok(None);
            }
            let places = std::mem::take(&mut chunk.places);
            let (columns, n_good, bad) = self.convert(chunk, places.len())?;
            let skipped = self.to_skip.min(n_good as u64) as usize;
            // Bad rows at the end of a chunk were rejected with its good ones.
            let read_before = self.to_skip > 0 && skipped == n_good;
            self.to_skip -= skipped as u64;
            if read_before {
                continue;
            }
            for (n_bad_before, bad) in bad.into_iter().enumerate() {
                if bad.row - n_bad_before >= skipped {
                    let place = &places[bad.row];
                    out.reject_text(self.dead_letter(bad, place)?)?;
                }
            }
            if n_good > skipped {
                let rows = self.selection.pick(&columns, n_good)?;
                return Ok(Some(rows.slice(skipped, n_good - skipped)));
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.start.byte + self.records.position().byte()
    }
}

impl CsvReader {
    fn dead_letter(&self, bad: BadRow, (from, to): &(Place, Place)) -> Result<DeadLetter> {
        let raw = self.raw(from.byte(), to.byte().min(from.byte() + MAX_RAW_BYTES))?;
        // The end of the line before, and empty lines, stand before the record.
        let is_break = |b: &&u8| matches!(b, b'\n' | b'\r');
        let before = raw.iter().take_while(is_break);
        let line = self.start.line + from.line() + before.filter(|b| **b == b'\n').count() as u64;
        let last_line = self.start.line + to.line() - u64::from(raw.ends_with(b"\n"));
        let mut reason = bad.reason;
        if last_line > line {
            reason.push_str(&format!(" (the row goes on to line {last_line})"));
        }
        let text = String::from_utf8_lossy(&raw);
        Ok(DeadLetter {
            split: self.file.name(),
            row: line,
            reason,
            data: text.trim_matches(['\n', '\r']).to_owned(),
        })
    }

    /// The bytes of a record as they stand in the file.
    fn raw(&self, from: u64, to: u64) -> Result<Bytes> {
        self.file
            .range(self.start.byte + from..self.start.byte + to)
    }
}

fn open_records(file: &StoredFile, skip_lines: u64, dialect: &Dialect) -> Result<(Records, Start)> {
    let mut start = Start {
        byte: 0,
        line: skip_lines,
    };
    if skip_lines > 0 {
        let mut lines = BufReader::new(file.open(0)?);
        let mut line = Vec::new();
        for _ in 0..skip_lines {
            line.clear();
            let n_bytes = lines.read_until(b'\n', &mut line);
            start.byte += n_bytes.map_err(|e| file.cannot_read(e))? as u64;
        }
    }
    let records = csv::ReaderBuilder::new()
        .delimiter(dialect.delimiter)
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(64 << 10)
        .from_reader(file.open(start.byte)?);
    Ok((records, start))
}

fn cannot_parse(file: &StoredFile, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => file.cannot_read(error),
        other => Error::bug(format!("{} was refused: {other:?}", file.name())),
    }
}
