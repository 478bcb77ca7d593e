//! Reads a file of an object store in order, some ranges ahead.

use std::collections::VecDeque;
use std::io::{self, Read};

use bytes::{Buf, Bytes};

use super::background::{Pending, start};
use super::remote_file::RemoteFile;
use crate::error::{Error, Result};

/// The first range: enough for a header, and small, since many readers want no more than that.
const FIRST_RANGE_BYTES: u64 = 64 << 10;

/// Ranges grow up to this size, at which the time to the first byte no longer counts.
const MAX_RANGE_BYTES: u64 = 8 << 20;

/// How many ranges are under way while one is being read: at most 24 MiB per open file, all in all.
const N_AHEAD: usize = 2;

/// The bytes of a file from some place to its end.
pub(super) struct ReadAhead {
    file: RemoteFile,
    current: Bytes,
    ahead: VecDeque<Pending<Result<Bytes>>>,
    /// Where the next range begins, and how long it is.
    next: u64,
    n_bytes: u64,
    /// After a failure there is no place to go on from.
    failed: Option<Error>,
}

impl ReadAhead {
    pub(super) fn new(file: RemoteFile, from: u64) -> Self {
        Self {
            file,
            current: Bytes::new(),
            ahead: VecDeque::new(),
            next: from,
            n_bytes: FIRST_RANGE_BYTES,
            failed: None,
        }
    }

    fn ask(&mut self) -> Result<()> {
        let end = self.file.n_bytes().min(self.next + self.n_bytes);
        if self.next < end {
            let (file, range) = (self.file.clone(), self.next..end);
            let request = async move { file.fetch(range).await };
            self.ahead.push_back(start(request)?);
            self.next = end;
            self.n_bytes = (self.n_bytes * 8).min(MAX_RANGE_BYTES);
        }
        Ok(())
    }

    /// The next range, or nothing at the end.
    fn advance(&mut self) -> Result<Option<Bytes>> {
        if self.ahead.is_empty() {
            self.ask()?;
        }
        let Some(range) = self.ahead.pop_front() else {
            return Ok(None);
        };
        let is_first = self.n_bytes == FIRST_RANGE_BYTES * 8;
        let range = range.wait()??;
        while !is_first && self.ahead.len() < N_AHEAD && self.next < self.file.n_bytes() {
            self.ask()?;
        }
        Ok(Some(range))
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(io::Error::other(error.clone()));
        }
        if self.current.is_empty() {
            match self.advance() {
                Ok(Some(range)) => self.current = range,
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(io::Error::other(error));
                }
            }
        }
        let n = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
