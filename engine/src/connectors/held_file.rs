//! A file being written that a library holds, and its count of bytes.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::Writing;

/// A file held by a library and by us, so that it comes back whatever the library does with its handle.
#[derive(Clone)]
pub(crate) struct HeldFile(Arc<Held>);

struct Held {
    file: Mutex<Option<Box<dyn Writing>>>,
    n_bytes: AtomicU64,
}

impl HeldFile {
    pub(crate) fn new(file: Box<dyn Writing>) -> Self {
        Self(Arc::new(Held {
            file: Mutex::new(Some(file)),
            n_bytes: AtomicU64::new(0),
        }))
    }

    /// How many bytes were written.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.0.n_bytes.load(Relaxed)
    }

    /// The file itself, once.
    pub(crate) fn take(&self) -> io::Result<Box<dyn Writing>> {
        self.file().take().ok_or_else(gone)
    }

    fn file(&self) -> MutexGuard<'_, Option<Box<dyn Writing>>> {
        self.0.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Write for HeldFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file().as_mut().ok_or_else(gone)?.write(bytes)?;
        self.0.n_bytes.fetch_add(n as u64, Relaxed);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().as_mut().ok_or_else(gone)?.flush()
    }
}
