//! Reads the rows of one file of JSON lines, bad ones apart.
//!
//! ```text
//! lines ─▶ all at once ─▶ rows
//!            │ something is wrong
//!            └─▶ one by one ─▶ bad rows, and the others all at once
//! ```

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::compression::{PlainBytes, Progress, read_failed};
use super::csv_types::excerpt;
use super::json_types::{convert, has_infinite, has_times, is_misread, read_as, written_as};
use super::selection::Selection;
use super::storage::StoredFile;
use super::tape::RowTooLong;
use super::text_splits::Place;
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::output::{DeadLetter, Output};
use crate::source::{Lines, SplitReader};

/// Of a bad row, no more than this is kept.
const MAX_RAW_BYTES: usize = 64 << 10;

/// Lines are given on when they fill so much, however few they are.
const MAX_CHUNK_BYTES: usize = 8 << 20;

/// Checks that columns of these types can be read from JSON.
pub(crate) fn check_readable(schema: &Schema) -> Result<()> {
    let refused = |field: &Field| {
        let alone = Arc::new(Schema::new(vec![field.clone()]));
        let read = Arc::new(read_schema(&alone));
        let tried = decoder(&read).and_then(|_| {
            let none = arrow::array::new_empty_array(read.field(0).data_type());
            arrow::compute::cast(&none, field.data_type())
        });
        tried.err().map(|error| {
            Error::pipeline(format!(
                "column {:?} of type {} cannot be read from JSON",
                field.name(),
                field.data_type()
            ))
            .with_detail(format!("{}.", reason(&error)))
            .with_hint("Read it as Utf8 and cast it afterwards.")
        })
    };
    let errors: Vec<Error> = schema.fields().iter().filter_map(|f| refused(f)).collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Error::all(errors)),
    }
}

/// Lines of a file, or of a part of one.
pub(crate) struct LineReader {
    file: StoredFile,
    bytes: BufReader<Box<dyn Read + Send>>,
    progress: Progress,
    /// The number of the next line, from 1.
    next_line: u64,
    at_start: bool,
    max_row_bytes: u64,
}

/// Some lines that are not empty.
#[derive(Default)]
pub(crate) struct LineChunk {
    text: Vec<u8>,
    /// The number of each, and where it ends in the text.
    ends: Vec<(u64, usize)>,
}

impl LineChunk {
    /// Each line with its number.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut from = 0;
        self.ends.iter().map(move |(number, to)| {
            let line = self.text.get(from..*to).unwrap_or_default();
            from = *to;
            (*number, line)
        })
    }
}

impl LineReader {
    /// The lines between two places, or all.
    pub(crate) fn open(
        file: &StoredFile,
        part: Option<(Place, u64)>,
        max_row_bytes: u64,
    ) -> Result<Self> {
        let (bytes, progress, from): (Box<dyn Read + Send>, _, _) = match part {
            None => {
                let bytes = PlainBytes::open(file)?;
                let progress = bytes.progress();
                (Box::new(bytes), progress, Place::default())
            }
            Some((from, to)) => {
                let progress = Progress::default();
                let n_bytes = to.saturating_sub(from.byte);
                let bytes = progress.count(file.open(from.byte)?).take(n_bytes);
                (Box::new(bytes), progress, from)
            }
        };
        Ok(Self {
            file: file.clone(),
            bytes: BufReader::with_capacity(128 << 10, bytes),
            progress,
            next_line: from.line + 1,
            at_start: from.byte == 0,
            max_row_bytes,
        })
    }

    /// The next lines, at most so many; none at the end.
    pub(crate) fn read(&mut self, n_lines: usize) -> Result<LineChunk> {
        let mut chunk = LineChunk::default();
        while chunk.ends.len() < n_lines && chunk.text.len() < MAX_CHUNK_BYTES {
            let from = chunk.text.len();
            if !self.append_line(&mut chunk.text)? {
                break;
            }
            if self.at_start && chunk.text.starts_with(b"\xef\xbb\xbf") {
                chunk.text.drain(..3);
            }
            self.at_start = false;
            let number = self.next_line;
            self.next_line += 1;
            match chunk.text[from..].iter().all(u8::is_ascii_whitespace) {
                true => chunk.text.truncate(from),
                false => chunk.ends.push((number, chunk.text.len())),
            }
        }
        Ok(chunk)
    }

    /// Appends the next line with its end; false where there is none.
    fn append_line(&mut self, text: &mut Vec<u8>) -> Result<bool> {
        let from = text.len();
        loop {
            let bytes = self
                .bytes
                .fill_buf()
                .map_err(|e| read_failed(&self.file, e))?;
            let end = bytes.iter().position(|b| *b == b'\n');
            let n = end.map_or(bytes.len(), |end| end + 1);
            text.extend_from_slice(&bytes[..n]);
            self.bytes.consume(n);
            if (text.len() - from) as u64 > self.max_row_bytes.saturating_add(2) {
                let (line, max) = (self.next_line, self.max_row_bytes);
                return Err(RowTooLong::error(&self.file, line, max)
                    .with_hint("Raise `max_row_bytes`, if the line is what it should be."));
            }
            if end.is_some() || n == 0 {
                return Ok(text.len() > from);
            }
        }
    }
}

/// An open file, or a part of one.
pub(crate) struct JsonLinesReader {
    lines: LineReader,
    name: Arc<str>,
    schema: SchemaRef,
    /// The columns as the parser reads them.
    read: SchemaRef,
    /// The columns with what it may read as something else as text.
    written: SchemaRef,
    has_times: bool,
    selection: Selection,
    n_bytes: u64,
    /// Good rows that were read before the position asked for.
    to_skip: u64,
    of_batch: Option<Lines>,
}

/// A line that is no row, by its place in the chunk.
struct BadLine {
    place: usize,
    reason: String,
}

impl JsonLinesReader {
    pub(crate) fn new(
        lines: LineReader,
        schema: &SchemaRef,
        selection: Selection,
        position: u64,
        n_bytes: u64,
    ) -> Self {
        let read = Arc::new(read_schema(schema));
        Self {
            name: Arc::from(lines.file.name()),
            lines,
            schema: Arc::clone(schema),
            written: Arc::new(written_schema(&read)),
            has_times: read.fields().iter().any(|f| has_times(f.data_type())),
            read,
            selection,
            n_bytes,
            to_skip: position,
            of_batch: None,
        }
    }

    /// All columns of the good lines, and the bad lines.
    fn parse(&self, chunk: &LineChunk) -> Result<(Vec<ArrayRef>, usize, Vec<BadLine>)> {
        let all: Vec<&[u8]> = chunk.lines().map(|(_, line)| line).collect();
        if let Ok(columns) = self.parse_all(&all)? {
            return Ok((columns, all.len(), Vec::new()));
        }
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (place, line) in all.into_iter().enumerate() {
            match self.parse_all(&[line])? {
                Ok(_) => good.push(line),
                Err(reason) => bad.push(BadLine { place, reason }),
            }
        }
        match self.parse_all(&good)? {
            Ok(columns) => Ok((columns, good.len(), bad)),
            Err(reason) => Err(Error::bug(format!(
                "{}: lines that are rows alone are none together: {reason}",
                self.name
            ))),
        }
    }

    /// The columns of these lines, or why one of them is no row.
    fn parse_all(&self, lines: &[&[u8]]) -> Result<Result<Vec<ArrayRef>, String>> {
        if lines.is_empty() {
            let empty = RecordBatch::new_empty(Arc::clone(&self.schema));
            return Ok(Ok(empty.columns().to_vec()));
        }
        let rows = match read_rows(&self.read, lines) {
            Ok(rows) => rows,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Some(reason) = self.misread(&rows, lines) {
            return Ok(Err(reason));
        }
        let mut columns = Vec::with_capacity(rows.num_columns());
        for (field, read) in self.schema.fields().iter().zip(rows.columns()) {
            let refused = || misfit(field, read);
            match convert(read, field.data_type()) {
                Ok(Some(values)) if field.is_nullable() || values.null_count() == 0 => {
                    columns.push(values);
                }
                Ok(_) => return Ok(Err(refused())),
                // Nulls inside of a nested value that must have none.
                Err(_) if field.data_type().is_nested() => return Ok(Err(refused())),
                Err(error) => return Err(error),
            }
        }
        Ok(Ok(columns))
    }

    /// Why one of these lines is no row, where the parser has made another value of a number without a word.
    fn misread(&self, rows: &RecordBatch, lines: &[&[u8]]) -> Option<String> {
        let is_infinite = rows.columns().iter().any(|c| has_infinite(&c.to_data()));
        let has_fraction = || lines.iter().any(|line| may_have_fraction(line));
        // Lines are read once more only where that may tell something.
        if !(is_infinite || self.has_times && has_fraction()) {
            return None;
        }
        let written = match read_rows(&self.written, lines) {
            Ok(written) => written,
            Err(reason) => return Some(reason),
        };
        let both = rows.columns().iter().zip(written.columns());
        let mut all = self.schema.fields().iter().zip(both);
        all.find_map(|(field, (read, written))| {
            is_misread(&read.to_data(), &written.to_data()).then(|| misfit(field, written))
        })
    }
}

fn may_have_fraction(line: &[u8]) -> bool {
    line.windows(2)
        .any(|two| two[0].is_ascii_digit() && matches!(two[1], b'.' | b'e' | b'E'))
}

fn read_schema(schema: &SchemaRef) -> Schema {
    // Nulls where none may be are found afterwards, by our words.
    let read = |f: &Field| {
        f.clone()
            .with_data_type(read_as(f.data_type()))
            .with_nullable(true)
    };
    Schema::new(schema.fields().iter().map(|f| read(f)).collect::<Fields>())
}

fn written_schema(read: &Schema) -> Schema {
    let fields = read.fields().iter();
    let written = |f: &Field| f.clone().with_data_type(written_as(f.data_type()));
    Schema::new(fields.map(|f| written(f)).collect::<Fields>())
}

fn decoder(read: &SchemaRef) -> Result<Decoder, ArrowError> {
    ReaderBuilder::new(Arc::clone(read))
        // More than any chunk has, so that the parser never stops by itself.
        .with_batch_size(BATCH_ROWS + 2)
        .with_coerce_primitive(true)
        .build_decoder()
}

/// A row for each line, or what is wrong.
pub(crate) fn read_rows(read: &SchemaRef, lines: &[&[u8]]) -> Result<RecordBatch, String> {
    let mut decoder = decoder(read).map_err(|e| reason(&e))?;
    for (n_before, line) in lines.iter().enumerate() {
        decoder.decode(line).map_err(|e| reason(&e))?;
        if decoder.has_partial_record() {
            return Err("the JSON object is not closed".to_owned());
        }
        match decoder.len() - n_before {
            1 => {}
            n => return Err(format!("expected one JSON object, found {n}")),
        }
    }
    match decoder.flush().map_err(|e| reason(&e))? {
        Some(rows) if rows.num_rows() == lines.len() => Ok(rows),
        _ => Err("expected one JSON object".to_owned()),
    }
}

/// The message of the parser without its class.
fn reason(error: &ArrowError) -> String {
    let message = match error {
        ArrowError::JsonError(message)
        | ArrowError::NotYetImplemented(message)
        | ArrowError::CastError(message)
        | ArrowError::InvalidArgumentError(message) => message.clone(),
        other => other.to_string(),
    };
    excerpt(&message)
}

/// Why the value of a column is none of its type; of several rows, any of them.
fn misfit(field: &Field, read: &ArrayRef) -> String {
    let (name, data_type) = (field.name(), field.data_type());
    if !field.is_nullable() && read.null_count() > 0 {
        return format!("column {name:?} must not be null");
    }
    let options = FormatOptions::default().with_null("null");
    let found = match ArrayFormatter::try_new(read, &options) {
        Ok(cells) if !read.is_empty() => excerpt(&cells.value(0).to_string()),
        _ => "something else".to_owned(),
    };
    format!("column {name:?} must hold {data_type}, found {found}")
}

impl SplitReader for JsonLinesReader {
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<RecordBatch>> {
        loop {
            let chunk = self.lines.read(BATCH_ROWS)?;
            if chunk.ends.is_empty() {
                return Ok(None);
            }
            let (columns, n_good, bad) = self.parse(&chunk)?;
            let skipped = self.to_skip.min(n_good as u64) as usize;
            // Bad rows at the end of a chunk were rejected with its good ones.
            let read_before = self.to_skip > 0 && skipped == n_good;
            self.to_skip -= skipped as u64;
            if read_before {
                continue;
            }
            let mut good = Vec::with_capacity(n_good);
            let mut bad = bad.into_iter().peekable();
            for (place, (number, line)) in chunk.lines().enumerate() {
                match bad.next_if(|b| b.place == place) {
                    None => good.push(number),
                    Some(bad) if good.len() >= skipped => {
                        out.reject_text(self.dead_letter(number, line, bad.reason))?;
                    }
                    Some(_) => {}
                }
            }
            // No row at all where all are bad: their letters are not kept until a good one comes.
            let lines = good.into_iter().skip(skipped);
            self.of_batch = Some(Lines::new(Arc::clone(&self.name), lines));
            let rows = self.selection.pick(&columns, n_good)?;
            return Ok(Some(rows.slice(skipped, n_good - skipped)));
        }
    }

    fn lines(&self) -> Option<Lines> {
        self.of_batch.clone()
    }

    fn bytes_read(&self) -> u64 {
        self.lines.progress.n_bytes().min(self.n_bytes)
    }
}

impl JsonLinesReader {
    fn dead_letter(&self, number: u64, line: &[u8], reason: String) -> DeadLetter {
        let text = String::from_utf8_lossy(&line[..line.len().min(MAX_RAW_BYTES)]);
        DeadLetter {
            split: self.name.to_string(),
            row: number,
            reason,
            data: text.trim_matches(['\n', '\r']).to_owned(),
        }
    }
}
