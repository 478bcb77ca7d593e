//! Reads the rows of one CSV file, bad ones apart.
//!
//! ```text
//! records ─▶ columns, as numbers or as text ─▶ all of their types ─▶ rows
//!    │ fields, UTF-8                    │ a value that got lost
//!    └──────────────▶ bad rows ◀────────┘
//! ```

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::filter;
use arrow::datatypes::{Field, FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::compression::{PlainBytes, Progress, read_failed};
use super::csv_columns::{CsvColumn, column_of, is_passed_over};
use super::csv_dialect::Dialect;
use super::csv_records::{BYTE_ORDER_MARK, CsvRecords, Fields, Record, Stretch};
use super::csv_types::excerpt;
use super::selection::Selection;
use super::storage::StoredFile;
use super::tape::{RowTooLong, Tape};
use super::text_splits::Place;
use crate::error::{Error, Result};
use crate::output::{DeadLetter, Output};
use crate::source::{Lines, SplitReader};

/// Of a bad row, no more than this is kept.
const MAX_RAW_BYTES: u64 = 64 << 10;

/// Rows are given on when their text fills so much, however few they are.
const MAX_CHUNK_BYTES: u64 = 16 << 20;

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

/// Which rows of a file are read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// All, after the lines to skip and the header.
    Whole,
    /// Those between two places, the first of which is the beginning of a row.
    Bytes {
        from: Place,
        to: u64,
        /// What the split says it holds, about.
        n_bytes: u64,
    },
}

/// An open file, or a part of one.
pub(crate) struct CsvReader {
    file: StoredFile,
    records: CsvRecords,
    start: Place,
    progress: Progress,
    n_bytes: u64,
    layout: Layout,
    slots: Vec<Slot>,
    selection: Selection,
    chunk_rows: usize,
    /// Good rows that were read before the position asked for.
    to_skip: u64,
    name: Arc<str>,
    lines: Option<Lines>,
}

/// The columns that the first line of a file names.
pub(crate) struct FirstLine {
    pub(crate) fields: Vec<String>,
    /// Where the line begins, and what follows it.
    pub(crate) from: Place,
    pub(crate) next: Place,
}

/// A column of which the value of each record is looked at.
struct Slot {
    /// Which of the schema.
    column: usize,
    /// The field in which it stands.
    place: usize,
    is_nullable: bool,
}

/// A row that is left out of its chunk.
struct BadRow {
    row: usize,
    reason: String,
}

/// The next records of a file.
struct Chunk {
    columns: Vec<Box<dyn CsvColumn>>,
    stretches: Vec<Stretch>,
    bad: Vec<BadRow>,
}

impl CsvReader {
    /// The fields of the first line, or nothing where there is none.
    pub(crate) fn first_line(
        file: &StoredFile,
        skip_lines: u64,
        dialect: &Dialect,
    ) -> Result<Option<FirstLine>> {
        let (mut records, start, _) = open_whole(file, skip_lines, dialect)?;
        let mut first = None;
        let read = records.read(&mut |record| {
            let fields = 0..record.fields.len();
            let names = fields.map(|i| record.fields.bytes(i).to_vec());
            first = Some((names.collect::<Vec<_>>(), record.stretch));
            false
        });
        read.map_err(|e| cannot_read(file, start.line + 1, dialect, e))?;
        let Some((names, stretch)) = first else {
            return Ok(None);
        };
        let place = |place: Place| Place {
            byte: start.byte + place.byte,
            line: start.line + place.line,
        };
        let raw = records.bytes(0, stretch.to);
        let marked = stretch.from + start.byte == 0 && raw.starts_with(BYTE_ORDER_MARK);
        let from = place(Place {
            byte: stretch.from + if marked { 3 } else { 0 },
            line: stretch.line - 1,
        });
        let next = place(records.place());
        let names: Result<Vec<&str>, _> = names.iter().map(|n| std::str::from_utf8(n)).collect();
        let names = names.map_err(|error| {
            Error::data(format!(
                "{}, line {}: the header is not UTF-8",
                file.name(),
                from.line + 1
            ))
            .with_source(error)
        })?;
        let trim = |name: &str| if dialect.trim { name.trim() } else { name }.to_owned();
        let fields = names.into_iter().map(trim).collect();
        Ok(Some(FirstLine { fields, from, next }))
    }

    pub(crate) fn open(
        file: &StoredFile,
        part: Part,
        layout: Layout,
        selection: Selection,
        position: u64,
        chunk_rows: usize,
    ) -> Result<Self> {
        let dialect = &layout.dialect;
        let (records, start, progress) = match part {
            Part::Whole => {
                let (mut records, start, progress) = open_whole(file, layout.skip_lines, dialect)?;
                if layout.has_header {
                    let read = records.read(&mut |_| false);
                    read.map_err(|e| cannot_read(file, start.line + 1, dialect, e))?;
                }
                (records, start, progress)
            }
            Part::Bytes { from, to, .. } => {
                let n_bytes = to.saturating_sub(from.byte);
                let progress = Progress::default();
                let bytes = progress.count(file.open(from.byte)?).take(n_bytes);
                let tape = Tape::new(Box::new(bytes), dialect.max_row_bytes);
                (CsvRecords::new(tape, dialect), from, progress)
            }
        };
        let slots = layout.slots(&selection);
        Ok(Self {
            name: Arc::from(file.name()),
            file: file.clone(),
            records,
            start,
            progress,
            n_bytes: match part {
                Part::Whole => u64::MAX,
                Part::Bytes { n_bytes, .. } => n_bytes,
            },
            layout,
            slots,
            selection,
            chunk_rows,
            to_skip: position,
            lines: None,
        })
    }

    fn read_chunk(&mut self) -> Result<Chunk> {
        let fields = self.layout.schema.fields().iter().enumerate();
        let column = |(i, field): (usize, &FieldRef)| {
            column_of(field, self.selection.has(i), self.chunk_rows)
        };
        let mut chunk = Chunk {
            columns: fields.map(column).collect(),
            stretches: Vec::with_capacity(self.chunk_rows),
            bad: Vec::new(),
        };
        self.records.forget();
        let (begin, start) = (self.records.place().byte, self.start.line);
        let (layout, slots, chunk_rows) = (&self.layout, &self.slots, self.chunk_rows);
        let has_room = |chunk: &Chunk, to: u64| match chunk.stretches.len() {
            0 => true,
            n => n < chunk_rows && to - begin < MAX_CHUNK_BYTES,
        };
        loop {
            let line = start + self.records.place().line + 1;
            let read = self.records.read(&mut |record| {
                let to = record.stretch.to;
                layout.take(record, slots, start, &mut chunk);
                has_room(&chunk, to)
            });
            let more = read.map_err(|e| cannot_read(&self.file, line, &layout.dialect, e))?;
            if !more || !has_room(&chunk, self.records.place().byte) {
                return Ok(chunk);
            }
        }
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
        for (field, column) in self.layout.schema.fields().iter().zip(&mut chunk.columns) {
            let (values, lossy) = column.finish(n_rows)?;
            if let Some(text) = lossy {
                let text = text.as_string::<i32>();
                for row in (0..n_rows).filter(|row| values.is_null(*row) && text.is_valid(*row)) {
                    if std::mem::take(&mut good[row]) {
                        let reason = misfit(field, text.value(row));
                        chunk.bad.push(BadRow { row, reason });
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

impl Layout {
    /// The columns in their order, without those that are passed over.
    fn slots(&self, selection: &Selection) -> Vec<Slot> {
        let fields = self.schema.fields().iter().zip(&self.places).enumerate();
        let looked_at = fields.filter(|(i, (field, _))| !is_passed_over(field, selection.has(*i)));
        let slot = |(column, (field, place)): (usize, (&FieldRef, &usize))| Slot {
            column,
            place: *place,
            is_nullable: field.is_nullable(),
        };
        looked_at.map(slot).collect()
    }

    /// Appends a record to a chunk, good or bad; the file or part begins after so many lines.
    fn take(&self, record: Record<'_>, slots: &[Slot], lines_before: u64, chunk: &mut Chunk) {
        let fields = record.fields;
        if self.is_blank(&fields) {
            return;
        }
        let read = match fields.is_utf8() {
            true => self.append(&fields, slots, chunk),
            false => Err(self.not_text(&fields)),
        };
        let read = match record.is_open_ended {
            true => Err("a quote is not closed".to_owned()),
            false => read,
        };
        if let Err(reason) = read {
            // Columns that got a value already keep it; the row is filtered out.
            let row = chunk.stretches.len();
            chunk.bad.push(BadRow { row, reason });
        }
        chunk.stretches.push(Stretch {
            line: lines_before + record.stretch.line,
            last_line: lines_before + record.stretch.last_line,
            ..record.stretch
        });
    }

    fn is_blank(&self, fields: &Fields<'_>) -> bool {
        self.dialect.trim
            && self.places.len() > 1
            && fields.len() == 1
            && fields.bytes(0).iter().all(u8::is_ascii_whitespace)
    }

    /// Appends the fields of a record, or says why it is not a row.
    fn append(&self, fields: &Fields<'_>, slots: &[Slot], chunk: &mut Chunk) -> Result<(), String> {
        self.check_length(fields.len())?;
        let row = chunk.stretches.len();
        let dialect = &self.dialect;
        for slot in slots {
            let value = match dialect.trim {
                true => trimmed(fields.bytes(slot.place)),
                false => fields.bytes(slot.place),
            };
            if value.is_empty() || dialect.nulls.iter().any(|n| n.as_bytes() == value) {
                if !slot.is_nullable {
                    let name = self.schema.field(slot.column).name();
                    return Err(format!("column {name:?} must not be null"));
                }
            } else if !chunk.columns[slot.column].push(row, value) {
                let value = String::from_utf8_lossy(value);
                return Err(misfit(self.schema.field(slot.column), &value));
            }
        }
        Ok(())
    }

    fn check_length(&self, found: usize) -> Result<(), String> {
        let expected = self.places.len();
        if found == expected {
            return Ok(());
        }
        let fields = if expected == 1 { "field" } else { "fields" };
        Err(format!("expected {expected} {fields}, found {found}"))
    }

    /// Why the record is no row, of which a field is not UTF-8.
    fn not_text(&self, fields: &Fields<'_>) -> String {
        if let Err(reason) = self.check_length(fields.len()) {
            return reason;
        }
        let columns = self.schema.fields().iter().zip(&self.places);
        let bytes = columns.map(|(field, place)| (field, fields.bytes(*place)));
        let not_text = bytes.filter(|(_, bytes)| std::str::from_utf8(bytes).is_err());
        let reasons = not_text.map(|(field, bytes)| {
            let found = String::from_utf8_lossy(bytes);
            let (name, found) = (field.name(), excerpt(&found));
            format!("column {name:?} must hold UTF-8, found {found:?}")
        });
        reasons.take(1).collect()
    }
}

/// A text without the white space around it.
fn trimmed(value: &[u8]) -> &[u8] {
    std::str::from_utf8(value).map_or(value, |text| text.trim().as_bytes())
}

/// Why a value is none of the column's.
fn misfit(field: &Field, found: &str) -> String {
    let (column, data_type) = (field.name(), field.data_type());
    let found = excerpt(found);
    format!("column {column:?} must hold {data_type}, found {found:?}")
}

impl SplitReader for CsvReader {
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<RecordBatch>> {
        loop {
            let mut chunk = self.read_chunk()?;
            if chunk.stretches.is_empty() {
                return Ok(None);
            }
            let stretches = std::mem::take(&mut chunk.stretches);
            let (columns, n_good, bad) = self.convert(chunk, stretches.len())?;
            let skipped = self.to_skip.min(n_good as u64) as usize;
            // Bad rows at the end of a chunk were rejected with its good ones.
            let read_before = self.to_skip > 0 && skipped == n_good;
            self.to_skip -= skipped as u64;
            if read_before {
                continue;
            }
            let mut good = vec![true; stretches.len()];
            for (n_bad_before, bad) in bad.into_iter().enumerate() {
                good[bad.row] = false;
                if bad.row - n_bad_before >= skipped {
                    out.reject_text(self.dead_letter(&stretches[bad.row], bad.reason))?;
                }
            }
            // No row at all where all are bad: their letters are not kept until a good one comes.
            let lines = stretches.iter().zip(&good).filter(|(_, good)| **good);
            let lines = lines.skip(skipped).map(|(s, _)| s.line);
            self.lines = Some(Lines::new(Arc::clone(&self.name), lines));
            let rows = self.selection.pick(&columns, n_good)?;
            return Ok(Some(rows.slice(skipped, n_good - skipped)));
        }
    }

    fn lines(&self) -> Option<Lines> {
        self.lines.clone()
    }

    fn bytes_read(&self) -> u64 {
        self.progress.n_bytes().min(self.n_bytes)
    }
}

impl CsvReader {
    fn dead_letter(&self, stretch: &Stretch, mut reason: String) -> DeadLetter {
        let &Stretch {
            from,
            to,
            line,
            last_line,
        } = stretch;
        let raw = self.records.bytes(from, to.min(from + MAX_RAW_BYTES));
        if last_line > line {
            reason.push_str(&format!(" (the row goes on to line {last_line})"));
        }
        let text = String::from_utf8_lossy(raw);
        DeadLetter {
            split: self.name.to_string(),
            row: line,
            reason,
            data: text.trim_matches(['\n', '\r']).to_owned(),
        }
    }
}

/// A file from its beginning, with as many lines passed over as the user said.
fn open_whole(
    file: &StoredFile,
    skip_lines: u64,
    dialect: &Dialect,
) -> Result<(CsvRecords, Place, Progress)> {
    let bytes = PlainBytes::open(file)?;
    let progress = bytes.progress();
    let mut bytes = BufReader::with_capacity(64 << 10, bytes);
    let mut start = Place {
        byte: 0,
        line: skip_lines,
    };
    for _ in 0..skip_lines {
        let line = skip_line(&mut bytes);
        start.byte += line.map_err(|e| read_failed(file, e))?;
    }
    let tape = Tape::new(Box::new(bytes), dialect.max_row_bytes);
    Ok((CsvRecords::new(tape, dialect), start, progress))
}

/// Passes over one line, however long, and says how many bytes it had.
fn skip_line(bytes: &mut impl BufRead) -> io::Result<u64> {
    let mut n_bytes = 0;
    loop {
        let buffer = bytes.fill_buf()?;
        let end = buffer.iter().position(|b| *b == b'\n');
        let n = end.map_or(buffer.len(), |end| end + 1);
        bytes.consume(n);
        n_bytes += n as u64;
        if end.is_some() || n == 0 {
            return Ok(n_bytes);
        }
    }
}

fn cannot_read(file: &StoredFile, line: u64, dialect: &Dialect, error: io::Error) -> Error {
    if RowTooLong::is(&error) {
        return RowTooLong::error(file, line, dialect.max_row_bytes)
            .with_hint("Close the quotes of the row, or raise `max_row_bytes`.");
    }
    read_failed(file, error)
}
