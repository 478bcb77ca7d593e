//! The blocks of an Avro file, whole or not at all.
//!
//! ```text
//! header, sync │ count, size, data, sync │ count, size, data, sync │ …
//! ```
//!
//! A part of a file begins with the first block that follows a sync marker in it. The marker is sixteen
//! random bytes, chosen for each file so that it stands nowhere else.

use std::io::{self, BufRead, BufReader, Read};

use super::compression::Progress;
use super::storage::StoredFile;
use crate::error::{Error, Result};

const SYNC_BYTES: usize = 16;

/// A larger block is no block: its size is damaged.
const MAX_BLOCK_BYTES: u64 = 1 << 30;

/// No block has more rows; a number beyond is damaged.
const MAX_BLOCK_ROWS: usize = i32::MAX as usize;

/// A block, whole.
pub(crate) struct Block {
    /// Where it begins in the file.
    pub(crate) at: u64,
    pub(crate) n_rows: usize,
    /// How long it is without its head and the sync marker.
    pub(crate) n_bytes: usize,
    /// Its head, data and sync marker. The head says twice as many rows as there are: see [`Block::n_rows`].
    ///
    /// The library does not end where a block holds more than its rows. It ends when it has as many rows as it
    /// was asked for in a batch, so the block is asked for its rows, and then shown to have no others.
    pub(crate) bytes: Vec<u8>,
}

/// The blocks that begin between two places of a file.
pub(crate) struct AvroBlocks {
    file: StoredFile,
    input: BufReader<Box<dyn Read + Send>>,
    sync: [u8; SYNC_BYTES],
    /// Where the next block begins.
    at: u64,
    to: u64,
}

impl AvroBlocks {
    /// `from` is the end of the header, or any place after it.
    pub(crate) fn open(
        file: &StoredFile,
        sync: [u8; SYNC_BYTES],
        header_bytes: u64,
        (from, to): (u64, u64),
        progress: &Progress,
    ) -> Result<Self> {
        // The marker before the first block may begin before the part.
        let start = match from <= header_bytes {
            true => header_bytes,
            false => (from - SYNC_BYTES as u64).max(header_bytes),
        };
        let bytes: Box<dyn Read + Send> = Box::new(progress.count(file.open(start)?));
        let mut blocks = Self {
            file: file.clone(),
            input: BufReader::with_capacity(256 << 10, bytes),
            sync,
            at: start,
            to,
        };
        if from > header_bytes {
            let found = blocks.find_sync();
            found.map_err(|e| super::compression::read_failed(file, e))?;
        }
        Ok(blocks)
    }

    /// Goes on to the end of the next sync marker, or of the file.
    fn find_sync(&mut self) -> io::Result<()> {
        let mut last = [0; SYNC_BYTES];
        let mut n_read = 0_usize;
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Ok(());
            }
            let mut n = 0;
            let mut found = false;
            for byte in bytes {
                last.rotate_left(1);
                last[SYNC_BYTES - 1] = *byte;
                n += 1;
                n_read += 1;
                found = n_read >= SYNC_BYTES && last == self.sync;
                if found {
                    break;
                }
            }
            self.input.consume(n);
            self.at += n as u64;
            if found || self.at >= self.to.saturating_add(SYNC_BYTES as u64) {
                return Ok(());
            }
        }
    }

    /// Reads the next block whole; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Block>> {
        if self.at >= self.to || self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let at = self.at;
        let mut n_read = 0;
        let n_rows = self.read_long(&mut n_read)?;
        let size = self.read_long(&mut n_read)?;
        let n_rows = usize::try_from(n_rows)
            .ok()
            .filter(|n| *n <= MAX_BLOCK_ROWS);
        let n_rows = n_rows.ok_or_else(|| self.damaged(at, "its number of rows is no number"))?;
        let n_bytes = u64::try_from(size).ok().filter(|n| *n <= MAX_BLOCK_BYTES);
        let n_bytes = n_bytes.ok_or_else(|| self.damaged(at, "its size is no size"))? as usize;
        let mut bytes = Vec::with_capacity(2 * SYNC_BYTES);
        write_long(2 * n_rows as i64, &mut bytes);
        write_long(size, &mut bytes);
        let n_wanted = n_bytes + SYNC_BYTES;
        let mut rest = self.input.by_ref().take(n_wanted as u64);
        if rest.read_to_end(&mut bytes)? < n_wanted {
            return Err(self.cut_short(at));
        }
        if !bytes.ends_with(&self.sync) {
            return Err(self.damaged(at, "it does not end in the file's sync marker"));
        }
        self.at = at + n_read + n_wanted as u64;
        Ok(Some(Block {
            at,
            n_rows,
            n_bytes,
            bytes,
        }))
    }

    /// A number of the block's head; `n_read` counts its bytes.
    fn read_long(&mut self, n_read: &mut u64) -> io::Result<i64> {
        let mut value: u64 = 0;
        for shift in (0..70).step_by(7) {
            let mut byte = [0];
            if self.input.read(&mut byte)? == 0 {
                return Err(self.cut_short(self.at));
            }
            *n_read += 1;
            if shift < 64 {
                value |= u64::from(byte[0] & 0x7f) << shift;
            }
            if byte[0] & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(self.damaged(self.at, "its size is no number"))
    }

    fn cut_short(&self, at: u64) -> io::Error {
        io::Error::other(
            Error::data(format!(
                "{} ends in the middle of the block at byte {at}",
                self.file.name()
            ))
            .with_hint("Copy the file anew, or leave it out."),
        )
    }

    /// The error that a block is not what it says.
    pub(crate) fn damaged(&self, at: u64, why: &str) -> io::Error {
        io::Error::other(
            Error::data(format!(
                "{}: the block at byte {at} is damaged: {why}",
                self.file.name()
            ))
            .with_hint("Copy the file anew, or leave it out."),
        )
    }
}

/// A number as the head of a block has it.
pub(crate) fn write_long(value: i64, bytes: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}
