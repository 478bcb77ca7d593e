//! Cuts the text of a CSV file into records and their fields.
//!
//! ```text
//! bytes ─▶ tape ─▶ lines in which nothing but delimiters counts (simd-csv) ─▶ records in order
//!               └▶ any other, record by record                  (csv-core) ─┘
//! ```
//!
//! What a record is, csv-core says: quotes, comments, blank lines, the end of the file.
//! Lines that hold no quote, no mark of a comment, no carriage return but before a line feed, and nothing
//! that is not UTF-8 are the same records to both libraries, and simd-csv finds their delimiters faster.

use std::io;

use csv_core::ReadRecordResult;
use memchr::{memchr, memchr_iter, memchr2, memrchr};
use simd_csv::{ByteRecord, TotalReaderBuilder};

use super::csv_dialect::Dialect;
use super::tape::Tape;
use super::text_splits::{Place, Quotes, RowEnds};

/// A line that is longer goes to csv-core, which takes it piece by piece.
const MAX_PLAIN_BYTES: usize = 64 << 10;

/// So much is looked at for bytes that are not plain at a time: little, since a look that finds one of them
/// near is repeated behind it.
const LOOK_BYTES: usize = 16 << 10;

/// What buffers may keep from one chunk of rows to the next.
const MAX_SPARE_BYTES: usize = 4 << 20;

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Stands in for the quote where there is none: it is no byte of UTF-8.
const NO_QUOTE: u8 = 0xff;

/// Reads one record after the other.
pub(super) struct CsvRecords {
    tape: Tape,
    delimiter: u8,
    quote: Option<u8>,
    comment: Option<u8>,
    row_ends: RowEnds,
    /// Says what a record is; it reads the first one, so that it knows a mark at the start of the file.
    core: csv_core::Reader,
    core_has_read: bool,
    /// Where the next record begins, or what is passed over before it.
    at: Place,
    ended: bool,
    /// So far the text has been looked through for bytes that are not plain.
    looked: u64,
    /// The first of them.
    odd: Option<u64>,
    plain: ByteRecord,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// Where a record stands: its bytes on the tape, the line where it begins, and the last one it touches,
/// counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) line: u64,
    pub(super) last_line: u64,
}

/// One record.
pub(super) struct Record<'a> {
    pub(super) fields: Fields<'a>,
    pub(super) stretch: Stretch,
    /// True at the end of the file, inside of quotes and on another line than the one it began on, as after
    /// a stray quote.
    pub(super) is_open_ended: bool,
}

/// The fields of a record, without their quotes.
pub(super) enum Fields<'a> {
    /// Of a line that is UTF-8, delimiters included.
    Plain(&'a ByteRecord),
    Any {
        bytes: &'a [u8],
        is_utf8: bool,
        /// The end of each field.
        ends: &'a [usize],
    },
}

impl Fields<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(record) => record.len(),
            Self::Any { ends, .. } => ends.len(),
        }
    }

    pub(super) fn is_utf8(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Any { is_utf8, .. } => *is_utf8,
        }
    }

    pub(super) fn bytes(&self, field: usize) -> &[u8] {
        let bytes = match self {
            Self::Plain(record) => record.get(field),
            Self::Any { bytes, ends, .. } => {
                let (start, end) = bounds(ends, field);
                bytes.get(start..end)
            }
        };
        bytes.unwrap_or_default()
    }
}

/// Where a field begins and ends, of those that end there.
fn bounds(ends: &[usize], field: usize) -> (usize, usize) {
    let Some(end) = ends.get(field) else {
        return (0, 0);
    };
    match field {
        0 => (0, *end),
        _ => (ends[field - 1], *end),
    }
}

impl CsvRecords {
    pub(super) fn new(tape: Tape, dialect: &Dialect) -> Self {
        let core = csv_core::ReaderBuilder::new()
            .delimiter(dialect.delimiter)
            .quote(dialect.quote.unwrap_or(b'"'))
            .quoting(dialect.quote.is_some())
            .comment(dialect.comment)
            .build();
        Self {
            tape,
            delimiter: dialect.delimiter,
            quote: dialect.quote,
            comment: dialect.comment,
            row_ends: dialect.row_ends(),
            core,
            core_has_read: false,
            at: Place::default(),
            ended: false,
            looked: 0,
            odd: None,
            plain: ByteRecord::new(),
            text: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Where the next record begins, or what is passed over before it.
    pub(super) fn place(&self) -> Place {
        self.at
    }

    /// What stood between two places, since the last [`CsvRecords::forget`].
    pub(super) fn bytes(&self, from: u64, to: u64) -> &[u8] {
        self.tape.bytes(from, to)
    }

    /// Lets go of the text of records that have been read.
    pub(super) fn forget(&mut self) {
        self.tape.forget(self.at.byte);
        // One huge row must not hold its memory for the rest of the file.
        if self.text.len() > MAX_SPARE_BYTES {
            self.text = Vec::new();
        }
    }

    /// Gives on the next record, and those after it that are there already, until `take` has enough and
    /// says false. False where no record is left.
    ///
    /// # Errors
    /// What reading says. There is no record after that.
    pub(super) fn read(&mut self, take: &mut impl FnMut(Record<'_>) -> bool) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let read = match self.read_plain(take) {
            Ok(false) => self.read_any(take),
            done => done,
        };
        self.ended = !matches!(read, Ok(true));
        read
    }

    /// Gives on the records of the next lines that are plain; false where the next one may not be.
    fn read_plain(&mut self, take: &mut impl FnMut(Record<'_>) -> bool) -> io::Result<bool> {
        if !self.core_has_read || !self.delimiter.is_ascii() {
            return Ok(false);
        }
        loop {
            let lines = self.tape.bytes(self.at.byte, self.looked);
            if let Some(last) = memrchr(b'\n', lines) {
                // To simd-csv these would be the mark at the start of a file.
                if lines.starts_with(BYTE_ORDER_MARK) {
                    return Ok(false);
                }
                match std::str::from_utf8(&lines[..=last]) {
                    Ok(lines) => {
                        self.at = cut(lines, self.at, self.delimiter, &mut self.plain, take);
                        return Ok(true);
                    }
                    Err(error) => {
                        self.looked = self.at.byte + error.valid_up_to() as u64;
                        self.odd = Some(self.looked);
                    }
                }
            } else if self.is_odd_ahead() || lines.len() > MAX_PLAIN_BYTES {
                return Ok(false);
            } else if !self.look() {
                if self.tape.has_ended() {
                    return Ok(false);
                }
                self.tape.begin_row(self.at.byte);
                self.tape.read_on()?;
            }
        }
    }

    fn is_odd_ahead(&self) -> bool {
        self.odd.is_some_and(|odd| odd >= self.at.byte)
    }

    /// Looks on for a byte that is not plain; false where that needs more of the file.
    fn look(&mut self) -> bool {
        let from = self.looked.max(self.at.byte);
        let ahead = self.tape.bytes(from, self.tape.end());
        let mut near = &ahead[..ahead.len().min(LOOK_BYTES)];
        let marked = match (self.quote, self.comment) {
            (Some(quote), Some(comment)) => memchr2(quote, comment, near),
            (Some(mark), None) | (None, Some(mark)) => memchr(mark, near),
            (None, None) => None,
        };
        self.odd = marked.map(|n| from + n as u64);
        near = &near[..marked.unwrap_or(near.len())];
        let ends_line = |at: &usize| ahead.get(at + 1) == Some(&b'\n');
        if let Some(at) = memchr_iter(b'\r', near).find(|at| !ends_line(at)) {
            // The last byte that is there may yet turn out to be the end of a line.
            let is_known = at + 1 < ahead.len();
            self.odd = is_known.then_some(from + at as u64);
            near = &near[..at];
        }
        self.looked = from + near.len() as u64;
        !near.is_empty() || self.odd.is_some()
    }

    /// Gives on one record, whatever it is; false where there is none.
    fn read_any(&mut self, take: &mut impl FnMut(Record<'_>) -> bool) -> io::Result<bool> {
        let from = self.at.byte;
        let line_before = self.core.line();
        let (mut to, mut n_text, mut n_ends) = (from, 0, 0);
        self.tape.begin_row(from);
        loop {
            let input = self.tape.bytes(to, self.tape.end());
            // A mark at the start of the file is known as such only with a byte behind it.
            let n_wanted = match self.core_has_read {
                true => 1,
                false => BYTE_ORDER_MARK.len() + 1,
            };
            if input.len() < n_wanted && !self.tape.has_ended() {
                self.tape.read_on()?;
                continue;
            }
            let (text, ends) = (&mut self.text[n_text..], &mut self.ends[n_ends..]);
            let (result, n_read, n_written, n_ended) = self.core.read_record(input, text, ends);
            self.core_has_read = true;
            to += n_read as u64;
            n_text += n_written;
            n_ends += n_ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => {
                    let n_bytes = (2 * self.text.len()).max(1 << 10);
                    self.text.resize(n_bytes, 0);
                }
                ReadRecordResult::OutputEndsFull => {
                    let n_fields = (2 * self.ends.len()).max(32);
                    self.ends.resize(n_fields, 0);
                }
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(false),
            }
        }
        let n_lines = self.core.line() - line_before;
        let raw = self.tape.bytes(from, to);
        let (offset, breaks) = blank_start(raw, self.comment);
        let stretch = Stretch {
            from: from + offset as u64,
            to,
            line: self.at.line + breaks + 1,
            last_line: self.at.line + n_lines + u64::from(!raw.ends_with(b"\n")),
        };
        self.at = Place {
            byte: to,
            line: self.at.line + n_lines,
        };
        let (bytes, ends) = (&self.text[..n_text], &self.ends[..n_ends]);
        let is_utf8 = std::str::from_utf8(bytes)
            .is_ok_and(|text| ends.iter().all(|end| text.is_char_boundary(*end)));
        let fields = Fields::Any {
            bytes,
            is_utf8,
            ends,
        };
        let is_open_ended = self.is_open_ended(&stretch);
        take(Record {
            fields,
            stretch,
            is_open_ended,
        });
        Ok(true)
    }

    fn is_open_ended(&self, stretch: &Stretch) -> bool {
        if stretch.last_line == stretch.line || !self.tape.ends_at(stretch.to) {
            return false;
        }
        let mut quotes = Quotes::new(self.row_ends, Place::default());
        quotes.skim(self.tape.bytes(stretch.from, stretch.to));
        quotes.inside()
    }
}

/// Gives on the records of plain lines, and says where the next one begins.
fn cut(
    lines: &str,
    from: Place,
    delimiter: u8,
    record: &mut ByteRecord,
    take: &mut impl FnMut(Record<'_>) -> bool,
) -> Place {
    let mut parser = TotalReaderBuilder::new();
    parser.delimiter(delimiter).quote(NO_QUOTE);
    let mut parser = parser.has_headers(false).from_bytes(lines.as_bytes());
    let mut at = from;
    loop {
        let start = (at.byte - from.byte) as usize;
        if !parser.read_byte_record(record) {
            return Place {
                byte: from.byte + lines.len() as u64,
                line: at.line + n_breaks(&lines.as_bytes()[start..]),
            };
        }
        let end = parser.position();
        let (offset, breaks) = blank_start(&lines.as_bytes()[start..], None);
        let line = at.line + breaks + 1;
        at = Place {
            byte: from.byte + end,
            line,
        };
        let more = take(Record {
            fields: Fields::Plain(record),
            stretch: Stretch {
                from: from.byte + (start + offset) as u64,
                to: at.byte,
                line,
                last_line: line,
            },
            is_open_ended: false,
        });
        if !more {
            return at;
        }
    }
}

/// How many bytes stand before a record that the parser has passed over, and how many lines end in
/// them: the end of the line before, empty lines, and comments.
fn blank_start(raw: &[u8], comment: Option<u8>) -> (usize, u64) {
    let (mut offset, mut breaks, mut in_comment) = (0, 0, false);
    for byte in raw {
        let ends_line = matches!(byte, b'\n' | b'\r');
        in_comment |= comment == Some(*byte);
        if !ends_line && !in_comment {
            break;
        }
        in_comment &= *byte != b'\n';
        breaks += u64::from(*byte == b'\n');
        offset += 1;
    }
    (offset, breaks)
}

fn n_breaks(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests;
