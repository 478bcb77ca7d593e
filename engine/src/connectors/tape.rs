//! Bytes for a parser, kept until they are done with, so that a bad row can be shown as it stood.

use std::fmt;
use std::io::{self, Read};

use super::storage::StoredFile;
use crate::error::Error;

/// How many bytes are asked for at a time.
const READ_BYTES: usize = 64 << 10;

/// Keeps what it has read since the last [`Tape::forget`]; places are counted from its first byte.
pub(crate) struct Tape {
    input: Box<dyn Read + Send>,
    kept: Vec<u8>,
    /// The place of the first byte that is kept.
    from: u64,
    row_from: u64,
    max_row_bytes: u64,
    ended: bool,
}

impl Tape {
    pub(crate) fn new(input: Box<dyn Read + Send>, max_row_bytes: u64) -> Self {
        Self {
            input,
            kept: Vec::new(),
            from: 0,
            row_from: 0,
            max_row_bytes,
            ended: false,
        }
    }

    /// Lets go of what stands before this place.
    pub(crate) fn forget(&mut self, before: u64) {
        let n = before.saturating_sub(self.from).min(self.kept.len() as u64);
        self.kept.drain(..n as usize);
        self.from += n;
        // One huge row must not hold its memory for the rest of the file.
        self.kept.shrink_to(self.kept.len().max(4 << 20));
    }

    /// A row begins here: reading fails with [`RowTooLong`] when it goes on for too long.
    pub(crate) fn begin_row(&mut self, at: u64) {
        self.row_from = at;
    }

    /// What stood between two places, as far as it is kept.
    pub(crate) fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let place = |at: u64| (at.saturating_sub(self.from)).min(self.kept.len() as u64) as usize;
        self.kept.get(place(from)..place(to)).unwrap_or_default()
    }

    /// True if this place is the end of the input, and was found to be.
    pub(crate) fn ends_at(&self, at: u64) -> bool {
        self.ended && at >= self.end()
    }

    /// True if the end of the input was found.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The place behind the last byte that was read.
    pub(crate) fn end(&self) -> u64 {
        self.from + self.kept.len() as u64
    }

    /// Reads on, by one read of the input.
    ///
    /// # Errors
    /// What the input says, and [`RowTooLong`].
    pub(crate) fn read_on(&mut self) -> io::Result<()> {
        if self.end() - self.row_from.min(self.end()) > self.max_row_bytes {
            return Err(io::Error::other(RowTooLong));
        }
        let n_kept = self.kept.len();
        self.kept.resize(n_kept + READ_BYTES, 0);
        let read = self.input.read(&mut self.kept[n_kept..]);
        self.kept
            .truncate(n_kept + read.as_ref().copied().unwrap_or(0));
        self.ended |= read? == 0;
        Ok(())
    }
}

/// A row is longer than it may be.
#[derive(Debug)]
pub(crate) struct RowTooLong;

impl RowTooLong {
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|e| e.is::<Self>())
    }

    pub(crate) fn error(file: &StoredFile, line: u64, max_bytes: u64) -> Error {
        Error::data(format!(
            "{}, line {line}: the row is longer than {max_bytes} bytes",
            file.name()
        ))
    }
}

impl fmt::Display for RowTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row is too long")
    }
}

impl std::error::Error for RowTooLong {}
