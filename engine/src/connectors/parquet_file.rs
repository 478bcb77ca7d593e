//! The bytes of a Parquet file as the library asks for them.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use super::planned_ranges::{PlannedRanges, Wanted};
use super::storage::StoredFile;
use crate::error::{Error, Result};

/// What is fetched of a remote file's end at once: most footers are no larger.
const FOOTER_BYTES: u64 = 64 << 10;

/// An open file; clones share it.
///
/// The library asks for one page after the other, and for the header of each: of a remote file these are
/// taken out of ranges that were planned before, see [`ParquetBytes::planned`].
///
/// The library makes text of an error while it reads: the failure of a disk or of a server is kept here,
/// so that it is not taken for a damaged file.
#[derive(Clone)]
pub(crate) struct ParquetBytes {
    file: StoredFile,
    /// A local file is opened once.
    local: Option<Arc<File>>,
    planned: Option<Arc<Mutex<PlannedRanges>>>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl ParquetBytes {
    pub(crate) fn open(file: &StoredFile) -> Result<Self> {
        let local = file.local_path().map(File::open).transpose();
        Ok(Self {
            local: local.map_err(|e| file.cannot_read(e))?.map(Arc::new),
            file: file.clone(),
            planned: None,
            failure: Arc::default(),
        })
    }

    /// Opens a file for its footer, which of a remote one is fetched by one request.
    pub(crate) fn open_footer(file: &StoredFile) -> Result<Self> {
        let n_bytes = file.n_bytes();
        Self::open(file)?.planned(vec![Wanted {
            lane: 0,
            group: 0,
            range: n_bytes.saturating_sub(FOOTER_BYTES)..n_bytes,
        }])
    }

    /// The same file, of which these ranges will be read: of a remote one they are fetched ahead, few
    /// requests for all of them.
    pub(crate) fn planned(&self, wanted: Vec<Wanted>) -> Result<Self> {
        let planned = match self.is_remote() {
            true => Some(PlannedRanges::begin(&self.file, wanted)?),
            false => None,
        };
        Ok(Self {
            planned: planned.map(|planned| Arc::new(Mutex::new(planned))),
            ..self.clone()
        })
    }

    pub(crate) fn is_remote(&self) -> bool {
        self.local.is_none()
    }

    /// Asks what is planned, if anything is.
    fn of_planned(
        &self,
        ask: impl FnOnce(&mut PlannedRanges) -> Result<Option<Bytes>>,
    ) -> Result<Option<Bytes>> {
        match &self.planned {
            Some(planned) => ask(&mut planned.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Ok(None),
        }
    }

    /// What went wrong with the disk or the server, if anything did.
    pub(crate) fn failure(&self) -> Option<Error> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take()
    }

    fn keep(&self, error: Error) -> ParquetError {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = Some(error.clone());
        ParquetError::External(Box::new(error))
    }

    /// Keeps the failure of a local file; one that is cut short is no failure of the disk.
    fn keep_local(&self, error: ParquetError) -> ParquetError {
        match error {
            ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(error) => self.keep(self.file.cannot_read(*error)),
                Err(other) => ParquetError::External(other),
            },
            other => other,
        }
    }
}

impl Length for ParquetBytes {
    fn len(&self) -> u64 {
        self.file.n_bytes()
    }
}

impl ChunkReader for ParquetBytes {
    type T = ParquetRead;

    fn get_read(&self, start: u64) -> ParquetResult<ParquetRead> {
        let read: Box<dyn Read + Send> = match &self.local {
            Some(file) => Box::new(file.get_read(start).map_err(|e| self.keep_local(e))?),
            None => match self.of_planned(|planned| planned.rest(start)) {
                Ok(Some(piece)) => {
                    let end = start + piece.len() as u64;
                    let behind = Behind::Not(self.file.clone(), end);
                    Box::new(piece.reader().chain(behind))
                }
                Ok(None) => self.file.open(start).map_err(|e| self.keep(e))?,
                Err(error) => return Err(self.keep(error)),
            },
        };
        Ok(ParquetRead {
            read,
            bytes: self.clone(),
        })
    }

    fn get_bytes(&self, start: u64, n_bytes: usize) -> ParquetResult<Bytes> {
        match &self.local {
            Some(file) => file
                .get_bytes(start, n_bytes)
                .map_err(|e| self.keep_local(e)),
            None => {
                let range = start..start.saturating_add(n_bytes as u64);
                if range.end > self.file.n_bytes() {
                    let found = self.file.n_bytes().saturating_sub(start);
                    return Err(ParquetError::EOF(format!(
                        "expected to read {n_bytes} bytes, read only {found}"
                    )));
                }
                let planned = self.of_planned(|planned| planned.read(range.clone()));
                match planned.map_err(|e| self.keep(e))? {
                    Some(bytes) => Ok(bytes),
                    None => self.file.range(range).map_err(|e| self.keep(e)),
                }
            }
        }
    }
}

/// What stands behind a piece of a file; it is opened only if it is read.
enum Behind {
    Not(StoredFile, u64),
    Open(Box<dyn Read + Send>),
}

impl Read for Behind {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Open(read) => return read.read(buffer),
                Self::Not(file, from) => {
                    let read = file.open(*from).map_err(io::Error::other)?;
                    *self = Self::Open(read);
                }
            }
        }
    }
}

/// Reads a file in order, and keeps a failure.
pub(crate) struct ParquetRead {
    read: Box<dyn Read + Send>,
    bytes: ParquetBytes,
}

impl Read for ParquetRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let kind = error.kind();
            let _ = self.bytes.keep(self.bytes.file.cannot_read(error));
            kind.into()
        })
    }
}
