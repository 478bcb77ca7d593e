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

/// The blocks that begin between two places of a file, as one text of bytes.
pub(crate) struct AvroBlocks {
    file: StoredFile,
    input: BufReader<Box<dyn Read + Send>>,
    sync: [u8; SYNC_BYTES],
    /// Where the next block begins.
    at: u64,
    to: u64,
    block: Vec<u8>,
    given: usize,
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
            block: Vec::new(),
            given: 0,
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

    /// Reads the next block whole; false at the end.
    fn read_block(&mut self) -> io::Result<bool> {
        self.block.clear();
        self.given = 0;
        if self.at >= self.to || self.input.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let begin = self.at;
        let count = self.read_long()?;
        let size = self.read_long()?;
        let n_bytes = match (count, u64::try_from(size)) {
            (0.., Ok(n_bytes)) if n_bytes <= MAX_BLOCK_BYTES => n_bytes,
            _ => return Err(self.damaged(begin, "its size is no size")),
        };
        let n_wanted = n_bytes as usize + SYNC_BYTES;
        let from = self.block.len();
        let mut rest = self.input.by_ref().take(n_wanted as u64);
        let n_read = rest.read_to_end(&mut self.block)?;
        if n_read < n_wanted {
            return Err(self.cut_short(begin));
        }
        if !self.block.ends_with(&self.sync) {
            return Err(self.damaged(begin, "it does not end in the file's sync marker"));
        }
        self.at = begin + (from + n_read) as u64;
        Ok(true)
    }

    /// A number of the block's head, kept with its bytes.
    fn read_long(&mut self) -> io::Result<i64> {
        let mut value: u64 = 0;
        for shift in (0..70).step_by(7) {
            let mut byte = [0];
            if self.input.read(&mut byte)? == 0 {
                return Err(self.cut_short(self.at));
            }
            self.block.push(byte[0]);
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

    fn damaged(&self, at: u64, why: &str) -> io::Error {
        io::Error::other(
            Error::data(format!(
                "{}: the block at byte {at} is damaged: {why}",
                self.file.name()
            ))
            .with_hint("Copy the file anew, or leave it out."),
        )
    }
}

impl Read for AvroBlocks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut there = self.fill_buf()?;
        let n = there.read(bytes)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for AvroBlocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.given == self.block.len() {
            if !self.read_block()? {
                return Ok(&[]);
            }
        }
        Ok(&self.block[self.given..])
    }

    fn consume(&mut self, n: usize) {
        self.given = (self.given + n).min(self.block.len());
    }
}
