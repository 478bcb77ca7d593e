//! A file that is being written.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::thread::{Builder, JoinHandle};

/// A file being written, wherever it is.
///
/// Dropping it without a close leaves a part of a file that is never published.
pub(crate) trait Writing: Write + Send {
    /// Ends the file, of which nothing is left to write.
    fn close(self: Box<Self>) -> io::Result<Closed>;
}

/// A file that has been written, and may be on its way to the disk.
///
/// It may be lost until [`Closed::durable`] has said that it is not.
#[derive(Debug)]
pub(crate) struct Closed {
    n_bytes: u64,
    asked: Option<JoinHandle<io::Result<()>>>,
}

impl Closed {
    /// A file of so many bytes that is durable already.
    pub(crate) fn now(n_bytes: u64) -> Self {
        Self {
            n_bytes,
            asked: None,
        }
    }

    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Waits until the file is durable.
    pub(crate) fn durable(self) -> io::Result<()> {
        self.asked.map_or(Ok(()), answer)
    }
}

/// What the disk has said.
fn answer(asked: JoinHandle<io::Result<()>>) -> io::Result<()> {
    let died = |_| Err(io::Error::other("the thread that waits for the disk died"));
    asked.join().unwrap_or_else(died)
}

/// Lets a thread wait for the disk.
fn ask(
    wait: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    Builder::new().name("mainstem-disk".to_owned()).spawn(wait)
}

/// Once so much was written, the disk is asked to begin with it.
const AHEAD_BYTES: u64 = 16 << 20;

/// A file of the local file system.
///
/// What is written of a large file goes to the disk beside the work that goes on, and so does the rest once it is closed.
#[derive(Debug)]
pub(crate) struct LocalFile {
    file: File,
    n_bytes: u64,
    /// How many of them the disk was asked to take.
    n_asked: u64,
    asked: Option<JoinHandle<io::Result<()>>>,
}

impl LocalFile {
    /// Makes a file that is not there yet.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::create_new(path)?))
    }

    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            n_bytes: 0,
            n_asked: 0,
            asked: None,
        }
    }

    /// Lets a thread wait for the disk, unless one does.
    fn ask_ahead(&mut self) -> io::Result<()> {
        if self
            .asked
            .as_ref()
            .is_some_and(|asked| !asked.is_finished())
        {
            return Ok(());
        }
        self.answer()?;
        let file = self.file.try_clone()?;
        self.asked = Some(ask(move || file.sync_data())?);
        self.n_asked = self.n_bytes;
        Ok(())
    }

    /// What the disk has said, which it says only once.
    fn answer(&mut self) -> io::Result<()> {
        self.asked.take().map_or(Ok(()), answer)
    }
}

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.n_bytes += n as u64;
        if self.n_bytes - self.n_asked >= AHEAD_BYTES {
            self.ask_ahead()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Writing for LocalFile {
    fn close(mut self: Box<Self>) -> io::Result<Closed> {
        let n_bytes = self.n_bytes;
        let asked = ask(move || {
            self.answer()?;
            self.file.sync_all()
        });
        Ok(Closed {
            n_bytes,
            asked: Some(asked?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_whole_and_the_disk_is_asked_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let mut file = LocalFile::create_new(&path).unwrap();
        let mebibyte: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        for _ in 0..15 {
            file.write_all(&mebibyte).unwrap();
        }
        assert!(file.asked.is_none());
        for _ in 0..25 {
            file.write_all(&mebibyte).unwrap();
        }
        assert!(file.n_asked >= AHEAD_BYTES);
        let closed = Box::new(file).close().unwrap();
        assert_eq!(closed.n_bytes(), 40 << 20);
        closed.durable().unwrap();
        let written = std::fs::read(&path).unwrap();
        assert!(written.chunks(1 << 20).all(|part| part == mebibyte));
        assert_eq!(written.len(), 40 << 20);
    }

    #[cfg(unix)]
    #[test]
    fn what_the_disk_says_ahead_or_at_the_end_is_not_lost() {
        // A pipe takes bytes, but nothing can make them durable.
        let (mut reader, writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        let drained = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        let mut file = LocalFile::new(pipe);
        let bytes = vec![7; 1 << 20];
        for _ in 0..16 {
            file.write_all(&bytes).unwrap();
        }
        // Only what was said ahead is looked at here.
        let told = file.answer().unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::InvalidInput);
        let closed = Box::new(file).close().unwrap();
        let told = closed.durable().unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(drained.join().unwrap().unwrap(), 16 << 20);
    }
}
