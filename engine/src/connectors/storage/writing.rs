//! A file that is being written.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A file being written, wherever it is.
///
/// Dropping it without a close leaves a part of a file that is never published.
pub(crate) trait Writing: Write + Send {
    /// Makes what was written durable, and gives its bytes.
    fn close(self: Box<Self>) -> io::Result<u64>;
}

/// A file of the local file system.
#[derive(Debug)]
pub(crate) struct LocalFile {
    file: File,
    n_bytes: u64,
}

impl LocalFile {
    /// Makes a file that is not there yet.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::create_new(path)?))
    }

    pub(crate) fn new(file: File) -> Self {
        Self { file, n_bytes: 0 }
    }
}

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.n_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Writing for LocalFile {
    fn close(self: Box<Self>) -> io::Result<u64> {
        self.file.sync_all()?;
        Ok(self.n_bytes)
    }
}
