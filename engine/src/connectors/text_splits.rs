//! Finds where the splits of a large text file begin, without a guess.
//!
//! ```text
//! bytes   |a,b\n1,2\n3,"x\ny|z"\n4,5\n6,|7\n8,9\n|     cut every `split_bytes`
//! splits  |                 ·    ^4,5\n6,·7\n^8,9\n|   each begins with the first row after its cut
//! ```
//!
//! Whether a line break ends a row depends on the quotes before it, from the beginning of the file on.
//! So the file is looked through once, in order, only for quotes and line breaks, which takes a small
//! part of the time that parsing takes. It is done as splits are opened, each worker going on where
//! another has stopped, so that the first rows do not wait for the last bytes.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::compression::read_failed;
use super::storage::StoredFile;
use crate::error::Result;
use crate::source::Split;

/// How many bytes of a text file are one split; it must not depend on the number of workers.
pub(crate) const SPLIT_BYTES: u64 = 16 << 20;

/// A place in a text file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) byte: u64,
    /// How many line breaks stand before it.
    pub(crate) line: u64,
}

/// What ends a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowEnds {
    /// Every line feed.
    Lines,
    /// A line feed or carriage return outside of quotes, as the crate `csv` reads them.
    Csv { quote: Option<u8>, delimiter: u8 },
}

/// A split of a text file, wherever it begins.
#[derive(Serialize, Deserialize)]
pub(crate) struct Locator {
    pub(crate) file: String,
    /// The number of the split in the file.
    pub(crate) part: u64,
}

/// The splits of files, each with its own where it is large: in order, and one of each other file.
pub(crate) fn splits_of<'a>(
    files: impl IntoIterator<Item = (&'a StoredFile, Option<&'a TextSplits>)>,
) -> Result<Vec<Split>> {
    let mut splits = Vec::new();
    for (file, within) in files {
        let n_parts = within.map_or(1, TextSplits::n_splits);
        for part in 0..n_parts {
            splits.push(Split {
                name: match n_parts {
                    1 => file.name(),
                    n => format!("{}, part {} of {n}", file.name(), part + 1),
                },
                locator: serde_json::to_value(Locator {
                    file: file.location().to_owned(),
                    part,
                })?,
                n_rows: None,
                n_bytes: Some(match within {
                    Some(within) => within.n_bytes(part),
                    None => file.n_bytes(),
                }),
            });
        }
    }
    Ok(splits)
}

/// The splits of one file.
#[derive(Debug)]
pub(crate) struct TextSplits {
    file: StoredFile,
    first: Place,
    split_bytes: u64,
    scan: Mutex<Scan>,
}

impl TextSplits {
    /// Splits of the rows from `first` on, where a row begins.
    pub(crate) fn new(file: &StoredFile, ends: RowEnds, first: Place, split_bytes: u64) -> Self {
        Self {
            file: file.clone(),
            first,
            split_bytes: split_bytes.max(1),
            scan: Mutex::new(Scan {
                starts: vec![first],
                quotes: Quotes::new(ends, first),
                input: None,
            }),
        }
    }

    /// At least one.
    pub(crate) fn n_splits(&self) -> u64 {
        let n_bytes = self.file.n_bytes().saturating_sub(self.first.byte);
        n_bytes.div_ceil(self.split_bytes).max(1)
    }

    /// About how many bytes a split holds.
    pub(crate) fn n_bytes(&self, split: u64) -> u64 {
        let from = self.first.byte + split * self.split_bytes;
        (self.file.n_bytes().saturating_sub(from)).min(self.split_bytes)
    }

    /// Where a split begins, and the byte where it ends.
    ///
    /// All but the first begin with the last byte of the line break before their first row, which
    /// parsers pass over as an empty line.
    pub(crate) fn range(&self, split: u64) -> Result<(Place, u64)> {
        let end = match split + 1 < self.n_splits() {
            true => self.start(split + 1)?.byte,
            false => self.file.n_bytes(),
        };
        Ok((self.start(split)?, end))
    }

    fn start(&self, split: u64) -> Result<Place> {
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        while scan.starts.len() as u64 <= split {
            let cut = self.first.byte + scan.starts.len() as u64 * self.split_bytes;
            let found = self.find(&mut scan, cut);
            if found.is_err() {
                // Another look starts where this one has come to.
                scan.input = None;
            }
            let start = found?;
            scan.starts.push(start);
        }
        Ok(scan.starts[split as usize])
    }

    /// The last byte before the first row that begins at or after `cut`.
    fn find(&self, scan: &mut Scan, cut: u64) -> Result<Place> {
        let Scan { quotes, input, .. } = scan;
        loop {
            let open = match input {
                Some(open) => open,
                None => {
                    let bytes = self.file.open(quotes.at)?;
                    input.insert(BufReader::with_capacity(1 << 20, bytes))
                }
            };
            let bytes = open.fill_buf().map_err(|e| read_failed(&self.file, e))?;
            if bytes.is_empty() {
                let (byte, line) = (quotes.at, quotes.lines);
                return Ok(Place { byte, line });
            }
            let far = (cut.saturating_sub(quotes.at)).min(bytes.len() as u64) as usize;
            quotes.skim(&bytes[..far]);
            let near = bytes[far..].iter().position(|byte| {
                let found = quotes.begins_row(*byte);
                if !found {
                    quotes.step(*byte);
                }
                found
            });
            let n = near.map_or(bytes.len(), |near| far + near);
            open.consume(n);
            if near.is_some() {
                return Ok(Place {
                    byte: quotes.at - 1,
                    line: quotes.lines - u64::from(quotes.before == b'\n'),
                });
            }
        }
    }
}

/// How far the file has been looked through.
struct Scan {
    starts: Vec<Place>,
    quotes: Quotes,
    input: Option<BufReader<Box<dyn Read + Send>>>,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scan({} splits found)", self.starts.len())
    }
}

/// Whether a place in a CSV file is inside of quotes.
///
/// A quote opens only at the beginning of a field; inside of quotes two of them stand for one.
#[derive(Clone, Debug)]
pub(crate) struct Quotes {
    ends: RowEnds,
    at: u64,
    lines: u64,
    /// The byte before.
    before: u8,
    inside: bool,
    /// Where the last quote closed.
    closed: Option<u64>,
}

impl Quotes {
    /// At the beginning of a row.
    pub(crate) fn new(ends: RowEnds, at: Place) -> Self {
        Self {
            ends,
            at: at.byte,
            lines: at.line,
            before: b'\n',
            inside: false,
            closed: None,
        }
    }

    /// Passes over bytes.
    pub(crate) fn skim(&mut self, bytes: &[u8]) {
        // So small that a count fits into a byte, which lets the compiler count many bytes at once.
        const BLOCK: usize = 128;
        let quote = match self.ends {
            RowEnds::Csv { quote, .. } => quote,
            RowEnds::Lines => None,
        };
        for block in bytes.chunks(BLOCK) {
            let count = |wanted: u8| block.iter().map(|b| u8::from(*b == wanted)).sum::<u8>();
            self.lines += u64::from(count(b'\n'));
            if let Some(quote) = quote
                && count(quote) > 0
            {
                self.quotes_of(block, quote);
            }
            self.at += block.len() as u64;
            if let Some(last) = block.last() {
                self.before = *last;
            }
        }
    }

    /// Takes the quotes of a block in, eight bytes at a time.
    fn quotes_of(&mut self, block: &[u8], quote: u8) {
        const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let quotes = u64::from_le_bytes([quote; 8]);
        let found = |machine: &mut Self, i: usize| {
            let before = i.checked_sub(1).map_or(machine.before, |i| block[i]);
            machine.quote(machine.at + i as u64, before);
        };
        let (words, rest) = block.as_chunks::<8>();
        for (w, word) in words.iter().enumerate() {
            let others = u64::from_le_bytes(*word) ^ quotes;
            // The highest bit of each byte that is a quote.
            let mut hits = !(((others & LOW_BITS) + LOW_BITS) | others | LOW_BITS);
            while hits != 0 {
                found(self, 8 * w + hits.trailing_zeros() as usize / 8);
                hits &= hits - 1;
            }
        }
        for (i, byte) in rest.iter().enumerate() {
            if *byte == quote {
                found(self, 8 * words.len() + i);
            }
        }
    }

    pub(crate) fn inside(&self) -> bool {
        self.inside
    }

    fn quote(&mut self, at: u64, before: u8) {
        let RowEnds::Csv { delimiter, .. } = self.ends else {
            return;
        };
        if self.inside {
            self.inside = false;
            self.closed = Some(at);
        } else if self.closed.is_some_and(|closed| closed + 1 == at) {
            self.inside = true;
        } else {
            self.inside = before == delimiter || self.is_end(before);
        }
    }

    fn step(&mut self, byte: u8) {
        if let RowEnds::Csv {
            quote: Some(quote), ..
        } = self.ends
            && byte == quote
        {
            self.quote(self.at, self.before);
        }
        self.lines += u64::from(byte == b'\n');
        self.before = byte;
        self.at += 1;
    }

    /// True if this byte, the next one, is the first of a row that follows a line break.
    fn begins_row(&self, byte: u8) -> bool {
        !self.inside && self.is_end(self.before) && !self.is_end(byte)
    }

    fn is_end(&self, byte: u8) -> bool {
        byte == b'\n' || byte == b'\r' && matches!(self.ends, RowEnds::Csv { .. })
    }
}

#[cfg(test)]
mod tests;
