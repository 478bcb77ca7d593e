//! The bytes of a Parquet file as the library asks for them.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use super::storage::StoredFile;
use crate::error::{Error, Result};

/// An open file; clones share it.
///
/// The library makes text of an error while it reads: the failure of a disk or of a server is kept here,
/// so that it is not taken for a damaged file.
#[derive(Clone)]
pub(crate) struct ParquetBytes {
    file: StoredFile,
    /// A local file is opened once.
    local: Option<Arc<File>>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl ParquetBytes {
    pub(crate) fn open(file: &StoredFile) -> Result<Self> {
        let local = file.local_path().map(File::open).transpose();
        Ok(Self {
            local: local.map_err(|e| file.cannot_read(e))?.map(Arc::new),
            file: file.clone(),
            failure: Arc::default(),
        })
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
            None => self.file.open(start).map_err(|e| self.keep(e))?,
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
                self.file.range(range).map_err(|e| self.keep(e))
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
