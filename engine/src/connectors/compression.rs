//! The compression of whole files, as the end of their names tells it, and how it is undone.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use flate2::bufread::MultiGzDecoder;

use super::storage::StoredFile;
use crate::error::{Error, Result};

/// How the bytes of a whole file are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileCompression {
    /// Not at all.
    #[default]
    None,
    /// By gzip, read everywhere: the name ends in `.gz`.
    Gzip,
    /// By zstd, several times as fast as gzip and smaller: the name ends in `.zst`.
    Zstd,
}

impl FileCompression {
    /// By the end of the file's name: `.gz`, `.zst`, or none.
    pub(crate) fn of(file: &StoredFile) -> Self {
        Self::of_name(file.location())
    }

    pub(crate) fn of_name(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if name.ends_with(".gz") {
            Self::Gzip
        } else if name.ends_with(".zst") {
            Self::Zstd
        } else {
            Self::None
        }
    }

    /// As messages name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "not compressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The one of these extensions that goes with it: plain, gzip, zstd.
    pub(crate) fn extension_of(self, extensions: [&'static str; 3]) -> &'static str {
        let [plain, gzip, zstd] = extensions;
        match self {
            Self::None => plain,
            Self::Gzip => gzip,
            Self::Zstd => zstd,
        }
    }
}

/// The bytes of a file from its beginning, as they were before compression.
///
/// Damage is an [`Error`] inside of the [`io::Error`], which [`read_failed`] takes out again.
pub(crate) struct PlainBytes {
    inner: Box<dyn Read + Send>,
    file: StoredFile,
    compression: FileCompression,
    progress: Progress,
}

/// How much of the file as it is stored has been read; a handle to the same count when cloned.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<Counts>);

#[derive(Default)]
struct Counts {
    n_bytes: AtomicU64,
    /// The storage failed, not the compression.
    failed: AtomicBool,
}

impl Progress {
    pub(crate) fn n_bytes(&self) -> u64 {
        self.0.n_bytes.load(Relaxed)
    }

    /// Counts what is read of these bytes.
    pub(crate) fn count(&self, bytes: Box<dyn Read + Send>) -> impl Read + Send + use<> {
        Stored {
            inner: bytes,
            progress: self.clone(),
        }
    }
}

impl PlainBytes {
    pub(crate) fn open(file: &StoredFile) -> Result<Self> {
        let compression = FileCompression::of(file);
        let progress = Progress::default();
        let stored = progress.count(file.open(0)?);
        let inner: Box<dyn Read + Send> = match compression {
            FileCompression::None => Box::new(stored),
            // A file without a byte holds nothing, whatever its name says.
            _ if file.n_bytes() == 0 => Box::new(io::empty()),
            FileCompression::Gzip => {
                let buffered = BufReader::with_capacity(64 << 10, stored);
                Box::new(MultiGzDecoder::new(buffered))
            }
            FileCompression::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(stored);
                Box::new(decoder.map_err(|e| read_failed(file, e))?)
            }
        };
        Ok(Self {
            inner,
            file: file.clone(),
            compression,
            progress,
        })
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl Read for PlainBytes {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.inner.read(bytes).map_err(|error| {
            let of_storage = self.progress.0.failed.load(Relaxed);
            if of_storage || self.compression == FileCompression::None {
                return error;
            }
            io::Error::other(damaged(&self.file, self.progress.n_bytes(), &error))
        })
    }
}

fn damaged(file: &StoredFile, n_read: u64, error: &io::Error) -> Error {
    let name = file.name();
    let message = match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            format!("{name} ends in the middle of its compressed data, after {n_read} bytes")
        }
        _ => format!(
            "{name} is damaged: its compressed data cannot be read at or before byte {n_read}"
        ),
    };
    Error::data(message)
        .with_detail(format!("The decompression reports: {error}."))
        .with_hint("Copy the file anew, or leave it out.")
}

/// The error of reading a file, be it ours already or that of the storage.
pub(crate) fn read_failed(file: &StoredFile, error: io::Error) -> Error {
    let ours = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    match ours {
        Some(ours) => ours.clone(),
        None => file.cannot_read(error),
    }
}

/// The bytes as they are stored, counted.
struct Stored {
    inner: Box<dyn Read + Send>,
    progress: Progress,
}

impl Read for Stored {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes);
        match &read {
            Ok(n) => {
                self.progress.0.n_bytes.fetch_add(*n as u64, Relaxed);
            }
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.progress.0.failed.store(true, Relaxed);
            }
            Err(_) => {}
        }
        read
    }
}

#[cfg(test)]
pub(crate) mod tests;
